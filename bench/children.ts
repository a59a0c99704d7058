// The children that the benchmarks start: servers, callers and whole commands, each a process of its own, and what the
// operating system says of their memory.

import { type ChildProcess, fork, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

export interface Server {
  readonly pid: number
  readonly port: number
  /** The secret of a device's key that reaches all users. */
  readonly key: string
  /** That of somebody who may read all of it, as no device may. */
  readonly reader: string
  /** Has the server do something from within. */
  ask<T>(verb: string, input?: object): Promise<T>
  stop(): Promise<void>
}

const LOAD = new URL('../src/load.cjs', import.meta.url)

const COMMAND = fileURLToPath(new URL('../src/sessile', import.meta.url))

/** What V8 is told where Sessile is started. */
const { scripts } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as { scripts: { start: string } }
const FLAGS = scripts.start.match(/--\S+/g) ?? []

/** Sessile in a child, on this data directory. */
export async function sessileServer(home: string): Promise<Server> {
  const opened = await server(LOAD, [fileURLToPath(new URL('./serve.ts', import.meta.url)), home], ['--expose-gc', ...FLAGS])
  return { ...opened, key: await deviceKey(opened) }
}

export const echoServer = (): Promise<Server> => server(new URL('./echo.mjs', import.meta.url), [], [])

/** Asked for from here: what Node loads and compiles for whoever fetches is no memory of the server's. */
async function deviceKey({ port, reader }: Server): Promise<string> {
  const made = await fetch(`http://127.0.0.1:${port}/api/v1/keys`, {
    method: 'POST',
    headers: { authorization: `Bearer ${reader}`, 'content-type': 'application/json' },
    body: JSON.stringify({ account_id: 'device-7', users: 'all' }),
  })
  return ((await made.json()) as { secret: string }).secret
}

async function server(file: URL, args: string[], execArgv: string[]): Promise<Server> {
  const child = fork(fileURLToPath(file), args, { execArgv })
  const waiting = new Map<number, { done: (answer: unknown) => void; failed: (error: Error) => void }>()
  let asked = 0
  const ready = new Promise<{ port: number; reader: string }>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`a server ended with ${code}`)))
    child.once('message', resolve as (message: unknown) => void)
  })
  const { port, reader } = await ready
  child.on('message', ({ id, answer, error }: { id: number; answer: unknown; error?: string }) => {
    if (error === undefined) waiting.get(id)?.done(answer)
    else waiting.get(id)?.failed(new Error(error))
    waiting.delete(id)
  })
  const ask = (verb: string, input: object = {}) =>
    new Promise((done, failed) => {
      waiting.set(++asked, { done, failed })
      child.send({ id: asked, verb, input })
    })
  const stop = async () => {
    const gone = once(child, 'exit')
    child.disconnect()
    await gone
  }
  return { pid: child.pid as number, port, key: 'none', reader, ask: ask as Server['ask'], stop }
}

export interface Load {
  connections: number
  seconds: number
  /** Seconds before those that count. */
  warm?: number
  /** Requests a second; as many as are answered, where there is none. */
  rate?: number
  requests: { path: string; body: string }[]
  /** Does each request carry a name of its own? */
  named?: boolean
  /** Are refusals told, rather than the end of it? */
  mayRefuse?: boolean
  /** Called when those seconds begin. */
  counting?: () => void
}

export interface Latencies {
  refused: number
  rate: number
  p50: number
  p99: number
  'p99.9': number
}

/** Calls a server from another process and tells the percentiles of the latency, in milliseconds. */
export async function call({ port, key }: Server, { warm = 0.2, mayRefuse = false, counting, ...load }: Load): Promise<Latencies> {
  const latencies = JSON.parse(await fed('./paced.mjs', { port, key, warm, ...load }, counting)) as Latencies
  if (latencies.refused > 0 && !mayRefuse) throw new Error(`${latencies.refused} requests were refused`)
  return latencies
}

/** Runs one of our scripts, with its instructions on stdin, and returns what it said; `speaks`: called when it first says something. */
export async function fed(file: string, instructions: object, speaks = () => {}): Promise<string> {
  const child = scripted(file, instructions)
  child.stdout?.once('data', speaks)
  const [said, [code]] = await Promise.all([text(child.stdout as NodeJS.ReadableStream), once(child, 'exit')])
  if (code !== 0) throw new Error(`${file} ended with ${code}`)
  return said
}

export function scripted(file: string, instructions: object): ChildProcess {
  const child = spawn(process.execPath, [fileURLToPath(new URL(file, import.meta.url))], { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.end(JSON.stringify(instructions))
  return child
}

/** `sessile VERB` as its users call it; its output goes nowhere unless something else is said. */
export const sessileVerb = (home: string, words: string[], stdio: SpawnOptions['stdio'] = 'ignore'): ChildProcess =>
  spawn(COMMAND, words, { stdio, env: { ...process.env, PATH, SESSILE_HOME: home } })

/** With the Node that runs this. */
const PATH = `${dirname(process.execPath)}:${process.env.PATH}`

/** The same, as a word of a shell's pipeline. */
export const sessileWords = `PATH="${PATH}" "${COMMAND}"`

export async function ended(child: ChildProcess, what: string): Promise<void> {
  const [code] = child.exitCode === null ? await once(child, 'exit') : [child.exitCode]
  if (code !== 0) throw new Error(`${what} ended with ${code}`)
}

/** What a process holds in memory and the most it ever held, in bytes; nothing where the system does not say, or where it has ended. */
export function memoryOf(pid: number): { resident: number; peak: number } | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1')
    const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024
    const held = { resident: kib('VmRSS'), peak: kib('VmHWM') }
    return Number.isNaN(held.peak) ? undefined : held
  } catch {
    return undefined
  }
}

/** Goes to the end of a rebuild in a process of its own; returns the most that it held in memory, in bytes. */
export async function heldByRebuild(home: string): Promise<number> {
  const child = sessileVerb(home, ['rebuild'])
  let most = 0
  // What a process held at most is gone with it, so it is asked until then.
  const clock = setInterval(() => {
    most = Math.max(most, memoryOf(child.pid as number)?.peak ?? 0)
  }, 10)
  await ended(child, 'rebuild')
  clearInterval(clock)
  return most
}
