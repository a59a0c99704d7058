// Reading ahead: another thread goes through the logs and puts them into memory that both see, while this one goes over what lies
// there. Opening, reading and closing a hundred thousand files takes as long as folding them. Until the other thread is there, and
// from where it could not go on, this one reads by itself.

import type { Worker } from 'node:worker_threads'
import { bounds } from '../core/bounds.ts'
import { CHUNK, type Shelf } from '../core/log.ts'
import { begin } from './begin.ts'
import { FileShelf } from './shelf.ts'

// Slots are filled and taken in turn. In a slot lie logs one after the other: how long the name and the bytes are, and whether these
// are all there are; the name; the bytes. A name of no length says that there are no more.
export const SLOTS = 6
export const SLOT = 2 * CHUNK
export const HEAD = 12

/** What stands where in the words that both threads see: how many slots were filled and taken, and how it stands with the reader. */
export const [FILLED, TAKEN, STATE] = [0, 1, 2] as const
/** The reader is on its way; is there and is to be told where to begin; was told; has come to the end; could not go on. */
export const [COMING, READY, TOLD, THROUGH, FAILED] = [0, 1, 2, 3, 4] as const
/** Of a log: nothing of it could be read, the beginning was, or all. */
export const [UNREAD, BEGUN, WHOLE] = [0, 1, 2] as const

/** What both threads see. */
export interface Shared {
  home: string
  words: SharedArrayBuffer
  slots: SharedArrayBuffer
}

/** The logs that come after this one, in the order in which a shelf names them; all, after none. */
export function* after(names: Iterable<string>, last: string): Generator<string> {
  let isBehind = last === ''
  for (const log of names) {
    if (isBehind) yield log
    else isBehind = log === last
  }
  if (!isBehind) throw new Error(`the log ${last} is gone`)
}

interface Lying {
  log: string
  bytes: Buffer
  isWhole: boolean
}

const NOTHING: Lying = { log: '', bytes: Buffer.alloc(0), isWhole: false }

/** All logs of a data directory, for whoever goes through them once and in order; whatever else is asked of it, is read as ever. */
export class Ahead implements Shelf {
  readonly #files: FileShelf
  #now = NOTHING

  constructor(home: string) {
    this.#files = new FileShelf(home, { reuse: true })
  }

  *names(): Generator<string> {
    let reader: Reader | undefined
    let [last, count] = ['', 0]
    try {
      for (const log of this.#files.names()) {
        if (reader?.isReady) break
        if (++count === bounds.fewLogs) reader = Reader.begun(this.#files.home)
        last = log
        yield log
      }
      if (!reader?.isReady) return
      for (const slot of reader.slotsAfter(last)) {
        for (const lying of logsIn(slot)) {
          this.#now = lying
          last = lying.log
          yield last
        }
      }
      this.#now = NOTHING
      // Whatever kept the other thread from going on is met, and told, where it is met here.
      if (!reader.isThrough) yield* after(this.#files.names(), last)
    } finally {
      reader?.end()
    }
  }

  read(log: string, offset: number, length: number): Buffer {
    const { bytes, isWhole } = this.#now
    const isHere = log === this.#now.log && (isWhole || offset + length <= bytes.length)
    return isHere ? bytes.subarray(offset, offset + length) : this.#files.read(log, offset, length)
  }
}

function* logsIn(slot: Buffer): Generator<Lying> {
  for (let at = 0; at + HEAD <= slot.length; ) {
    const [name, length, state] = [slot.readUInt32LE(at), slot.readUInt32LE(at + 4), slot.readUInt32LE(at + 8)]
    if (name === 0) return
    const from = at + HEAD + name
    const log = slot.toString('latin1', at + HEAD, from)
    at = from + length
    yield { log, bytes: slot.subarray(from, state === UNREAD ? from : at), isWhole: state === WHOLE }
  }
}

/** So often it is looked whether a reader that says nothing is still there, and so long it is waited for. */
const LOOK_MS = 250
const PATIENCE_MS = 60_000

/** The other thread, as this one sees it. */
class Reader {
  readonly #words = new Int32Array(new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT))
  readonly #slots = new SharedArrayBuffer(SLOTS * SLOT)
  readonly #worker: Worker

  private constructor(home: string) {
    const shared: Shared = { home, words: this.#words.buffer, slots: this.#slots }
    this.#worker = begin(new URL('./ahead-thread.ts', import.meta.url), shared)
    // What becomes of it is seen in what it has filled.
    this.#worker.on('error', () => {})
  }

  /** None where there may be no more threads. */
  static begun(home: string): Reader | undefined {
    try {
      return new Reader(home)
    } catch {
      return undefined
    }
  }

  get isReady(): boolean {
    return Atomics.load(this.#words, STATE) === READY
  }

  get isThrough(): boolean {
    return Atomics.load(this.#words, STATE) === THROUGH
  }

  /** Tells it the last log that it need not read, and gives each slot that it fills with those that follow. */
  *slotsAfter(last: string): Generator<Buffer> {
    const first = Buffer.from(this.#slots, 0, SLOT)
    first.writeUInt32LE(last.length, 0)
    first.write(last, HEAD, 'latin1')
    Atomics.store(this.#words, STATE, TOLD)
    Atomics.notify(this.#words, STATE)
    for (let taken = 0; this.#hasFilled(taken); taken++) {
      yield Buffer.from(this.#slots, (taken % SLOTS) * SLOT, SLOT)
      Atomics.store(this.#words, TAKEN, taken + 1)
      Atomics.notify(this.#words, TAKEN)
    }
  }

  /** Waits for the slot after so many; false where there will be none. */
  #hasFilled(taken: number): boolean {
    const until = performance.now() + PATIENCE_MS
    for (;;) {
      const state = Atomics.load(this.#words, STATE)
      const filled = Atomics.load(this.#words, FILLED)
      if (filled > taken) return true
      if (state !== TOLD || performance.now() > until) return false
      Atomics.wait(this.#words, FILLED, filled, LOOK_MS)
    }
  }

  end(): void {
    void this.#worker.terminate()
  }
}
