// Commands: what a caller may ask to have recorded. `decide` is a pure function from the input and the views as they
// stand to the events that follow, or to a refusal; the recorder does the rest.

import type { z } from 'zod'
import type { Refusal, RefusalKind } from './errors.ts'
import type { Draft, EventType } from './event.ts'
import type { Action, Caller } from './policy.ts'
import type { Recorded } from './record.ts'
import type { Settings } from './settings.ts'
import type { Vault } from './vault.ts'
import type { Read } from './view.ts'

export type Refuses = Record<string, RefusalKind>

/** What a browser is given to carry, in cookies that no script can read. */
export type Carried = 'access' | 'refresh' | 'identity'

/** What is at hand before a command is decided, outside of the recorder: there is time here, and there are secrets. */
export interface Preparing<I, R extends string> {
  input: I
  caller: Caller
  /** What the caller's browser carries. */
  carried: Partial<Record<Carried, string>> | undefined
  /** The views as they stand; by the time of the decision they may stand otherwise. */
  read: Read
  settings: Settings
  vault: Vault
  now: number
  ulid(): string
  secret(): string
  /** Names those whose data this turned out to be about: the trail tells it where this is refused. */
  concerns(...users: string[]): void
  refuse(reason: R, detail: string, facts?: Record<string, unknown>): Refusal
}

export interface Decision<I, R extends string, P = unknown> {
  input: I
  /** What was prepared for this command: true of the moment it was prepared in. */
  prepared: P
  caller: Caller
  read: Read
  settings: Settings
  /** The server's time, in milliseconds; the records of this command will carry it. */
  now: number
  /** A new ULID. */
  ulid(): string
  /** A new secret that nobody can guess. */
  secret(): string
  /** The event that may be recorded under this type. */
  event(type: string): EventType | undefined
  /** Does this source speak for Sessile itself? */
  ours(source: string): boolean
  /** When a log last grew, in milliseconds; undefined for a log with no record. */
  lastAt(log: string): number | undefined
  /** The logs that take no more records, and of which a part may be missing from the views, or all. */
  damaged(): ReadonlyMap<string, string>
  /** Makes the refusal that the command has declared under this reason. */
  refuse(reason: R, detail: string, facts?: Record<string, unknown>): Refusal
  /** Names those whose data this turned out to be about: the trail tells it where this is refused. */
  concerns(...users: string[]): void
  /** Something that the first answer tells and no log keeps, such as a new key's secret. */
  reveal(once: Record<string, unknown>): void
}

export interface Command<I = unknown> {
  /** The route, as in `POST /session_manager/sessions.start`; none for what only Sessile itself asks for. */
  readonly at?: string
  readonly does: string
  readonly may: Action
  /** Whose data this touches: the policy is asked about each. */
  whose(input: I, caller: Caller): readonly string[]
  /** In whose name it is recorded: the policy is asked about each. */
  who(input: I): readonly string[]
  readonly input: z.ZodType<I>
  /** What the body looks like, where the input is not simply its fields and the path's. */
  readonly body?: z.ZodType
  readonly output: z.ZodType
  /** Does success make something new (201), or is it done (200)? */
  readonly makes: boolean
  readonly refuses: Refuses
  /** May the caller name its request? Not where the input holds a secret, of which not even a digest may be recorded. */
  readonly named: boolean
  /** The name under which somebody tries to prove who they are by this: tries are counted, and slowed down where they fail. */
  tries?(input: I, caller: Caller): string
  /** Does a try that succeeds prove who somebody is? Where it does not, as where anybody may do it, it costs as much as one that fails. */
  readonly proves: boolean
  /** Has it to do with what browsers carry? Its answer may then tell, as `carried`, what to carry from now on. */
  readonly carries: boolean
  /** Who asks here: a device's bad body is 400, an application's 422. */
  readonly door: 'device' | 'api'
  /** How an input comes from the body and the path's parameters; by default one object with the fields of both. */
  shape(body: unknown, path: Record<string, string>): unknown
  /** Where in the body the fault at this place of the input is. */
  place(path: string, body: unknown): string
  /** The input as JSON prints it. `print`: whatever goes into a log as it is has to be printed for that, too, and is by this. */
  printed(input: I, print: (value: object) => string): string
  /** What takes time or needs secrets, done before the recorder's turn; what it finds is judged by `decide`. */
  prepare?(on: Preparing<I, string>): Promise<unknown>
  decide(on: Decision<I, string>): Draft[]
  /** Which of its records is the answer, flat, by its place; all of them, where it names none. */
  tells(records: Recorded[], input: I): number | undefined
  /** An answer that is no record. As the other a pure function of what was recorded: a retry gets the same after a restart or a rebuild. */
  answer?(records: Recorded[], input: I): unknown
}

interface Declared<I, R extends Refuses, P> {
  at?: string
  does: string
  may: Action
  whose: (input: I, caller: Caller) => readonly string[]
  who?: (input: I) => readonly string[]
  input: z.ZodType<I>
  body?: z.ZodType
  output: z.ZodType
  makes?: boolean
  refuses?: R
  named?: boolean
  tries?: (input: I, caller: Caller) => string
  proves?: boolean
  carries?: boolean
  door?: 'device' | 'api'
  shape?: Command<I>['shape']
  place?: Command<I>['place']
  printed?: Command<I>['printed']
  prepare?: (on: Preparing<I, keyof R & string>) => Promise<P>
  decide: (on: Decision<I, keyof R & string, P>) => Draft[]
  tells?: Command<I>['tells']
  answer?: NonNullable<Command<I>['answer']>
}

export function command<I, const R extends Refuses = Record<never, RefusalKind>, P = undefined>(
  declared: Declared<I, R, P>,
): Command<I> {
  return {
    makes: false,
    refuses: {},
    named: true,
    proves: true,
    carries: false,
    door: 'api',
    shape: (body, path) => (Object.keys(path).length === 0 ? body : { ...(body as object), ...path }),
    place: (path) => path.replace(/^records\.\d+\.data\./, ''),
    printed: (input) => JSON.stringify(input),
    who: (input) => {
      const { performer_id } = input as { performer_id?: string }
      return performer_id === undefined ? [] : [performer_id]
    },
    tells: () => 0,
    ...declared,
    ...(declared.prepare ? { prepare: declared.prepare as NonNullable<Command<I>['prepare']> } : {}),
    decide: declared.decide as Command<I>['decide'],
  }
}
