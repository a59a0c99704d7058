// One recorder per data directory (law 13). The lock is the operating system's, taken through SQLite on a file of its
// own: it is gone the moment its holder is, however that came about, and no stale pid can keep anybody out. Beside it
// lies a note that says who holds it and how to reach them.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type Database from 'better-sqlite3'
import { openDatabase } from '../core/tables.ts'
import { type Disk, withFile, writeAll } from './disk.ts'
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
  constructor(home: string, holder: Holder | undefined) {
    const who = holder
      ? `process ${holder.pid}, running since ${holder.since}${holder.url ? ` on ${holder.url}` : ''}`
      : 'another process'
    super(`The data in ${home} is held by ${who}.`)
    this.holder = holder
  }
}

const note = (journal: string) => join(journal, 'holder.json')

export class Lock {
  readonly #letGo: () => void
  readonly #disk: Disk
  readonly #journal: string
  #holder: Holder

  private constructor(letGo: () => void, disk: Disk, journal: string, holder: Holder) {
    this.#letGo = letGo
    this.#disk = disk
    this.#journal = journal
    this.#holder = holder
  }

  static take(disk: Disk, home: string, journal: string, now: number): Lock {
    const letGo = disk.hold(join(journal, 'lock'))
    if (!letGo) throw new Held(home, holderOf(journal))
    const lock = new Lock(letGo, disk, journal, { pid: process.pid, since: new Date(now).toISOString() })
    lock.#write()
    return lock
  }

  /** Says how the holder can be reached. */
  announce(url: string, token: string): void {
    this.#holder = { ...this.#holder, url, token }
    this.#write()
  }

  #write(): void {
    const text = Buffer.from(`${JSON.stringify(this.#holder)}\n`)
    withFile(this.#disk, `${note(this.#journal)}.new`, true, (fd) => {
      this.#disk.truncate(fd, 0)
      writeAll(this.#disk, fd, text, 0)
    })
    this.#disk.rename(`${note(this.#journal)}.new`, note(this.#journal))
  }

  release(): void {
    this.#disk.remove(note(this.#journal))
    this.#letGo()
  }
}

/** Who last took the lock, if they left a note. */
export function holderOf(journal: string): Holder | undefined {
  try {
    checkFile(note(journal))
    return JSON.parse(readFileSync(note(journal), 'utf8')) as Holder
  } catch {
    return undefined
  }
}

/** Is somebody holding the lock? Asks without taking it. */
export function isHeld(journal: string): boolean {
  let db: Database.Database | undefined
  try {
    checkFile(join(journal, 'lock'))
    db = openDatabase(join(journal, 'lock'), { readonly: true, fileMustExist: true, timeout: 0 })
    db.exec('SELECT count(*) FROM sqlite_master')
    return false
  } catch (error) {
    return (error as { code?: string }).code === 'SQLITE_BUSY'
  } finally {
    db?.close()
  }
}
