// The projection: every view in one SQLite database, folded from the log and deletable at any time. The recorder's
// transaction stays open over many batches; readers have a connection of their own and see only what was committed.

import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { type Digests, digestsOf } from './digests.ts'
import type { Gathered } from './feature.ts'
import type { End } from './heads.ts'
import { Names } from './names.ts'
import { clearing, remove, syncPath } from './place.ts'
import type { Recorded } from './record.ts'
import { Runs } from './runs.ts'
import { fingerprint, ownTables, shapeOf, Tables } from './tables.ts'
import { type Savepoint, Transaction } from './transaction.ts'
import { indexesOf, type Read, tableOf, type View } from './view.ts'

/** Names beyond which a rebuild writes a run of them without waiting for its end. */
const MOST_NAMES = 50_000

/** The size of a page, as SQLite makes them where nothing else is asked for. */
const PAGE = 4096

/** How much of the database SQLite may keep in memory, in KiB. */
const CACHE = 'PRAGMA cache_size = -16384'

const WRITE_AHEAD = 'PRAGMA journal_mode = WAL'

/** What views are made by. */
type Made = Pick<Gathered, 'views' | 'code'>

/** Each log is whole, and the rows of some cannot stand together: what came between them is lost. */
export class Contradiction extends Error {
  /** The last names of the logs that would have to be left out. */
  readonly older: ReadonlySet<string>
  constructor(older: ReadonlySet<string>) {
    super(`logs contradict newer ones: ${[...older].slice(0, 10).join(', ')}`)
    this.older = older
  }
}

/** How far the views have come. */
export interface Mark {
  journal: string
  lsn: number
  timestamp: number
}

/** How far each part of them has come: named requests and the ends of logs follow at leisure, and are in the journal till then. */
export interface Come extends Mark {
  trailing: number
}

export function markOf(tables: Tables): Come {
  const stored = Object.fromEntries(tables.sql('SELECT key, value FROM meta').raw().all() as [string, string][])
  const { journal = '', lsn = 0, timestamp = 0, trailing = 0 } = stored
  return { journal, lsn: Number(lsn), timestamp: Number(timestamp), trailing: Number(trailing) }
}

/** Where this process looks at views that nobody has open. What is left of one that was killed there goes when they are next opened. */
export const lookOf = (file: string) => `${file}.look-${process.pid}`
const LOOK = /\.look-\d+$/

export class Views {
  readonly file: string
  readonly #made: Made
  readonly #folds: Map<string, View[]>
  #writer: Tables
  #reader: Tables | undefined
  readonly #transaction: Transaction
  readonly names: Names
  readonly #undoTo: number[] = []
  readonly #damaged: Map<string, string>
  #indexed = false

  private constructor(file: string, made: Made, writer: Tables, readers = false) {
    this.file = file
    this.#made = made
    this.#writer = writer
    this.#transaction = new Transaction(writer)
    this.names = new Names(writer)
    // Opened together, so that both have the same files, whatever happens to the names of those: a stranger who still has
    // the database open that was replaced may, on leaving, remove what bears the name of its write-ahead file.
    if (readers) this.#reader = new Tables(file, { readonly: true })
    if (readers) this.names.learn()
    this.#damaged = new Map(writer.sql('SELECT log, why FROM damaged').raw().all() as [string, string][])
    this.#folds = new Map()
    for (const view of made.views) {
      for (const type of view.folds.keys()) this.#folds.set(type, [...(this.#folds.get(type) ?? []), view])
    }
  }

  /** Opens the views if they are there, whole enough to open, and made by this code; else says why not. */
  static open(file: string, made: Made): Views | { why: string } {
    let tables: Tables | undefined
    try {
      const there = lstatSync(file, { throwIfNoEntry: false })
      if (!there) return { why: 'there are none' }
      // A link leads to where nothing of ours should be written.
      if (!there.isFile()) return { why: 'what stands in their place is no file' }
      // SQLite reads the rest of a page that was cut as zeros, and says nothing.
      if (there.size % PAGE !== 0) return { why: 'their last page is cut' }
      for (const name of readdirSync(dirname(file)))
        if (LOOK.test(name)) rmSync(join(dirname(file), name), { recursive: true, force: true })
      tables = new Tables(file, {}, true)
      // A commit need not be synced, because the journal is; a checkpoint makes it durable by itself (see `harden`).
      // NORMAL and not OFF: the first write after a checkpoint reuses the write-ahead file, and must not tear it.
      tables.db.exec(WRITE_AHEAD)
      tables.db.exec('PRAGMA synchronous = NORMAL')
      tables.db.exec('PRAGMA wal_autocheckpoint = 0')
      tables.db.exec(CACHE)
      const noted = tables.sql('SELECT value FROM meta WHERE key = ?').pluck()
      const sameVersion = noted.get('fingerprint') === fingerprint(made)
      // An index that is gone is a guard that is gone.
      if (sameVersion && noted.get('shape') === shapeOf(tables)) return new Views(file, made, tables, true)
      tables.close()
      return { why: sameVersion ? 'tables or indexes of theirs are missing' : 'they were made by another version' }
    } catch (error) {
      tables?.close()
      return { why: `they cannot be read: ${(error as Error).message}` }
    }
  }

  /**
   * A new, empty database for a rebuild. It has no safety until it is put in place, and no indexes until `finish`, unless it
   * is `guarded`: then what contradicts what was folded before is refused at once, and not with everything else at the end.
   */
  static create(file: string, made: Made, guarded = false): Views {
    const tables = clearing(file, () => {
      mkdirSync(dirname(file), { recursive: true })
      remove(file)
      remove(`${file}-journal`)
      return new Tables(file)
    })
    // In memory, and not off: a log that cannot be folded is undone.
    tables.db.exec('PRAGMA journal_mode = MEMORY')
    tables.db.exec('PRAGMA synchronous = OFF')
    tables.db.exec(CACHE)
    tables.db.exec(ownTables + made.views.map(tableOf).join(''))
    const views = new Views(file, made, tables)
    if (guarded) views.#index()
    return views
  }

  /** Ends a rebuild: indexes, the mark, a sync. After this the file is complete and can be put in place. */
  finish(mark: Mark): void {
    try {
      this.#index()
    } catch (error) {
      this.mustAgree()
      throw error
    }
    this.begin()
    this.#transaction.write()
    this.#writer.note('fingerprint', fingerprint(this.#made))
    this.#writer.note('shape', shapeOf(this.#writer))
    this.#commitWithNames(mark)
    // To be opened as it will be, with nothing to change first: that takes a sync, for which a recorder may have to wait.
    this.#writer.db.exec(WRITE_AHEAD)
    this.close()
    syncPath(this.file)
  }

  /** Refuses rows that cannot stand together: of those that a guard would have to choose between, it keeps the newest. */
  mustAgree(): void {
    const older = new Set<string>()
    for (const { name, key, indexes } of this.#made.views) {
      for (const index of indexes) {
        const [, columns, where = 'TRUE'] = /^UNIQUE \(([^)]{1,200})\)(?: WHERE (.{1,200}))?$/.exec(index) ?? []
        if (columns === undefined || key.length !== 1) continue
        const newest = `SELECT max(${key[0]}) FROM ${name} WHERE ${where} GROUP BY ${columns}`
        const others = this.#writer.sql(`SELECT ${key[0]} FROM ${name} WHERE ${where} AND ${key[0]} NOT IN (${newest})`)
        for (const own of others.pluck().all() as string[]) older.add(own)
      }
    }
    if (older.size === 0) return
    this.close()
    throw new Contradiction(older)
  }

  #index(): void {
    if (this.#indexed) return
    for (const view of this.#made.views) for (const index of indexesOf(view)) this.#writer.db.exec(index)
    this.#indexed = true
  }

  get mark(): Come {
    return markOf(this.#writer)
  }

  /** The views as the recorder sees them: the open transaction included. */
  get read(): Read {
    return this.#writer.read
  }

  /** The views as everyone else sees them. */
  get committed(): Read {
    if (!this.#reader) throw new Error('broken: views that are being filled have no readers')
    return this.#reader.read
  }

  get uncommitted(): boolean {
    return this.#transaction.open
  }

  /** Is there a row, or anything that trails the rows, that readers do not see yet? */
  get changed(): boolean {
    return this.#transaction.made
  }

  begin(): void {
    this.#transaction.begin()
  }

  /** After a failure of the database: nothing more can be written or committed here. What was committed can still be read. */
  abandon(damaged: boolean): void {
    this.#transaction.abandon()
    this.#writer.close()
    // The next start must not find them, should this process not come to making them anew.
    if (damaged) remove(this.file)
  }

  commit(mark: Mark): void {
    this.#transaction.write()
    // Some errors end the transaction by themselves; writing the mark outside of it would claim what was undone.
    if (!this.#writer.db.inTransaction) throw new Error('the transaction of the views is gone')
    this.#writer.note('journal', mark.journal)
    this.#writer.note('lsn', String(mark.lsn))
    this.#writer.note('timestamp', String(mark.timestamp))
    this.#transaction.commit()
    this.names.learn()
  }

  /** Commits everything up to the mark; the ends of all logs have been put. */
  #commitWithNames(mark: Mark): void {
    this.flushNames()
    this.noteTrailing(mark.lsn)
    this.commit(mark)
  }

  /** To be called before anything is written beside the rows of a record. */
  writing(): void {
    this.#transaction.write()
  }

  /** Every named request and every end of a log up to this place in order is in its table. */
  noteTrailing(lsn: number): void {
    this.#writer.note('trailing', String(lsn))
  }

  /** Writes all named requests there are, however long that takes. */
  flushNames(): void {
    this.#transaction.write()
    this.names.write(Number.POSITIVE_INFINITY)
    this.names.gather()
    this.names.write(Number.POSITIVE_INFINITY)
  }

  savepoint(name: Savepoint): void {
    this.#transaction.savepoint(name)
    this.#undoTo.push(this.names.savepoint)
  }

  release(name: Savepoint): void {
    this.#transaction.release(name)
    this.#undoTo.pop()
  }

  undo(name: Savepoint): void {
    this.#transaction.undo(name)
    this.names.undo(this.#undoTo.pop() ?? 0)
  }

  /** Folds one record into every view that has a fold for it. */
  apply(record: Recorded): void {
    const views = this.#folds.get(record.type)
    if (!views) return
    this.#transaction.write()
    for (const view of views) view.folds.get(record.type)?.(record, this.#writer.rows(view), this.read)
  }

  /** Do records of this type change any row? */
  folds(type: string): boolean {
    return this.#folds.has(type)
  }

  /** Remembers the name of a record's request, where it has one. */
  name(command_id: string | undefined, log: string, offset: number): void {
    if (command_id !== undefined) this.names.remember(command_id, log, offset)
  }

  /** The logs of which only a part could be folded, or nothing, and why. */
  get damaged(): ReadonlyMap<string, string> {
    return this.#damaged
  }

  noteDamage(log: string, why: string): void {
    this.#transaction.write()
    this.#writer.sql('INSERT OR REPLACE INTO damaged (log, why) VALUES (?, ?)').run(log, why)
    this.#damaged.set(log, why)
  }

  head(log: string): End | undefined {
    return this.#writer.sql('SELECT seq, hash, size, at FROM logs WHERE log = ?').get(log) as End | undefined
  }

  /** A log is at least as long as it was when its end was last committed. */
  leastSize(log: string): number | undefined {
    return this.#reader?.sql('SELECT size FROM logs WHERE log = ?').pluck().get(log) as number | undefined
  }

  /** Ends the folding of a log in a rebuild. */
  folded(log: string, head: End): void {
    this.putHead(log, head)
    if (this.names.size > MOST_NAMES) this.flushNames()
  }

  putHead(log: string, head: End): void {
    this.#transaction.write()
    this.#writer
      .sql('INSERT OR REPLACE INTO logs (log, seq, hash, size, at) VALUES (?, ?, ?, ?, ?)')
      .run(log, head.seq, head.hash, head.size, head.at)
  }

  /** Makes everything up to the mark survive a power loss. A synced commit makes all commits before it durable too. */
  harden(mark: Mark): void {
    if (this.uncommitted) throw new Error('broken: hardening the views in the middle of a transaction')
    this.#writer.db.exec('PRAGMA synchronous = FULL')
    this.begin()
    this.#commitWithNames(mark)
    this.checkpoint()
    this.#writer.db.exec('PRAGMA synchronous = NORMAL')
  }

  /**
   * Ends what was begun: commits all of it up to the mark, makes it survive a power loss in the one file, and closes that; returns whether
   * it is all there, as it may not be where somebody else has it open.
   */
  complete(mark: Mark): boolean {
    this.#commitWithNames(mark)
    const { busy, log = -1, checkpointed } = this.checkpoint()
    this.close()
    return busy === 0 && log >= 0 && log === checkpointed
  }

  /** Brings what was committed into the one file; tells how much of it there was, and how much is there. */
  checkpoint(): Record<string, number> {
    return this.#writer.sql('PRAGMA wal_checkpoint(PASSIVE)').get() as Record<string, number>
  }

  /** Is every named request that others know of known here, at the same place? */
  hasAll(others: Tables): boolean {
    for (const { key, ...place } of new Runs(others).names()) if (!this.names.holds(key, place)) return false
    return true
  }

  digests(): Digests {
    return digestsOf(this.#writer, this.#made.views)
  }

  /**
   * Closes views whose place others have taken. The one that may write goes first: whoever is the last to go, and may, brings what
   * lies beside the file into it, and removes what bears that name. Each step takes a moment.
   */
  *leave(): Generator {
    yield this.#writer.close()
    yield this.#reader?.close()
  }

  close(): void {
    this.#reader?.close()
    this.#reader = undefined
    this.#writer.close()
  }
}
