// The frame of every request: its id, its answer or its refusal, the headers that all answers have, its line in the log.
// What a request asks for, and who may ask, is none of its business.

import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import { Refusal } from '../core/errors.ts'
import { uuid } from '../core/ids.ts'
import { nobody } from '../core/policy.ts'
import { isTelling, type Trace } from '../core/trail.ts'
import type { Proxies } from './address.ts'
import { letGo } from './body.ts'
import { Burden, type Hold } from './burden.ts'
import { whenOver } from './connections.ts'
import { type Begun, pour, type Still } from './flow.ts'
import { AnswerHeaders, emergencyOf, type Reached, traceOf } from './headers.ts'
import type { Standing } from './limits.ts'
import { type Door, headersOf, problemOf, unreadable } from './problem.ts'
import { hasBody } from './request.ts'
import type { WholeRequest } from './whole.ts'
import { type Outgoing, Wire } from './wires.ts'

/** A request, and where its answer goes. */
export interface Exchange {
  readonly incoming: IncomingMessage | WholeRequest
  readonly outgoing: Outgoing
}

/** Where a request is answered. */
export interface Place {
  /** The route as the contract writes it, never the path of the request: that names people. */
  readonly route: string
  /** At which door it stands: a device's, or an application's. */
  readonly door: Door
  /** The route with its method, where the contract has one. */
  readonly at?: string | undefined
  /** Does it answer in one piece, always? */
  readonly whole?: boolean | undefined
  answer(asked: Asked): Given | Promise<Given>
}

/** One request under way. */
export interface Asked extends Exchange, Pick<Place, 'route' | 'door'> {
  readonly id: string
  readonly hold: Hold
  /** What its address says where the route leaves a gap. */
  readonly path: Readonly<Record<string, string>>
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
  readonly #silent: boolean

  constructor(parts: FrameParts, tell: Telling) {
    this.#parts = parts
    this.headers = new AnswerHeaders(parts.reached)
    this.#tell = tell
    this.#silent = parts.logger.level === 'silent'
  }

  /** Answers a request, whatever becomes of it. */
  async answer({ incoming, outgoing }: Exchange, { route, door, at, answer }: Place, path: Asked['path']): Promise<void> {
    const began = performance.now()
    const id = requestId(incoming.headers['x-request-id'])
    const address = this.#parts.proxies.addressOf(incoming)
    const trace = at === undefined ? undefined : { request_id: id, route: at, address, caller: nobody, users: [] }
    const asked: Asked = { id, route, door, incoming, outgoing, hold: this.burden.hold(), path, address, trace }
    let given: Given
    try {
      given = await answer(asked)
    } catch (error) {
      given = this.#refuse(asked, await this.traced(this.#tells(asked, error) ? trace : undefined, error))
    }
    this.#log(asked, given, performance.now() - began)
    // Node would wait for it, and for the next request behind it, for as long as it takes.
    if (!incoming.complete) outgoing.on('close', () => letGo(incoming as IncomingMessage))
    this.#give(asked, given)
  }

  #log({ id, route, incoming }: Asked, { status, reason }: Given, ms: number): void {
    if (this.#silent) return
    const trace_id = traceOf(incoming.headers.traceparent)
    const line = { request_id: id, trace_id, method: incoming.method, route, status, reason, ms: Math.round(ms * 10) / 10 }
    this.#parts.logger.info(line, 'request')
  }

  /** The head of an answer, names and values in turn; without what is always said, where it has no headers of its own. */
  #headOf({ id, incoming, standing, trace }: Asked, { type, headers, cookies, reason }: Given): string[] {
    const head: string[] = []
    const add = (more: Readonly<Record<string, string>> | undefined) => {
      for (const name in more) head.push(name, more[name] as string)
    }
    // Its own word on what a page may do stands in the place of what is always said.
    if (headers) add({ ...this.headers.always, ...headers })
    head.push('x-request-id', id)
    if (type !== undefined) head.push('content-type', type)
    add(this.headers.shared(incoming.headers))
    add(standing?.headers)
    if (reason === undefined) add(emergencyOf(trace))
    if (cookies) for (const cookie of cookies) head.push('set-cookie', cookie)
    // What comes with a question is read by nobody.
    const unread = !TAKES_BODY.has(incoming.method ?? '') && hasBody(incoming)
    if ((unread || this.#parts.surplus(incoming.socket)) && headers?.connection === undefined) add(CLOSE)
    return head
  }

  /** Sends an answer: whole, piece by piece as it is taken, or for as long as it lasts. */
  #give(asked: Asked, given: Given): void {
    const { hold, incoming, outgoing } = asked
    const { body, still } = given
    const head = this.#headOf(asked, given)
    if (typeof body === 'string' || body instanceof Uint8Array) {
      const kept = this.#untilTaken(asked, body.length)
      const bytes = Buffer.byteLength(body)
      head.push('content-length', String(bytes))
      // What has a byte for each letter need not be looked through for others once more.
      this.#begin(outgoing, given, head).end(body, bytes === body.length ? 'latin1' : 'utf8')
      // Node ends what it waits for by itself.
      if (!kept && outgoing instanceof Wire && waits(outgoing)) this.#cutOffIdle(outgoing)
      return
    }
    if (outgoing instanceof Wire) throw new Error(`${asked.route} answers in pieces where it should not`)
    this.#begin(outgoing, given, head)
    if (typeof body === 'function' || incoming.method === 'HEAD') hold.keep(0)
    if (incoming.method === 'HEAD') {
      // Nobody will read it: what has begun must be let go.
      if (typeof body === 'object') void body.rest.return(body.first)
      outgoing.end()
    } else if (typeof body === 'function') body(outgoing)
    else {
      this.#cutOffIdle(outgoing)
      void pour(outgoing, body, { hold, still, broke: (error) => this.note(asked, error) })
    }
  }

  #begin<O extends Outgoing>(outgoing: O, { status, headers }: Given, head: string[]): O {
    const { text, lines } = this.headers
    if (outgoing instanceof Wire) outgoing.writeHead(status, headers ? '' : text, head)
    else outgoing.writeHead(status, headers ? head : [...lines, ...head])
    return outgoing
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

  /** A long answer is held until it has been taken, and so is one that waits behind others on its connection. Returns whether it is. */
  #untilTaken({ hold, outgoing }: Asked, length: number): boolean {
    const kept = length >= LONG || waits(outgoing)
    hold.keep(kept ? length : 0)
    if (!kept) return false
    whenOver(outgoing, () => hold.keep(0))
    this.#cutOffIdle(outgoing)
    return true
  }

  /** Whoever takes nothing of a long answer for as long as there is patience is cut off. */
  #cutOffIdle(outgoing: Outgoing): void {
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
      body: JSON.stringify(Object.assign(problem, { request_id: asked.id })),
      headers: headersOf(problem),
    }
  }

  /** The answer where a request is one of HTTP, and yet names no address that could be looked up. */
  unrouted(error: unknown): Response {
    const { body, status, headers } = this.#unasked(error)
    // Whatever else such a sender sends is not read.
    return new Response(body, { status, headers: { ...headers, ...CLOSE } })
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

  /** What went wrong where nothing could be answered any more must not cost the others theirs. */
  lose(outgoing: Outgoing, error: unknown): void {
    this.#parts.logger.error({ route: 'none', stack: String((error as Error).stack) }, 'broken')
    outgoing.destroy()
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
const waits = ({ socket }: Outgoing) => !socket || socket.writableLength > 0

const requestId = (given: string | string[] | undefined) =>
  typeof given === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : uuid()
