// Refusals as RFC 9457 problems. The only place where a status code stands.

import { Refusal, type RefusalKind } from '../core/errors.ts'

const statuses: Record<RefusalKind, number> = {
  invalid: 400,
  unauthenticated: 401,
  forbidden: 403,
  'not-found': 404,
  refused: 409,
  'too-large': 413,
  limited: 429,
  unavailable: 503,
  broken: 500,
}

/** Where a reason says more than its kind. */
const special: Record<string, number> = {
  'idempotency-key-reused': 422,
  // These are about the caller, and not about anything out of reach.
  'password-wrong': 403,
  'code-wrong': 403,
  'not-signed-in': 403,
  'sign-up-off': 403,
  'identity-unknown': 403,
  'unsupported-media-type': 415,
  'body-too-slow': 408,
  'headers-too-slow': 408,
  'method-not-allowed': 405,
  'target-too-long': 414,
  'headers-too-large': 431,
}

export const success = { made: 201, done: 200 } as const

/** At which door a body that does not fit was handed in: a device's is 400, an application's 422. */
export type Door = 'device' | 'api'

export function statusOf(kind: RefusalKind, reason: string, door: Door, facts: Readonly<Record<string, unknown>> = {}): number {
  if (facts.disk_full === true) return 507
  const status = special[reason] ?? statuses[kind]
  return kind === 'invalid' && status === 400 && door === 'api' ? 422 : status
}

const titles: Record<RefusalKind, string> = {
  invalid: 'The request does not fit',
  unauthenticated: 'Who is asking?',
  forbidden: 'Not permitted',
  'not-found': 'Not found',
  refused: 'Refused',
  'too-large': 'Too large',
  limited: 'Too many requests',
  unavailable: 'Not available at the moment',
  broken: 'Something broke',
}

interface Problem {
  type: string
  title: string
  status: number
  detail: string
  reason: string
  errors?: readonly { path: string; message: string }[]
  [fact: string]: unknown
}

/** What is told of an error. Of one that is not a refusal nothing is told: it may hold what nobody should read. */
export function problemOf(error: unknown, door: Door): Problem {
  const refusal =
    error instanceof Refusal
      ? error
      : new Refusal('broken', 'broken', 'Sessile made a mistake. It has been noted under the request id.')
  const { kind, reason, message, faults, facts } = refusal
  return {
    ...facts,
    type: `urn:sessile:problem:${reason}`,
    title: titles[kind],
    status: statusOf(kind, reason, door, facts),
    detail: message,
    reason,
    ...(faults ? { errors: faults } : {}),
  }
}

/** What a refusal says in its headers. */
export function headersOf({
  status,
  allow,
  retry_after = 1,
}: Pick<Problem, 'status'> & { allow?: unknown; retry_after?: unknown }): Record<string, string> {
  if (status === 408) return { connection: 'close', 'retry-after': '1' }
  if (status === 405) return { allow: String(allow) }
  if (status === 401) return { 'www-authenticate': 'Bearer' }
  if (status === 429) return { 'retry-after': String(retry_after) }
  if (status === 503 || status === 507) return { 'retry-after': '1' }
  return {}
}

/** Why a request could not be read as one, by the parser's own code for it. */
export const unreadable = (code: string): Refusal =>
  unreadables[code] ?? new Refusal('invalid', 'not-http', 'This is not a request of HTTP.')

const unreadables: Record<string, Refusal> = {
  HPE_HEADER_OVERFLOW: new Refusal('too-large', 'headers-too-large', 'The headers are too large.'),
  HPE_CHUNK_EXTENSIONS_OVERFLOW: new Refusal('too-large', 'body-too-large', 'The extensions of a chunk are too large.'),
  ERR_HTTP_REQUEST_TIMEOUT: new Refusal('invalid', 'headers-too-slow', 'The headers took too long to come.'),
}
