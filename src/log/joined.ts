// The logs as the next start would find them: each file with what the journal still holds for it in its place. Only
// reads, and asks no lock: what a crash left unfinished is whole here, and what is damaged shows.

import type { JournalLine, Shelf } from '../core/log.ts'
import { readAnyway } from './anyway.ts'
import { codeOf } from './disk.ts'
import { FileShelf, fileOf } from './shelf.ts'

interface Tail {
  from: number
  bytes: Buffer
}

export class Joined implements Shelf {
  readonly #files: FileShelf
  readonly #logs: ReadonlySet<string>
  readonly #lines = new Map<string, JournalLine[]>()
  /** The logs of which the disk has lost a part, as far as they were read. */
  readonly unreadable = new Set<string>()
  /** What was put together last: a log is read in pieces, one after the other. */
  #last: ({ log: string } & Tail) | undefined

  /** `logs`: the files that may be read; `lines`: what the journal holds, in order. */
  constructor(home: string, logs: readonly string[], lines: readonly JournalLine[]) {
    this.#files = new FileShelf(home)
    this.#logs = new Set(logs)
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

  read(log: string, offset: number, length: number): Buffer {
    const tail = this.#tail(log)
    if (!tail) return this.file(log, offset, length)
    if (offset >= tail.from) return tail.bytes.subarray(offset - tail.from, offset - tail.from + length)
    return this.file(log, offset, Math.min(length, tail.from - offset))
  }

  /** What the file alone holds; nothing where something else stands in its place, and zeros where it cannot be read. */
  file(log: string, offset: number, length: number): Buffer {
    if (!this.#logs.has(log)) return Buffer.alloc(0)
    try {
      return this.#files.read(log, offset, length)
    } catch (error) {
      if (codeOf(error) !== 'EIO') throw error
      this.unreadable.add(log)
      return readAnyway(fileOf(this.#files.home, log)).subarray(offset, offset + length)
    }
  }

  #size(log: string): number {
    return this.#logs.has(log) ? this.#files.size(log) : 0
  }

  /** Why the next start would leave the file as it is, and set the journal's lines aside; undefined where it would not. */
  mismatch(log: string): string | undefined {
    const lines = this.linesOf(log)
    const [first, last] = [lines[0], lines.at(-1)]
    if (!first || !last) return undefined
    const size = this.#size(log)
    const end = last.offset + last.bytes.length
    if (size < first.offset) return `its file ends at byte ${size}, and the journal goes on at byte ${first.offset}`
    if (size > end) return `its file has ${size - end} bytes that no record accounts for`
    return this.difference(log)
  }

  /** Where the file holds something else than the journal says, and not what a crash leaves; true also while it grows. */
  difference(log: string): string | undefined {
    for (const { offset, bytes } of this.linesOf(log)) {
      const found = this.file(log, offset, bytes.length)
      const foreign = found.findIndex((byte, i) => byte !== bytes[i] && byte !== 0)
      if (foreign >= 0) return `its file differs from the journal at byte ${offset + foreign}`
    }
    return undefined
  }

  #tail(log: string): Tail | undefined {
    const lines = this.#lines.get(log)
    if (!lines) return undefined
    if (this.#last?.log !== log) this.#last = { log, ...this.#put(log, lines) }
    return this.#last
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
