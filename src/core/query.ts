// Queries: what a caller may read. A query sees only what is durable, and everything the caller itself was told is recorded.

import * as z from 'zod'
import type { Refuses } from './command.ts'
import type { Refusal } from './errors.ts'
import type { Action, Caller } from './policy.ts'
import type { Erased, Recorded } from './record.ts'
import type { Sight } from './sight.ts'
import type { Standing } from './standing.ts'
import type { Some } from './turn.ts'
import type { Read } from './view.ts'

export interface Asked<I, R extends string> {
  input: I
  caller: Caller
  read: Read
  now: number
  refuse(reason: R, detail: string, facts?: Record<string, unknown>): Refusal
  /** Refuses unless the caller may do this query's action to the data of these users (of none, for what is nobody's). */
  permit(...users: string[]): void
  /** The users whose data the caller may see here: what a list is limited to. Such a query says whose data it `shows`. */
  reach(): 'all' | readonly string[]
  /**
   * The records of a log in order, as they read today and as far as the caller may see them; erased ones too. Others get
   * their turn meanwhile.
   */
  records(log: string, after?: number): Some<Recorded | Erased>
  /** The records of one type as they stand: of those with one key the last, in the place of the first. */
  standing(log: string, which: Standing): Some<Recorded>
  /** Counts so many bytes more that are gathered for the answer; refuses where that is too much at the moment. */
  hold(bytes: number): void
  /** A part of a log as an answer, as far as the caller may see it. */
  slice(log: string, part: Pick<Slice, 'after' | 'limit' | 'follow'>): Slice
  /** The logs that take no more records, and of which a part may be missing from the views, or all. */
  damaged(): ReadonlyMap<string, string>
  /** A sentence for people about a record. */
  says(record: Recorded): string
  /** What whoever asked this route has done, in plain words. */
  did(route: string): string
}

/** A whole number as a query string tells it: digits, and no `0x10`, `1e2` or blank that a number can be made of as well. */
export const whole = (least: number, most: number) =>
  z.preprocess(
    (given) => (typeof given === 'string' && /^\d{1,15}$/.test(given) ? Number(given) : given),
    z.number('must be a whole number').int().min(least).max(most),
  )

/** A moment as a query string tells it, or the beginning of a day. */
export const time = z.iso.datetime({ offset: true }).or(z.iso.date())

/** An answer that is a part of a log: the door gives it as JSON, as the log's own bytes, or as a stream that follows. */
export class Slice {
  readonly log: string
  readonly after: number
  /** How many records at most, where the caller said. */
  readonly limit: number | undefined
  readonly follow: boolean
  readonly sight: Sight
  constructor(log: string, sight: Sight, { after, limit, follow }: Pick<Slice, 'after' | 'limit' | 'follow'>) {
    this.log = log
    this.sight = sight
    this.after = after
    this.limit = limit
    this.follow = follow
  }
}

/** An answer that ends with a list which may be longer than memory: whoever gives it goes over the list piece by piece. */
export class Listed {
  readonly about: object
  readonly name: string
  readonly items: Some<unknown>
  constructor(about: object, name: string, items: Some<unknown>) {
    this.about = about
    this.name = name
    this.items = items
  }

  /** The same, its first items made: what cannot be told is refused before it is written down that it was told. */
  async begun(): Promise<Listed> {
    const items = this.items[Symbol.asyncIterator]()
    return new Listed(this.about, this.name, goOn(await items.next(), items))
  }

  /** The answer in one piece, for whoever can hold it. */
  async whole(): Promise<object> {
    const items: unknown[] = []
    for await (const some of this.items) items.push(...some)
    return { ...this.about, [this.name]: items }
  }
}

async function* goOn(
  first: IteratorResult<readonly unknown[]>,
  rest: AsyncIterator<readonly unknown[]>,
): AsyncGenerator<readonly unknown[]> {
  for (let next = first; !next.done; next = await rest.next()) yield next.value
}

export interface Query<I = unknown> {
  readonly at: string
  readonly does: string
  /** What whoever asks this has done, in plain words, for the person whose data it is: they have … */
  readonly did: string
  readonly may: Action
  readonly input: z.ZodType<I>
  readonly output: z.ZodType
  /** Whose data an answer shows, where that is not the users that `permit` was asked about. */
  readonly shows: ((answer: unknown) => readonly string[]) | undefined
  /** Does it read the trail? Only then must it wait for what the trail has just been told. */
  readonly ofTrail: boolean
  /** The media types in which it answers beside JSON. */
  readonly also: readonly string[]
  readonly refuses: Refuses
  readonly door: 'device' | 'api'
  read(on: Asked<I, string>): unknown
}

interface Declared<I, O, R extends Refuses> {
  at: string
  does: string
  did: string
  may: Action
  input: z.ZodType<I>
  output: z.ZodType<O>
  shows?: (answer: O) => readonly string[]
  ofTrail?: boolean
  also?: readonly string[]
  refuses?: R
  door?: 'device' | 'api'
  read: (on: Asked<I, keyof R & string>) => unknown
}

export function query<I, O, const R extends Refuses = Record<never, never>>(declared: Declared<I, O, R>): Query<I> {
  const { read, shows } = declared as unknown as Query<I>
  return { also: [], refuses: {}, door: 'api', ofTrail: false, ...declared, shows, read }
}
