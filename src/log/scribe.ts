// The scribe: writes what it is given, in order, and syncs once for all that has come meanwhile. It is what runs in a thread of
// its own, beside the recorder's (scribe-thread.ts); here it knows orders and words, and nothing of how they come and go.
//
// Where a batch cannot be written, those that came after it rest on what did not happen: they are put down unread, until the
// recorder says that it has taken all of that back. What was written before is made durable first, and told.

import { NotWritten } from '../core/log.ts'
import type { Disk } from './disk.ts'
import { TakenOver } from './fence.ts'
import { Pen, type Sheet } from './pen.ts'

export type Order = { sheet: Sheet } | { batch: number; shared: SharedArrayBuffer; length: number; known: number } | 'go on'

/** That one may be told what to do; up to which batch all is durable; that a batch and all after it were not written; or that nobody knows what the disk holds. */
export type Word = 'ready' | { durable: number } | { refused: string; full: boolean } | { lost: string; over: boolean }

export class Scribe {
  readonly #disk: Disk
  readonly #say: (word: Word) => void
  #sheet: Sheet | undefined
  #pen: Pen | undefined
  #written = 0
  #durable = 0
  #refused: NotWritten | undefined
  #told = false
  #over = false
  #busy = false

  constructor(disk: Disk, say: (word: Word) => void) {
    this.#disk = disk
    this.#say = say
  }

  /** Writes at once, also while a sync is under way: what has come by then shares the next. */
  hear(order: Order): void {
    if (this.#over) return
    try {
      this.#do(order)
    } catch (error) {
      this.#end(error)
    }
  }

  /** Syncs what was written, until all of it is durable. */
  async work(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    while (this.#written > this.#durable && !this.#over) await this.#sync().catch((error: unknown) => this.#end(error))
    this.#busy = false
    if (this.#refused && !this.#told && !this.#over) {
      this.#told = true
      this.#say({ refused: this.#refused.message, full: this.#refused.full })
    }
  }

  #do(order: Order): void {
    if (order === 'go on') this.#refused = undefined
    else if ('sheet' in order) {
      this.#sheet = order.sheet
      this.#pen = new Pen(this.#disk, order.sheet)
    } else if (!this.#refused) this.#write(order)
  }

  #write({ batch, shared, length, known }: Exclude<Order, 'go on' | { sheet: Sheet }>): void {
    try {
      this.#pen?.write({ batch, bytes: Buffer.from(shared, 0, length) }, known)
      this.#written = batch
    } catch (error) {
      if (!(error instanceof NotWritten)) throw error
      this.#refused = error
      this.#told = false
    }
  }

  async #sync(): Promise<void> {
    const written = this.#written
    // Nobody else waits for a turn here, so that the way over a pool of threads would only take time.
    await this.#disk.sync((this.#sheet as Sheet).fd, true)
    this.#pen?.assertOurs()
    this.#durable = written
    this.#say({ durable: written })
  }

  #end(error: unknown): void {
    if (this.#over) return
    this.#over = true
    this.#say({ lost: (error as Error).message, over: error instanceof TakenOver })
  }
}
