// The frame of every request: its id, its answer or its refusal, the headers that all answers have, its line in the log.
// What a request asks for, and who may ask, is none of its business.

import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type HttpBindings, RequestError } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import type { Context } from 'hono'
import type { Logger } from 'pino'
import { Refusal } from '../core/errors.ts'
import { uuid } from '../core/ids.ts'
import { Burden, type Hold } from './burden.ts'
import { whenOver } from './connections.ts'
import { type Door, headersOf, problemOf } from './problem.ts'
import { checkRequest, hasBody } from './request.ts'

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
}

/** An answer before it is sent. */
export interface Given {
  status: number
  type: string
  /** A text, a stream, or what writes the answer piece by piece, for as long as it takes. */
  body: string | ReadableStream<Uint8Array> | ((outgoing: ServerResponse) => void)
  headers?: Record<string, string>
  reason?: string
}

export interface FrameParts {
  logger: Logger
  /** Did this connection come when all were taken? */
  surplus: (socket: Socket) => boolean
  /** How long a body may take, in milliseconds. */
  patience: number
}

export class Frame {
  readonly burden = new Burden()
  readonly #parts: FrameParts

  constructor(parts: FrameParts) {
    this.#parts = parts
  }

  /** Answers a request, whatever becomes of it. */
  async answer(c: Routed, route: string, door: Door, answer: (asked: Asked) => Promise<Given>): Promise<Response> {
    const began = performance.now()
    const { incoming } = c.env
    const id = requestId(incoming.headers['x-request-id'])
    const asked: Asked = { id, route, door, incoming, hold: this.burden.hold(), path: c.req.param(), c }
    let given: Given
    try {
      checkRequest(incoming)
      given = await answer(asked)
    } catch (error) {
      given = this.#refuse(asked, error)
    }
    const { status, type, body, headers, reason } = given
    // Nobody will read it: a stream that has been opened must be let go.
    if (incoming.method === 'HEAD' && typeof body === 'object') await body.cancel()
    const ms = Math.round((performance.now() - began) * 10) / 10
    this.#parts.logger.info({ request_id: asked.id, method: incoming.method, route, status, reason, ms }, 'request')
    const all = {
      'content-type': type,
      'x-request-id': asked.id,
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
      ...headers,
      ...(this.#parts.surplus(incoming.socket) ? CLOSE : {}),
    }
    // What comes with a question is read by nobody.
    if (!TAKES_BODY.has(incoming.method ?? '') && hasBody(incoming)) Object.assign(all, CLOSE)
    const { outgoing } = c.env as { outgoing: ServerResponse }
    if (typeof body !== 'function' || incoming.method === 'HEAD') {
      const whole = typeof body === 'function' ? '' : body
      this.#untilTaken(asked, outgoing, whole)
      return new Response(whole, { status, headers: all })
    }
    asked.hold.keep(0)
    outgoing.writeHead(status, all)
    body(outgoing)
    return RESPONSE_ALREADY_SENT
  }

  /** A long answer is held until it has been taken; whoever takes nothing of it for as long as there is patience is cut off. */
  #untilTaken({ hold }: Asked, outgoing: ServerResponse, body: string | ReadableStream<Uint8Array>): void {
    // Of a stream there is one piece at a time, and what waits of its lines is counted where they are read.
    const length = typeof body === 'string' ? body.length : 0
    const long = typeof body !== 'string' || length >= LONG
    hold.keep(long && !outgoing.destroyed ? length : 0)
    if (!long || outgoing.destroyed) return
    const { patience } = this.#parts
    whenOver(outgoing, () => hold.keep(0))
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
      type: 'application/problem+json',
      body: JSON.stringify({ ...problem, request_id: asked.id }),
      headers: headersOf(problem),
    }
  }

  /** The answer where a request is one of HTTP, and yet names no address that could be looked up. */
  unrouted(error: unknown): Response {
    const given =
      error instanceof RequestError ? new Refusal('invalid', 'not-http', 'The host and the address make no URL.') : error
    const problem = problemOf(given, 'device')
    this.#parts.logger.info({ route: 'none', status: problem.status, reason: problem.reason }, 'request')
    return new Response(JSON.stringify(problem), {
      status: problem.status,
      headers: { 'content-type': 'application/problem+json' },
    })
  }

  /** A mistake of our own: noted with its stack, which holds code and no content. */
  note({ id, route }: Asked, error: unknown): void {
    const { stack = String(error) } = error as Error
    this.#parts.logger.error({ request_id: id, route, stack }, 'broken')
  }
}

const CLOSE = { connection: 'close' }
const TAKES_BODY = new Set(['POST', 'PUT', 'PATCH'])
/** What is shorter fits into the buffers of a connection. */
const LONG = 64 * 1024

const requestId = (given: string | string[] | undefined) =>
  typeof given === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : uuid()
