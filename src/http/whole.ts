// A request that came whole: a POST with a body, all of it there, written the way that every client writes it. Reading it at once
// costs a small part of what it costs as a stream. This reader knows few words and guesses at none: whatever else comes, be it one
// unusual byte, is no whole request, and is for Node's own parser to read from its first byte on.

import type { IncomingHttpHeaders, IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'

/** What the door asks of a request, whoever has read it. */
export type Incoming = Pick<IncomingMessage, 'method' | 'url' | 'headers' | 'socket' | 'complete'>

export class WholeRequest implements Incoming {
  readonly method = 'POST'
  readonly complete = true
  readonly url: string
  readonly headers: IncomingHttpHeaders
  readonly socket: Socket
  readonly body: Buffer

  constructor(socket: Socket, { url, headers }: Head, body: Buffer) {
    this.socket = socket
    this.url = url
    this.headers = headers
    this.body = body
  }
}

export interface Head {
  url: string
  headers: IncomingHttpHeaders
  /** Where the body begins, and how long it is said to be. */
  begins: number
  length: number
}

const LONGEST_HEAD = 4096
/** The request line, and lines of a name and what is said under it: no folding, no blanks but one space, ASCII alone. */
const HEAD = /^POST (\/[!-~]*) HTTP\/1\.1\r\n((?:[A-Za-z-]+: [!-~](?:[ -~]*[!-~])?\r\n)+)$/
const JSON_TYPE = /^application\/json(?:; ?charset=utf-8)?$/i
const LENGTH = /^(?:0|[1-9]\d{0,6})$/

/**
 * What a request may say of itself to be read here, each once. A header that could change where it ends, or what becomes of the
 * connection, is not among them.
 */
const known = new Map<string, string>()
for (const name of [
  ...['Accept', 'Accept-Encoding', 'Accept-Language', 'Authorization', 'Connection', 'Content-Length', 'Content-Type', 'Cookie'],
  ...['Host', 'Idempotency-Key', 'Origin', 'Sec-Fetch-Dest', 'Sec-Fetch-Mode', 'Sec-Fetch-Site', 'Traceparent', 'Tracestate'],
  ...['User-Agent', 'X-Forwarded-For', 'X-Forwarded-Proto', 'X-Request-Id'],
]) {
  const lower = name.toLowerCase()
  known.set(lower, lower).set(name, lower)
}
known.set('X-Request-ID', 'x-request-id')

/** The head at the beginning of these bytes; undefined where it is not there, or not one to be read here. */
export function headOf(bytes: Buffer): Head | undefined {
  const end = bytes.indexOf('\r\n\r\n')
  if (end < 0 || end > LONGEST_HEAD) return undefined
  const [, url, lines] = HEAD.exec(bytes.toString('latin1', 0, end + 2)) ?? []
  if (url === undefined || lines === undefined) return undefined
  const headers: Record<string, string> = {}
  for (let from = 0; from < lines.length; ) {
    const colon = lines.indexOf(':', from)
    const until = lines.indexOf('\r', colon)
    const name = known.get(lines.slice(from, colon))
    if (name === undefined || headers[name] !== undefined) return undefined
    headers[name] = lines.slice(colon + 2, until)
    from = until + 2
  }
  const { host, connection = 'keep-alive', 'content-type': type, 'content-length': length = '' } = headers
  const plain = host !== undefined && connection.toLowerCase() === 'keep-alive' && type !== undefined && JSON_TYPE.test(type)
  if (!plain || !LENGTH.test(length)) return undefined
  return { url, headers, begins: end + 4, length: Number(length) }
}
