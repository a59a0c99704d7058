// The projection: every view in one SQLite database, folded from the log and deletable at any time. The recorder's
// transaction stays open over many batches; readers have a connection of their own and see only what was committed.

import { closeSync, existsSync, fsyncSync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Gathered } from './feature.ts'
import type { Head } from './heads.ts'
import type { Recorded } from './record.ts'
import { fingerprint, ownTables, Tables } from './tables.ts'
import { indexesOf, type Read, tableOf, type View } from './view.ts'

/** What views are made by. */
type Made = Pick<Gathered, 'views' | 'code'>

/** How far the views have come. */
export interface Mark {
  journal: string
  lsn: number
  timestamp: number
}

/** Where the records of a named request begin in one log. */
export interface Remembered {
  log: string
  body: string
  offset: number
  count: number
}

export class Views {
  readonly file: string
  readonly #made: Made
  readonly #folds: Map<string, View[]>
  #writer: Tables
  #reader: Tables | undefined
  #open = false

  private constructor(file: string, made: Made, writer: Tables) {
    this.file = file
    this.#made = made
    this.#writer = writer
    this.#folds = new Map()
    for (const view of made.views) {
      for (const type of view.folds.keys()) this.#folds.set(type, [...(this.#folds.get(type) ?? []), view])
    }
  }

  /** Opens the views if they are there, whole enough to open, and made by this code; else says why not. */
  static open(file: string, made: Made): Views | { why: string } {
    if (!existsSync(file)) return { why: 'there are none' }
    let tables: Tables | undefined
    try {
      tables = new Tables(file)
      // A commit need not be synced, because the journal is; a checkpoint makes it durable by itself (see `harden`).
      // NORMAL and not OFF: the first write after a checkpoint reuses the write-ahead file, and must not tear it.
      tables.db.exec('PRAGMA journal_mode = WAL')
      tables.db.exec('PRAGMA synchronous = NORMAL')
      tables.db.exec('PRAGMA wal_autocheckpoint = 0')
      tables.db.exec('PRAGMA cache_size = -65536')
      const by = tables.sql("SELECT value FROM meta WHERE key = 'fingerprint'").pluck().get()
      if (by === fingerprint(made)) return new Views(file, made, tables)
      tables.close()
      return { why: 'they were made by another version' }
    } catch (error) {
      tables?.close()
      return { why: `they cannot be read: ${(error as Error).message}` }
    }
  }

  /** A new, empty database for a rebuild. It has no indexes until `finish`, and no safety until it is put in place. */
  static create(file: string, made: Made): Views {
    mkdirSync(dirname(file), { recursive: true })
    remove(file)
    const tables = new Tables(file)
    tables.db.exec('PRAGMA journal_mode = OFF')
    tables.db.exec('PRAGMA synchronous = OFF')
    tables.db.exec('PRAGMA cache_size = -65536')
    tables.db.exec(ownTables + made.views.map(tableOf).join(''))
    return new Views(file, made, tables)
  }

  /** Ends a rebuild: indexes, the mark, a sync. After this the file is complete and can be put in place. */
  finish(mark: Mark): void {
    for (const view of this.#made.views) for (const index of indexesOf(view)) this.#writer.db.exec(index)
    this.begin()
    this.#writer.sql("INSERT OR REPLACE INTO meta (key, value) VALUES ('fingerprint', ?)").run(fingerprint(this.#made))
    this.commit(mark)
    this.close()
    syncPath(this.file)
  }

  /** Puts a finished database in the place of the live one, in one step that a crash cannot halve. */
  static replace(live: string, fresh: string): void {
    remove(`${live}-wal`)
    remove(`${live}-shm`)
    syncPath(dirname(live))
    renameSync(fresh, live)
    syncPath(dirname(live))
  }

  get mark(): Mark {
    const stored = Object.fromEntries(this.#writer.sql('SELECT key, value FROM meta').raw().all() as [string, string][])
    return { journal: stored.journal ?? '', lsn: Number(stored.lsn ?? 0), timestamp: Number(stored.timestamp ?? 0) }
  }

  /** The views as the recorder sees them: the open transaction included. */
  get read(): Read {
    return this.#writer.read
  }

  /** The views as everyone else sees them. */
  get committed(): Read {
    this.#reader ??= new Tables(this.file, { readonly: true })
    return this.#reader.read
  }

  get uncommitted(): boolean {
    return this.#open
  }

  begin(): void {
    if (this.#open) return
    this.#writer.sql('BEGIN IMMEDIATE').run()
    this.#open = true
  }

  /** After a failure of the database: nothing more can be written or committed here. What was committed can still be read. */
  abandon(): void {
    this.#open = false
    this.#writer.close()
  }

  commit(mark: Mark): void {
    // Some errors end the transaction by themselves; writing the mark outside of it would claim what was undone.
    if (!this.#writer.db.inTransaction) throw new Error('the transaction of the views is gone')
    const put = this.#writer.sql('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)')
    put.run('journal', mark.journal)
    put.run('lsn', String(mark.lsn))
    put.run('timestamp', String(mark.timestamp))
    this.#writer.sql('COMMIT').run()
    this.#open = false
  }

  savepoint(name: 'batch' | 'one' | 'log'): void {
    this.#writer.sql(`SAVEPOINT ${name}`).run()
  }

  release(name: 'batch' | 'one' | 'log'): void {
    this.#writer.sql(`RELEASE ${name}`).run()
  }

  undo(name: 'batch' | 'one' | 'log'): void {
    this.#writer.sql(`ROLLBACK TO ${name}`).run()
    this.release(name)
  }

  /** Folds one record into every view that has a fold for it. */
  apply(record: Recorded, log: string, offset: number): void {
    if (record.command_id !== undefined) this.#remember(record.command_id, log, offset)
    for (const view of this.#folds.get(record.type) ?? []) view.folds.get(record.type)?.(record, this.#writer.rows(view))
  }

  /** A command's id is `<digest of caller and key>.<digest of what was asked>`; its records in a log are contiguous. */
  #remember(command_id: string, log: string, offset: number): void {
    const [key, body] = command_id.split('.')
    this.#writer
      .sql(
        'INSERT INTO commands (key, log, body, offset, count) VALUES (?, ?, ?, ?, 1) ON CONFLICT (key, log) DO UPDATE SET count = count + 1',
      )
      .run(key, log, body, offset)
  }

  remembered(key: string): Remembered[] {
    return this.#writer.sql('SELECT log, body, offset, count FROM commands WHERE key = ?').all(key) as Remembered[]
  }

  head(log: string): Head | undefined {
    return this.#writer.sql('SELECT seq, hash, size, at FROM logs WHERE log = ?').get(log) as Head | undefined
  }

  putHead(log: string, head: Head): void {
    this.#writer
      .sql('INSERT OR REPLACE INTO logs (log, seq, hash, size, at) VALUES (?, ?, ?, ?, ?)')
      .run(log, head.seq, head.hash, head.size, head.at)
  }

  /** Makes everything committed so far survive a power loss. A synced commit makes all commits before it durable too. */
  harden(mark: Mark): void {
    if (this.#open) throw new Error('broken: hardening the views in the middle of a transaction')
    this.#writer.db.exec('PRAGMA synchronous = FULL')
    this.begin()
    this.commit(mark)
    this.#writer.db.exec('PRAGMA wal_checkpoint(PASSIVE)')
    this.#writer.db.exec('PRAGMA synchronous = NORMAL')
  }

  digests() {
    return this.#writer.digests(this.#made.views)
  }

  close(): void {
    this.#reader?.close()
    this.#reader = undefined
    this.#writer.close()
  }
}

function remove(file: string): void {
  rmSync(file, { force: true })
}

function syncPath(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
