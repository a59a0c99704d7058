// The frame of every request: its id, its answer or its refusal, the headers that all answers have, its line in the log.
// What a request asks for, and who may ask, is none of its business.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { type HttpBindings, RequestError } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import type { Logger } from 'pino'
import { Refusal } from '../core/errors.ts'
import { uuid } from '../core/ids.ts'
import { nobody } from '../core/policy.ts'
import { isTelling, type Trace } from '../core/trail.ts'
import type { Proxies } from './address.ts'
import { Burden, type Hold } from './burden.ts'
import { whenOver } from './connections.ts'
import { type Begun, pour, type Still } from './flow.ts'
import { AnswerHeaders, emergencyOf, type Reached, traceOf } from './headers.ts'
import type { Standing } from './limits.ts'
import { type Door, headersOf, problemOf, unreadable } from './problem.ts'
import { hasBody } from './request.ts'

export type Routed = Context<{ Bindings: HttpBindings }>

/** One request under way. */
export interface Asked {
  readonly id: string
  /** The route as the contract writes it, never the path of the request: that names people. */
  readonly route: string
  /** At which door it stands: a device's, or an application's. */
  readonly door: Door
  readonly incoming: IncomingMessage
  readonly hold: Hold
  readonly path: Record<string, string>
  readonly c: Routed
  /** Where it comes from. */
  readonly address: string
  /** What the trail is told of it; nothing, where the route is none of the contract. */
  readonly trace: Trace | undefined
  /** How its caller stands after it. */
  standing?: Standing | undefined
}

/** An answer before it is sent. */
export interface Given {
  status: number
  /** Of an answer that has a body. */
  type?: string
  /** All of it, the pieces in which it is written as they are taken, or what writes it for as long as it lasts. */
  body: string | Uint8Array | Begun | ((outgoing: ServerResponse) => void)
  /** Of pieces: why there are no more. */
  still?: Still
  headers?: Record<string, string>
  /** What the caller's browser is given to carry. */
  cookies?: readonly string[]
  reason?: string
}

export interface FrameParts {
  logger: Logger
  /** Did this connection come when all were taken? */
  surplus: (socket: Socket) => boolean
  /** How long a body may take, in milliseconds. */
  patience: number
  reached: Reached
  /** Those in front of us who may say where a request comes from. */
  proxies: Proxies
}

/** Tells the trail of a refusal; what comes of that is told to the caller. */
type Telling = (trace: Trace, refusal: Refusal) => Promise<void>

export class Frame {
  readonly burden = new Burden()
  readonly headers: AnswerHeaders
  readonly #parts: FrameParts
  readonly #tell: Telling

  constructor(parts: FrameParts, tell: Telling) {
    this.#parts = parts
    this.headers = new AnswerHeaders(parts.reached)
    this.#tell = tell
  }

  /** Answers a request, whatever becomes of it. `at`: its route in the contract, where it has one. */
  async answer(c: Routed, route: string, door: Door, answer: (asked: Asked) => Promise<Given>, at?: string): Promise<Response> {
    const began = performance.now()
    const { incoming } = c.env
    const id = requestId(incoming.headers['x-request-id'])
    const address = this.#parts.proxies.addressOf(incoming)
    const trace = at === undefined ? undefined : { request_id: id, route: at, address, caller: nobody, users: [] }
    const hold = this.burden.hold()
    const asked: Asked = { id, route, door, incoming, hold, path: c.req.param(), c, address, trace }
    let given: Given
    try {
      given = await answer(asked)
    } catch (error) {
      given = this.#refuse(asked, await this.traced(this.#tells(asked, error) ? trace : undefined, error))
    }
    const { status, type, headers, reason } = given
    const ms = Math.round((performance.now() - began) * 10) / 10
    const trace_id = traceOf(incoming.headers.traceparent)
    this.#parts.logger.info({ request_id: asked.id, trace_id, method: incoming.method, route, status, reason, ms }, 'request')
    const all: Record<string, string> = {
      ...(type === undefined ? {} : { 'content-type': type }),
      'x-request-id': asked.id,
      ...this.headers.always,
      ...this.headers.shared(incoming.headers),
      ...asked.standing?.headers,
      ...headers,
      ...(reason === undefined ? emergencyOf(trace) : undefined),
      ...(this.#parts.surplus(incoming.socket) ? CLOSE : {}),
    }
    // What comes with a question is read by nobody.
    if (!TAKES_BODY.has(incoming.method ?? '') && hasBody(incoming)) Object.assign(all, CLOSE)
    return this.#give(asked, given, all)
  }

  /** Sends an answer: whole, piece by piece as it is taken, or for as long as it lasts. */
  #give(asked: Asked, { status, body, cookies = [], still }: Given, headers: Record<string, string>): Response {
    const { hold, incoming } = asked
    const { outgoing } = asked.c.env as { outgoing: ServerResponse }
    if (typeof body === 'string' || body instanceof Uint8Array) {
      this.#untilTaken(asked, outgoing, body.length)
      const response = new Response(body as string, { status, headers })
      for (const cookie of cookies) response.headers.append('set-cookie', cookie)
      return response
    }
    if (typeof body === 'function' || incoming.method === 'HEAD') hold.keep(0)
    if (incoming.method === 'HEAD') {
      // Nobody will read it: what has begun must be let go.
      if (typeof body === 'object') void body.rest.return(body.first)
      return new Response('', { status, headers })
    }
    outgoing.writeHead(status, headers)
    if (typeof body === 'function') body(outgoing)
    else {
      this.#cutOffIdle(outgoing)
      void pour(outgoing, body, { hold, still, broke: (error) => this.note(asked, error) })
    }
    return RESPONSE_ALREADY_SENT
  }

  /** Who asks too often is told of once a minute: nobody fills the trail by being refused. */
  #tells({ standing }: Asked, error: unknown): boolean {
    return !(error instanceof Refusal) || error.kind !== 'limited' || standing?.first === true
  }

  /** No refusal is told before the trail has been: what is to be told is the refusal, or that it could not be noted. */
  traced(trace: Trace | undefined, error: unknown): Promise<unknown> {
    if (!trace || !isTelling(error)) return Promise.resolve(error)
    return this.#tell(trace, error).then(
      () => error,
      (failed: unknown) => failed,
    )
  }

  /** A long answer is held until it has been taken, and so is one that waits behind others on its connection. */
  #untilTaken({ hold }: Asked, outgoing: ServerResponse, length: number): void {
    const kept = length >= LONG || waits(outgoing)
    hold.keep(kept ? length : 0)
    if (!kept) return
    whenOver(outgoing, () => hold.keep(0))
    this.#cutOffIdle(outgoing)
  }

  /** Whoever takes nothing of a long answer for as long as there is patience is cut off. */
  #cutOffIdle(outgoing: ServerResponse): void {
    const { patience } = this.#parts
    outgoing.setTimeout(patience)
    outgoing.on('timeout', (socket: Socket) => {
      // Nothing waits for a caller who is still sending, or whom nothing has been sent.
      if (socket.writableLength === 0) socket.setTimeout(patience)
      else socket.destroy()
    })
  }

  #refuse(asked: Asked, error: unknown): Given {
    const problem = problemOf(error, asked.door)
    if (!(error instanceof Refusal)) this.note(asked, error)
    const { status, reason } = problem
    return {
      status,
      reason,
      type: PROBLEM,
      body: JSON.stringify({ ...problem, request_id: asked.id }),
      headers: headersOf(problem),
    }
  }

  /** The answer where a request is one of HTTP, and yet names no address that could be looked up. */
  unrouted(error: unknown): Response {
    const given =
      error instanceof RequestError ? new Refusal('invalid', 'not-http', 'The host and the address make no URL.') : error
    const { body, ...init } = this.#unasked(given)
    return new Response(body, init)
  }

  /** What is answered on a connection whose request could not be read as one; after it the connection is closed. */
  unreadable({ code = '' }: NodeJS.ErrnoException): string {
    const { body, status, headers } = this.#unasked(unreadable(code))
    const lines = { ...headers, ...CLOSE, 'content-length': Buffer.byteLength(body) }
    return [
      `HTTP/1.1 ${status} ${STATUS_CODES[status]}`,
      ...Object.entries(lines).map(([name, value]) => `${name}: ${value}`),
      '',
      body,
    ].join('\r\n')
  }

  /** The refusal of what never became a request. */
  #unasked(error: unknown) {
    const id = uuid()
    const problem = problemOf(error, 'device')
    this.#parts.logger.info({ request_id: id, route: 'none', status: problem.status, reason: problem.reason }, 'request')
    const headers = { 'content-type': PROBLEM, 'x-request-id': id, ...this.headers.always, ...headersOf(problem) }
    return { status: problem.status, body: JSON.stringify({ ...problem, request_id: id }), headers }
  }

  /** A mistake of our own, or what an answer broke off at: noted with its stack, which holds code and no content. */
  note({ id, route }: Asked, error: unknown): void {
    const { stack = String(error), reason } = error as Error & { reason?: string }
    this.#parts.logger.error({ request_id: id, route, reason, stack }, 'broken')
  }
}

const PROBLEM = 'application/problem+json'
const CLOSE = { connection: 'close' }
const TAKES_BODY = new Set(['POST', 'PUT', 'PATCH'])
/** What is shorter fits into the buffers of a connection, unless others have filled them. */
const LONG = 64 * 1024
const waits = ({ socket }: ServerResponse) => !socket || socket.writableLength > 0

const requestId = (given: string | string[] | undefined) =>
  typeof given === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : uuid()
