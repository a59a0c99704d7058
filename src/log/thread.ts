// The hand of a thread: batches are handed over as they are printed, and sealed, written and synced there, while the recorder
// decides what comes next. A thread costs memory and a start, so there is one only where much is recorded.

import { NotWritten, SyncFailed } from '../core/log.ts'
import { begin } from './begin.ts'
import { TakenOver } from './fence.ts'
import type { Printed } from './frame.ts'
import type { Hand } from './hand.ts'
import type { Sheet } from './pen.ts'
import type { Order, Word } from './scribe.ts'

/** How a scribe is reached, wherever it works. */
export interface Desk {
  order(order: Order): void
  /** From now on, somebody waits for a word: till then the process must not end by itself. */
  await(waiting: boolean): void
  close(): void
}

/** Sits a scribe down, whose words are told to the first, and his end to the second. */
export type Sit = (heard: (word: Word) => void, gone: (error: Error) => void) => Desk

/** Rooms are made no smaller than this, and no larger ones are kept. */
const SMALLEST = 64 * 1024
const LARGEST = 1024 * 1024
const MOST_ROOMS = 16

/**
 * Memory that both threads see, used over and over: the garbage collector does not know how large it is. A room is free again when a
 * batch is durable with which the scribe was told that it is done with this one.
 */
class Rooms {
  #free: SharedArrayBuffer[] = []
  #used: { batch: number; known: number; shared: SharedArrayBuffer }[] = []

  room(length: number): Buffer {
    const fits = this.#free.findIndex((shared) => shared.byteLength >= length)
    const [shared] = fits < 0 ? [] : this.#free.splice(fits, 1)
    return Buffer.from(shared ?? new SharedArrayBuffer(Math.max(SMALLEST, length)), 0, length)
  }

  use(batch: number, known: number, shared: SharedArrayBuffer): void {
    this.#used.push({ batch, known, shared })
  }

  letGo(batch: number): void {
    const known = this.#used.find((used) => used.batch === batch)?.known ?? 0
    while (this.#used.length > 0 && (this.#used[0] as { batch: number }).batch <= known) {
      const { shared } = this.#used.shift() as { shared: SharedArrayBuffer }
      if (shared.byteLength <= LARGEST && this.#free.length < MOST_ROOMS) this.#free.push(shared)
    }
  }

  /** What was under way was never written; nobody knows when the scribe lays it down. */
  forget(): void {
    this.#used = []
  }
}

export class ThreadHand implements Hand {
  durable = 0
  /** May it be counted on from now on? */
  ready = false
  readonly #desk: Desk
  readonly #rooms = new Rooms()
  #failed: Error | undefined
  #waiting: { batch: number; done: () => void; failed: (error: Error) => void } | undefined

  constructor(sit: Sit) {
    this.#desk = sit(
      (word) => this.#heard(word),
      (error) => this.#fail(new SyncFailed(`the thread that writes has ended: ${error.message}`)),
    )
  }

  turn(sheet: Sheet): void {
    this.#desk.order({ sheet })
  }

  room(length: number): Buffer {
    return this.#rooms.room(length)
  }

  letGo(batch: number): void {
    this.#rooms.letGo(batch)
  }

  write({ batch, bytes }: Printed, known: number): void {
    if (this.#failed) throw this.#failed
    const shared = bytes.buffer as unknown as SharedArrayBuffer
    this.#rooms.use(batch, known, shared)
    this.#desk.order({ batch, shared, length: bytes.length, known })
  }

  sync(batch: number): Promise<void> {
    if (batch <= this.durable) return Promise.resolve()
    if (this.#failed) return Promise.reject(this.#failed)
    this.#desk.await(true)
    return new Promise((done, failed) => {
      this.#waiting = { batch, done, failed }
    })
  }

  goOn(): void {
    this.#rooms.forget()
    if (this.#failed instanceof NotWritten) this.#failed = undefined
    this.#desk.order('go on')
  }

  close(): void {
    this.#desk.close()
  }

  #heard(word: Word): void {
    if (word === 'ready') this.ready = true
    else if ('durable' in word) {
      this.durable = word.durable
      if (this.#waiting && this.#waiting.batch <= word.durable) this.#answer()?.done()
    } else if ('lost' in word) this.#fail(word.over ? new TakenOver(word.lost) : new SyncFailed(word.lost))
    else this.#fail(new NotWritten(word.refused, word.full))
  }

  /** A thread that has ended, or whose disk cannot be trusted, is not counted on again. */
  #fail(error: Error): void {
    if (!(error instanceof NotWritten)) this.ready = false
    if (!this.#failed || this.#failed instanceof NotWritten) this.#failed = error
    this.#answer()?.failed(this.#failed)
  }

  #answer() {
    const waiting = this.#waiting
    this.#waiting = undefined
    if (waiting) this.#desk.await(false)
    return waiting
  }
}

/** A thread of this process. `lock`: the file that is ours for as long as it has this identity. */
export const inThread =
  (lock: { path: string; identity: number | undefined }): Sit =>
  (heard, gone) => {
    const worker = begin(new URL('./scribe-thread.ts', import.meta.url), lock)
    worker.on('message', heard)
    worker.once('error', gone)
    worker.once('exit', (code) => gone(new Error(`it ended with ${code}`)))
    return {
      order: (order) => worker.postMessage(order),
      await: (waiting) => (waiting ? worker.ref() : worker.unref()),
      close: () => void worker.terminate(),
    }
  }
