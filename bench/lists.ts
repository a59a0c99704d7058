// How long do the questions take that apps ask all the time, as the records grow from a hundred thousand to ten millions?
// Each is asked, in turns, of a small data directory and of the large one, both open in this process: once as it is, with a
// sync for what the trail says of who asked, and once alone, with nothing written down. What the sync takes is the disk's
// affair and grows with nothing, so it is told as well.

import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import type { Command } from '../src/core/command.ts'
import { Refusal } from '../src/core/errors.ts'
import type { Caller } from '../src/core/policy.ts'
import { Listed, type Query } from '../src/core/query.ts'
import type { Sessile } from '../src/core/sessile.ts'
import { system } from '../src/core/sessile.ts'
import { features } from '../src/features/index.ts'
import { openLog, openRecorder } from '../src/open.ts'
import { type Row, rowsOf, scratch } from './measure.ts'
import { append, begun, configOf, end, said, start, Traceless } from './sessile.ts'
import { LINE } from './stores.ts'

const RECORDS_OF_SESSION = 100
const SESSIONS_OF_USER = 100
const USERS_AT_ONCE = 10
const PAGE = 20
/** Sessions of a kind that hardly anybody uses, however many others there are: the first that were recorded. */
const RARE = 5
const SMALL = 100_000
const BARE_LINES = 2_500

const query = (at: string) => features.queries.find((query) => query.at === at) as Query
const list = query('GET /api/v1/sessions')
const detail = query('GET /api/v1/sessions/{session_id}')
const timeline = query('GET /api/v1/sessions/{session_id}/timeline')
const validate = query('POST /session_manager/sessions.validate')

interface Data {
  sessile: Sessile
  /** Of each user the sessions in order; the last is active. */
  sessions: string[][]
}

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const [sizes, times] = seconds > 1 ? [[1_000_000, 10_000_000], 500] : [[200_000], 200]
  const folders = [scratch(), scratch(), scratch()] as const
  const [small, large] = await Promise.all([opened(folders[0].path), opened(folders[1].path)])
  const bare = openSync(join(folders[2].path, 'bare'), 'w')
  const questions = [...withTrail, ...withTrail.map(alone), refusedStart, bareSync(bare)]
  await grow(small, SMALL)
  // What a process does for the first time is compiled meanwhile, and most of these do the same: all are asked once that do not count.
  for (const question of questions) await timed(question, small, times)
  const rows: Row[] = []
  for (const size of sizes) {
    await grow(large, size)
    rows.push(...(await asked(questions, { small, large, size }, { rounds, times })))
  }
  for (const { sessile } of [small, large]) await sessile.recorder.close()
  closeSync(bare)
  for (const { remove } of folders) remove()
  return rows
}

async function opened(home: string): Promise<Data> {
  const config = configOf(home)
  return { sessile: await openRecorder(openLog({ config }), { config }), sessions: [] }
}

// --- data -------------------------------------------------------------------------------------------------------------

async function grow(data: Data, records: number): Promise<void> {
  const users = records / RECORDS_OF_SESSION / SESSIONS_OF_USER
  while (data.sessions.length < users) {
    const first = data.sessions.length
    const some = Array.from({ length: Math.min(USERS_AT_ONCE, users - first) }, (_, i) => first + i)
    data.sessions.push(...(await Promise.all(some.map((n) => sessionsOf(data.sessile, n)))))
    // Lines are taken on faster than files are made for them, and refused when too many wait.
    await data.sessile.recorder.settle()
  }
  await data.sessile.recorder.checkpoint()
}

async function sessionsOf(sessile: Sessile, n: number): Promise<string[]> {
  const user_id = `u${n}`
  const by = { user_id, performer_id: 'device-7' }
  const ids: string[] = []
  for (let i = 0; i < SESSIONS_OF_USER; i++) {
    const body = { ...by, kind: n === 0 && i < RARE ? 'workflow' : i % 4 === 1 ? 'voice' : 'capture' }
    const session_id = await begun(sessile, body)
    ids.push(session_id)
    const last = i === SESSIONS_OF_USER - 1
    const lines = Array.from({ length: RECORDS_OF_SESSION - (last ? 1 : 2) }, () => said(user_id))
    await sessile.perform(append, { body: lines, path: { session_id }, caller: system })
    if (!last) await sessile.perform(end, { body: { ...by, session_id }, caller: system })
  }
  return ids
}

// --- questions --------------------------------------------------------------------------------------------------------

interface Asked {
  name: string
  /** Makes the question for a user, and asks what must be known first. */
  of(data: Data, user: number): Promise<() => Promise<unknown>>
}

const reaching = (users: Caller['users']): Caller => ({
  account_id: 'reader',
  role: users === 'all' ? 'admin' : 'therapist',
  users,
  system: false,
})

const lists = (name: string, mine: boolean, filter: object, pagesBefore = 0): Asked => ({
  name,
  of: async ({ sessile }, user) => {
    const caller = reaching(mine ? [`u${user}`] : 'all')
    const ask = (asked: Sessile, cursor: string | undefined) => {
      const input = { limit: String(PAGE), ...filter, ...(cursor === undefined ? {} : { cursor }) }
      return asked.ask(list, { input, caller }) as Promise<{ sessions: object[]; next_cursor: string | null }>
    }
    // How we came to the page is not the question, and nobody waits for a sync on the way.
    const before = new Traceless(sessile)
    let cursor: string | undefined
    for (let page = 0; page < pagesBefore; page++) cursor = (await ask(before, cursor)).next_cursor as string
    return () => some(ask(sessile, cursor))
  },
})

/** A list that found nothing would be quick for the wrong reason. */
async function some(page: Promise<{ sessions: object[] }>): Promise<void> {
  if ((await page).sessions.length === 0) throw new Error('a list found nothing')
}

const ofSession = (name: string, query: Query, which: (sessions: string[]) => string, more: object = {}): Asked => ({
  name,
  of: async ({ sessile, sessions }, user) => {
    const input = { session_id: which(sessions[user] as string[]), ...more }
    const whole = query === validate ? { ...input, user_id: `u${user}` } : input
    const caller = reaching([`u${user}`])
    return async () => {
      const answer = await sessile.ask(query, { input: whole, caller })
      return answer instanceof Listed ? answer.whole() : answer
    }
  },
})

const middle = (sessions: string[]) => sessions[sessions.length >> 1] as string
const newest = (sessions: string[]) => sessions.at(-1) as string

const refusedStart: Asked = {
  name: 'a second start, refused',
  of: async ({ sessile }, user) => {
    const asking = { body: { user_id: `u${user}`, performer_id: 'device-7' }, caller: system }
    return () =>
      sessile.perform(start as Command, asking).then(
        () => {
          throw new Error('a second start was let in')
        },
        (error) => {
          if (!(error instanceof Refusal) || error.reason !== 'session-already-active') throw error
        },
      )
  },
}

/** The same with nothing written down of who asked. */
const alone = ({ name, of }: Asked): Asked => ({
  name: `${name}, alone`,
  of: (data, user) => of({ ...data, sessile: new Traceless(data.sessile) }, user),
})

/** What the trail's line takes at least: one line of a file that is as long as it will be, and its sync. */
function bareSync(file: number): Asked {
  writeSync(file, Buffer.alloc(BARE_LINES * LINE.length))
  fdatasyncSync(file)
  let n = 0
  const write = async () => {
    writeSync(file, LINE, 0, LINE.length, (n++ % BARE_LINES) * LINE.length)
    fdatasyncSync(file)
  }
  return { name: 'a line and its sync, and nothing else', of: async () => write }
}

const withTrail: Asked[] = [
  lists('sessions of a user, first page', true, {}),
  lists('sessions of a user, fourth page', true, {}, 3),
  lists('sessions of a user, closed calls by voice', true, { mode: 'voice', status: 'closed' }),
  lists('sessions of all, first page', false, {}),
  lists('sessions of all, fortieth page', false, {}, 39),
  // As many as there are at a hundred thousand records, so that the same is found everywhere.
  lists('sessions of all, active ones', false, { status: 'active', limit: '8' }),
  lists('sessions of all, of a rare kind', false, { kind: 'workflow' }),
  ofSession('session detail with 98 utterances', detail, middle),
  ofSession('timeline page of 100 entries', timeline, middle),
  ofSession('is this session active? (yes)', validate, newest),
  ofSession('is this session active? (no)', validate, middle),
]

async function asked(
  questions: Asked[],
  { small, large, size }: { small: Data; large: Data; size: number },
  { rounds, times }: { rounds: number; times: number },
): Promise<Row[]> {
  const rows: Row[] = []
  const [base, grown] = [SMALL, size].map((records) => `at ${records.toLocaleString('en')} records`) as [string, string]
  for (const question of questions) {
    const taken = { p50: newTimes(base, grown), p99: newTimes(base, grown) }
    // The first round warms up and does not count.
    for (let round = 0; round <= rounds; round++) {
      for (const [name, data] of round % 2 === 0
        ? ([
            [base, small],
            [grown, large],
          ] as const)
        : ([
            [grown, large],
            [base, small],
          ] as const)) {
        const { p50, p99 } = await timed(question, data, times)
        if (round === 0) continue
        taken.p50.get(name)?.push(p50)
        taken.p99.get(name)?.push(p99)
      }
    }
    for (const share of ['p50', 'p99'] as const) rows.push(...rowsOf(`${question.name}, ${share}`, 'µs', taken[share], base))
  }
  return rows
}

const newTimes = (...names: string[]) => new Map<string, number[]>(names.map((name) => [name, []]))

/** Asks so many times, of users from all over the data, and tells the percentiles in microseconds. */
async function timed({ of }: Asked, data: Data, times: number): Promise<{ p50: number; p99: number }> {
  const asks: (() => Promise<unknown>)[] = []
  const users = Math.min(data.sessions.length, times)
  for (let i = 0; i < users; i++) asks.push(await of(data, Math.floor((i * data.sessions.length) / users)))
  const taken = new Float64Array(times)
  for (let i = 0; i < times; i++) {
    const began = performance.now()
    await asks[i % users]?.()
    taken[i] = (performance.now() - began) * 1000
  }
  taken.sort()
  const share = (of: number) => taken[Math.ceil(times * of) - 1] as number
  return { p50: share(0.5), p99: share(0.99) }
}
