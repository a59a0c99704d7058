// npm run bench:check: is Sessile still about as fast as it was promised? A short round of what matters most, each figure
// a ratio to a yardstick of the same minute, and half of what is promised as its bound, so that only a real loss fails.

import { join } from 'node:path'
import { hundreds, race } from './append.ts'
import { call, echoServer, type Latencies, type Server, sessileServer } from './children.ts'
import { median, type Row, ratioOf, scratch } from './measure.ts'
import { question as rebuild } from './rebuild.ts'
import { requestsTo, type Session } from './sessile.ts'
import { startTimes } from './start.ts'
import { bareFile, sessile } from './stores.ts'

const ROUNDS = 3
const SECONDS = 0.6
const EFFORT = { rounds: ROUNDS, seconds: SECONDS }
const CONNECTIONS = 64

type Bound = { atLeast: number } | { atMost: number } | 'told'

const bounds = {
  'append in process, 64 callers, against a bare file': { atLeast: 0.15 },
  // 120,000 a second where a bare file's batches make 900,000.
  'append in process, 100 records an append, against a bare file': { atLeast: 120 / 900 / 2 },
  'append over HTTP, 64 connections, against Hono echo': { atLeast: 0.3 },
  'append over HTTP, 64 records a request, against one': { atLeast: 2 },
  // What was aimed at, 1.6, is not reached; there is no bound to hold until it is.
  'p99 over HTTP, saturated, against Hono echo’s': 'told',
  'rebuild, against two threads of JSON.parse': { atLeast: 0.25 },
  'start with 10,000 logs, against 1,000': { atMost: 3 },
} satisfies Record<string, Bound>

type Figures = Partial<Record<keyof typeof bounds, number>>

const ratioIn = (rows: Row[]) => rows.find(({ contender }) => contender.startsWith('Sessile'))?.ratio as number

async function appending(): Promise<Figures> {
  const one = await race(
    'append',
    [bareFile, sessile].map((open) => [open, 64]),
    EFFORT,
  )
  return {
    'append in process, 64 callers, against a bare file': ratioIn(one),
    'append in process, 100 records an append, against a bare file': ratioIn(await hundreds(EFFORT)),
  }
}

async function overHttp(): Promise<Figures> {
  const { path, remove } = scratch()
  const [echo, server] = [await echoServer(), await sessileServer(path)]
  const made = await server.ask<Session[]>('begin', { sessions: 200 })
  const ask = (of: Server, records: number) =>
    call(of, { connections: CONNECTIONS, seconds: SECONDS, requests: requestsTo(made, records) })
  const rounds: { echo: Latencies; one: Latencies; many: Latencies }[] = []
  // The first round warms up.
  for (let round = 0; round <= ROUNDS; round++)
    rounds.push({ echo: await ask(echo, 1), one: await ask(server, 1), many: await ask(server, 64) })
  await Promise.all([echo.stop(), server.stop()])
  remove()
  const middle = (figure: (round: (typeof rounds)[number]) => number) => median(rounds.slice(1).map(figure))
  return {
    'append over HTTP, 64 connections, against Hono echo': middle(({ echo, one }) => one.rate / echo.rate),
    'append over HTTP, 64 records a request, against one': middle(({ one, many }) => (64 * many.rate) / one.rate),
    'p99 over HTTP, saturated, against Hono echo’s': middle(({ echo, one }) => one.p99 / echo.p99),
  }
}

async function startingUp(): Promise<Figures> {
  const { path, remove } = scratch()
  const taken = async (logs: number) => median(await startTimes(join(path, `${logs}`), { logs, starts: 3 * ROUNDS }))
  const [few, many] = [await taken(1000), await taken(10_000)]
  remove()
  return { 'start with 10,000 logs, against 1,000': many / few }
}

process.once('SIGINT', () => process.exit(130))
process.once('SIGTERM', () => process.exit(143))

const rebuilding = async (): Promise<Figures> => ({ 'rebuild, against two threads of JSON.parse': ratioIn(await rebuild(EFFORT)) })

const holds = (name: keyof typeof bounds, figure: number) => {
  const bound: Bound = bounds[name]
  if (bound === 'told') return true
  return 'atLeast' in bound ? figure >= bound.atLeast : figure <= bound.atMost
}

function told(name: keyof typeof bounds, figure: number): boolean {
  const bound: Bound = bounds[name]
  if (bound === 'told') {
    console.log(`told   ${name.padEnd(64)} ${ratioOf(figure).padStart(8)}`)
    return true
  }
  const words = 'atLeast' in bound ? `at least ${ratioOf(bound.atLeast)}` : `at most ${ratioOf(bound.atMost)}`
  const kept = holds(name, figure)
  console.log(`${kept ? 'holds' : 'FAILS'}  ${name.padEnd(64)} ${ratioOf(figure).padStart(8)}  ${words}`)
  return kept
}

/** How often a figure is taken that fails: the machine may have been busy with something else. A real loss fails each time. */
const TRIES = 5

async function check(): Promise<void> {
  const failed: string[] = []
  for (const measure of [appending, overHttp, rebuilding, startingUp]) {
    const figures = new Map<keyof typeof bounds, number>()
    for (let tries = 0; tries < TRIES; tries++) {
      for (const [name, figure] of Object.entries(await measure()) as [keyof typeof bounds, number][]) {
        const before = figures.get(name)
        if (before === undefined || !holds(name, before)) figures.set(name, figure)
      }
      if ([...figures].every(([name, figure]) => holds(name, figure))) break
    }
    for (const [name, figure] of figures) if (!told(name, figure)) failed.push(name)
  }
  if (failed.length > 0) {
    console.error(`Slower than it may be: ${failed.join('; ')}.`)
    process.exitCode = 1
  }
}

void check()
