// The logs of a data directory that nobody holds, as a start would leave them: what a crash kept in the journal only is
// read from there. Nothing is written.

import { lstatSync } from 'node:fs'
import type { Shelf } from '../core/log.ts'
import { asideName } from './aside.ts'
import { firstForeign } from './copies.ts'
import { readingDisk, withFile } from './disk.ts'
import { surviving } from './journal.ts'
import { FileShelf, fileOf, journalOf } from './shelf.ts'

export class CrashedShelf implements Shelf {
  readonly #files: FileShelf
  readonly #pending = new Map<string, { offset: number; bytes: Buffer }>()
  /** What a start would set aside, because it does not fit the file it belongs to; by the log and its place there. */
  readonly misfits = new Map<string, Buffer>()

  constructor(home: string) {
    this.#files = new FileShelf(home)
    const { segments, survived } = surviving(readingDisk, journalOf(home))
    // What is read here may have died with its writer on the way to the disk; it must not be in a copy alone.
    for (const { path } of segments) withFile(readingDisk, path, false, (fd) => readingDisk.syncNow(fd))
    const own = new Map<string, { offset: number; pieces: Buffer[] }>()
    for (const { log, offset, bytes } of survived) {
      const known = own.get(log)
      if (known) known.pieces.push(bytes)
      else own.set(log, { offset, pieces: [bytes] })
    }
    for (const [log, { offset, pieces }] of own) {
      const bytes = Buffer.concat(pieces)
      if (this.#fits(fileOf(home, log), log, offset, bytes)) this.#pending.set(log, { offset, bytes })
      else this.misfits.set(asideName(log, offset), bytes)
    }
  }

  #fits(path: string, log: string, offset: number, bytes: Buffer): boolean {
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (stat && !stat.isFile()) return false
    const size = stat?.size ?? 0
    if (size < offset || size > offset + bytes.length) return false
    return firstForeign(this.#files.read(log, offset, size - offset), bytes) < 0
  }

  *names(): Generator<string> {
    const left = new Set(this.#pending.keys())
    for (const log of this.#files.names()) {
      left.delete(log)
      yield log
    }
    yield* left
  }

  /** Where a log ends that the journal knows; undefined where its file says it. */
  end(log: string): number | undefined {
    const pending = this.#pending.get(log)
    return pending && pending.offset + pending.bytes.length
  }

  read(log: string, offset: number, length: number): Buffer {
    const pending = this.#pending.get(log)
    if (!pending) return this.#files.read(log, offset, length)
    const from = offset - pending.offset
    return from >= 0 ? pending.bytes.subarray(from, from + length) : this.#files.read(log, offset, Math.min(length, -from))
  }
}
