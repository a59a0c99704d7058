// The logs as the next start would find them: each file with what the journal still holds for it in its place. Only
// reads, and asks no lock: what a crash left unfinished is whole here, and what is damaged shows.

import { lstatSync } from 'node:fs'
import { dirname } from 'node:path'
import type { JournalLine, Shelf } from '../core/log.ts'
import { readAnyway } from './anyway.ts'
import { asideName } from './aside.ts'
import { codeOf, readingDisk, withFile } from './disk.ts'
import { linesIn, surviving } from './journal.ts'
import { foreignIn, wrongLength } from './portions.ts'
import { FileShelf, fileOf, journalOf, readOn } from './shelf.ts'
import { checkFile, checkWayTo } from './way.ts'

interface Tail {
  from: number
  bytes: Buffer
}

interface Joining {
  /** The names of the logs that have files. */
  logs: Iterable<string>
  /** What the journal holds, in order; of one that is damaged, with gaps. */
  lines: readonly JournalLine[]
  /** Is all wanted that can be had? Then lines that do not fit their file are in it, too, and zeros where the disk has lost it. */
  anyway?: boolean
}

/** A data directory that nobody holds and whose journal is whole, for a copy that is to hold all that was acknowledged. */
export function leftIn(home: string): Joined {
  const { segments } = surviving(readingDisk, journalOf(home))
  const lines: JournalLine[] = []
  for (const some of linesIn(readingDisk, segments))
    for (const line of some) lines.push({ ...line, bytes: Buffer.from(line.bytes) })
  // What is read here may have died with its writer on the way to the disk; it must not be in a copy alone.
  for (const { path } of segments) withFile(readingDisk, path, false, (fd) => readingDisk.syncNow(fd))
  return new Joined(home, { logs: new FileShelf(home).names(), lines })
}

export class Joined implements Shelf {
  readonly #files: FileShelf
  readonly #logs: ReadonlySet<string>
  readonly #lines = new Map<string, JournalLine[]>()
  readonly #anyway: boolean
  /** The logs of which the disk has lost a part, as far as they were read. */
  readonly unreadable = new Set<string>()
  /** What was put together last: a log is read in pieces, one after the other. */
  #last: ({ log: string } & Tail) | undefined

  constructor(home: string, { logs, lines, anyway = false }: Joining) {
    this.#files = new FileShelf(home)
    this.#logs = new Set(logs)
    this.#anyway = anyway
    for (const line of lines) {
      const own = this.#lines.get(line.log)
      if (own) own.push(line)
      else this.#lines.set(line.log, [line])
    }
  }

  names(): string[] {
    return [...new Set([...this.#logs, ...this.#lines.keys()])].sort()
  }

  linesOf(log: string): readonly JournalLine[] {
    return this.#lines.get(log) ?? []
  }

  /** Where a log ends that the journal knows; undefined where its file alone says it. */
  end(log: string): number | undefined {
    const last = this.#joins(log).at(-1)
    return last && last.offset + last.bytes.length
  }

  read(log: string, offset: number, length: number): Buffer {
    const tail = this.#tail(log)
    if (!tail) return this.file(log, offset, length)
    if (offset >= tail.from) return tail.bytes.subarray(offset - tail.from, offset - tail.from + length)
    return readOn((bytes) => this.file(log, offset, bytes), tail.from - offset, length, tail.bytes)
  }

  /** What the file alone holds. */
  file(log: string, offset: number, length: number): Buffer {
    if (this.#anyway && this.#standing(log) !== 'file') return Buffer.alloc(0)
    try {
      return this.#files.read(log, offset, length)
    } catch (error) {
      if (!this.#anyway || codeOf(error) !== 'EIO') throw error
      this.unreadable.add(log)
      return readAnyway(fileOf(this.#files.home, log)).subarray(offset, offset + length)
    }
  }

  /** What is in the place of its file: that, nothing, or something else. */
  #standing(log: string): 'file' | 'nothing' | 'other' {
    const path = fileOf(this.#files.home, log)
    try {
      checkWayTo(dirname(path))
      checkFile(path)
      return lstatSync(path, { throwIfNoEntry: false }) ? 'file' : 'nothing'
    } catch {
      return 'other'
    }
  }

  #size(log: string): number {
    return this.#standing(log) === 'file' ? this.#files.size(log) : 0
  }

  /** Why the next start would leave the file as it is, and set the journal's lines aside; undefined where it would not. */
  mismatch(log: string): string | undefined {
    const lines = this.linesOf(log)
    const [first, last] = [lines[0], lines.at(-1)]
    if (!first || !last) return undefined
    if (this.#standing(log) === 'other') return 'something else stands where its file belongs'
    try {
      return wrongLength(this.#size(log), first.offset, last.offset + last.bytes.length) ?? this.difference(log)
    } catch (error) {
      if (codeOf(error) === '') throw error
      return `its file cannot be read (${codeOf(error)})`
    }
  }

  /** Where the file holds something else than the journal says, and not what a crash leaves; true also while it grows. */
  difference(log: string): string | undefined {
    for (const { offset, bytes } of this.linesOf(log)) {
      const foreign = foreignIn(this.file(log, offset, bytes.length), offset, bytes)
      if (foreign !== undefined) return foreign
    }
    return undefined
  }

  /** What the next start would set aside because it does not fit, by the name that it would give it. */
  misfits(): Map<string, Buffer> {
    const misfits = [...this.#lines].filter(([log]) => this.mismatch(log) !== undefined)
    return new Map(
      misfits.map(([log, lines]) => [
        asideName(log, (lines[0] as JournalLine).offset),
        Buffer.concat(lines.map(({ bytes }) => bytes)),
      ]),
    )
  }

  /** What of the journal is put in its place. */
  #joins(log: string): readonly JournalLine[] {
    return this.#anyway || this.mismatch(log) === undefined ? this.linesOf(log) : []
  }

  #tail(log: string): Tail | undefined {
    if (this.#last?.log === log) return this.#last
    const lines = this.#joins(log)
    if (lines.length > 0) this.#last = { log, ...this.#put(log, lines) }
    return lines.length > 0 ? this.#last : undefined
  }

  #put(log: string, lines: readonly JournalLine[]): Tail {
    const size = this.#size(log)
    const from = lines.reduce((least, { offset }) => Math.min(least, offset), size)
    const to = lines.reduce((most, { offset, bytes }) => Math.max(most, offset + bytes.length), size)
    const bytes = Buffer.alloc(to - from)
    this.file(log, from, to - from).copy(bytes)
    for (const line of lines) line.bytes.copy(bytes, line.offset - from)
    return { from, bytes }
  }
}
