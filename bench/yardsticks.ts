// Other stores that somebody could pick instead, each at its best setting that still syncs before it answers: Emmett's
// SQLite and PostgreSQL event stores, and Redis with `appendfsync always`.

import { once } from 'node:events'
import { connect } from 'node:net'
import { join } from 'node:path'
import { load } from './packages.ts'
import { startPostgres, startRedis } from './servers.ts'
import { LINE, type Opening, SESSIONS } from './stores.ts'

interface EmmettStore {
  appendToStream(stream: string, events: { type: string; data: object }[]): Promise<unknown>
  schema: { migrate(): Promise<unknown> }
  close?(): Promise<void>
}
interface EmmettSqlite {
  getSQLiteEventStore(options: object): EmmettStore
  sqliteConnection(options: { fileName: string }): { close(): void; query(sql: string): Promise<unknown> }
}
interface EmmettPostgres {
  getPostgreSQLEventStore(url: string, options: object): EmmettStore
}
interface Pool {
  on(event: 'error', ignore: () => void): void
  end(): Promise<void>
}
interface Pg {
  default: { Pool: new (options: { connectionString: string; max: number }) => Pool }
}

const EVENT = { type: 'transcript.said', data: { speaker: 'user', text: 'x'.repeat(240), at: '2031-05-02T09:30:00Z' } }

/** Emmett refuses two appends to one stream at a time, so each caller keeps to streams of its own. */
function streamOf(callers: number) {
  const each = Math.max(1, Math.floor(SESSIONS / callers))
  return (caller: number, n: number) => `session-${caller * each + (n % each)}`
}

/**
 * One connection, one append at a time. Left to itself it opens a connection for each append, which is four times slower
 * and, with 64 callers, ends in SQLITE_BUSY; and appends that overlap on one connection are answered before the commit.
 */
export const emmettSqlite: Opening = async (folder, callers) => {
  const name = '@event-driven-io/emmett-sqlite'
  const emmett = await load<EmmettSqlite>(name)
  if (!emmett) return `${name} is not installed`
  const fileName = join(folder, 'emmett.db')
  const connection = emmett.sqliteConnection({ fileName })
  // It asks for this itself, but does not wait, and now and then begins without: every append then costs four syncs.
  await connection.query('PRAGMA journal_mode = WAL')
  const store = emmett.getSQLiteEventStore({ fileName, connectionOptions: { singleton: true, connection } })
  await store.schema.migrate()
  const stream = streamOf(callers)
  let last: Promise<unknown> = Promise.resolve()
  const call = (caller: number, n: number) => {
    last = last.then(() => store.appendToStream(stream(caller, n), [EVENT]))
    return last
  }
  return { name: 'Emmett, SQLite', call, close: () => connection.close() }
}

/** Thirty-two connections did more than the ten that are its default, and more than sixty-four. */
const CONNECTIONS = 32

export const emmettPostgres: Opening = async (folder, callers) => {
  const name = '@event-driven-io/emmett-postgresql'
  const [emmett, pg] = [await load<EmmettPostgres>(name), await load<Pg>('pg')]
  if (!emmett || !pg) return `${name} is not installed`
  const server = await startPostgres(join(folder, 'postgres'))
  if (typeof server === 'string') return server
  const connectionString = `postgresql://postgres@localhost/postgres?host=${encodeURIComponent(server.socket)}`
  const pool = new pg.default.Pool({ connectionString, max: Math.min(callers, CONNECTIONS) })
  // Connections that break while the server stops are no news.
  pool.on('error', () => {})
  const store = emmett.getPostgreSQLEventStore(connectionString, { connectionOptions: { pool } })
  await store.schema.migrate()
  const stream = streamOf(callers)
  return {
    name: 'Emmett, PostgreSQL',
    call: (caller, n) => store.appendToStream(stream(caller, n), [EVENT]),
    close: async () => {
      await store.close?.()
      await pool.end().catch(() => {})
      await server.stop()
    },
  }
}

/** A handful of connections, on which commands follow each other without waiting for the answers. */
const WIRES = 4

export const redis: Opening = async (folder) => {
  const server = await startRedis(join(folder, 'redis'))
  if (typeof server === 'string') return server
  const wires = await Promise.all(Array.from({ length: WIRES }, () => wireTo(server.socket)))
  return {
    name: 'Redis, appendfsync always',
    call: (caller, n) => (wires[caller % WIRES] as Wire).push(`session:${(caller * 7919 + n * 31) % SESSIONS}`, LINE),
    close: async () => {
      for (const wire of wires) wire.end()
      await server.stop()
    },
  }
}

type Wire = Awaited<ReturnType<typeof wireTo>>

/** As much of Redis's protocol as RPUSH needs: an array of bulk strings goes out, a line with a number comes back. */
async function wireTo(path: string) {
  const socket = connect(path)
  await once(socket, 'connect')
  const waiting: { done: () => void; failed: (error: Error) => void }[] = []
  let unsent: Buffer[] = []
  let rest = ''
  socket.on('data', (data) => {
    const lines = (rest + data.toString('latin1')).split('\r\n')
    rest = lines.pop() as string
    for (const line of lines) {
      const caller = waiting.shift()
      if (line.startsWith(':')) caller?.done()
      else caller?.failed(new Error(`Redis answered ${line}`))
    }
  })
  // What is asked within one turn of the event loop leaves in one write.
  const send = () => {
    socket.write(Buffer.concat(unsent))
    unsent = []
  }
  return {
    push(key: string, value: Buffer): Promise<void> {
      if (unsent.length === 0) setImmediate(send)
      const head = `*3\r\n$5\r\nRPUSH\r\n$${key.length}\r\n${key}\r\n$${value.length}\r\n`
      unsent.push(Buffer.from(head), value, Buffer.from('\r\n'))
      return new Promise((done, failed) => waiting.push({ done, failed }))
    },
    end: () => socket.destroy(),
  }
}
