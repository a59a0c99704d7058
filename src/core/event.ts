// Events: what may be recorded. A feature declares a family of them; the printed schemas, the sentences of a timeline
// and the folds of the views all hang on this declaration.

import type { z } from 'zod'
import { accountLog, auditLog, sessionLog, userLog } from './log.ts'
import type { Envelope, Recorded } from './record.ts'

/** Which log a record belongs to: the session's, the user's own, that of an account, or the day's audit trail. */
export type Home = 'session' | 'user' | 'account' | 'audit'

/** Which log a record goes to, by what its envelope says. */
export function logOf(
  home: Home,
  of: Pick<Envelope, 'user_id' | 'session_id'> & { timestamp?: string },
  timestamp = of.timestamp ?? '',
) {
  const { user_id, session_id = '' } = of
  if (home === 'session') return sessionLog(user_id, session_id)
  if (home === 'user') return userLog(user_id)
  return home === 'account' ? accountLog(user_id) : auditLog(timestamp)
}

/** How private what an event says is: who may read it follows from this. */
export type Sensitivity = 'plain' | 'personal' | 'clinical'

/** Whose a new record is and who did it. */
export interface Owner {
  user_id: string
  session_id?: string
  performer_id: string
  source?: string
}

/** A record before the recorder has given it its place. */
export interface Draft {
  event: EventType
  type: string
  owner: Owner
  source: string
  data: unknown
}

/** A version that is no longer written. Its lines stay readable: `up` turns its data into that of the next version. */
export interface Older {
  v: number
  data: z.ZodType
  up: (data: never) => unknown
}

export interface EventType {
  readonly type: string
  readonly v: number
  readonly data: z.ZodType
  readonly home: Home
  readonly source: string
  readonly sensitivity: Sensitivity
  /** May a downstream module append it by naming its type? */
  readonly downstream: boolean
  readonly older: readonly Older[]
  readonly does: string
  says(record: Recorded): string
}

export interface Event<S extends z.ZodType> extends EventType {
  (owner: Owner, data: z.infer<S>): Draft
  readonly data: S
}

interface Declaration<S extends z.ZodType> {
  v: number
  does: string
  data: S
  says: (record: Recorded<z.infer<S>>) => string
  sensitivity?: Sensitivity
  downstream?: boolean
  older?: Older[]
}

interface Family {
  home: Home
  source: string
}

/** Declares the events of a family: `events('session', { home, source }, { started: … })` makes `session.started`. */
export function events<S extends Record<string, z.ZodType>>(
  family: string,
  { home, source }: Family,
  declared: { [K in keyof S]: Declaration<S[K]> },
): { [K in keyof S]: Event<S[K]> } {
  const made = Object.entries(declared).map(([name, { sensitivity = 'personal', downstream = false, older = [], ...rest }]) => {
    const type = `${family}.${name}`
    const event = (owner: Owner, data: unknown): Draft => ({
      event: event as unknown as EventType,
      type,
      owner,
      source: owner.source ?? source,
      data,
    })
    return [name, Object.assign(event, { ...rest, type, home, source, sensitivity, downstream, older })]
  })
  return Object.fromEntries(made) as { [K in keyof S]: Event<S[K]> }
}

const VENDOR = /^x\.[a-z0-9][a-z0-9_-]{0,31}\.[a-z0-9][a-z0-9_-]{0,63}$/

/** All events of the features, and the way from a line's type and version to the event as it is today. */
export class Events {
  readonly all: readonly EventType[]
  readonly #byType: Map<string, EventType>
  readonly #open: EventType | undefined
  readonly #ours: ReadonlySet<string>

  constructor(all: readonly EventType[]) {
    this.all = all
    this.#byType = new Map(all.map((event) => [event.type, event]))
    this.#open = this.#byType.get('x.open')
    this.#ours = new Set(all.filter(({ downstream }) => !downstream).map(({ source }) => source))
    if (this.#byType.size !== all.length) throw new Error('two events have the same type')
    // It is reached through a vendor's name only, never by its own.
    this.#byType.delete('x.open')
  }

  /** Is it a name that Sessile's own records carry? Nobody else may assert in it. */
  isOurs(source: string): boolean {
    return this.#ours.has(source)
  }

  /** `x.<vendor>.<name>` is known by its shape alone and falls under the open event `x.open`. */
  named(type: string): EventType | undefined {
    return this.#byType.get(type) ?? (VENDOR.test(type) ? this.#open : undefined)
  }

  /** A record whose data was written in an older version, as if it had been written today. */
  upcast(record: Recorded): Recorded {
    const event = this.named(record.type)
    if (!event || record.v === event.v) return record
    let { v, data } = record
    for (const older of event.older) {
      if (older.v !== v) continue
      data = older.up(data as never)
      v++
    }
    if (v !== event.v) throw new Error(`${record.type} v${record.v} has no way to v${event.v}`)
    return { ...record, v, data }
  }
}
