// Whose hand holds the pen: the recorder's own, which writes at once and has the disk sync beside it, or that of a thread
// (thread.ts). What one of them may do and say is the same.

import type { Disk } from './disk.ts'
import type { Printed } from './frame.ts'
import { Pen, type Sheet } from './pen.ts'

export interface Hand {
  /** The last batch that is durable. */
  durable: number
  /** Begins on another segment; all that was written before is durable. */
  turn(sheet: Sheet): void
  /** Where a batch is printed that this hand will write. */
  room(length: number): Buffer
  /** The bytes of this batch, which is durable, are needed by nobody else any more. */
  letGo(batch: number): void
  /** `known`: see the pen's. Throws what it finds out at once; what it finds out later is thrown by `sync`. */
  write(printed: Printed, known: number): void
  /** Resolves when all up to this batch is durable. `alone`: nobody else could use the time that it takes. */
  sync(batch: number, alone: boolean): Promise<void>
  /** Where it threw `NotWritten`: what was not written has been taken back by whoever asked for it, and more may be written. */
  goOn(): void
  close(): void
}

export class OwnHand implements Hand {
  durable = 0
  readonly #disk: Disk
  #sheet: Sheet
  #pen: Pen

  constructor(disk: Disk, sheet: Sheet) {
    this.#disk = disk
    this.#sheet = sheet
    this.#pen = new Pen(disk, sheet)
  }

  turn(sheet: Sheet): void {
    this.#sheet = sheet
    this.#pen = new Pen(this.#disk, sheet)
  }

  room(length: number): Buffer {
    return Buffer.allocUnsafeSlow(length)
  }

  letGo(): void {}

  write(printed: Printed, known: number): void {
    this.#pen.write(printed, known)
  }

  /** A failed sync is not caught: nobody knows what the disk holds now, and only reading it anew can tell. */
  async sync(batch: number, alone: boolean): Promise<void> {
    const pen = this.#pen
    await this.#disk.sync(this.#sheet.fd, alone)
    pen.assertOurs()
    this.durable = batch
  }

  goOn(): void {}

  close(): void {}
}
