// What a request must be before anything in it counts: a target and headers within bounds, each header that matters given
// once, a body in no disguise. Where two readers could take a request for two different ones, it is refused.

import type { IncomingMessage } from 'node:http'
import { invalid, Refusal } from '../core/errors.ts'
import { type Incoming, WholeRequest } from './whole.ts'

/** Of the path and the query together. */
const LONGEST_TARGET = 4096
const MOST_HEADERS = 100

const DOTS = /^[^?]*\/(?:\.|%2e){1,2}(?:[/?]|$)/i

/** Headers of which Node keeps the first and another reader might keep the last. */
const ONCE = ['host', 'content-type', 'authorization']
const lengths = new Set(ONCE.map(({ length }) => length))

export function checkRequest(incoming: IncomingMessage | WholeRequest): void {
  // Looked through by now: its reader takes each header once (whole.ts), and it leads nowhere unless its address is plain (routes.ts).
  if (incoming instanceof WholeRequest) return
  const { url = '', rawHeaders } = incoming
  if (url.length > LONGEST_TARGET) {
    throw new Refusal('too-large', 'target-too-long', `An address is at most ${LONGEST_TARGET} characters long.`)
  }
  // The router would go up a step, where a proxy in front of it might not: what is asked for must stand in the address.
  if (DOTS.test(url)) throw new Refusal('not-found', 'no-such-route', 'An address has no . or .. as a step.')
  if (rawHeaders.length > 2 * MOST_HEADERS) {
    throw new Refusal('too-large', 'headers-too-large', `A request has at most ${MOST_HEADERS} headers.`)
  }
  let seen = 0
  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    if (!lengths.has(name.length)) continue
    const which = 1 << ONCE.indexOf(name.toLowerCase())
    // Of a name that is none of these the place is -1, and the bit the highest.
    if (which > 0 && (seen & which) !== 0) throw invalid([{ path: name.toLowerCase(), message: 'is given more than once' }])
    seen |= which
  }
}

/** The body's type, where it is one that can be read as it is. */
export function mediaType({ headers }: Incoming): string {
  if (headers['content-encoding'] !== undefined) throw unsupported('Bodies are taken as they are, not compressed.')
  if ((headers['transfer-encoding'] ?? 'chunked').toLowerCase() !== 'chunked')
    throw unsupported('Bodies come in one piece or in chunks.')
  const stated = headers['content-type'] ?? ''
  if (!stated.includes(';')) return stated.trim().toLowerCase()
  const [type = '', ...more] = stated.split(';')
  for (const one of more) {
    const [name = '', value = ''] = one.split('=')
    if (name.trim().toLowerCase() !== 'charset') continue
    if (!/^"?utf-?8"?$/i.test(value.trim())) throw unsupported('Text is taken as UTF-8 alone.')
  }
  return type.trim().toLowerCase()
}

export const hasBody = ({ headers }: Incoming) =>
  headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'

export const unsupported = (detail: string) => new Refusal('invalid', 'unsupported-media-type', detail)

/** Query parameters, each given once. */
export function parametersOf(url: string): Record<string, string> {
  const from = url.indexOf('?')
  if (from < 0) return {}
  const given = new Map<string, string>()
  for (const [name, value] of new URLSearchParams(url.slice(from))) {
    if (given.has(name)) throw invalid([{ path: name, message: 'is given more than once' }])
    given.set(name, value)
  }
  return Object.fromEntries(given)
}

export function idempotencyKey(given: string | string[] | undefined): string | undefined {
  if (given === undefined) return undefined
  if (typeof given === 'string' && /^[\x21-\x7e]{1,255}$/.test(given)) return given
  throw invalid([{ path: 'Idempotency-Key', message: 'must be 1 to 255 printable characters without spaces' }])
}

export function lastEventId(given: string | undefined): number | undefined {
  if (given === undefined) return undefined
  if (/^\d{1,15}$/.test(given)) return Number(given)
  throw invalid([{ path: 'Last-Event-ID', message: 'must be the id of an event that this stream gave' }])
}
