// The closed set of ways in which Sessile says no. A refusal is a value with a stable `reason`; only http/problem.ts
// knows which status code it becomes.

export type RefusalKind =
  | 'invalid'
  | 'unauthenticated'
  | 'forbidden'
  | 'not-found'
  | 'refused'
  | 'too-large'
  | 'limited'
  | 'unavailable'
  | 'broken'

/** One thing that is wrong with an input, and where: `{ path: 'data.text', message: 'must be string' }`. */
export interface Fault {
  path: string
  message: string
}

export class Refusal extends Error {
  readonly kind: RefusalKind
  readonly reason: string
  readonly faults: Fault[] | undefined
  /** Facts beside the sentence that a program may need, such as the id of the session that is in the way. */
  readonly facts: Readonly<Record<string, unknown>>
  /** What was really refused, where the caller is not to know. */
  readonly hides: Refusal | undefined

  constructor(
    kind: RefusalKind,
    reason: string,
    detail: string,
    more: { faults?: Fault[]; facts?: Readonly<Record<string, unknown>>; hides?: Refusal } = {},
  ) {
    // A refusal is an ordinary answer, given thousands of times a second: its stack would cost more than its reason.
    const limit = Error.stackTraceLimit
    Error.stackTraceLimit = 0
    super(detail)
    Error.stackTraceLimit = limit
    this.kind = kind
    this.reason = reason
    this.faults = more.faults
    this.facts = more.facts ?? {}
    this.hides = more.hides
  }
}

export const invalid = (faults: Fault[], detail = 'The input does not fit.') =>
  new Refusal('invalid', 'invalid', detail, { faults })

/** The append failed: nothing changed, and whoever asked may ask again. */
export const notRecorded = (why: string, full: boolean) =>
  new Refusal('unavailable', 'not-recorded', `Nothing was recorded: ${why}.`, { facts: full ? { disk_full: true } : {} })

/** It was written, and then nobody could tell whether it lasts: only the next start will know. */
export const outcomeUnknown = (why: string) =>
  new Refusal(
    'unavailable',
    'outcome-unknown',
    `Whether this was recorded is not known: ${why}. Ask again with the same Idempotency-Key when Sessile is back.`,
  )

/** Reached only by a bug in Sessile itself: better to stop than to record on a false premise. */
export function assert(holds: unknown, what: string): asserts holds {
  if (!holds) throw new Error(`broken: ${what}`)
}
