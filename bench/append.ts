// How fast can durable records be appended in process? Against a bare file with natural group commit (L): whatever has
// queued while the last sync was under way is written and synced at once. Every contender writes lines of the same
// length for a thousand sessions and answers each caller after the sync.

import { closeSync, fdatasync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { system } from '../src/core/sessile.ts'
import { type Contender, compare, type Row, saturate, scratch } from './measure.ts'
import { append, open, said } from './sessile.ts'

const SESSIONS = 1000
const LINE = Buffer.alloc(420, 'x')
const syncFile = (fd: number) =>
  new Promise<void>((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve())))
const sessionOf = (caller: number, n: number) => (caller * 7919 + n * 31) % SESSIONS

/** The shared shape of the yardsticks: callers queue, one loop writes what has queued, syncs, and answers. */
function grouped(write: (items: number[]) => Promise<void>) {
  let queue: { item: number; done: () => void }[] = []
  let running = false
  const loop = async () => {
    running = true
    while (queue.length > 0) {
      const batch = queue
      queue = []
      await write(batch.map(({ item }) => item))
      for (const { done } of batch) done()
    }
    running = false
  }
  return (item: number) =>
    new Promise<void>((done) => {
      queue.push({ item, done })
      if (!running) setImmediate(() => running || void loop())
    })
}

export function bareFile(folder: string, seconds: number, callers: number): Contender {
  const fd = openSync(join(folder, 'bare'), 'w')
  const put = grouped(async (items) => {
    writeSync(fd, Buffer.concat(items.map(() => LINE)))
    await syncFile(fd)
  })
  return { name: 'L: bare file, group commit', round: () => saturate(callers, seconds, put), close: () => closeSync(fd) }
}

function filePerSession(folder: string, seconds: number, callers: number): Contender {
  mkdirSync(join(folder, 'files'))
  const fds = Array.from({ length: SESSIONS }, (_, i) => openSync(join(folder, 'files', `${i}`), 'w'))
  const put = grouped(async (items) => {
    const touched = new Map<number, number>()
    for (const item of items) touched.set(item, (touched.get(item) ?? 0) + 1)
    for (const [session, n] of touched) writeSync(fds[session] as number, Buffer.concat(Array.from({ length: n }, () => LINE)))
    await Promise.all([...touched.keys()].map((session) => syncFile(fds[session] as number)))
  })
  return {
    name: 'one sync per session file',
    round: () => saturate(callers, seconds, (caller, n) => put(sessionOf(caller, n))),
    close: () => {
      for (const fd of fds) closeSync(fd)
    },
  }
}

function sqlite(folder: string, seconds: number, callers: number): Contender {
  const db = new Database(join(folder, 'sqlite.db'))
  db.pragma('journal_mode = WAL')
  db.pragma('synchronous = FULL')
  db.exec(
    'CREATE TABLE records (id INTEGER PRIMARY KEY, session INTEGER NOT NULL, line BLOB NOT NULL); CREATE INDEX by_session ON records (session, id)',
  )
  const insert = db.prepare('INSERT INTO records (session, line) VALUES (?, ?)')
  const all = db.transaction((items: number[]) => {
    for (const item of items) insert.run(item, LINE)
  })
  const put = grouped(async (items) => {
    for (let i = 0; i < items.length; i += 64) all(items.slice(i, i + 64))
  })
  return {
    name: 'better-sqlite3, FULL, 64 a transaction',
    round: () => saturate(callers, seconds, (caller, n) => put(sessionOf(caller, n))),
    close: () => void db.close(),
  }
}

async function sessile(folder: string, seconds: number, callers: number, perAppend = 1): Promise<Contender> {
  const { sessile, ids, close } = await open(join(folder, `sessile-${perAppend}`), SESSIONS)
  let key = 0
  const call = (caller: number, n: number) => {
    const session = sessionOf(caller, n)
    const record = said(`u${session}`)
    const body = perAppend === 1 ? record : Array.from({ length: perAppend }, () => record)
    return sessile.perform(append, { body, path: { session_id: ids[session] as string }, caller: system, key: `k${key++}` })
  }
  const name = perAppend === 1 ? 'Sessile, everything on' : `Sessile, ${perAppend} records an append`
  return { name, round: async () => perAppend * (await saturate(callers, seconds, call)), close }
}

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const rows: Row[] = []
  for (const callers of [1, 64, 1024]) {
    const { path, remove } = scratch()
    const contenders = [
      bareFile(path, seconds, callers),
      filePerSession(path, seconds, callers),
      sqlite(path, seconds, callers),
      await sessile(path, seconds, callers),
    ]
    rows.push(
      ...(await compare(`append in process, ${callers} callers`, 'records/s', contenders, {
        rounds,
        yardstick: contenders[0]?.name as string,
      })),
    )
    remove()
  }
  const { path, remove } = scratch()
  const many = [bareFile(path, seconds, 6400), await sessile(path, seconds, 64, 100)]
  rows.push(
    ...(await compare('append in process, 64 callers, 100 records an append', 'records/s', many, {
      rounds,
      yardstick: many[0]?.name as string,
    })),
  )
  remove()
  return rows
}
