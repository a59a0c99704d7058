// Crowds for the tests of load: many callers at once, slow ones, ones that vanish, and ones that follow a session and may
// stop reading. All speak over plain sockets, so that they can break off wherever they like.

import { readdirSync, readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { descriptors } from '../src/log/disk.ts'
import { ADMIN, type Apart, type Json, said } from './harness.ts'

export const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Asks again and again, for as long as a minute, until it is so. */
export async function until<T>(what: string, ask: () => T | Promise<T>, is: (found: T) => boolean): Promise<T> {
  let found = await ask()
  for (let i = 0; i < 600 && !is(found); i++) {
    await wait(100)
    found = await ask()
  }
  if (!is(found)) throw new Error(`${what}: ${JSON.stringify(found)}`)
  return found
}

/** Fails, and says what to do, where so many connections cannot be opened here and served by a process with the same limit. */
export function needConnections(count: number): void {
  const { most = Number.POSITIVE_INFINITY } = descriptors() ?? {}
  // A server keeps a quarter of them, or 1,024, for its files.
  const needed = count + Math.min(1024, Math.ceil(count / 3)) + 256
  if (most < needed)
    throw new Error(
      `${count} connections need ${needed} descriptors, and ulimit -n allows ${most}: raise it, or ask for fewer connections.`,
    )
}

export const descriptorsOf = ({ child }: Apart): number => readdirSync(`/proc/${child.pid}/fd`).length

/** Of the process, in MiB: what it has in memory now, and the most it ever had. */
export function memoryOf({ child }: Apart): { now: number; most: number } {
  const status = readFileSync(`/proc/${child.pid}/status`, 'utf8')
  const of = (name: string) => Number(new RegExp(`${name}:\\s+(\\d+) kB`).exec(status)?.[1]) / 1024
  return { now: of('VmRSS'), most: of('VmHWM') }
}

/** What the door says that it holds; asked with the token that only the owner of the files can read. */
export async function loadOf(home: string, url: string): Promise<Json> {
  const { token } = JSON.parse(readFileSync(join(home, 'logs', '.journal', 'holder.json'), 'utf8')) as { token: string }
  return (await askOnce(url, 'POST', '/operator/load', {}, token)).body
}

export function socketTo(url: string, options: { rcvbuf?: number } = {}): Promise<Socket> {
  const { port } = new URL(url)
  return new Promise((resolve, reject) => {
    const socket = connect({ port: Number(port), host: '127.0.0.1', ...options }, () => {
      socket.off('error', reject)
      // Breaking off is what some of these callers do.
      socket.on('error', () => {})
      resolve(socket)
    })
    socket.once('error', reject)
  })
}

export const head = (method: string, path: string, more: Record<string, string | number> = {}, version = '1.1') =>
  [
    `${method} ${path} HTTP/${version}`,
    'Host: x',
    ...Object.entries({ Authorization: `Bearer ${ADMIN}`, ...more }).map(([name, value]) => `${name}: ${value}`),
    '\r\n',
  ].join('\r\n')

export interface Answer {
  status: number
  headers: string
  body: Json
}

/** A caller on one connection that is kept open: one request after the other. */
export class KeptOpen {
  readonly #socket: Socket
  #came = ''
  #take: (() => void) | undefined
  closed = false

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8')
    socket.on('data', (data: string) => {
      this.#came += data
      this.#take?.()
    })
    socket.on('close', () => {
      this.closed = true
      this.#take?.()
    })
  }

  static async to(url: string): Promise<KeptOpen> {
    return new KeptOpen(await socketTo(url))
  }

  /** Undefined where the connection broke before an answer came. */
  async ask(method: string, path: string, body?: unknown, key = ADMIN): Promise<Answer | undefined> {
    const text = body === undefined ? '' : JSON.stringify(body)
    const about: Record<string, string | number> =
      body === undefined ? {} : { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }
    this.#socket.write(head(method, path, { Authorization: `Bearer ${key}`, ...about }) + text)
    for (;;) {
      const answer = this.#answer()
      if (answer) return answer
      if (this.closed) return undefined
      await new Promise<void>((resolve) => {
        this.#take = resolve
      })
    }
  }

  #answer(): Answer | undefined {
    const end = this.#came.indexOf('\r\n\r\n')
    if (end < 0) return undefined
    const headers = this.#came.slice(0, end)
    const length = Number(/content-length: (\d+)/i.exec(headers)?.[1] ?? 0)
    // All that these callers are answered is ASCII.
    if (this.#came.length < end + 4 + length) return undefined
    const body = this.#came.slice(end + 4, end + 4 + length)
    this.#came = this.#came.slice(end + 4 + length)
    return { status: Number(headers.slice(9, 12)), headers, body: body === '' ? undefined : JSON.parse(body) }
  }

  close(): void {
    this.#socket.destroy()
  }
}

/** One request on a connection of its own: one that is kept open may be closed just as it is used again. */
export async function askOnce(url: string, ...asked: Parameters<KeptOpen['ask']>): Promise<Answer> {
  const line = await KeptOpen.to(url)
  try {
    const answer = await line.ask(...asked)
    if (answer === undefined) throw new Error(`${asked[1]} was not answered`)
    return answer
  } finally {
    line.close()
  }
}

/** Follows a session, and keeps the ids and not the texts of what it hears. */
export class Follower {
  readonly ids: number[] = []
  /** What else it was told, such as that it had caught up. */
  readonly told: { event: string; data: Json }[] = []
  closed = false
  readonly #socket: Socket
  #rest = ''
  #headers = ''

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('latin1')
    socket.on('data', (data: string) => this.#hear(data))
    socket.on('close', () => {
      this.closed = true
    })
  }

  static async of(url: string, session_id: string, { after, key = ADMIN }: { after?: number; key?: string } = {}) {
    const follower = new Follower(await socketTo(url))
    const resume = { Authorization: `Bearer ${key}`, ...(after === undefined ? {} : { 'Last-Event-ID': after }) }
    // Under the older version an answer comes as it is, without the lengths of its chunks in between.
    follower.#socket.write(head('GET', `/api/v1/sessions/${session_id}/records?follow=1`, resume, '1.0'))
    return follower
  }

  get status(): number {
    return Number(this.#headers.slice(9, 12))
  }

  get caughtUp(): boolean {
    return this.told.some(({ event }) => event === 'caught-up')
  }

  #hear(data: string): void {
    this.#rest += data
    if (this.#headers === '') {
      const end = this.#rest.indexOf('\r\n\r\n')
      if (end < 0) return
      this.#headers = this.#rest.slice(0, end)
      this.#rest = this.#rest.slice(end + 4)
    }
    const end = this.#rest.lastIndexOf('\n\n')
    if (end < 0) return
    const blocks = this.#rest.slice(0, end).split('\n\n')
    this.#rest = this.#rest.slice(end + 2)
    for (const block of blocks) this.#event(block)
  }

  #event(block: string): void {
    const id = /^id: (\d+)\n/.exec(block)?.[1]
    if (id !== undefined) this.ids.push(Number(id))
    else if (!block.startsWith(':')) {
      const [, event = '', data = ''] = /^event: (\S+)\ndata: (.*)$/.exec(block) ?? []
      this.told.push({ event, data: JSON.parse(data) })
    }
  }

  stopReading(): void {
    this.#socket.pause()
  }

  readOn(): void {
    this.#socket.resume()
  }

  vanish(): void {
    this.#socket.resetAndDestroy()
  }

  leave(): void {
    this.#socket.destroy()
  }
}

/** Many followers, let in some at a time: more would overflow the queue of those who wait at the door. */
export async function followers(count: number, url: string, session_id: string): Promise<Follower[]> {
  const all: Follower[] = []
  while (all.length < count) {
    const some = await Promise.all(Array.from({ length: Math.min(100, count - all.length) }, () => Follower.of(url, session_id)))
    await until(
      'followers have not caught up',
      () => some.filter((one) => !one.caughtUp).length,
      (left) => left === 0,
    )
    all.push(...some)
  }
  return all
}

export const numbers = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => from + i)

/** A record so long, in words: what looks like bytes would be refused. */
export const long = (length: number, more: object = {}) =>
  said('', { type: 'x.acme.note', data: { text: 'some words '.repeat(Math.ceil(length / 11)).slice(0, length) }, ...more })

// --- what the suites do, with numbers of their own -----------------------------------------------------------------------

const NDJSON = { 'Content-Type': 'application/x-ndjson', 'Transfer-Encoding': 'chunked' }
const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`

/** What a caller may be in the middle of when it vanishes. `note` ends up in the log whole, or not at all. */
export const vanishings: Record<string, (session_id: string, note: string) => string[]> = {
  'in its headers': (id) => [`POST /api/v1/sessions/${id}/records HTTP/1.1\r\nHost: x\r\nAuth`],
  'in an object': (id, note) => [posting(id, said(note)).slice(0, -20)],
  'in an array': (id, note) => [posting(id, [said(`${note}/0`), said(`${note}/1`), said(`${note}/2`)]).slice(0, -20)],
  'before its answer': (id, note) => [posting(id, [said(`${note}/0`), said(`${note}/1`), said(`${note}/2`)])],
  'in a line of a stream': (id, note) => [
    head('POST', `/api/v1/sessions/${id}/records`, NDJSON) + chunk(`${JSON.stringify(said(`${note}/0`))}\n`),
    chunk(JSON.stringify(said(`${note}/1`)).slice(0, -20)),
  ],
  'in a line that looks whole': (id, note) => [
    head('POST', `/api/v1/sessions/${id}/records`, NDJSON),
    chunk(JSON.stringify(said(`${note}/0`)).replace('}}', '}')),
  ],
  'in an export': (id) => [head('GET', `/api/v1/sessions/${id}/records`, { Accept: 'application/x-ndjson' })],
  'in a long page': (id) => [head('GET', `/api/v1/sessions/${id}/records?limit=10000`)],
  'while following': (id) => [head('GET', `/api/v1/sessions/${id}/records?follow=1`)],
  'after asking for the headers of a stream': (id) => [head('HEAD', `/api/v1/sessions/${id}/records?follow=1`)],
}

function posting(session_id: string, body: unknown): string {
  const text = JSON.stringify(body)
  const about = { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) }
  return head('POST', `/api/v1/sessions/${session_id}/records`, about) + text
}

/** So many callers send what they are in the middle of, and vanish: half of them with a farewell, half without. */
export async function vanish(url: string, pieces: (i: number) => string[], count: number): Promise<void> {
  const sockets = await Promise.all(Array.from({ length: count }, () => socketTo(url)))
  await Promise.all(
    sockets.map(async (socket, i) => {
      for (const piece of pieces(i)) {
        socket.write(piece)
        await wait(10 + (i % 5) * 10)
      }
      if (i % 2 === 0) socket.resetAndDestroy()
      else socket.destroy()
    }),
  )
}

/** Everything of a session's log, page by page. */
export async function everything({ url }: { url: string }, session_id: string): Promise<Json[]> {
  const records: Json[] = []
  let after: number | null = 0
  while (after !== null) {
    const { status, body }: Answer = await askOnce(url, 'GET', `/api/v1/sessions/${session_id}/records?limit=10000&after=${after}`)
    if (status !== 200) throw new Error(JSON.stringify(body))
    records.push(...body.records)
    after = body.next_after
  }
  return records
}
