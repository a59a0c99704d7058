// Makes a data directory of a backup: in a folder aside first, which gets its place in one step when all is in it. Until
// then, nothing is there that could be taken for a data directory.

import { createHash } from 'node:crypto'
import { dirname, join } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { linesOf } from '../core/log.ts'
import { scan } from '../core/record.ts'
import { filled, hardened } from './bulk.ts'
import { codeOf, type Disk, realDisk, removeTree } from './disk.ts'
import { logIn, notWhole, type Saved } from './manifest.ts'
import { isFull } from './pen.ts'
import type { Backup } from './saved.ts'
import { logsOf, partsOf } from './shelf.ts'

const ASIDE = '.restoring'

export interface Restored {
  files: number
  records: number
  bytes: number
  /** When the last of them was recorded. */
  until: string | undefined
}

export class Restoring {
  /** What becomes the data directory: filled here, and checked, before it counts. */
  readonly aside: string
  readonly #disk: Disk = realDisk
  readonly #home: string
  readonly #isNew: boolean
  readonly #touched: string[] = []

  constructor(home: string) {
    this.#home = home
    this.aside = join(home, ASIDE)
    this.#isNew = !this.#disk.exists(home)
    const others = this.#disk.list(home).filter((name) => name !== ASIDE && name !== 'lost+found')
    if (others.length > 0)
      throw new Refusal(
        'refused',
        'not-empty',
        `${home} is not empty: a backup is restored into a new or an empty folder (--to FOLDER).`,
      )
    removeTree(this.aside)
  }

  /** Copies what was saved, or of each log what was recorded up to a moment. */
  async fill(backup: Backup, at: string | undefined): Promise<Restored> {
    const done: Restored = { files: 0, records: 0, bytes: 0, until: undefined }
    for (const file of backup.manifest.files.values()) {
      const log = logIn(file.name)
      if (log === undefined || at === undefined) this.#copy(backup, file, done)
      if (log !== undefined) this.#count(backup, log, at, done)
    }
    if (done.records === 0) throw new Refusal('refused', 'nothing-yet', 'Nothing was recorded by then: the backup begins later.')
    await hardened(this.#disk, this.#touched, this.aside)
    return done
  }

  /** A file as it was saved. Its digest is looked at once more, on the way. */
  #copy(backup: Backup, { name, bytes: length, sha256 }: Saved, done: Restored): void {
    const sha = createHash('sha256')
    const pieces = function* () {
      for (const bytes of partsOf(backup.pathOf(name), length)) {
        sha.update(bytes)
        yield bytes
      }
    }
    this.#write(name, pieces())
    if (sha.digest('hex') !== sha256) throw notWhole(`${name} changed while it was read`)
    done.files++
    done.bytes += length
  }

  /** The lines up to a moment, written where the log was not copied whole. An erased one goes with those before it. */
  #count(backup: Backup, log: string, at: string | undefined, done: Restored): void {
    const lines = this.#linesUntil(backup, log, at, done)
    if (at === undefined) for (const _ of lines);
    else {
      const first = lines.next()
      if (first.done) return
      const all = function* () {
        yield first.value
        yield* lines
      }
      this.#write(`logs/${log}.jsonl`, all())
      done.files++
    }
  }

  *#linesUntil(backup: Backup, log: string, at: string | undefined, done: Restored): Generator<Buffer, void> {
    for (const { bytes } of linesOf(backup, log)) {
      const timestamp = scan(bytes)?.envelope.timestamp
      if (at !== undefined && timestamp !== undefined && timestamp > at) return
      if (timestamp !== undefined && (done.until === undefined || timestamp > done.until)) done.until = timestamp
      done.records++
      if (at !== undefined) done.bytes += bytes.length + 1
      yield Buffer.concat([bytes, NEWLINE])
    }
  }

  #write(name: string, pieces: Iterable<Buffer>): void {
    const path = join(this.aside, name)
    this.#touched.push(path)
    filled(this.#disk, path, pieces)
  }

  /** From here on it is a data directory. The logs come first: views without logs are nothing, and a start makes views anew. */
  finish(): void {
    for (const name of ['logs', 'projections']) {
      const made = join(this.aside, name)
      if (this.#disk.exists(made)) this.#disk.rename(made, join(this.#home, name))
    }
    removeTree(this.aside)
    this.#disk.syncFolderNow(logsOf(this.#home))
    this.#disk.syncFolderNow(this.#home)
    this.#disk.syncFolderNow(dirname(this.#home))
  }

  /** Leaves no trace; returns what is to be said of what went wrong. */
  undo(error: unknown): unknown {
    removeTree(this.aside)
    if (this.#isNew && this.#disk.list(this.#home).length === 0) removeTree(this.#home)
    if (!isFull(error) && codeOf(error) !== 'SQLITE_FULL') return error
    return new Refusal('unavailable', 'home-full', `There is no space left in ${this.#home}: nothing was restored.`)
  }
}

const NEWLINE = Buffer.from('\n')
