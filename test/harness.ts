// What the tests share: data directories that vanish, a Sessile in this process or in one of its own, callers with keys,
// and a way to see that not one byte of a log has changed.

import { type ChildProcess, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type Serving, serve } from '../src/app.ts'
import type { Config } from '../src/config.ts'
import { type Source, systemSource } from '../src/core/ids.ts'
import { HEADER, lastByte, readFrame } from '../src/log/frame.ts'
import type { Opening } from '../src/open.ts'
import { ADMIN, configOf } from './config.ts'

export { ADMIN, configOf }

const clean: (() => Promise<void> | void)[] = []

/** Called after each test. */
export async function tidy(): Promise<void> {
  for (const undo of clean.splice(0).reverse()) await undo()
}

/** Done after the test, whatever comes of it. */
export const later = (undo: () => Promise<void> | void) => void clean.push(undo)

/** Copies a data directory as it lies. Only a copy that may leave things out keeps the modes of folders on every Node. */
export function copyHome(from: string, to: string): void {
  cpSync(from, to, { recursive: true, filter: () => true })
}

export function makeHome(): string {
  const home = realpathSync(mkdtempSync(join(tmpdir(), 'sessile-')))
  later(() => rmSync(home, { recursive: true, force: true }))
  return home
}

/** A clock that stands still until it is moved: set, while no time passes, or left to go on as time passes. */
export function clockAt(time: string): Source & { move: (seconds: number) => void; pass: (seconds: number) => void } {
  let now = Date.parse(time)
  let passed = 0
  const move = (seconds: number) => {
    now += seconds * 1000
  }
  return {
    ...systemSource(),
    now: () => now,
    passed: () => passed,
    move,
    pass: (seconds) => {
      move(seconds)
      passed += seconds * 1000
    },
  }
}

export interface Reply {
  status: number
  // Answers are JSON that the tests look into; their shape is what is being tested.
  body: Json
  headers: Headers
}
// biome-ignore lint/suspicious/noExplicitAny: a test looks into an answer whose shape it asserts
export type Json = any

/** Somebody with an account, signed in. */
export type SignedIn = Client & Record<'account_id' | 'signin_id' | 'refresh_token' | 'name', string>
export const PASSWORD = 'a password that nobody guesses'
let accountsMade = 0

/** Somebody with a key or an access token, at a door. */
export class Client {
  readonly url: string
  readonly key: string | undefined
  constructor(url: string, key: string | undefined) {
    this.url = url
    this.key = key
  }

  raw(method: string, path: string, init: RequestInit & { duplex?: 'half' } = {}): Promise<Response> {
    const headers = new Headers(init.headers)
    if (this.key !== undefined) headers.set('authorization', `Bearer ${this.key}`)
    return fetch(this.url + path, { ...init, method, headers })
  }

  async send(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Reply> {
    const init =
      body === undefined ? { headers } : { body: JSON.stringify(body), headers: { 'content-type': 'application/json', ...headers } }
    const response = await this.raw(method, path, init)
    return { status: response.status, headers: response.headers, body: await response.json() }
  }

  get = (path: string, headers?: Record<string, string>) => this.send('GET', path, undefined, headers)
  post = (path: string, body: unknown, headers?: Record<string, string>) => this.send('POST', path, body, headers)

  start = (more: object = {}, headers?: Record<string, string>) =>
    this.post('/session_manager/sessions.start', { user_id: 'ada', performer_id: 'device-7', ...more }, headers)
  end = (more: object, headers?: Record<string, string>) =>
    this.post('/session_manager/sessions.end', { user_id: 'ada', performer_id: 'device-7', ...more }, headers)
  append = (session_id: string, records: unknown, headers?: Record<string, string>) =>
    this.post(`/api/v1/sessions/${session_id}/records`, records, headers)

  /** A key of its own, with this scope. */
  async device(scope: object = { users: 'all' }): Promise<Client & { key_id: string }> {
    const made = await this.post('/api/v1/keys', { account_id: 'device-7', ...scope })
    expect(made.status).toBe(201)
    return Object.assign(new Client(this.url, made.body.secret), { key_id: made.body.key_id as string })
  }

  /** Somebody invited by this caller, who has set a password and signed in. Of a patient, `account_id` is the user. */
  async account({ role = 'patient', ...who }: { role?: string; account_id?: string; name?: string } = {}): Promise<SignedIn> {
    const name = who.name ?? `${who.account_id ?? role}-${++accountsMade}@sessile.example`
    const made = await this.post('/api/v1/accounts', { role, ...who, name })
    expect(made.status).toBe(201)
    const anyone = new Client(this.url, undefined)
    expect((await anyone.post('/api/v1/invitations/accept', { token: made.body.token, password: PASSWORD })).status).toBe(200)
    return anyone.signIn(name)
  }

  async signIn(name: string, password = PASSWORD, more: object = {}): Promise<SignedIn> {
    const { status, body } = await this.post('/api/v1/sign-in', { name, password, ...more })
    expect(status).toBe(201)
    const { account_id, signin_id, refresh_token } = body
    return Object.assign(new Client(this.url, body.access_token), { account_id, signin_id, refresh_token, name })
  }
}

export const said = (text: string, more: object = {}) => ({
  type: 'transcript.said',
  source: 'transcriber',
  user_id: 'ada',
  performer_id: 'device-7',
  data: { speaker: 'user', text, at: '2031-05-02T09:30:00Z' },
  ...more,
})

/** The logs in a data directory are whole, and its views follow from them. */
export async function expectSound(home: string): Promise<void> {
  expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
  expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
}

/** A stream of records that is being sent: its lines one by one, each with what is answered to it. */
export function sendingLines(client: Client, session_id: string, headers: Record<string, string> = {}) {
  let sender: ReadableStreamDefaultController<Uint8Array> | undefined
  const body = new ReadableStream<Uint8Array>({
    start: (controller) => {
      sender = controller
    },
  })
  const init = { body, duplex: 'half' as const, headers: { 'content-type': 'application/x-ndjson', ...headers } }
  const answered = client.raw('POST', `/api/v1/sessions/${session_id}/records`, init)
  const reading = answered.then((response) =>
    (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader(),
  )
  const send = async (...lines: unknown[]): Promise<Json[]> => {
    sender?.enqueue(new TextEncoder().encode(lines.map((line) => `${JSON.stringify(line)}\n`).join('')))
    let text = ''
    for (let done = false; !done && text.split('\n').length <= lines.length; ) {
      const next = await (await reading).read()
      text += next.value ?? ''
      done = next.done
    }
    return text.split('\n').flatMap((line) => (line === '' ? [] : JSON.parse(line)))
  }
  /** Sends no more; was that all? */
  const end = async () => {
    sender?.close()
    return (await (await reading).read()).done
  }
  /** Is it over, although more could be sent? */
  const over = async () => (await (await reading).read()).done
  return { answered, send, end, over }
}

export interface Running extends Serving {
  home: string
  admin: Client
  anyone: Client
  /** Stops it and starts it again on the same data. */
  restart(): Promise<Running>
}

/** Sessile in this process, behind its real door. */
export async function run(
  home = makeHome(),
  more: Partial<Config> = {},
  source?: Source,
  parts: Partial<Opening> = {},
): Promise<Running> {
  const serving = await serve({ config: configOf(home, more), ...(source ? { source } : {}), ...parts })
  let stopped: Promise<void> | undefined
  const stop = () => {
    stopped ??= serving.stop()
    return stopped
  }
  later(stop)
  return {
    ...serving,
    stop,
    home,
    admin: new Client(serving.url, ADMIN),
    anyone: new Client(serving.url, undefined),
    restart: async () => {
      await stop()
      return run(home, more, source, parts)
    },
  }
}

/** A copy of a data directory as a crash at this moment would leave it: no checkpoint, and no farewell. */
export function crashedCopy(home: string): string {
  const copy = makeHome()
  copyHome(home, copy)
  for (const name of ['lock', 'holder.json']) rmSync(join(copy, 'logs', '.journal', name), { force: true })
  return copy
}

/**
 * Every byte under logs/ that a record could be in, the logs and the journal, save what the audit trail was told: that alone
 * grows with what is read and what is refused. Equal digests, equal bytes.
 */
export function logBytes({ home, sessile }: { home: string; sessile?: Running['sessile'] }): string {
  sessile?.log.settle()
  const digest = createHash('sha256')
  for (const file of filesUnder(join(home, 'logs'))) {
    if (/\.journal\/(lock|holder|room)|^audit\//.test(file)) continue
    const bytes = readFileSync(join(home, 'logs', file))
    digest.update(`${file}\n`)
    for (const piece of file.endsWith('.wal') ? withoutTrail(bytes) : [bytes]) digest.update(piece)
  }
  return digest.digest('hex')
}

/** A journal without the frames of the trail, what these move in the others, and the space kept ready behind the last. */
function* withoutTrail(bytes: Buffer): Generator<Buffer | string> {
  let at = HEADER
  yield bytes.subarray(0, at)
  for (let frame = readFrame(bytes, at, undefined); frame; frame = readFrame(bytes, at, undefined)) {
    const { log, offset, more, end } = frame
    if (!log.startsWith('audit/')) yield* [`${log} ${offset} ${more}\n`, frame.bytes]
    at = end
  }
  yield bytes.subarray(at, lastByte(bytes))
}

/** The records of the trail, as they lie in its files. */
export function trailOf({ home, sessile }: { home: string; sessile?: Running['sessile'] }): Json[] {
  sessile?.log.settle()
  const files = filesUnder(join(home, 'logs', 'audit'))
  return files.flatMap((file) => linesIn(join(home, 'logs', 'audit', file)))
}

export function filesUnder(folder: string, under = ''): string[] {
  if (!existsSync(join(folder, under))) return []
  return readdirSync(join(folder, under))
    .sort()
    .flatMap((name) => {
      const path = under === '' ? name : `${under}/${name}`
      return statSync(join(folder, path)).isDirectory() ? filesUnder(folder, path) : [path]
    })
}

/** Asserts that a request is refused just so, that nothing of it reached a log, and that the trail is told (`truth`: of another reason). */
export async function refused(
  running: Running,
  request: () => Promise<Reply>,
  status: number,
  reason: string,
  truth = reason,
): Promise<Json> {
  const before = logBytes(running)
  const reply = await request()
  expect({ status: reply.status, reason: reply.body.reason }).toEqual({ status, reason })
  expect(reply.headers.get('content-type')).toBe('application/problem+json')
  expect(reply.body).toMatchObject({
    type: `urn:sessile:problem:${reason}`,
    status,
    title: expect.any(String),
    detail: expect.any(String),
  })
  expect(logBytes(running)).toBe(before)
  const told = trailOf(running).filter(({ data }) => data.request_id === reply.body.request_id)
  const once = [['audit.refused', truth]]
  // Of those who ask too often it is told the first time.
  expect(status === 429 ? [[], once] : [isTold(status, reason) ? once : []]).toContainEqual(
    told.map(({ type, data }) => [type, data.reason]),
  )
  return reply.body
}

/** Is the trail told of such a refusal? Not where Sessile could not do its work, nor where no route was asked. */
const isTold = (status: number, reason: string) =>
  ![500, 503, 507].includes(status) && !['no-such-route', 'method-not-allowed'].includes(reason)

export const sessionFile = (home: string, session_id: string, user_id = 'ada') =>
  join(home, 'logs', 'users', user_id, 'sessions', `${session_id}.jsonl`)

export const linesIn = (file: string): Json[] =>
  readFileSync(file, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Json)

// --- Sessile as a process of its own ------------------------------------------------------------------------------------

const BIN = new URL('../src/sessile.cjs', import.meta.url).pathname

export interface Ran {
  code: number | null
  out: string
  err: string
}

/** Runs a verb of the command line to its end; `under`: the program that runs it. */
export function cli(home: string, args: string[], env: Record<string, string> = {}, under: string[] = []): Promise<Ran> {
  const [program, ...words] = [...under, process.execPath, BIN, ...args] as [string, ...string[]]
  const child = spawn(program, words, { env: { ...process.env, SESSILE_HOME: home, ...env } })
  child.stdout.setEncoding('utf8')
  child.stderr.setEncoding('utf8')
  return new Promise((resolve) => {
    const ran = { out: '', err: '' }
    child.stdout.on('data', (data) => {
      ran.out += data
    })
    child.stderr.on('data', (data) => {
      ran.err += data
    })
    child.on('close', (code) => resolve({ code, ...ran }))
  })
}

export interface Apart {
  child: ChildProcess
  url: string
  admin: Client
  out: () => string
  err: () => string
  /** Resolves with the exit code, or the signal that ended it. */
  ended: Promise<number | string | null>
}

/** Runs a program with so many files and connections at most. */
export const withFiles = (files: number) => ['sh', '-c', `ulimit -n ${files} && exec "$0" "$@"`]

/** Serves a data directory in a process of its own; `under`: the program that runs it. */
export async function serveApart(
  home: string,
  env: Record<string, string> = {},
  words: string[] = [],
  under: string[] = [],
  flags: string[] = [],
): Promise<Apart> {
  const [program, ...rest] = [...under, process.execPath, ...flags, BIN, 'serve', ...words] as [string, ...string[]]
  const child = spawn(program, rest, {
    env: { ...process.env, SESSILE_HOME: home, SESSILE_PORT: '0', SESSILE_ADMIN_KEY: ADMIN, ...env },
  })
  let [out, err] = ['', '']
  child.stdout.on('data', (data) => {
    out += data
  })
  child.stderr.on('data', (data) => {
    err += data
  })
  const ended = new Promise<number | string | null>((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)))
  later(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const url = await new Promise<string>((resolve, reject) => {
    const look = () => {
      const found = /on (http:\/\/\S+) \(documentation/.exec(err)
      if (found) resolve(found[1] as string)
    }
    child.stderr.on('data', look)
    void ended.then((code) => reject(new Error(`serve ended with ${code}: ${err}`)))
  })
  return {
    child,
    url,
    admin: new Client(url, env.SESSILE_ADMIN_KEY === '' ? undefined : ADMIN),
    out: () => out,
    err: () => err,
    ended,
  }
}
