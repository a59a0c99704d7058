// One recorder per data directory (law 13). The lock is the operating system's, taken through SQLite on a file of its
// own: it is gone the moment its holder is, however that came about, and no stale pid can keep anybody out. Beside it
// lies a note that says who holds it and how to reach them. Where an operator forces it, a new file takes the place of the
// lock: whoever holds the old one then holds nothing, and finds that out before it changes anything (fence.ts).

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type Database from 'better-sqlite3'
import { isDamage, isSqlite, openDatabase } from '../core/tables.ts'
import { type Disk, realDisk, withFile, writeAll } from './disk.ts'
import { TakenOver } from './fence.ts'
import { checkFile } from './way.ts'

export interface Holder {
  pid: number
  since: string
  /** Where it serves, once it does. */
  url?: string
  /** What the owner of the files may show it instead of a key. */
  token?: string
}

export class Held extends Error {
  readonly holder: Holder | undefined
  constructor(home: string, holder: Holder | undefined, more = '') {
    const who = holder
      ? `process ${holder.pid}, running since ${holder.since}${holder.url ? ` on ${holder.url}` : ''}`
      : 'another process'
    super(`The data in ${home} is held by ${who}.${more}`)
    this.holder = holder
  }
}

/** The lock holds nothing that could be lost, but only whoever knows that nobody runs may take it away. */
export class LockDamaged extends Error {
  constructor(journal: string) {
    super(
      `The lock ${join(journal, 'lock')} is damaged, so that nobody can take it. Make sure that no Sessile runs on this data, ` +
        `then remove that file and start again. No record is in it.`,
    )
  }
}

const note = (journal: string) => join(journal, 'holder.json')
const lockIn = (journal: string) => join(journal, 'lock')

/** A holder in the way: which file the lock is that they hold, and what their note says. */
export interface InTheWay {
  lock: number
  note: string
}

/** Who has the lock at the moment, as far as anyone can tell who does not hold it; undefined where there is no lock. */
export function inTheWay(journal: string): InTheWay | undefined {
  const lock = realDisk.identity(lockIn(journal))
  return lock === undefined ? undefined : { lock, note: noteIn(journal) }
}

/** A lock that is held, and which file that is. */
interface Hold {
  letGo: () => void
  identity: number | undefined
  /** Was it put in the place of one that another process holds? */
  over: boolean
}

export interface Taking {
  disk: Disk
  home: string
  journal: string
  now: number
  /** The holder whose lock may be put aside although it is held. */
  over?: InTheWay | undefined
  /** Does what must be done, however full the disk is. */
  spend?: (work: () => void) => void
  /** Called once when another process is found to have taken over. */
  lost?: (error: Error) => void
}

export class Lock {
  readonly #hold: Hold
  readonly #disk: Disk
  readonly #journal: string
  /** Looked at before each write and after each sync: its path is put together once. */
  readonly #path: string
  readonly #lost: (error: Error) => void
  readonly #spend: (work: () => void) => void
  #holder: Holder
  #over: TakenOver | undefined

  private constructor(hold: Hold, { disk, journal, now, lost = () => {}, spend = (work) => work() }: Taking) {
    this.#hold = hold
    this.#disk = disk
    this.#journal = journal
    this.#path = lockIn(journal)
    this.#lost = lost
    this.#spend = spend
    this.#holder = { pid: process.pid, since: new Date(now).toISOString() }
  }

  static take(taking: Taking): Lock {
    const { disk, home, journal, over } = taking
    const hold = unlessDamaged(
      journal,
      () => take(disk, lockIn(journal)) ?? (over === undefined ? undefined : seize(disk, journal, over)),
    )
    if (!hold) throw new Held(home, holderOf(journal))
    const lock = new Lock(hold, taking)
    lock.#write()
    return lock
  }

  /** By what another thread sees that it is still ours: the file of this path is this one. */
  get sign(): { path: string; identity: number | undefined } {
    return { path: this.#path, identity: this.#hold.identity }
  }

  /** Was it taken from a process that may still be there? */
  get tookOver(): boolean {
    return this.#hold.over
  }

  /** Looks whether the lock is still the one that is held; where it is not, this process is at its end. */
  assertOurs(): void {
    if (this.#over) throw this.#over
    if (this.#isOurs) return
    const next = holderOf(this.#journal)
    const who = next && next.pid !== process.pid ? `process ${next.pid}${next.url ? ` on ${next.url}` : ''}` : 'another process'
    this.#over = new TakenOver(`${who} has taken over the data`)
    this.#lost(this.#over)
    throw this.#over
  }

  get #isOurs(): boolean {
    return this.#disk.identity(this.#path) === this.#hold.identity
  }

  /** Says how the holder can be reached. */
  announce(url: string, token: string): void {
    this.#holder = { ...this.#holder, url, token }
    this.#write()
  }

  #write(): void {
    this.assertOurs()
    const text = Buffer.from(`${JSON.stringify(this.#holder)}\n`)
    this.#spend(() => {
      withFile(this.#disk, `${note(this.#journal)}.new`, true, (fd) => {
        this.#disk.truncate(fd, 0)
        writeAll(this.#disk, fd, text, 0)
      })
      this.#disk.rename(`${note(this.#journal)}.new`, note(this.#journal))
    })
  }

  release(): void {
    // The note of whoever took over is theirs.
    if (!this.#over && this.#isOurs) this.#disk.remove(note(this.#journal))
    this.#hold.letGo()
  }
}

function unlessDamaged<T>(journal: string, taking: () => T): T {
  try {
    return taking()
  } catch (error) {
    throw isSqlite(error) && isDamage(error.code) ? new LockDamaged(journal) : error
  }
}

/** How often the lock may be replaced under whoever is just taking it, before they leave it to the others. */
const MOST_TRIES = 8

/** Takes the lock that has this name also when it is taken: one that was just replaced would keep nobody out. */
function take(disk: Disk, path: string): Hold | undefined {
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const before = disk.identity(path)
    const letGo = disk.hold(path)
    if (!letGo) return undefined
    const identity = disk.identity(path)
    if (identity === before) return { letGo, identity, over: false }
    letGo()
  }
  return undefined
}

/**
 * Puts a new lock in the place of this one, which its holder does not let go. One at a time, and nobody twice. Whoever took
 * the lock meanwhile as one takes it has the same file, and a note of their own: of them nobody has said that they hang.
 * (One who has not come to writing it has not begun either: they find out with that note, and end.)
 */
function seize(disk: Disk, journal: string, over: InTheWay): Hold | undefined {
  const path = lockIn(journal)
  const letNext = disk.hold(`${path}.over`)
  if (!letNext) return undefined
  try {
    if (disk.identity(path) !== over.lock || noteIn(journal) !== over.note) return undefined // Somebody was quicker.
    const letGo = disk.hold(`${path}.new`)
    if (!letGo) return undefined
    const identity = disk.identity(`${path}.new`)
    disk.rename(`${path}.new`, path)
    return { letGo, identity, over: true }
  } finally {
    letNext()
  }
}

/** Who last took the lock, if they left a note. */
export function holderOf(journal: string): Holder | undefined {
  try {
    return JSON.parse(noteIn(journal)) as Holder
  } catch {
    return undefined
  }
}

function noteIn(journal: string): string {
  try {
    checkFile(note(journal))
    return readFileSync(note(journal), 'utf8')
  } catch {
    return ''
  }
}

/** Is somebody holding the lock? Asks without taking it. */
export const isHeld = (journal: string): boolean => troubleOf(journal) === 'SQLITE_BUSY'

/** Why nobody could take the lock, though nobody holds it. */
export const lockDamage = (journal: string): string | undefined =>
  isDamage(troubleOf(journal)) ? new LockDamaged(journal).message : undefined

function troubleOf(journal: string): string {
  let db: Database.Database | undefined
  try {
    checkFile(lockIn(journal))
    db = openDatabase(lockIn(journal), { readonly: true, fileMustExist: true, timeout: 0 })
    db.exec('SELECT count(*) FROM sqlite_master')
    return ''
  } catch (error) {
    return isSqlite(error) ? error.code : ''
  } finally {
    db?.close()
  }
}
