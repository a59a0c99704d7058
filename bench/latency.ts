// How long does an answer take over HTTP: when as many requests come as can be answered, at half of that, and at half
// while a rebuild, an export or a checkpoint runs? Server, callers and whatever disturbs them are processes of their own.

import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { text } from 'node:stream/consumers'
import { call, echoServer, ended, type Latencies, type Server, scripted, sessileServer, sessileVerb } from './children.ts'
import { type Row, rowsOf, scratch } from './measure.ts'
import { recordsOf, requestsTo, type Session } from './sessile.ts'

const CONNECTIONS = 64
const TALKING = 200
/**
 * Seconds before it counts, where requests fall due at a fixed pace. Callers whose code has yet to be compiled fall behind it by 10 to 60 ms,
 * whatever they call, and have caught up after half a second.
 */
const WARM = 1
const percentiles = ['p50', 'p99', 'p99.9'] as const
const QUIET = 'Sessile, quiet'

/** Something else that goes on while the callers ask. */
interface Disturbance {
  name: string
  /** How long it must be watched at least, for a whole turn of it to be seen. */
  seconds: number
  begin(): () => Promise<number>
}

export async function question(effort: { rounds: number; seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const full = effort.seconds > 1
  // Six contenders over HTTP take their turns in a minute only if each turn is short.
  const { rounds, seconds } = full ? effort : { ...effort, seconds: 0.5 }
  const [logs, each] = full ? [300, 10_000] : [50, 3000]
  const [echo, sessile] = [await echoServer(), await sessileServer(path)]
  const large = await sessile.ask<Session[]>('begin', { sessions: logs, records: each })
  const requests = requestsTo(await sessile.ask<Session[]>('begin', { sessions: TALKING }))
  // For longer than a moment: a machine that lends its processors in shares does more in one than it can do for long.
  const saturate = (server: Server) => call(server, { connections: CONNECTIONS, seconds: Math.max(seconds, 1), requests })
  // Of what was answered in the same round: machines are slower at one time than at another, and half may become all.
  const answered = new Map<Server, number>()
  const half = (server: Server, during = seconds, counting = () => {}) => {
    const rate = (answered.get(server) as number) / 2
    return call(server, { connections: CONNECTIONS, warm: WARM, seconds: during, requests, rate, mayRefuse: true, counting })
  }
  const disturbances = await disturbancesOf(sessile, path, large, seconds)
  // What holds everybody up now and then is met more often by whoever is there for longer: what is quiet is watched for as long.
  const longest = Math.max(...disturbances.map(({ seconds: least }) => least))

  const saturated = new Turns()
  const halved = new Turns()
  const saturating = [
    async () => answered.set(echo, await saturated.take('Hono echo', () => saturate(echo))),
    async () => answered.set(sessile, await saturated.take('Sessile', () => saturate(sessile))),
  ]
  const turns = [
    () => halved.take(QUIET, () => half(sessile, longest)),
    () => halved.take('Hono echo', () => half(echo)),
    ...disturbances.map(({ name, seconds: least, begin }) => async () => {
      // It begins when the callers are at work: what they need to begin is not what it does to them.
      let stop: (() => Promise<number>) | undefined
      const counting = () => {
        stop = begin()
      }
      await halved.take(`Sessile, while ${name}`, () => half(sessile, least, counting))
      if (!(await stop?.())) throw new Error(`nothing came of it while ${name}`)
    }),
  ]
  // What is done for the first time is compiled while it is done, which takes a processor from everybody.
  for (const server of [echo, sessile]) await saturate(server)
  for (let round = 0; round < rounds; round++) {
    for (const take of [...fromThe(round, saturating), ...fromThe(round, turns)]) {
      await take()
      // What the last one left to be copied is not the next one's load.
      await sessile.ask('settle')
    }
  }
  await Promise.all([echo.stop(), sessile.stop()])
  remove()
  const load = `latency over HTTP, ${CONNECTIONS} connections`
  return [...saturated.rows(`${load}, saturated`, 'Hono echo'), ...halved.rows(`${load}, half load`, QUIET)]
}

/** All of them in turn, from another one each time. */
const fromThe = <T>(first: number, all: readonly T[]) => all.map((_, i) => all[(first + i) % all.length] as T)

/** What the rounds gave, by contender. */
class Turns {
  readonly #taken = new Map<string, Latencies[]>()

  /** Returns how many were answered a second. */
  async take(name: string, round: () => Promise<Latencies>): Promise<number> {
    const latencies = await round()
    this.#taken.set(name, [...(this.#taken.get(name) ?? []), latencies])
    return latencies.rate
  }

  rows(question: string, yardstick: string): Row[] {
    return percentiles.flatMap((percentile) => {
      const figures = new Map([...this.#taken].map(([name, rounds]) => [name, rounds.map((round) => round[percentile])]))
      return rowsOf(`${question}, ${percentile}`, 'ms', figures, yardstick).map((row) => {
        const refused = (this.#taken.get(row.contender) ?? []).reduce((sum, round) => sum + round.refused, 0)
        return refused === 0 ? row : { ...row, note: `${refused} refused` }
      })
    })
  }
}

async function disturbancesOf(server: Server, home: string, large: Session[], seconds: number): Promise<Disturbance[]> {
  const began = performance.now()
  await ended(sessileVerb(home, ['rebuild']), 'rebuild')
  const rebuilding = (performance.now() - began) / 1000
  const paths = large.map(({ session_id }) => recordsOf(session_id))
  return [
    // It gives way, and takes two or three times as long under load. Its end, when the views are switched, must be seen too.
    {
      name: 'a rebuild runs',
      seconds: Math.max(seconds, 3 * rebuilding),
      begin: () => again(() => sessileVerb(home, ['rebuild'])),
    },
    { name: 'all is exported over HTTP', seconds, begin: () => exporting(server, paths) },
    { name: 'a replay runs', seconds, begin: () => again(() => sessileVerb(home, ['replay']), { cut: true }) },
    { name: 'a checkpoint is made every second', seconds: Math.max(seconds, 1.3), begin: () => checkpointing(server) },
  ]
}

/** Runs a command again and again; told to stop, it lets the last one end, or cuts it short. Returns how many were begun. */
function again(begin: () => ChildProcess, { cut = false } = {}): () => Promise<number> {
  let stopping = false
  let count = 0
  let child: ChildProcess
  const loop = async () => {
    while (!stopping) {
      child = begin()
      count++
      await ended(child, 'a command').catch((error) => {
        if (!(stopping && cut)) throw error
      })
    }
  }
  const all = loop()
  return async () => {
    stopping = true
    if (cut) child.kill()
    await all
    return count
  }
}

/** Returns how many bytes were exported. */
function exporting({ port, reader: key }: Server, paths: string[]): () => Promise<number> {
  const child = scripted('./export.mjs', { port, key, paths })
  const said = text(child.stdout as NodeJS.ReadableStream)
  return async () => {
    const gone = once(child, 'exit')
    child.kill()
    await gone
    return Number(await said)
  }
}

/** Returns how many checkpoints there were. */
function checkpointing(server: Server): () => Promise<number> {
  const before = server.ask<number>('checkpoints', { every: 1000 })
  return async () => (await server.ask<number>('checkpoints', { every: 0 })) - (await before)
}
