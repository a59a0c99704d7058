// The quarantine: what was read of the journal and may not, or cannot, go to where it belongs. Lines that could not go to
// their log bear its name and their place there, so that setting them aside again changes nothing.

import { join } from 'node:path'
import { lastName, type Report } from '../core/log.ts'
import { codeOf, type Disk, withFile, writeAll } from './disk.ts'
import type { Piece } from './portions.ts'

export const quarantineOf = (journal: string) => join(journal, 'quarantine')

export const asideName = (log: string, offset: number) => `${log.replaceAll('/', '~')}@${offset}.lines`

/** Whose lines those are; undefined where a name is none of these. */
export function asideIn(name: string): { log: string; offset: number } | undefined {
  const [, log, offset] = /^(.*)@(\d{1,15})\.lines$/.exec(name) ?? []
  return log === undefined ? undefined : { log: log.replaceAll('~', '/'), offset: Number(offset) }
}

/** Keeps these bytes for good. They get the name when they are whole: what bears it is what somebody would look for. */
export function keepAside(disk: Disk, journal: string, name: string, bytes: Buffer): string {
  const path = join(quarantineOf(journal), name)
  disk.makeFolder(quarantineOf(journal))
  withFile(disk, `${path}.new`, true, (fd) => {
    disk.truncate(fd, 0)
    writeAll(disk, fd, bytes, 0)
    disk.syncNow(fd)
  })
  disk.rename(`${path}.new`, path)
  disk.syncFolderNow(quarantineOf(journal))
  return path
}

/** The logs whose files are damaged, or out of reach: they take no more, and what they should still have had lies aside. */
export class Harmed {
  readonly #disk: Disk
  readonly #journal: string
  readonly #report: Report
  readonly #why = new Map<string, string>()

  constructor(disk: Disk, journal: string, report: Report) {
    this.#disk = disk
    this.#journal = journal
    this.#report = report
    for (const name of disk.list(quarantineOf(journal))) {
      const aside = asideIn(name)
      if (aside) this.#why.set(aside.log, 'it was found damaged at an earlier start')
      // What was not finished is still in the journal.
      else if (name.endsWith('.new')) disk.remove(join(quarantineOf(journal), name))
    }
  }

  /** Why each of them takes no more. */
  get all(): ReadonlyMap<string, string> {
    return this.#why
  }

  note(log: string, why: string): void {
    if (this.#why.has(log)) return
    this.#why.set(log, why)
    this.#report('a log is damaged and takes no more records', { log: lastName(log), why })
  }

  /** Only a log whose lines are safe is given up: where the whole disk fails, that of one log means nothing. */
  setAside(log: string, { offset, bytes }: Piece, why: string): void {
    keepAside(this.#disk, this.#journal, asideName(log, offset), bytes)
    this.note(log, why)
  }
}

export const unwritable = (error: unknown) => `its file cannot be written (${codeOf(error)})`

/** Something other than the log's file stands in its place. */
export const isMisplaced = (error: unknown) => ['ENOENT', 'ENOTDIR', 'EISDIR', 'ELOOP', 'EACCES', 'EPERM'].includes(codeOf(error))

/** The disk has lost the file, or a part of it. (Of a file system that is out of joint Node has no name for the error.) */
export const isOutOfReach = (error: unknown) => codeOf(error) === 'EIO' || codeOf(error).startsWith('Unknown system error')

export const isLost = (error: unknown) => isMisplaced(error) || isOutOfReach(error)

/** A disk may be disturbed for a moment: what it has lost it refuses twice. */
export function twice<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    if (!isOutOfReach(error)) throw error
    return work()
  }
}
