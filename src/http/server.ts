// The door: turns requests into commands and queries and their answers into responses. It knows routes, media types and
// headers; what a request means is said by the features, and which status a refusal has by problem.ts.

import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { type Context, Hono } from 'hono'
import type { Logger } from 'pino'
import type { Command } from '../core/command.ts'
import { invalid, Refusal } from '../core/errors.ts'
import type { Gathered } from '../core/feature.ts'
import type { Caller } from '../core/policy.ts'
import { type Query, Slice } from '../core/query.ts'
import type { Sessile } from '../core/sessile.ts'
import { mediaType, readJson } from './body.ts'
import { answerLines } from './ndjson.ts'
import { openapi } from './openapi.ts'
import { type Problem, problemOf, problemResponse, success } from './problem.ts'
import { sliceAsEvents, sliceAsJson, sliceAsLines } from './slice.ts'

export interface DoorParts {
  gathered: Gathered
  logger: Logger
  /** Sessile, once it has recovered. */
  sessile: () => Sessile | undefined
  /** Why it cannot record at the moment; undefined when it can. */
  unready: () => string | undefined
  /** Who holds this secret. */
  authenticate: (secret: string) => Caller | undefined
  /** Routes for the owner of the files alone. */
  operate: Record<string, (sessile: Sessile, body: Record<string, string>) => Promise<unknown>>
}

/** At which door a request stands: a device's, or an application's. */
type At = Command['door']

type Env = { Variables: { request: string; caller: Caller; refused: Problem } }

const docs = readFileSync(new URL('./docs.html', import.meta.url), 'utf8')

export class Door {
  readonly app: Hono<Env>
  /** How each open stream is ended. */
  readonly #streams = new Set<() => void>()
  readonly #parts: DoorParts

  constructor(parts: DoorParts) {
    this.#parts = parts
    this.app = new Hono<Env>()
    this.#always()
    const { commands, queries } = parts.gathered
    for (const query of queries) this.#route(query.at, query.door, (c) => this.#ask(query, c))
    for (const command of commands)
      if (command.at !== undefined) this.#route(command.at, command.door, (c) => this.#perform(command, c))
    for (const [name, work] of Object.entries(parts.operate)) {
      this.#route(`POST /operator/${name}`, 'api', async (c) => {
        if (c.get('caller').account_id !== 'operator')
          throw new Refusal('forbidden', 'forbidden', 'Only the owner of the files operates here.')
        return c.json((await work(this.#sessile, (await readJson(c.req.raw)) as Record<string, string>)) as object)
      })
    }
  }

  endStreams(): void {
    for (const stop of [...this.#streams]) stop()
  }

  #always(): void {
    const { logger, gathered, unready } = this.#parts
    const contract = JSON.stringify(openapi(gathered))
    this.app.use(async (c, next) => {
      const began = performance.now()
      c.set('request', requestId(c.req.header('x-request-id')))
      await next()
      c.header('x-request-id', c.get('request'))
      c.header('x-content-type-options', 'nosniff')
      if (!c.res.headers.has('cache-control')) c.header('cache-control', 'no-store')
      // The route, never the path: a path names people.
      logger.info(
        {
          request_id: c.get('request'),
          method: c.req.method,
          route: routeOf(c),
          status: c.res.status,
          reason: c.get('refused')?.reason,
          ms: Math.round((performance.now() - began) * 10) / 10,
        },
        'request',
      )
    })
    this.app.get('/healthz', (c) => c.json({ status: 'alive' }))
    this.app.get('/readyz', (c) => {
      const why = unready()
      if (why === undefined) return c.json({ status: 'ready' })
      return this.#refuse(c, new Refusal('unavailable', 'not-ready', `Not ready: ${why}.`), 'api')
    })
    this.app.get('/openapi.json', () => new Response(contract, { headers: { 'content-type': 'application/json' } }))
    this.app.get(
      '/docs',
      () => new Response(docs, { headers: { 'content-type': 'text/html; charset=utf-8', 'content-security-policy': DOCS_POLICY } }),
    )
    this.app.notFound((c) => this.#refuse(c, new Refusal('not-found', 'no-such-route', 'There is nothing at this address.'), 'api'))
    this.app.onError((error, c) => this.#refuse(c, error, 'api'))
  }

  #route(at: string, door: At, answer: (c: Context<Env>) => Promise<Response>): void {
    const [method, path] = at.split(' ') as [string, string]
    this.app.on(method, path.replace(/\{(\w+)\}/g, ':$1'), async (c) => {
      try {
        this.#admit(c)
        return await answer(c)
      } catch (error) {
        return this.#refuse(c, error, door)
      }
    })
  }

  #admit(c: Context<Env>): void {
    if (!this.#parts.sessile()) throw new Refusal('unavailable', 'starting', 'Sessile is starting.')
    const [scheme, secret] = (c.req.header('authorization') ?? '').split(' ')
    const caller = scheme?.toLowerCase() === 'bearer' && secret ? this.#parts.authenticate(secret) : undefined
    if (!caller) throw new Refusal('unauthenticated', 'unauthenticated', 'A request names its key: Authorization: Bearer …')
    c.set('caller', caller)
  }

  get #sessile(): Sessile {
    return this.#parts.sessile() as Sessile
  }

  async #perform(command: Command, c: Context<Env>): Promise<Response> {
    const asking = {
      caller: c.get('caller'),
      path: c.req.param() as Record<string, string>,
      key: idempotencyKey(c.req.header('idempotency-key')),
    }
    if (command.body && mediaType(c.req.raw) === 'application/x-ndjson') {
      const parts = { sessile: this.#sessile, command, asking, broke: (error: unknown) => this.#note(c, error) }
      const answers = answerLines(parts, c.req.raw.body ?? new ReadableStream({ start: (empty) => empty.close() }))
      return new Response(answers, { headers: { 'content-type': 'application/x-ndjson' } })
    }
    const body = hasBody(c) ? await readJson(c.req.raw) : {}
    const answer = await this.#sessile.perform(command, { ...asking, body })
    return c.json(answer as object, command.makes ? success.made : success.done)
  }

  async #ask(query: Query, c: Context<Env>): Promise<Response> {
    const given = query.at.startsWith('POST ') ? await readJson(c.req.raw) : single(c.req.queries())
    const input = query.at.includes('{') ? { ...(given as object), ...c.req.param() } : given
    const answer = await this.#sessile.ask(query, { input, caller: c.get('caller') })
    if (!(answer instanceof Slice)) return c.json(answer as object)
    if (answer.follow) {
      const resumed = { ...answer, after: lastEventId(c.req.header('last-event-id')) ?? answer.after }
      return new Response(sliceAsEvents(this.#sessile, resumed, this.#streams), {
        headers: { 'content-type': 'text/event-stream' },
      })
    }
    if (c.req.header('accept')?.includes('application/x-ndjson')) {
      return new Response(sliceAsLines(this.#sessile, answer), { headers: { 'content-type': 'application/x-ndjson' } })
    }
    return c.json(sliceAsJson(this.#sessile, answer))
  }

  #refuse(c: Context<Env>, error: unknown, door: At): Response {
    const problem = { ...problemOf(error, door), request_id: c.get('request') }
    if (!(error instanceof Refusal)) this.#note(c, error)
    c.set('refused', problem)
    return problemResponse(problem)
  }

  /** A mistake of our own: noted with its stack, which holds code and no content. */
  #note(c: Context<Env>, error: unknown): void {
    const { stack = String(error) } = error as Error
    this.#parts.logger.error({ request_id: c.get('request'), route: routeOf(c), stack }, 'broken')
  }
}

const hasBody = (c: Context<Env>) =>
  c.req.header('transfer-encoding') !== undefined || (c.req.header('content-length') ?? '0') !== '0'

const DOCS_POLICY =
  "default-src 'none'; connect-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

const routeOf = (c: Context<Env>) => c.req.routePath

const requestId = (given: string | undefined) =>
  given !== undefined && /^[A-Za-z0-9._-]{1,64}$/.test(given) ? given : randomUUID()

function idempotencyKey(given: string | undefined): string | undefined {
  if (given === undefined) return undefined
  if (/^[\x21-\x7e]{1,255}$/.test(given)) return given
  throw invalid([{ path: 'Idempotency-Key', message: 'must be 1 to 255 printable characters without spaces' }])
}

function lastEventId(given: string | undefined): number | undefined {
  if (given === undefined) return undefined
  if (/^\d{1,15}$/.test(given)) return Number(given)
  throw invalid([{ path: 'Last-Event-ID', message: 'must be the id of an event that this stream gave' }])
}

/** Query parameters, each given once. */
function single(queries: Record<string, string[]>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(queries).map(([name, values]) => {
      if (values.length > 1) throw invalid([{ path: name, message: 'is given more than once' }])
      return [name, values[0] as string]
    }),
  )
}
