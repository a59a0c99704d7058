// Requests that come whole are read in a way of their own. Nobody must be able to tell: whatever is sent is answered, and recorded, as
// it is when it comes in pieces, which Node's own parser puts together.

import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { connect, type Socket } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Config } from '../src/config.ts'
import { type Client, logBytes, type Running, run, said } from './harness.ts'

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const portOf = ({ url }: Running) => Number(new URL(url).port)

/** A connection, and what has come on it. */
class Line {
  readonly socket: Socket
  came = ''
  closed = false

  constructor(running: Running) {
    this.socket = connect({ port: portOf(running), host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    this.socket.on('data', (data) => {
      this.came += data.toString('latin1')
    })
    this.socket.on('error', () => {})
    this.socket.on('end', () => this.socket.end())
    this.socket.on('close', () => {
      this.closed = true
    })
  }

  send(text: string): void {
    this.socket.write(text, 'latin1')
  }

  get statuses(): number[] {
    return [...this.came.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status))
  }

  /** All that came but for what differs from one answer to the next. */
  get told(): string {
    return this.came
      .replace(/^(?:date|x-request-id): .*\r\n/gim, '')
      .replace(/"request_id":"[^"]*"/g, '"request_id":""')
      .split('\r\n\r\n')
      .map((part) => (part.startsWith('HTTP/') ? part.toLowerCase().split('\r\n').sort().join('\n') : part))
      .join('\n\n')
  }

  async until(what: (line: Line) => boolean): Promise<void> {
    const patience = performance.now() + 45_000
    while (!what(this)) {
      if (performance.now() > patience) throw new Error(`this alone has come: ${this.came}`)
      await wait(2)
    }
  }
}

type Header = [name: string, value: string]

interface Parts {
  first: string
  headers: Header[]
  body: string
  eol: string
}

const append = ({ key }: Client, session_id: string, name: string): Parts => ({
  first: `POST /api/v1/sessions/${session_id}/records HTTP/1.1`,
  headers: [
    ['Host', 'x'],
    ['Authorization', `Bearer ${key}`],
    ['Content-Type', 'application/json'],
    ['Idempotency-Key', name],
  ],
  body: JSON.stringify(said('Grüße')),
  eol: '\r\n',
})

/** `length`: what is said of the body's. */
const bytesOf = ({ first, headers, body, eol }: Parts, length: number | undefined) => {
  const lines = length === undefined ? headers : [...headers, ['Content-Length', String(length)]]
  return `${[first, ...lines.map(([name, value]) => `${name}: ${value}`), '', ''].join(eol)}${Buffer.from(body).toString('latin1')}`
}

/** Does the body end, by what the head says, before its last byte, so that another request would begin there? */
function endsEarly({ headers, body }: Parts, stated: number | undefined): boolean {
  const lengths = headers.filter(([name]) => name.toLowerCase() === 'content-length').map(([, length]) => Number(length))
  return (stated ?? lengths.at(-1) ?? Infinity) < Buffer.byteLength(body)
}

const wellFormed = (parts: Parts) => bytesOf(parts, Buffer.byteLength(parts.body))

/** How many requests Node's own parser has read since this was made. */
function readByNode(): { count: number; end: () => void } {
  const counted = { count: 0, end: () => unsubscribe('http.server.request.start', count) }
  const count = () => void counted.count++
  subscribe('http.server.request.start', count)
  return counted
}

const LAST = 'GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'

/** A device that has begun a session. */
async function talking(more: Partial<Config> = {}) {
  const running = await run(undefined, more)
  const device = await running.admin.device()
  return { running, device, session_id: (await device.start()).body.session_id as string }
}

type Length = 'all' | 'less' | 'more' | 'untold'

function lengthOf({ body }: Parts, told: Length): number | undefined {
  const whole = Buffer.byteLength(body)
  return { all: whole, less: Math.max(0, whole - 3), more: whole + 3, untold: undefined }[told]
}

/** Sends each of these in one piece and, on another connection, in two, and a last request at once or after the answer. */
async function inBothWays(running: Running, requests: string[], atOnce: boolean) {
  const recorded = async () => {
    await running.sessile.recorder.settle()
    return logBytes(running)
  }
  const begun = ({ came, closed }: Line) => came !== '' || closed
  const sent = requests.map((bytes) => ({
    whole: new Line(running),
    cut: new Line(running),
    bytes: bytes + (atOnce ? LAST : ''),
  }))
  for (const { whole, bytes } of sent) whole.send(bytes)
  for (const { whole } of sent) await whole.until(begun)
  const before = await recorded()
  for (const { cut, bytes } of sent) cut.send(bytes.slice(0, 1))
  await wait(25)
  for (const { cut, bytes } of sent) cut.send(bytes.slice(1))
  for (const { cut } of sent) await cut.until(begun)
  const again = (await recorded()) !== before
  const lines = sent.flatMap(({ whole, cut }) => [whole, cut])
  if (!atOnce) for (const line of lines) line.send(LAST)
  for (const line of lines) await line.until(({ closed }) => closed)
  /** `again`: was something recorded both times? */
  return { told: sent.map(({ whole, cut }) => [whole.told, cut.told] as const), again }
}

/** What is odd about a request, done to its parts. */
type Oddity = (parts: Parts) => Partial<Parts>

const more =
  (...added: Header[]): Oddity =>
  ({ headers }) => ({ headers: [...headers, ...added] })
const without =
  (left: string): Oddity =>
  ({ headers }) => ({ headers: headers.filter(([name]) => name.toLowerCase() !== left) })
const changed =
  (which: string, value: string): Oddity =>
  ({ headers }) => ({ headers: headers.map(([name, old]) => [name, name.toLowerCase() === which ? value : old]) })
const spelled =
  (spell: (name: string) => string): Oddity =>
  ({ headers }) => ({ headers: headers.map(([name, value]) => [spell(name), value]) })
const first =
  (from: string, to: string): Oddity =>
  (parts) => ({ first: parts.first.replace(from, to) })

const odd: Record<string, Oddity> = {
  'a header that nobody knows': more(['X-Odd', '1']),
  'a name of its own': more(['X-Request-ID', 'mine']),
  'names in small letters': spelled((name) => name.toLowerCase()),
  'names in capitals': spelled((name) => name.toUpperCase()),
  'another length': more(['Content-Length', '5']),
  'the same length twice': ({ headers, body }) => ({
    headers: [...headers, ['Content-Length', String(Buffer.byteLength(body))]],
  }),
  'a length with a sign': more(['Content-Length', '+5']),
  'chunks as well': more(['Transfer-Encoding', 'chunked']),
  'chunks of an odd kind': more(['Transfer-Encoding', 'xchunked']),
  'a space before a colon': more(['Transfer-Encoding ', 'chunked']),
  'a folded line': more(['X-Odd', '1\r\n Transfer-Encoding: chunked']),
  'a header without a name': more(['', '1']),
  'a header without a value': more(['Accept', '']),
  'blanks around a value': more(['Accept', ' \t*/* \t']),
  'a tab in a value': more(['User-Agent', 'a\tb']),
  'a zero in a value': more(['User-Agent', 'a\0b']),
  'a high byte in a value': more(['User-Agent', 'a\xe9b']),
  'a bare end of line in a value': more(['User-Agent', 'a\nTransfer-Encoding: chunked']),
  'a bare return in a value': more(['User-Agent', 'a\rb']),
  'two hosts': more(['Host', 'y']),
  'two keys': more(['Authorization', 'Bearer nobody']),
  'two types': more(['Content-Type', 'text/plain']),
  'two names': more(['Idempotency-Key', 'another']),
  'no host': without('host'),
  'no key': without('authorization'),
  'no type': without('content-type'),
  'another host': changed('host', 'example.org:99999'),
  'another key': changed('authorization', 'Bearer nobody'),
  'another type': changed('content-type', 'text/plain'),
  'a type with its charset': changed('content-type', 'application/json; charset=utf-8'),
  'a type with another charset': changed('content-type', 'application/json; charset=latin1'),
  'lines of JSON': changed('content-type', 'application/x-ndjson'),
  'an end of the connection': more(['Connection', 'close']),
  'a connection to be kept': more(['Connection', 'keep-alive']),
  'a connection to be kept or not': more(['Connection', 'keep-alive, close']),
  'an upgrade': more(['Upgrade', 'h2c'], ['Connection', 'upgrade']),
  'a body that is compressed': more(['Content-Encoding', 'gzip']),
  'another site': more(['Origin', 'https://evil.example'], ['Cookie', 'sessile-access=x']),
  'a hundred headers more': more(...Array.from({ length: 100 }, (_, i): Header => [`X-${i}`, '1'])),
  'a long header': more(['User-Agent', 'x'.repeat(5000)]),
  'what is waited for': more(['Expect', '100-continue']),
  'an older HTTP': first('1.1', '1.0'),
  'an HTTP that is none': first('1.1', '1.2'),
  'a method in small letters': first('POST', 'post'),
  'another method': first('POST', 'PUT'),
  'two spaces': first(' ', '  '),
  'a line before it': first('POST', '\r\nPOST'),
  'a whole URL': first('/', 'http://x/'),
  'another address': first('/api', '/apis'),
  'a step up': first('/sessions', '/users/../sessions'),
  'a step up where a name should be': ({ first }) => ({ first: first.replace(/sess_\w+/, '..') }),
  'an escape': first('/sessions', '/%73essions'),
  'a question': first(' HTTP', '?a=b HTTP'),
  'a fragment': first(' HTTP', '#a HTTP'),
  'a high byte in its address': first(' HTTP', '\xe9 HTTP'),
  'bare ends of lines': () => ({ eol: '\n' }),
  'a body that is no JSON': ({ body }) => ({ body: body.slice(1) }),
  'a field twice': ({ body }) => ({ body: body.replace('{', '{"type":"x",') }),
  'an empty body': () => ({ body: '' }),
  'many records': ({ body }) => ({ body: `[${Array(100).fill(body).join()}]` }),
}

/** After which nothing may follow on a connection. */
const LAST_ONES = ['an end of the connection', 'a connection to be kept or not', 'an upgrade', 'an older HTTP']

/** Of which nothing is known to have been asked for before, so that it is recorded anew. */
const UNNAMED = ['two names', 'lines of JSON']

describe('a request that comes whole', () => {
  it('is answered and recorded as one that comes in pieces, whatever it is', async () => {
    const { running, device, session_id } = await talking({ patience: 400 })
    const named = Object.keys(odd).filter((oddity) => !UNNAMED.includes(oddity))
    const requests = named.map((oddity, i) => {
      const parts = append(device, session_id, `name-${i}`)
      return wellFormed({ ...parts, ...odd[oddity]?.(parts) })
    })
    const { told, again } = await inBothWays(running, requests, false)
    expect(Object.fromEntries(named.map((oddity, i) => [oddity, told[i]?.[0]]))).toEqual(
      Object.fromEntries(named.map((oddity, i) => [oddity, told[i]?.[1]])),
    )
    expect(again).toBe(false)
  })

  it('is so whatever comes together', async () => {
    const { running, device, session_id } = await talking({ patience: 400 })
    let names = 0
    const drawn = fc.record({
      oddities: fc.subarray(Object.keys(odd), { maxLength: 2 }),
      length: fc.constantFrom<Length>('all', 'all', 'all', 'less', 'more', 'untold'),
      atOnce: fc.boolean(),
    })
    const property = fc.asyncProperty(drawn, async ({ oddities, length, atOnce }) => {
      // How much of an answer in pieces is out before what follows turns out to be nothing is a matter of time.
      fc.pre(!oddities.includes('lines of JSON') || (length === 'all' && oddities.length === 1))
      const parts = append(device, session_id, `name-${names++}`)
      for (const oddity of oddities) Object.assign(parts, odd[oddity]?.(parts))
      const stated = lengthOf(parts, length)
      const { told, again } = await inBothWays(running, [bytesOf(parts, stated)], atOnce)
      // What was taken was named, and is answered once more.
      if (!oddities.some((oddity) => UNNAMED.includes(oddity))) expect(again).toBe(false)
      // Where what follows at once is no request, it is a matter of time, too, which of the two is told first.
      const last = length === 'more' || oddities.some((oddity) => LAST_ONES.includes(oddity))
      if (!endsEarly(parts, stated) && !(atOnce && last)) expect(told[0]?.[0]).toBe(told[0]?.[1])
    })
    await fc.assert(property, { numRuns: 30 })
  })

  it('is read without Node’s parser, one after the other, until one comes that is not; then Node reads on', async () => {
    const { running, device, session_id } = await talking()
    const nodes = readByNode()
    const line = new Line(running)
    for (let i = 1; i <= 3; i++) {
      line.send(wellFormed(append(device, session_id, `n${i}`)))
      await line.until(({ statuses }) => statuses.length === i)
    }
    expect(nodes.count).toBe(0)
    line.send('GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n')
    await line.until(({ statuses }) => statuses.length === 4)
    line.send(wellFormed(append(device, session_id, 'n5')))
    await line.until(({ statuses }) => statuses.length === 5)
    nodes.end()
    expect(nodes.count).toBe(2)
    expect(line.statuses).toEqual([201, 201, 201, 200, 201])
    line.socket.destroy()
  })

  it('may be followed by others at once: they are answered in turn, each once', async () => {
    const { running, device, session_id } = await talking()
    const line = new Line(running)
    line.send(wellFormed(append(device, session_id, 'a')))
    await wait(0)
    line.send(wellFormed(append(device, session_id, 'b')) + wellFormed(append(device, session_id, 'c')))
    line.send(LAST)
    await line.until(({ closed }) => closed)
    expect(line.statuses).toEqual([201, 201, 201, 200])
    expect([...line.came.matchAll(/"seq":(\d+)/g)].map(([, seq]) => Number(seq))).toEqual([2, 3, 4])
  })

  it('may come in a few pieces, head and body, and still needs no other reader', async () => {
    const { running, device, session_id } = await talking()
    const nodes = readByNode()
    const line = new Line(running)
    const bytes = wellFormed(append(device, session_id, 'a'))
    const body = bytes.indexOf('\r\n\r\n') + 4
    for (const [from, to] of [[0, body] as const, [body, body + 9] as const, [body + 9] as const]) {
      line.send(bytes.slice(from, to))
      await wait(20)
    }
    await line.until(({ statuses }) => statuses.length === 1)
    nodes.end()
    expect([line.statuses, nodes.count]).toEqual([[201], 0])
    line.socket.destroy()
  })

  it('that comes in many pieces, or slowly, is read by Node', async () => {
    const { running, device, session_id } = await talking()
    const bytes = wellFormed(append(device, session_id, 'a'))
    const body = bytes.indexOf('\r\n\r\n') + 4
    const nodes = readByNode()
    for (const [pieces, pause] of [
      [[bytes.slice(0, body), ...bytes.slice(body)], 1],
      [[bytes.slice(0, body), bytes.slice(body)], 800],
    ] as const) {
      const line = new Line(running)
      for (const piece of pieces) {
        line.send(piece)
        await wait(pause)
      }
      await line.until(({ statuses }) => statuses.length === 1)
      expect(line.statuses).toEqual([201])
      line.socket.destroy()
    }
    nodes.end()
    expect(nodes.count).toBe(2)
  })

  it('of which the sender has closed its half is answered, and one that broke off is not', async () => {
    const { running, device, session_id } = await talking()
    const bytes = wellFormed(append(device, session_id, 'a'))
    const line = new Line(running)
    line.socket.end(bytes, 'latin1')
    await line.until(({ closed }) => closed)
    expect(line.statuses).toEqual([201])
    const before = logBytes(running)
    const broken = new Line(running)
    broken.socket.end(bytes.slice(0, -3), 'latin1')
    await broken.until(({ closed }) => closed)
    expect(broken.statuses).toEqual([400])
    expect(logBytes(running)).toBe(before)
  })
})

describe('a connection on which requests come whole', () => {
  it('is closed when nothing has come for as long as Node would wait, and not before', async () => {
    const { running, device, session_id } = await talking()
    const line = new Line(running)
    line.send(wellFormed(append(device, session_id, 'a')))
    await line.until(({ statuses }) => statuses.length === 1)
    const seconds = Number(/keep-alive: timeout=(\d+)/i.exec(line.came)?.[1])
    await wait(seconds * 1000 - 1000)
    expect(line.closed).toBe(false)
    await line.until(({ closed }) => closed)
    expect(line.statuses).toEqual([201])
  })

  it('on which nothing comes at all is told that it took too long', async () => {
    const running = await run(undefined, { patience: 300 })
    const line = new Line(running)
    await line.until(({ closed }) => closed)
    expect(line.statuses).toEqual([408])
  })

  it('does not keep Sessile from ending, and a request under way on it is answered first', async () => {
    const { running, device, session_id } = await talking()
    const [idle, busy] = [new Line(running), new Line(running)]
    idle.send(wellFormed(append(device, session_id, 'a')))
    await idle.until(({ statuses }) => statuses.length === 1)
    const decided = new Promise<void>((resolve) => {
      const { log } = running.sessile
      const write = log.write.bind(log)
      log.write = (lines) => {
        resolve()
        write(lines)
      }
    })
    busy.send(wellFormed(append(device, session_id, 'b')))
    await decided
    await running.stop()
    for (const line of [idle, busy]) await line.until(({ closed }) => closed)
    expect([idle.statuses, busy.statuses]).toEqual([[201], [201]])
  })

  it('goes on when answers are taken late, however short they are', async () => {
    const { running, device, session_id } = await talking()
    const line = new Line(running)
    const parts = append(device, session_id, 'a')
    // Shorter than what a stream would say of that it is full, and all together more than both ends hold.
    const bytes = wellFormed({ ...parts, body: `[${Array(40).fill(parts.body.replace('Grüße', 'x')).join()}]` })
    line.send(bytes)
    await line.until(({ statuses }) => statuses.length === 1)
    line.socket.pause()
    const asked = 1000
    for (let i = 1; i < asked; i++) {
      line.send(bytes)
      await wait(2)
    }
    line.socket.resume()
    await line.until(({ statuses }) => statuses.length === asked)
    expect(new Set(line.statuses)).toEqual(new Set([201]))
    line.socket.destroy()
  })

  it('is cut off where nobody takes a long answer', async () => {
    const { running, device, session_id } = await talking({ patience: 500 })
    const line = new Line(running)
    const parts = append(device, session_id, 'a')
    parts.body = `[${Array(400).fill(parts.body.replace('Grüße', 'x')).join()}]`
    const bytes = wellFormed(parts)
    line.send(bytes)
    await line.until(({ statuses }) => statuses.length === 1)
    line.socket.pause()
    const asked = 200
    line.send(bytes)
    await wait(50)
    for (let i = 1; i < asked; i++) line.send(bytes)
    await wait(2000)
    line.socket.resume()
    await line.until(({ closed }) => closed)
    expect(line.statuses.length).toBeLessThan(asked)
    line.socket.destroy()
  })
})
