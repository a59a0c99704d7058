// A fuzzer that knows nothing but the published contract: for every operation of schemas/openapi.json it draws requests that
// fit and requests that do not, with users and sessions that are there, and holds each answer against that contract.

import { readFileSync } from 'node:fs'
import { Agent, type IncomingHttpHeaders, request } from 'node:http'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import type { Line } from '../src/core/log.ts'
import { features } from '../src/features/index.ts'
import { Draw, fitting, HOSTILE, placesIn, type Schema } from './drawing.ts'
import { ADMIN, type Json, logBytes, type Running } from './harness.ts'

const contract = JSON.parse(readFileSync(new URL('../schemas/openapi.json', import.meta.url), 'utf8')) as Json
const dataOf = (type: string, v: number) =>
  JSON.parse(readFileSync(new URL(`../schemas/${type}.v${v}.json`, import.meta.url), 'utf8')) as Schema

interface Parameter {
  name: string
  in: string
  required?: boolean
  schema: Schema
}

interface Operation {
  method: string
  path: string
  parameters: Parameter[]
  body: Schema | undefined
  bodyFits: ValidateFunction | undefined
  /** By status: what an answer must look like, and the reasons that a refusal may give. */
  answers: Map<number, { fits: ValidateFunction | undefined; reasons: string[] | undefined }>
}

const ajv = new Ajv2020({ strict: false, validateFormats: false })
ajv.addSchema(contract, 'contract')
const at = (pointer: string[]) =>
  `contract#/${pointer.map((step) => encodeURIComponent(step.replaceAll('~', '~0').replaceAll('/', '~1'))).join('/')}`
const compiled = (pointer: string[]) => ajv.compile({ $ref: at(pointer) })
const problemFits = compiled(['components', 'schemas', 'Problem'])

export const operations: Operation[] = Object.entries(contract.paths).flatMap(([path, methods]) =>
  Object.entries(methods as Json).map(([method, operation]: [string, Json]) => {
    const here = ['paths', path, method]
    const body = operation.requestBody?.content['application/json']?.schema as Schema | undefined
    const answers = Object.entries(operation.responses).map(([status, { content }]: [string, Json]) => {
      const reasons = content['application/problem+json']?.schema.allOf[1].properties.reason.enum as string[] | undefined
      const json = content['application/json']
      const fits = json ? compiled([...here, 'responses', status, 'content', 'application/json', 'schema']) : undefined
      return [Number(status), { fits, reasons }] as const
    })
    return {
      method: method.toUpperCase(),
      path,
      parameters: operation.parameters ?? [],
      body,
      bodyFits: body ? compiled([...here, 'requestBody', 'content', 'application/json', 'schema']) : undefined,
      answers: new Map(answers),
    }
  }),
)

const downstream = features.events.all.filter((event) => event.downstream).map(({ type, v }) => ({ type, data: dataOf(type, v) }))

/** A request as it goes over the wire. */
interface Asking {
  operation: Operation
  method: string
  target: string
  headers: [string, string][]
  body: Buffer | undefined
  /** Sent in so many pieces. */
  pieces: number
  /** The body as a value, until it is printed. */
  value: unknown
  path: Record<string, string>
  query: [string, string][]
  key: string | undefined
  /** What was done to it. */
  done: string[]
  /** It does not fit the contract, so that it must be refused. */
  unfit: boolean
}

interface Reply {
  status: number
  headers: IncomingHttpHeaders
  text: string
}

interface Known {
  users: string[]
  sessions: { session_id: string; user_id: string; kind: string; active: boolean }[]
  keys: { key_id: string; secret: string; works: boolean }[]
  names: string[]
}

export interface Fuzzed {
  requests: number
  taken: number
  refused: number
  byStatus: Record<string, number>
  byReason: Record<string, number>
  findings: string[]
}

/** What no answer goes without. */
const EVERYWHERE = [
  'x-request-id',
  'content-security-policy',
  'x-frame-options',
  'x-content-type-options',
  'referrer-policy',
  'cross-origin-resource-policy',
  'cache-control',
]
const LATELY = 24
const MOST_FINDINGS = 5
const agent = () => new Agent({ keepAlive: true, maxSockets: 1 })

export class Fuzzer {
  readonly #running: Running
  readonly #draw: Draw
  readonly #agent = agent()
  readonly #known: Known
  /** What has been recorded since the last request began. */
  readonly #written: Line[] = []
  readonly told: Fuzzed = { requests: 0, taken: 0, refused: 0, byStatus: {}, byReason: {}, findings: [] }

  constructor(running: Running, seed: number) {
    this.#running = running
    this.#draw = new Draw(seed)
    const { log } = running.sessile
    const write = log.write.bind(log)
    log.write = (lines) => {
      this.#written.push(...lines.map((line) => ({ ...line })))
      write(lines)
    }
    this.#known = {
      users: [
        'ada',
        'bob',
        'Ada',
        'con',
        'x'.repeat(64),
        'a.b-c_d',
        '0',
        'constructor',
        'CON.jsonl',
        'toString',
        'quarantine',
        'user',
      ],
      sessions: [],
      keys: [],
      names: [],
    }
  }

  /** Draws and sends so many requests; `every` of them the bytes of all logs are compared across one that is refused. */
  async go(requests: number, every = 500): Promise<Fuzzed> {
    for (let i = 0; i < requests && this.told.findings.length < MOST_FINDINGS; i++) {
      const asking = this.#asking()
      const look = i % every === every - 1
      const before = look ? logBytes(this.#running) : undefined
      const reply = await this.#one(asking)
      if (before !== undefined && reply && reply.status >= 400 && logBytes(this.#running) !== before)
        this.#find(asking, reply, 'a refused request changed the bytes of a log')
    }
    this.#agent.destroy()
    return this.told
  }

  async #one(asking: Asking): Promise<Reply | undefined> {
    this.#written.length = 0
    this.told.requests++
    let reply: Reply
    try {
      reply = await this.#send(asking)
    } catch (error) {
      this.#find(asking, undefined, `no answer: ${(error as Error).message}`)
      return undefined
    }
    this.told.byStatus[reply.status] = (this.told.byStatus[reply.status] ?? 0) + 1
    const wrong = this.#judge(asking, reply)
    if (wrong !== undefined) this.#find(asking, reply, wrong)
    const told = this.#judgeTrail(asking, reply, this.#written)
    if (told !== undefined) this.#find(asking, reply, told)
    if (reply.status < 400) this.told.taken++
    else this.told.refused++
    return reply
  }

  #find(asking: Asking, reply: Reply | undefined, what: string): void {
    const { method, target, headers, body, done } = asking
    const shown =
      body && (body.length > 600 ? `${body.subarray(0, 600).toString('latin1')}… (${body.length} bytes)` : body.toString())
    const got = reply ? `${reply.status} ${reply.text.slice(0, 600)}` : ''
    this.told.findings.push(
      [
        `request ${this.told.requests}: ${what}`,
        `  ${method} ${target.slice(0, 300)} [${done.join(', ')}]`,
        `  ${JSON.stringify(headers).slice(0, 400)}`,
        `  ${shown}`,
        `  → ${got}`,
      ].join('\n'),
    )
  }

  // --- drawing a request ------------------------------------------------------------------------------------------------

  #asking(): Asking {
    const draw = this.#draw
    const operation = this.#operation()
    const session = this.#session()
    const named = (name: string) => this.#named(name, session)
    const asking: Asking = {
      operation,
      method: operation.method,
      target: '',
      headers: [],
      body: undefined,
      pieces: 1,
      value: operation.body ? this.#bodyFor(operation, session, named) : undefined,
      path: {},
      query: [],
      key: this.#key(),
      done: [],
      unfit: false,
    }
    for (const parameter of operation.parameters) {
      const value = () => String(named(parameter.name) ?? fitting(parameter.schema, draw))
      if (parameter.in === 'path') asking.path[parameter.name] = value()
      else if (parameter.in === 'query' && draw.chance(0.25)) asking.query.push([parameter.name, value()])
      else if (parameter.in === 'header' && draw.chance(0.2)) asking.headers.push([parameter.name, this.#nameOfRequest()])
    }
    const changes = draw.chance(0.4) ? 0 : draw.chance(0.7) ? 1 : 2
    for (let i = 0; i < changes; i++) this.#changeShape(asking)
    this.#print(asking)
    for (let i = 0; i < changes; i++) if (draw.chance(0.35)) this.#changeWire(asking)
    return asking
  }

  /** Those that record more often than those that read: what is read must be there. */
  #operation(): Operation {
    const draw = this.#draw
    if (this.#known.sessions.length < 3) return operations.find(({ path }) => path.endsWith('sessions.start')) as Operation
    const posts = operations.filter(({ method }) => method === 'POST')
    // What sessions are about is most of what is asked for, however many routes there are beside.
    const common = posts.filter(({ path }) => path.includes('session'))
    return draw.pick(draw.chance(0.4) ? common : draw.chance(0.5) ? posts : operations)
  }

  #session() {
    const lately = this.#known.sessions.slice(-LATELY)
    const active = lately.filter((session) => session.active)
    return this.#draw.chance(0.85) && active.length > 0
      ? this.#draw.pick(active)
      : this.#draw.chance(0.9) && lately.length > 0
        ? this.#draw.pick(lately)
        : undefined
  }

  #named(name: string, session: Known['sessions'][number] | undefined): unknown {
    const draw = this.#draw
    if (name === 'user_id') return session && draw.chance(0.95) ? session.user_id : draw.pick(this.#known.users)
    if (name === 'session_id') return session?.session_id ?? 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
    if (name === 'key_id' && this.#known.keys.length > 0) return draw.pick(this.#known.keys.slice(-LATELY)).key_id
    if (name === 'performer_id') return draw.pick(['device-7', 'device-7', 'system', 'someone'])
    if (name === 'account_id') return draw.pick(this.#known.users)
    return undefined
  }

  #bodyFor({ path, body }: Operation, session: Known['sessions'][number] | undefined, named: (name: string) => unknown): unknown {
    const draw = this.#draw
    if (path.endsWith('/records')) {
      const record = () => {
        const { type, data } = draw.pick(downstream)
        const user_id = session?.user_id ?? draw.pick(this.#known.users)
        const own = type === 'x.open' ? `x.acme.${draw.pick(['gaze', 'mood-9', 'constructor'])}` : type
        return {
          type: own,
          source: draw.pick(['transcriber', 'landmarks', 'a.b']),
          user_id,
          performer_id: 'device-7',
          data: fitting(data, draw),
        }
      }
      return draw.chance(0.7) ? record() : Array.from({ length: 1 + draw.upTo(4) }, record)
    }
    const value = fitting(
      body as Schema,
      draw,
      path.endsWith('sessions.start') ? (name) => (name === 'user_id' ? draw.pick(this.#known.users) : named(name)) : named,
    ) as Json
    if (path.endsWith('sessions.start')) return startOf(value, draw)
    return value
  }

  #key(): string | undefined {
    const draw = this.#draw
    const { keys } = this.#known
    if (draw.chance(0.85) || keys.length === 0) return ADMIN
    return draw.chance(0.8)
      ? draw.pick(keys.slice(-LATELY)).secret
      : draw.pick([undefined, 'wrong', `sessile_${'A'.repeat(43)}`, '', 'a b'])
  }

  #nameOfRequest(): string {
    const { names } = this.#known
    if (names.length > 0 && this.#draw.chance(0.3)) return this.#draw.pick(names.slice(-LATELY))
    names.push(`name-${names.length}`)
    return names.at(-1) as string
  }

  // --- changing it ------------------------------------------------------------------------------------------------------

  #changeShape(asking: Asking): void {
    const draw = this.#draw
    const kinds = [
      ...(asking.operation.body ? ['drop', 'add', 'retype', 'text', 'text', 'number', 'long', 'deep', 'wide', 'wrap'] : []),
      ...(Object.keys(asking.path).length > 0 ? ['id', 'id'] : []),
      ...(asking.method === 'GET' ? ['parameter', 'parameter'] : []),
      ...(draw.chance(0.2) ? ['method', 'path', 'key', 'accept'] : []),
    ]
    const kind = draw.pick(kinds.length > 0 ? kinds : ['method', 'path', 'key'])
    asking.done.push(kind)
    if (kind === 'method')
      asking.method = draw.pick(['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'HEAD', 'OPTIONS', 'TRACE', 'PROPFIND'])
    else if (kind === 'path')
      asking.target = draw.pick([
        '/',
        '/api',
        '/api/v1/sessions/',
        '//api/v1/sessions',
        '/api/v1/../v1/sessions',
        '/%61pi/v1/sessions',
        '/api/v1/sessions?',
        '/API/V1/SESSIONS',
        '*',
        '/api/v1/sessions/%',
        '/api/v1/sessions/%ff',
        '/operator/settle',
        '/x\\y',
      ])
    else if (kind === 'key') asking.key = draw.pick([undefined, '', 'wrong', 'x'.repeat(5000)])
    else if (kind === 'accept')
      asking.headers.push(['accept', draw.pick(['application/x-ndjson', 'text/event-stream', '*/*', 'x'])])
    else if (kind === 'id') asking.path[draw.pick(Object.keys(asking.path))] = draw.pick(HOSTILE)
    else if (kind === 'parameter') this.#changeQuery(asking)
    else this.#changeValue(asking, kind)
  }

  #changeQuery({ query, operation }: Asking): void {
    const draw = this.#draw
    const names = operation.parameters.filter((parameter) => parameter.in === 'query').map(({ name }) => name)
    const name =
      names.length > 0 && draw.chance(0.8) ? draw.pick(names) : draw.pick(['__proto__', 'colour', '', 'constructor', 'limit[]'])
    const value = draw.pick([
      ...HOSTILE,
      '0',
      '1',
      '00',
      '1e2',
      '0x10',
      ' 5',
      '5.0',
      '9007199254740993',
      '2031-02-30',
      '2031-01-01T00:00:00.123456789012345Z',
    ])
    query.push([name, value])
    if (draw.chance(0.2)) query.push([name, value])
  }

  #changeValue(asking: Asking, kind: string): void {
    const draw = this.#draw
    if (kind === 'wrap')
      asking.value = draw.pick([[asking.value], [[asking.value]], [], null, 'text', 7, true, { value: asking.value }])
    const places = placesIn(asking.value)
    if (places.length === 0) return
    const place = draw.pick(places)
    if (kind === 'drop') place.drop()
    else if (kind === 'add') {
      const holder =
        draw.chance(0.5) && typeof place.value === 'object' && place.value !== null ? place.value : (asking.value as object)
      const name = draw.pick([...HOSTILE, 'seq', 'timestamp', 'record_id', 'salt', 'hash', 'kind'])
      Object.defineProperty(holder, name, {
        value: draw.pick([1, 'x', {}, null]),
        enumerable: true,
        configurable: true,
        writable: true,
      })
    } else if (kind === 'retype') place.put(draw.pick([null, true, 0, -1, 1.5, '', 'x', [], {}, [1], { a: 1 }]))
    else if (kind === 'text') place.put(draw.pick(HOSTILE))
    else if (kind === 'number') place.put(draw.pick([-0, 0, -1, 0.1, 1e-320, 1e308, 2 ** 53, 2 ** 53 - 1, -(2 ** 53), 1e21, 4096]))
    else if (kind === 'long') place.put(draw.pick(['x ', 'é', '😀 ', '\u0000']).repeat(draw.pick([100, 5000, 60_000])))
    else if (kind === 'deep') place.put(nested(draw.pick([5, 28, 29, 30, 31, 32, 33, 200])))
    else if (kind === 'wide') place.put(Array.from({ length: draw.pick([100, 5000, 10_000, 10_001]) }, () => draw.pick(['', 'y'])))
  }

  #print(asking: Asking): void {
    const { operation, path, query, key, value } = asking
    if (asking.target === '') {
      const filled = operation.path.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(wellFormed(path[name] ?? '')))
      const asked = query.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(wellFormed(value))}`).join('&')
      asking.target = asked === '' ? filled : `${filled}?${asked}`
    }
    if (key !== undefined) asking.headers.push(['authorization', `Bearer ${key}`])
    if (value !== undefined && asking.method !== 'GET') {
      asking.body = Buffer.from(JSON.stringify(value))
      asking.headers.push(['content-type', 'application/json'])
    }
    asking.unfit =
      isRouted(asking) &&
      ((operation.bodyFits !== undefined && !operation.bodyFits(value)) ||
        unfitQuery(operation, query) ||
        unfitPath(operation, path))
  }

  #changeWire(asking: Asking): void {
    const draw = this.#draw
    const { body } = asking
    const kind = draw.pick([
      'cut',
      'flip',
      'garbage',
      'twice',
      'mark',
      'type',
      'encoding',
      'pieces',
      'surrogate',
      'huge number',
      'headers',
      'lines',
    ])
    asking.done.push(kind)
    if (kind === 'headers')
      asking.headers.push(
        draw.pick([
          ['x-request-id', 'x y'],
          ['idempotency-key', draw.pick(['', 'ok', 'é', 'x'.repeat(256), 'a b'])],
          ['x-long', 'y'.repeat(9000)],
          ['last-event-id', '-1'],
          ['content-type', 'text/plain'],
        ]),
      )
    if (!body || body.length < 3) return
    const place = draw.upTo(body.length - 2)
    const withBody = (bytes: Buffer) => Object.assign(asking, { body: bytes, unfit: false })
    if (kind === 'cut') withBody(body.subarray(0, place))
    else if (kind === 'flip') withBody(Buffer.from(body.map((byte, i) => (i === place ? byte ^ (1 << draw.upTo(7)) : byte))))
    else if (kind === 'garbage') withBody(Buffer.from(Array.from({ length: draw.upTo(300) }, () => draw.upTo(255))))
    else if (kind === 'mark') withBody(Buffer.concat([Buffer.from('\ufeff'), body]))
    else if (kind === 'twice') replaceText(asking, /"(\w+)":/, '"$1":0,"$1":')
    else if (kind === 'surrogate') replaceText(asking, /:"/, draw.pick([':"\\ud800', ':"\\udc00', ':"\\ud800\\u0041']))
    else if (kind === 'huge number')
      replaceText(asking, /":-?\d[\d.e+-]*/, draw.pick(['":1e400', '":9007199254740993', '":1e-400', '":-1e999']))
    else if (kind === 'type')
      this.#retype(
        asking,
        draw.pick(['text/plain', '', 'application/jsonx', 'application/json; charset=latin1', 'multipart/form-data']),
      )
    else if (kind === 'encoding') {
      asking.headers.push(['content-encoding', draw.pick(['gzip', 'br', 'deflate', 'identity', ''])])
      asking.unfit = true
    } else if (kind === 'pieces') asking.pieces = draw.pick([2, 7, 100])
    else if (kind === 'lines' && asking.operation.path.endsWith('/records')) {
      const { unfit } = asking
      this.#retype(asking, 'application/x-ndjson')
      asking.unfit = unfit
    }
  }

  #retype(asking: Asking, type: string): void {
    asking.headers = asking.headers.filter(([name]) => name !== 'content-type')
    if (type !== '') asking.headers.push(['content-type', type])
    asking.unfit = !type.startsWith('application/x-ndjson')
  }

  // --- sending it -------------------------------------------------------------------------------------------------------

  #send({ method, target, headers, body, pieces }: Asking): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const { hostname, port } = new URL(this.#running.url)
      const flat = headers.filter(([, value]) => /^[\t\x20-\x7e\x80-\xff]*$/.test(value)).flat()
      flat.push('host', `${hostname}:${port}`)
      if (body) flat.push(...(pieces > 1 ? ['transfer-encoding', 'chunked'] : ['content-length', String(body.length)]))
      const sent = request({ hostname, port, method, path: target, headers: flat, agent: this.#agent, setHost: false })
      sent.on('error', reject)
      sent.on('response', (reply) => {
        let text = ''
        reply.setEncoding('utf8')
        reply.on('data', (piece) => {
          text += piece
          // A stream that follows has no end: it is let go when it has caught up.
          if (reply.headers['content-type'] === 'text/event-stream' && text.includes('event: caught-up')) {
            resolve({ status: reply.statusCode ?? 0, headers: reply.headers, text })
            sent.destroy()
          }
        })
        reply.on('error', () => {})
        reply.on('end', () => resolve({ status: reply.statusCode ?? 0, headers: reply.headers, text }))
      })
      if (body) {
        const size = Math.ceil(body.length / pieces)
        for (let i = 0; i < body.length; i += size) sent.write(body.subarray(i, i + size))
      }
      sent.end()
    })
  }

  // --- judging the answer -----------------------------------------------------------------------------------------------

  #judge(asking: Asking, { status, headers, text }: Reply): string | undefined {
    if (status >= 500) return 'an answer of 5xx'
    if (status < 200 || (status > 299 && status < 400)) return 'an answer that is none'
    for (const name of [...EVERYWHERE, ...(status === 503 || status === 429 ? ['retry-after'] : [])])
      if (headers[name] === undefined) return `an answer without ${name}`
    const routed = isRouted(asking)
    if (asking.method === 'HEAD') return text === '' ? undefined : 'a body where only the head was asked for'
    return status >= 400
      ? this.#judgeRefusal(asking, status, headers, text, routed)
      : this.#judgeSuccess(asking, status, headers, text, routed)
  }

  /** What is refused is recorded in the trail alone, and there once; so is what was asked. What is recorded is not told besides. */
  #judgeTrail(asking: Asking, { status, headers, text }: Reply, grown: readonly Line[]): string | undefined {
    const [told, recorded] = [grown.filter(isOfTrail), grown.filter((line) => !isOfTrail(line))]
    const name = Buffer.from(`"request_id":"${headers['x-request-id']}"`)
    if (status >= 400 && recorded.length > 0) return 'a refused request was recorded'
    if (!told.every(({ bytes }) => String(bytes).includes(String(name)))) return 'the trail tells of another request'
    // What was no request of HTTP, or asked for another address, may have come to no route.
    if (!isRouted(asking) || UNROUTED.test(text)) return told.length > 1 ? 'the trail tells of one request twice' : undefined
    const refusals = text.match(/"urn:sessile:problem:/g)?.length ?? 0
    const due = status >= 400 ? 1 : isQuestion(asking.operation) ? 1 : refusals
    return told.length === due ? undefined : `the trail has ${told.length} records of it, and not ${due}`
  }

  #judgeSuccess(asking: Asking, status: number, headers: IncomingHttpHeaders, text: string, routed: boolean): string | undefined {
    // In a stream, each line is refused by a line. One that was taken is answered with the record, whose id comes first.
    const type = headers['content-type'] ?? ''
    const lines = type === 'application/x-ndjson' && asking.method === 'POST'
    if (asking.unfit && (!lines || /^\{"record_id"/m.test(text))) return 'what does not fit the contract was taken'
    if (!routed) return undefined
    const declared = asking.operation.answers.get(status)
    if (!declared) return 'a status that is not declared'
    if (type === 'application/x-ndjson') return lines ? judgeLines(text) : undefined
    if (type === 'text/event-stream') return judgeEvents(text)
    const body: Json = JSON.parse(text)
    if (!declared.fits?.(body)) return `an answer that does not fit: ${ajv.errorsText(declared.fits?.errors)}`
    this.#learn(asking, body)
    return undefined
  }

  #judgeRefusal(
    { operation }: Asking,
    status: number,
    headers: IncomingHttpHeaders,
    text: string,
    routed: boolean,
  ): string | undefined {
    if (headers['content-type'] !== 'application/problem+json') return 'a refusal that is no problem'
    const problem: Json = JSON.parse(text)
    const fits: boolean = problemFits(problem)
    if (!fits || problem.status !== status) return `a problem that does not fit: ${ajv.errorsText(problemFits.errors)}`
    this.told.byReason[problem.reason] = (this.told.byReason[problem.reason] ?? 0) + 1
    if (text.length > 20_000) return 'a refusal that is longer than it need be'
    if (!routed && ['no-such-route', 'method-not-allowed'].includes(problem.reason)) return undefined
    // Another address may have been asked than the one that was drawn: then some operation must have declared it.
    const possible = routed ? [operation] : operations
    const declared = possible.some(({ answers }) => answers.get(status)?.reasons?.includes(problem.reason))
    return declared ? undefined : `a reason that is not declared for ${status}`
  }

  #learn({ operation: { path }, key, value }: Asking, body: Json): void {
    const { sessions, keys } = this.#known
    if (path.endsWith('sessions.start') && !sessions.some(({ session_id }) => session_id === body.session_id))
      sessions.push({ session_id: body.session_id, user_id: body.user_id, kind: body.kind, active: true })
    if (path.endsWith('sessions.end')) {
      const ended = sessions.find(({ session_id }) => session_id === body.session_id)
      if (ended) ended.active = false
    }
    if (path === '/api/v1/keys' && body.secret !== undefined && key !== undefined && value !== undefined)
      keys.push({ key_id: body.key_id, secret: body.secret, works: true })
  }
}

const isOfTrail = ({ log }: Line) => log.startsWith('audit/')
const isQuestion = ({ method, path }: Operation) => features.queries.some(({ at }) => at === `${method} ${path}`)
const UNROUTED = /^\{"type":"urn:sessile:problem:(headers-too-large|headers-too-slow|not-http)"/

/** Does it ask for the operation that was drawn, or for another address or by another method? */
const isRouted = ({ method, operation, done, path }: Asking) =>
  method === operation.method && !done.includes('path') && Object.values(path).every((step) => !['', '.', '..'].includes(step))

/** A start names attributes of its own kind alone, which the schema cannot say. */
function startOf(value: Json, draw: Draw): Json {
  const own: Record<string, string[]> = {
    capture: ['is_training_data', 'training_intent_label', 'session_notes'],
    voice: ['counselor_category', 'room_name'],
    video: ['counselor_category', 'room_name'],
    therapy: ['language', 'session_date'],
    workflow: ['site_name', 'site_description', 'project_key', 'llm_provider_choice'],
  }
  const kind = value.kind ?? draw.pick([undefined, 'therapy', 'workflow'])
  const mine = [...(own[kind ?? 'capture'] ?? []), 'source', 'user_id', 'performer_id']
  return { ...Object.fromEntries(Object.entries(value).filter(([name]) => mine.includes(name))), ...(kind ? { kind } : {}) }
}

const nested = (depth: number): unknown => {
  let value: unknown = 1
  for (let i = 0; i < depth; i++) value = i % 2 ? [value] : { a: value }
  return value
}

const wellFormed = (text: string) => text.replace(/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g, '')

function replaceText(asking: Asking, what: RegExp, by: string): void {
  const text = asking.body?.toString() ?? ''
  const changed = text.replace(what, by)
  if (changed === text) return
  asking.body = Buffer.from(changed)
  asking.unfit = true
}

function unfitQuery({ parameters, method }: Operation, query: [string, string][]): boolean {
  if (method !== 'GET') return false
  const names = query.map(([name]) => name)
  if (new Set(names).size < names.length) return true
  return query.some(([name, value]) => {
    const schema = parameters.find((parameter) => parameter.in === 'query' && parameter.name === name)?.schema
    if (!schema) return true
    const whole = schema.type === 'integer' && /^-?\d{1,15}$/.test(value)
    return !ajv.validate(schema as object, whole ? Number(value) : value)
  })
}

const unfitPath = ({ parameters }: Operation, path: Record<string, string>) =>
  parameters.some(({ in: where, name, schema }) => where === 'path' && !ajv.validate(schema as object, path[name] ?? ''))

const reasonsOfLines = new Set(
  [
    ...(operations.find(({ method, path }) => method === 'POST' && path.endsWith('/records')) as Operation).answers.values(),
  ].flatMap(({ reasons = [] }) => reasons),
)

function judgeLines(text: string): string | undefined {
  for (const line of text.split('\n').filter((line) => line !== '')) {
    const answer: Json = JSON.parse(line)
    // A line may be an array, which is recorded whole or not at all.
    if ((answer[0] ?? answer).record_id === undefined && !reasonsOfLines.has(answer.reason))
      return `a line that is neither a record nor a refusal: ${line.slice(0, 200)}`
    if (answer.status >= 500) return 'a line of 5xx'
  }
  return undefined
}

function judgeEvents(text: string): string | undefined {
  for (const event of text.split('\n\n').filter((event) => event !== '' && !event.startsWith(':'))) {
    const fields = event.split(/\r\n|\n|\r/)
    if (!fields.every((field) => /^(?:id: \d+|event: [a-z-]+|data: .*)$/s.test(field)))
      return `a stream that is broken by what it holds: ${event.slice(0, 200)}`
    const data = fields.find((field) => field.startsWith('data: '))?.slice(6)
    if (data === undefined) return 'an event without data'
    JSON.parse(data)
  }
  return undefined
}
