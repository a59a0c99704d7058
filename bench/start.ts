// How long does a start take after a clean stop, by the number of logs, which it should not depend on; and after a crash,
// by the length of the journal that was left, on which it does? And what does a rebuild hold in memory, which begins with a start?

import { execFileSync } from 'node:child_process'
import { cpSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { type Log, sessionLog } from '../src/core/log.ts'
import { type Sessile, system } from '../src/core/sessile.ts'
import { fileOf } from '../src/log/shelf.ts'
import { openLog, openRecorder } from '../src/open.ts'
import { heldByRebuild } from './children.ts'
import { type Row, rowsOf, scratch } from './measure.ts'
import { append, begun, configOf, end, said } from './sessile.ts'

const AT_ONCE = 200
const IN_ARRAY = 100
const MIB = 2 ** 20
const STARTS = 3

export async function question(effort: { rounds: number; seconds: number }): Promise<Row[]> {
  return [...(await afterStop(effort)), ...(await afterCrash(effort))]
}

// --- after a clean stop -----------------------------------------------------------------------------------------------

async function afterStop({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const taken = new Map<string, number[]>()
  let made = 0
  for (const logs of seconds > 1 ? [1000, 10_000, 100_000] : [1000, 5000]) {
    // The first start warms up and does not count.
    const times = await startTimes(path, { made, logs, starts: rounds * 3 + 1 })
    taken.set(`${logs.toLocaleString('en')} logs`, times.slice(1))
    made = logs
  }
  remove()
  return rowsOf('start after a clean stop', 'ms', taken, '1,000 logs')
}

/** Adds logs of ended sessions to those already made, stops, and tells how long each start takes then, in milliseconds. */
export async function startTimes(
  home: string,
  { made = 0, logs, starts }: { made?: number; logs: number; starts: number },
): Promise<number[]> {
  const config = configOf(home)
  const filling = await openRecorder(openLog({ config }), { config })
  for (let first = made; first < logs; first += AT_ONCE)
    await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => wholeSession(filling, `u${first + n}`)))
  await filling.recorder.close()
  const times: number[] = []
  for (let round = 0; round < starts; round++) {
    const { ms, started } = await timedStart(home)
    times.push(ms)
    await started.recorder.close()
  }
  return times
}

async function wholeSession(sessile: Sessile, user_id: string): Promise<void> {
  const by = { user_id, performer_id: 'd' }
  const session_id = await begun(sessile, by)
  await sessile.perform(end, { body: { ...by, session_id }, caller: system })
}

async function timedStart(home: string): Promise<{ ms: number; started: Sessile }> {
  const config = configOf(home)
  const began = performance.now()
  const started = await openRecorder(openLog({ config }), { config })
  return { ms: performance.now() - began, started }
}

// --- after a crash ----------------------------------------------------------------------------------------------------

/** The log, but its checkpoints are never due, so that its journal grows as long as one wants. */
const growing = (log: Log): Log =>
  new Proxy(log, {
    get: (log, name) => {
      if (name === 'due') return false
      const part: unknown = Reflect.get(log, name, log)
      return typeof part === 'function' ? part.bind(log) : part
    },
  })

async function afterCrash({ seconds }: { seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const [living, left] = [join(path, 'living'), join(path, 'left')]
  const config = configOf(living)
  const sessile = await openRecorder(growing(openLog({ config })), { config })
  const ids = await Promise.all(Array.from({ length: AT_ONCE }, (_, n) => begun(sessile, { user_id: `u${n}`, performer_id: 'd' })))
  const fill = await filler(sessile, living, ids)
  const taken = new Map<string, number[]>()
  const perMib = new Map<string, number[]>()
  const held = new Map<string, number[]>()
  for (const mib of seconds > 1 ? [1, 64, 256] : [1, 64]) {
    await fill(mib * MIB)
    const name = `a journal of ${mib} MiB`
    // Nobody writes while we copy, in this one thread: what is there is what a kill at this moment would leave.
    cpSync(living, left, { recursive: true })
    const times: number[] = []
    for (let round = 0; round < STARTS; round++) times.push(await startOn(left, join(path, 'crashed')))
    taken.set(name, times)
    perMib.set(
      name,
      times.map((ms) => ms / mib),
    )
    // Nothing where the system does not say.
    const most = await heldByRebuild(left)
    if (most > 0) held.set(name, [most / MIB])
    rmSync(left, { recursive: true })
  }
  await sessile.recorder.close()
  remove()
  return [
    ...rowsOf('start after a crash', 'ms', taken, 'a journal of 1 MiB'),
    ...rowsOf('start after a crash, for each MiB', 'ms', perMib, 'a journal of 1 MiB'),
    ...rowsOf('memory of a rebuild after a crash, the most', 'MiB', held),
  ]
}

/** Returns what records, each request with a name, until the journal holds so many bytes of lines. */
async function filler(sessile: Sessile, home: string, ids: string[]): Promise<(bytes: number) => Promise<void>> {
  let records = 0
  const record = async (n: number) => {
    const body = Array.from({ length: IN_ARRAY }, () => said(`u${n}`))
    records += IN_ARRAY
    await sessile.perform(append, { body, path: { session_id: ids[n] as string }, caller: system, key: `k${records}` })
  }
  await record(0)
  await sessile.recorder.settle()
  const lengthOfOne = statSync(fileOf(home, sessionLog('u0', ids[0] as string))).size / (IN_ARRAY + 1)
  return async (bytes) => {
    while (records * lengthOfOne < bytes) {
      const missing = Math.ceil((bytes / lengthOfOne - records) / IN_ARRAY)
      await Promise.all(Array.from({ length: Math.min(ids.length, missing) }, (_, n) => record(n)))
    }
  }
}

/** The time of a start on a copy of what a crash left, since a start changes it. */
async function startOn(left: string, home: string): Promise<number> {
  cpSync(left, home, { recursive: true })
  // What the copying left for the disk to do would be waited for by the first sync of the start.
  execFileSync('sync')
  const { ms, started } = await timedStart(home)
  await started.recorder.close()
  rmSync(home, { recursive: true })
  return ms
}
