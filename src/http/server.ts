// The door: turns requests into commands and queries and their answers into responses. It knows routes, media types and
// headers; what a request means is said by the features, and which status a refusal has by problem.ts.

import { readFileSync } from 'node:fs'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { type HttpBindings, RequestError } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { type Context, Hono } from 'hono'
import type { Logger } from 'pino'
import type { Command } from '../core/command.ts'
import { invalid, Refusal } from '../core/errors.ts'
import type { Gathered } from '../core/feature.ts'
import { uuid } from '../core/ids.ts'
import type { Caller } from '../core/policy.ts'
import { type Query, Slice } from '../core/query.ts'
import type { Sessile } from '../core/sessile.ts'
import { readJson } from './body.ts'
import { Burden, type Hold } from './burden.ts'
import { whenOver } from './connections.ts'
import { Followers } from './follow.ts'
import { answerLines } from './ndjson.ts'
import { openapi } from './openapi.ts'
import { headersOf, problemOf, success } from './problem.ts'
import { checkRequest, mediaType, parametersOf } from './request.ts'
import { sliceAsJson, sliceAsLines } from './slice.ts'

const A_MOMENT_MS = 500

export interface DoorParts {
  gathered: Gathered
  logger: Logger
  /** Sessile, once it has recovered. */
  sessile: () => Sessile | undefined
  /** Why it cannot record at the moment; undefined when it can. */
  unready: () => string | undefined
  /** Who holds this secret. */
  authenticate: (secret: string) => Caller | undefined
  /** Did this connection come when all were taken? */
  surplus: (socket: Socket) => boolean
  /** How long a body may take, in milliseconds. */
  patience: number
  /** Routes for the owner of the files alone. */
  operate: Record<string, (sessile: Sessile, body: Record<string, string>) => Promise<unknown>>
}

/** At which door a request stands: a device's, or an application's. */
type At = Command['door']

type Routed = Context<{ Bindings: HttpBindings }>

/** One request under way. */
interface Asked {
  readonly id: string
  /** The route as the contract writes it, never the path of the request: that names people. */
  readonly route: string
  readonly door: At
  readonly incoming: IncomingMessage
  readonly hold: Hold
  readonly path: Record<string, string>
  readonly c: Routed
}

/** An answer before it is sent. */
interface Given {
  status: number
  type: string
  /** A text, a stream, or what writes the answer piece by piece, for as long as it takes. */
  body: string | ReadableStream<Uint8Array> | ((outgoing: ServerResponse) => void)
  headers?: Record<string, string>
  reason?: string
}

const docs = readFileSync(new URL('./docs.html', import.meta.url), 'utf8')

export class Door {
  readonly app: Hono<{ Bindings: HttpBindings }>
  readonly #followers: Followers
  readonly #burden = new Burden()
  readonly #parts: DoorParts

  constructor(parts: DoorParts) {
    this.#parts = parts
    this.#followers = new Followers(parts.patience)
    this.app = new Hono()
    this.#open()
    const { commands, queries } = parts.gathered
    for (const query of queries) this.#route(query.at, query.door, (asked, caller) => this.#ask(query, asked, caller))
    for (const command of commands) {
      if (command.at !== undefined) this.#route(command.at, command.door, (asked, caller) => this.#perform(command, asked, caller))
    }
    const operate: DoorParts['operate'] = { ...parts.operate, load: async (sessile) => this.#load(sessile) }
    for (const [name, work] of Object.entries(operate)) {
      this.#route(`POST /operator/${name}`, 'api', async ({ incoming, hold }, caller) => {
        if (!caller.operator) throw new Refusal('forbidden', 'forbidden', 'Only the owner of the files operates here.')
        const body = (await readJson(incoming, parts.patience, hold)) as Record<string, string>
        hold.keep(0)
        return json(await work(this.#sessile, body))
      })
    }
  }

  endStreams(): void {
    this.#followers.end()
  }

  /** What is held and waited for at the moment, for the operator to see. */
  #load({ recorder }: Sessile): Record<string, number> {
    return {
      held_bytes: this.#burden.bytes,
      waiting: recorder.waiting,
      followers: this.#followers.count,
      watchers: recorder.watchers.count,
    }
  }

  /** What everybody may ask, without a key. */
  #open(): void {
    const { gathered, unready } = this.#parts
    const contract = JSON.stringify(openapi(gathered))
    const get = (path: string, answer: () => Given) => this.app.get(path, (c) => this.#answer(c, path, 'api', async () => answer()))
    get('/healthz', () => json({ status: 'alive' }))
    get('/readyz', () => {
      const why = unready()
      if (why !== undefined) throw new Refusal('unavailable', 'not-ready', `Not ready: ${why}.`)
      return json({ status: 'ready' })
    })
    get('/openapi.json', () => ({ status: success.done, type: 'application/json', body: contract }))
    get('/docs', () => ({
      status: success.done,
      type: 'text/html; charset=utf-8',
      body: docs,
      headers: { 'content-security-policy': DOCS_POLICY },
    }))
    this.app.notFound((c) =>
      this.#answer(c, 'none', 'api', async () => {
        const methods = this.#methodsAt(c.req.path)
        if (methods.length === 0) throw new Refusal('not-found', 'no-such-route', 'There is nothing at this address.')
        const allow = methods.join(', ')
        throw new Refusal('invalid', 'method-not-allowed', `At this address there is ${allow} alone.`, { facts: { allow } })
      }),
    )
    // What the router itself cannot take.
    this.app.onError((error, c) => this.#answer(c as Routed, 'none', 'api', () => Promise.reject(error)))
  }

  /** The methods that some route takes at this path. Looked for only where none takes the request's own. */
  #methodsAt(path: string): string[] {
    const steps = path.split('/')
    const fits = (route: string) => {
      const own = route.split('/')
      return own.length === steps.length && own.every((step, i) => (step.startsWith(':') ? steps[i] !== '' : step === steps[i]))
    }
    return this.app.routes.filter((route) => fits(route.path)).map(({ method }) => method)
  }

  #route(at: string, door: At, answer: (asked: Asked, caller: Caller) => Promise<Given>): void {
    const [method, path] = at.split(' ') as [string, string]
    this.app.on(method, path.replace(/\{(\w+)\}/g, ':$1'), (c) =>
      this.#answer(c, path, door, (asked) => this.#whenBack(() => answer(asked, this.#admit(asked)))),
    )
  }

  /** The frame of every request: its id, its answer or its refusal, the headers that all answers have, its line in the log. */
  async #answer(c: Routed, route: string, door: At, answer: (asked: Asked) => Promise<Given>): Promise<Response> {
    const began = performance.now()
    const { incoming } = c.env
    const id = requestId(incoming.headers['x-request-id'])
    const asked: Asked = { id, route, door, incoming, hold: this.#burden.hold(), path: c.req.param(), c }
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

  /** Views that are just being brought back are worth a moment's wait; after that, callers are told to come again. */
  #whenBack(answer: () => Promise<Given>): Promise<Given> {
    const recorder = this.#parts.sessile()?.recorder
    if (recorder?.stalled === undefined) return answer()
    let soon: NodeJS.Timeout | undefined
    const moment = new Promise<void>((resolve) => {
      soon = setTimeout(resolve, A_MOMENT_MS)
    })
    return Promise.race([recorder.between(() => {}), moment])
      .finally(() => clearTimeout(soon))
      .then(answer)
  }

  #admit({ incoming }: Asked): Caller {
    if (!this.#parts.sessile()) throw new Refusal('unavailable', 'starting', 'Sessile is starting.')
    if (this.#parts.surplus(incoming.socket)) throw new Refusal('unavailable', 'overloaded', 'All connections are taken.')
    const [scheme, secret] = (incoming.headers.authorization ?? '').split(' ')
    const caller = scheme?.toLowerCase() === 'bearer' && secret ? this.#parts.authenticate(secret) : undefined
    if (!caller) throw new Refusal('unauthenticated', 'unauthenticated', 'A request names its key: Authorization: Bearer …')
    return caller
  }

  get #sessile(): Sessile {
    return this.#parts.sessile() as Sessile
  }

  async #perform(command: Command, asked: Asked, caller: Caller): Promise<Given> {
    const { incoming, hold, path, c } = asked
    const asking = { caller, path, key: idempotencyKey(incoming.headers['idempotency-key']) }
    if (command.body && mediaType(incoming) === NDJSON) {
      const broke = (error: unknown) => this.#note(asked, error)
      const parts = { sessile: this.#sessile, burden: this.#burden, command, asking, broke }
      return { status: success.done, type: NDJSON, body: answerLines(parts, c.req.raw.body ?? new Blob([]).stream()) }
    }
    const body = hasBody(incoming) ? await readJson(incoming, this.#parts.patience, hold) : {}
    return json(await this.#sessile.perform(command, { ...asking, body }), command.makes ? success.made : success.done)
  }

  async #ask(query: Query, { incoming, hold, path }: Asked, caller: Caller): Promise<Given> {
    const given = query.at.startsWith('POST ')
      ? await readJson(incoming, this.#parts.patience, hold)
      : parametersOf(incoming.url ?? '')
    const answer = await this.#sessile.ask(query, { input: { ...(given as object), ...path }, caller })
    if (!(answer instanceof Slice)) return json(answer)
    if (answer.follow) {
      const resumed = { ...answer, after: lastEventId(incoming.headers['last-event-id'] as string | undefined) ?? answer.after }
      const follow = (outgoing: ServerResponse) => this.#followers.follow(this.#sessile, resumed, outgoing)
      return { status: success.done, type: 'text/event-stream', body: follow }
    }
    if (incoming.headers.accept?.includes(NDJSON))
      return { status: success.done, type: NDJSON, body: sliceAsLines(this.#sessile, answer) }
    return { status: success.done, type: 'application/json', body: await sliceAsJson(this.#sessile, answer, hold) }
  }

  #refuse(asked: Asked, error: unknown): Given {
    const problem = problemOf(error, asked.door)
    if (!(error instanceof Refusal)) this.#note(asked, error)
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
  #note({ id, route }: Asked, error: unknown): void {
    const { stack = String(error) } = error as Error
    this.#parts.logger.error({ request_id: id, route, stack }, 'broken')
  }
}

const NDJSON = 'application/x-ndjson'
/** What is shorter fits into the buffers of a connection. */
const LONG = 64 * 1024

const json = (value: unknown, status: number = success.done): Given => ({
  status,
  type: 'application/json',
  body: JSON.stringify(value),
})

const CLOSE = { connection: 'close' }
const TAKES_BODY = new Set(['POST', 'PUT', 'PATCH'])

const hasBody = ({ headers }: IncomingMessage) =>
  headers['transfer-encoding'] !== undefined || (headers['content-length'] ?? '0') !== '0'

const DOCS_POLICY =
  "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

const requestId = (given: string | string[] | undefined) =>
  typeof given === 'string' && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : uuid()

function idempotencyKey(given: string | string[] | undefined): string | undefined {
  if (given === undefined) return undefined
  if (typeof given === 'string' && /^[\x21-\x7e]{1,255}$/.test(given)) return given
  throw invalid([{ path: 'Idempotency-Key', message: 'must be 1 to 255 printable characters without spaces' }])
}

function lastEventId(given: string | undefined): number | undefined {
  if (given === undefined) return undefined
  if (/^\d{1,15}$/.test(given)) return Number(given)
  throw invalid([{ path: 'Last-Event-ID', message: 'must be the id of an event that this stream gave' }])
}
