// Between the write and the answer: what has been written waits here for its sync. While one sync is under way the next
// batch is decided and written, so that neither the disk nor the recorder waits for the other; what was written
// meanwhile shares the next sync. Batches are answered in the order in which they were written.

import { bounds } from './bounds.ts'
import { type Line, type Log, NotWritten } from './log.ts'
import type { Waiting } from './waiting.ts'

export interface Batch {
  waiting: readonly Waiting[]
  lines: readonly Line[]
  /** Where it ends in order. */
  lsn: number
}

/** So much longer or shorter a sync is taken to be after one that was. */
const STEP = 0.05
/** Whatever the disk, a slice has time for some commands: each costs a write. */
const LEAST_MS = 0.1
/** And it ends before all who wait are decided at once: nothing would be left to decide during their sync. Syncs can be shared. */
const MOST_MS = 1
/** But where a turn of everything else takes longer than that. */
const LONGEST_MS = 4
/** So few wait for the sync that is under way rather than be written by themselves. */
const FEW = 3
/** Of so many who wait for the first sync, half are worth one of their own. */
const MANY = 16
/** A sync that takes no longer keeps nobody waiting who might come meanwhile: whatever else goes on takes as long a turn. */
const QUICK_MS = 1

type Answer = (batch: Batch) => void
type Failed = (error: Error, waiting: readonly Waiting[]) => void

export class Syncing {
  readonly #log: Log
  readonly #answer: Answer
  readonly #failed: Failed
  /** Who waits to be decided. */
  readonly #queue: { readonly length: number }
  #written: Batch[] = []
  /** How many wait for what has been written to be durable. */
  waiting = 0
  /** Resolves when all that has been written is answered; undefined when it is. */
  underWay: Promise<void> | undefined
  /** Resolves when a part of that is answered. */
  #step: Promise<void> | undefined
  /** Called when enough have come. */
  #enough: (() => void) | undefined
  /** Is that made here, and over before anything else can be done? */
  #isHere = false
  /** When a batch was last written. */
  #added = 0
  /** How long a sync takes, in milliseconds: the median, since a slow one now and then says nothing of the next. Long, till that is known. */
  #takes = 2 * QUICK_MS

  constructor(log: Log, queue: { readonly length: number }, answer: Answer, failed: Failed) {
    this.#log = log
    this.#queue = queue
    this.#answer = answer
    this.#failed = failed
  }

  /**
   * For how long commands should be decided before what they made is written, in milliseconds: about as long as a sync takes.
   * The end of a sync is seen only when a slice ends, so what was measured is up to one slice too long: half of it. What takes long
   * may be the sealing of what a long slice has made: that must make no slice longer. But where all else has taken long since the last
   * one, more have come than a short one decides.
   */
  get slice(): number {
    const sinceLast = performance.now() - this.#added
    return Math.max(Math.min(MOST_MS, this.#takes / 2), Math.min(LONGEST_MS, sinceLast / 2))
  }

  /**
   * How many of those who wait should be decided before what they made is written. Of many half, where no sync is under way: the others
   * are decided during theirs. Those who ask again as soon as they are answered would else all come together each time, and what
   * decides and what syncs wait for each other in turn.
   */
  get portion(): number {
    const { length } = this.#queue
    return Math.min(bounds.batch, this.underWay || length < MANY ? length : Math.ceil(length / 2))
  }

  /** Is there hardly anything to do but to wait for a sync that others make? */
  get atLeisure(): boolean {
    return this.#waits && !this.#isHere
  }

  /** Is a sync under way, and too few wait to be decided to be worth a write of their own? */
  get #waits(): boolean {
    return this.#step !== undefined && this.#queue.length < FEW
  }

  /**
   * Resolves when some more is answered, or enough have come meanwhile to be worth a write of their own: a thread that writes would
   * have nothing to do.
   */
  get more(): Promise<void> | undefined {
    if (!this.#waits) return undefined
    return new Promise((resolve) => {
      this.#enough = resolve
      void this.#step?.then(resolve)
    })
  }

  /** Somebody more waits to be decided. */
  came(): void {
    if (this.#queue.length >= FEW) this.#enough?.()
  }

  add(batch: Batch): void {
    this.#added = performance.now()
    if (batch.lines.length === 0 && !this.underWay) this.#answer(batch)
    else {
      this.waiting += batch.waiting.length
      this.#written.push(batch)
      this.underWay ??= this.#sync()
    }
  }

  async #sync(): Promise<void> {
    while (this.#written.length > 0) {
      const written = this.#written
      this.#written = []
      try {
        if (written.some(({ lines }) => lines.length > 0)) {
          const synced = this.#timed(this.#isAlone(written))
          this.#step = synced.catch(() => {})
          await synced
        }
      } catch (error) {
        const left = [...written, ...this.#written]
        this.#written = []
        this.#end(error as Error, left)
        break
      }
      for (const batch of written) {
        this.waiting -= batch.waiting.length
        this.#answer(batch)
      }
    }
    this.underWay = undefined
    this.#step = undefined
  }

  /** What others wrote, and could not write all of, is known only now: what of it is durable is answered, and the rest is told. */
  #end(error: Error, left: readonly Batch[]): void {
    this.waiting = 0
    const written = (batch: Batch) => error instanceof NotWritten && batch.lsn <= this.#log.durable
    for (const batch of left) if (written(batch)) this.#answer(batch)
    this.#failed(
      error,
      left.filter((batch) => !written(batch)).flatMap(({ waiting }) => waiting),
    )
  }

  /** Where hardly anybody waits, having it done elsewhere costs more than doing nothing else meanwhile. */
  #isAlone([only, ...more]: readonly Batch[]): boolean {
    return this.#takes < QUICK_MS && more.length === 0 && (only?.waiting.length ?? 0) < FEW && this.#queue.length === 0
  }

  async #timed(alone: boolean): Promise<void> {
    const began = performance.now()
    this.#isHere = alone
    await this.#log.sync(alone)
    const step = performance.now() - began > this.#takes ? 1 + STEP : 1 - STEP
    this.#takes = Math.max(LEAST_MS, step * this.#takes)
  }
}
