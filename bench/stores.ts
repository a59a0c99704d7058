// What durable records are appended to in these benchmarks, each behind the same two functions: the bare yardsticks and
// Sessile itself. Whoever calls is answered after the sync, and every store writes lines of the same length.

import { closeSync, fdatasync, mkdirSync, openSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { system } from '../src/core/sessile.ts'
import { append, open, said } from './sessile.ts'

export const SESSIONS = 1000
export const LINE = Buffer.alloc(420, 'x')

export interface Store {
  name: string
  /** Makes what one caller says durable; `n` counts this caller's calls. */
  call(caller: number, n: number): Promise<unknown>
  /** How many records a call makes durable, where it is not one. */
  records?: number
  close(): Promise<void> | void
}

/** Opens a store in this folder for so many callers; a sentence instead says why it cannot be had here. */
export type Opening = (folder: string, callers: number) => Promise<Store | string>

const sessionOf = (caller: number, n: number) => (caller * 7919 + n * 31) % SESSIONS

const syncFile = (fd: number) =>
  new Promise<void>((resolve, reject) => fdatasync(fd, (error) => (error ? reject(error) : resolve())))

/** The shared shape of the bare yardsticks: callers queue, one loop writes what has queued, syncs, and answers. */
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

export const bareFile: Opening = async (folder) => {
  const fd = openSync(join(folder, 'bare'), 'w')
  const put = grouped(async (items) => {
    writeSync(fd, Buffer.concat(items.map(() => LINE)))
    await syncFile(fd)
  })
  return { name: 'L: bare file, group commit', call: put, close: () => closeSync(fd) }
}

export const filePerSession: Opening = async (folder) => {
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
    call: (caller, n) => put(sessionOf(caller, n)),
    close: () => {
      for (const fd of fds) closeSync(fd)
    },
  }
}

export const sqlite: Opening = async (folder) => {
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
    call: (caller, n) => put(sessionOf(caller, n)),
    close: () => void db.close(),
  }
}

/** Sessile with schema, seal, views, policy and idempotency; each call carries a name of its own. */
export const sessileBy =
  (records: number): Opening =>
  async (folder) => {
    const { sessile, ids, close } = await open(join(folder, `sessile-${records}`), SESSIONS)
    let key = 0
    const call = (caller: number, n: number) => {
      const session = sessionOf(caller, n)
      const record = said(`u${session}`)
      const body = records === 1 ? record : Array.from({ length: records }, () => record)
      return sessile.perform(append, { body, path: { session_id: ids[session] as string }, caller: system, key: `k${key++}` })
    }
    return { name: records === 1 ? 'Sessile, everything on' : `Sessile, ${records} records an append`, call, records, close }
  }

export const sessile = sessileBy(1)
