// The trail: what is noted of a request for the audit log, and when it must be. Which records that makes is said by a
// feature; that nobody is answered before they are durable is seen to by Sessile.

import { Refusal } from './errors.ts'
import type { Caller } from './policy.ts'

/** What is known of a request, and becomes known while it is answered. Never what was asked for or told. */
export interface Trace {
  readonly request_id: string
  /** The route as the contract writes it: `GET /api/v1/users/{user_id}/sessions`. */
  readonly route: string
  /** Where the request came from. */
  readonly address?: string | undefined
  /** Who asked, as far as it has been proved. */
  caller: Caller
  /** Whose data was asked for or shown. */
  users: readonly string[]
  /** The session that was read. */
  session_id?: string
}

/** What became of the request: it was answered, or refused for this reason. */
export interface Noted extends Trace {
  readonly reason?: string
}

/** Adds users to those whom a request is about, each once. */
export function concern(trace: Trace, users: readonly string[]): void {
  const [first] = users
  // As a rule there is one, and it is named already, or nobody is.
  const alone = trace.users[0] ?? first
  if (users.every((user) => user === alone)) {
    if (trace.users.length === 0 && first !== undefined) trace.users = [first]
    return
  }
  const others = users.filter((user) => !trace.users.includes(user))
  if (others.length > 0) trace.users = [...trace.users, ...new Set(others)]
}

/**
 * Is this an answer that the trail tells of? Where Sessile could not do its work nobody was told anything, and as a rule
 * nothing can be recorded either.
 */
export const isTelling = (error: unknown): error is Refusal =>
  error instanceof Refusal && error.kind !== 'unavailable' && error.kind !== 'broken'
