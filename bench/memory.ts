// How much memory does Sessile hold: at rest, at work, for each session and each watcher, and while it rebuilds? Against
// Hono's echo, in the same run. Every server and command is a fresh process in each round, asked of the operating system.

import { readFileSync } from 'node:fs'
import { scheduler } from 'node:timers/promises'
import { call, echoServer, heldByRebuild, memoryOf, type Server, scripted, sessileServer } from './children.ts'
import { leaveOut, type Row, rowsOf, scratch } from './measure.ts'
import { requestsTo, type Session } from './sessile.ts'

const MIB = 2 ** 20
const CONNECTIONS = 64
const TALKING = 200
/** What is kept of late sessions and of the views' pages is bounded; what each session holds is seen beyond those bounds only. */
const BEYOND_CACHES = 160_000

interface Held {
  heapUsed: number
  external: number
  rss: number
}
type Figures = Map<string, number[]>
type Effort = { rounds: number; seconds: number; full: boolean }

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  if (!memoryOf(process.pid)) {
    leaveOut('memory: this system has no /proc, so nobody says what a process holds')
    return []
  }
  const full = seconds > 1
  const effort = { rounds: full ? 3 : Math.min(rounds, 2), seconds: full ? seconds * 3 : 1.2, full }
  return [...(await serving(effort)), ...(await perSession(effort)), ...(await watching(effort)), ...(await rebuilding(effort))]
}

function note(figures: Figures, name: string, figure: number): void {
  figures.set(name, [...(figures.get(name) ?? []), figure])
}

// --- at rest and at work ----------------------------------------------------------------------------------------------

async function serving({ rounds, seconds }: Effort): Promise<Row[]> {
  const idle: Figures = new Map()
  const saturated: Figures = new Map()
  const peak: Figures = new Map()
  const watched = async (name: string, server: Server, requests: { path: string; body: string }[], named = false) => {
    await scheduler.wait(300)
    note(idle, name, resident(server).resident / MIB)
    const work = call(server, { connections: CONNECTIONS, seconds, requests, named })
    const seen: number[] = []
    const clock = setInterval(() => seen.push(resident(server).resident / MIB), 100)
    await work
    clearInterval(clock)
    // The second half: by then what is loaded once has been loaded, and the heap has grown to what it needs.
    const late = seen.slice(seen.length >> 1).sort((a, b) => a - b)
    note(saturated, name, late[late.length >> 1] as number)
    note(peak, name, resident(server).peak / MIB)
    await server.stop()
  }
  for (let round = 0; round < rounds; round++) {
    await watched('Hono echo', await echoServer(), requestsTo([{ user_id: 'u1', session_id: 's' }]))
    for (const named of [false, true]) {
      const { path, remove } = scratch()
      const server = await sessileServer(path)
      const requests = requestsTo(await server.ask<Session[]>('begin', { sessions: TALKING }))
      await watched(named ? 'Sessile, requests with names' : 'Sessile', server, requests, named)
      remove()
    }
  }
  return [
    ...rowsOf(`memory at rest, ${TALKING} sessions`, 'MiB', idle, 'Hono echo'),
    ...rowsOf(`memory, ${CONNECTIONS} connections saturated`, 'MiB', saturated, 'Hono echo'),
    ...rowsOf(`memory, ${CONNECTIONS} connections saturated, the most`, 'MiB', peak, 'Hono echo'),
  ]
}

const resident = ({ pid }: { pid: number }) => memoryOf(pid) ?? { resident: 0, peak: 0 }

// --- for each session -------------------------------------------------------------------------------------------------

async function perSession({ full }: Effort): Promise<Row[]> {
  const heap: Figures = new Map()
  const rss: Figures = new Map()
  const [active, closed, before] = full ? [10_000, 20_000, BEYOND_CACHES] : [1000, 1000, 0]
  const { path, remove } = scratch()
  const server = await sessileServer(path)
  const steps = async (name: string, sessions: number, ended: boolean) => {
    const slopes = await slopesOver(server, sessions, ended)
    note(heap, name, slopes.heap)
    note(rss, name, slopes.rss)
  }
  await server.ask('begin', { sessions: before + 1000, ended: true })
  await steps('each closed session', closed, true)
  await server.ask('begin', { sessions: 1000 })
  await steps('each active session', active, false)
  await server.stop()
  remove()
  const rows = [...rowsOf('memory of the heap, Sessile', 'bytes', heap), ...rowsOf('memory of the process, Sessile', 'bytes', rss)]
  return full ? rows : rows.map((row) => ({ ...row, note: 'within the bounds of caches, which it counts' }))
}

const STEPS = 4

/** Begins sessions in steps and tells by how many bytes each adds: the slope of the line that fits all steps best. */
async function slopesOver(server: Server, sessions: number, ended: boolean): Promise<{ heap: number; rss: number }> {
  const held: Held[] = [await server.ask<Held>('memory')]
  for (let step = 0; step < STEPS; step++) {
    await server.ask('begin', { sessions: sessions / STEPS, ended })
    held.push(await server.ask<Held>('memory'))
  }
  const slope = (of: (held: Held) => number) => slopeOf(held.map(of)) / (sessions / STEPS)
  return { heap: slope(({ heapUsed, external }) => heapUsed + external), rss: slope(({ rss }) => rss) }
}

/** By how much the values grow from one to the next, by least squares. */
function slopeOf(values: number[]): number {
  const middle = (values.length - 1) / 2
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length
  const [up, down] = values.reduce(([a, b], value, i) => [a + (i - middle) * (value - mean), b + (i - middle) ** 2], [0, 0])
  return (up as number) / (down as number)
}

// --- watchers ---------------------------------------------------------------------------------------------------------

const OPEN_FILES = /^Max open files\s+\d+\s+(\d+)/m
const PER_CLIENT = 2500

async function watching({ rounds, full }: Effort): Promise<Row[]> {
  // A server needs a file descriptor for each watcher, and some for itself.
  const most = Number(OPEN_FILES.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1] ?? 1024) - 2000
  const wanted = full ? 10_000 : 1000
  const watchers = Math.min(wanted, most)
  if (watchers < wanted)
    console.log(`memory: this system lets a process open too few files for ${wanted} watchers; ${watchers} are`)
  const whole: Figures = new Map()
  const each: Figures = new Map()
  for (let round = 0; round < (full ? rounds : 1); round++) {
    const { path, remove } = scratch()
    const server = await sessileServer(path)
    const requests = requestsTo(await server.ask<Session[]>('begin', { sessions: 1 }))
    const to = requests[0]?.path as string
    // What the first of them have loaded is not what each of the others takes.
    const clients = [await watchersOf(server, to, 100)]
    const before = await server.ask<Held>('memory')
    for (let left = watchers - 100; left > 0; left -= PER_CLIENT)
      clients.push(await watchersOf(server, to, Math.min(PER_CLIENT, left)))
    const told = clients.map(({ told }) => told)
    await call(server, { connections: 1, seconds: 0.5, warm: 0, rate: 20, requests })
    await Promise.all(told)
    const after = await server.ask<Held>('memory')
    note(whole, `Sessile, ${watchers.toLocaleString('en')} watchers`, after.rss / MIB)
    note(each, 'each watcher', (after.rss - before.rss) / (watchers - 100))
    for (const { stop } of clients) stop()
    await server.stop()
    remove()
  }
  return [...rowsOf('memory, one session watched', 'MiB', whole), ...rowsOf('memory of the process, Sessile', 'bytes', each)]
}

/** Clients that follow a session over so many connections; `told` resolves when each has been told of a new record. */
async function watchersOf({ port, reader: key }: Server, path: string, connections: number) {
  const child = scripted('./watchers.mjs', { port, key, path, connections })
  const lines: string[] = []
  let wake = () => {}
  child.stdout?.on('data', (data: Buffer) => {
    lines.push(...data.toString().trim().split('\n'))
    wake()
  })
  const heard = async (word: string) => {
    while (!lines.includes(word)) {
      if (child.exitCode !== null) throw new Error(`the watchers ended with ${child.exitCode}`)
      await new Promise<void>((resolve) => {
        wake = resolve
        child.once('exit', () => resolve())
      })
    }
  }
  await heard('watching')
  return { told: heard('told'), stop: () => void child.kill() }
}

// --- rebuild ----------------------------------------------------------------------------------------------------------

async function rebuilding({ rounds, full }: Effort): Promise<Row[]> {
  const rows: Row[] = []
  const { path, remove } = scratch()
  let made = 0
  for (const records of full ? [1_000_000, 10_000_000] : [100_000]) {
    const server = await sessileServer(path)
    await server.ask('begin', { sessions: (records - made) / 100, records: 98, ended: true })
    await server.ask('close')
    await server.stop()
    made = records
    const peak: Figures = new Map()
    for (let round = 0; round < rounds; round++) note(peak, 'sessile rebuild', (await heldByRebuild(path)) / MIB)
    rows.push(...rowsOf(`memory while ${records.toLocaleString('en')} records are rebuilt, the most`, 'MiB', peak))
  }
  remove()
  return rows
}
