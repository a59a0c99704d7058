// The pen: seals what has yet to be sealed, and brings each batch to its place in the segment that is being written. It knows
// nothing of who waits for it, so that it can be held by another thread (see thread.ts).

import { assert } from '../core/errors.ts'
import { NotWritten, SyncFailed } from '../core/log.ts'
import { codeOf, type Disk, writeAll } from './disk.ts'
import { finish, type Printed } from './frame.ts'

/** The segment that is being written, in words that another thread understands. */
export interface Sheet {
  fd: number
  path: string
  /** What the checksums of its frames begin with. */
  seed: number
  end: number
}

/** How far ahead of need zeros are written: a sync that need not move the file's end is more than twice as fast. */
const AHEAD = Buffer.alloc(512 * 1024)

export class Pen {
  readonly #disk: Disk
  readonly #sheet: Sheet
  #end: number
  #allocated: number
  /** Batches with hashes that later lines may follow. */
  readonly #recent = new Map<number, Buffer>()

  constructor(disk: Disk, sheet: Sheet) {
    this.#disk = disk
    this.#sheet = sheet
    this.#end = sheet.end
    this.#allocated = sheet.end
  }

  /** `known`: whoever prints knows the hashes of all batches up to this one, and says them where lines follow them. */
  write({ batch, bytes }: Pick<Printed, 'batch' | 'bytes'>, known: number): void {
    for (const earlier of this.#recent.keys()) if (earlier <= known) this.#recent.delete(earlier)
    this.#recent.set(batch, bytes)
    finish(bytes, this.#sheet.seed, (earlier) => {
      const found = this.#recent.get(earlier)
      assert(found, 'a line follows one that is forgotten')
      return found
    })
    try {
      this.#allocate(this.#end + bytes.length)
      writeAll(this.#disk, this.#sheet.fd, bytes, this.#end)
    } catch (error) {
      this.#recent.delete(batch)
      this.#cutBack()
      throw new NotWritten(`the journal could not be written (${codeOf(error)})`, isFull(error))
    }
    this.#end += bytes.length
  }

  /**
   * Another recorder removes this segment when it starts. Then what was just written is not in the journal that counts. That
   * the name is there tells as much as which file has it: no name is given twice, since epochs only grow. And to ask the file
   * itself costs: Linux then tells precisely when it is changed next, and the sync after that takes up to half as long again.
   */
  assertOurs(): void {
    if (!this.#disk.exists(this.#sheet.path)) throw new SyncFailed('another recorder has taken over the data')
  }

  #allocate(until: number): void {
    while (this.#allocated < until) {
      writeAll(this.#disk, this.#sheet.fd, AHEAD, this.#allocated)
      this.#allocated += AHEAD.length
    }
  }

  /** Takes back what a failed write left, durably: it was refused, so it must not reappear after a crash. */
  #cutBack(): void {
    uncertain(() => {
      this.#disk.truncate(this.#sheet.fd, this.#end)
      this.#disk.syncNow(this.#sheet.fd)
    })
    this.#allocated = this.#end
  }
}

/** Whatever fails here leaves the disk in a state that only a new start can read. */
export function uncertain(work: () => void): void {
  try {
    work()
  } catch (error) {
    throw error instanceof SyncFailed
      ? error
      : new SyncFailed(`the journal is in an unknown state (${codeOf(error)})`, { cause: error })
  }
}

export const isFull = (error: unknown) => ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(codeOf(error))
