// What the door holds in memory for its callers: bodies on their way in, records that wait to be recorded, answers that
// have not been taken. It is bounded in bytes, however many connections there are: what would be too much is refused.

import { getHeapStatistics } from 'node:v8'
import { Refusal } from '../core/errors.ts'

const MiB = 1024 * 1024
/** A part of the memory there is, since what a body is parsed into takes a multiple of it. */
const MOST = Math.min(64 * MiB, Math.max(16 * MiB, getHeapStatistics().heap_size_limit / 16))
/** Whoever asks for no more than this gets in while larger ones are turned away. */
const SMALL = 64 * 1024

const overloaded = () =>
  new Refusal('unavailable', 'overloaded', 'More is coming in than can be held. Nothing of this was recorded: send it again.')

export class Burden {
  #bytes = 0

  get bytes(): number {
    return this.#bytes
  }

  /** Is there so much that whoever can wait should? */
  get heavy(): boolean {
    return this.#bytes > MOST / 2
  }

  hold(): Hold {
    return new Hold(this)
  }

  /** Half is kept for those who ask for little, so that a few who send much cannot keep everyone out. */
  admit(more: number, own: number): void {
    if (this.#bytes + more > (own <= SMALL ? MOST : MOST / 2)) throw overloaded()
  }

  move(bytes: number): void {
    this.#bytes += bytes
  }
}

/** What is held for one caller. */
class Hold {
  readonly #burden: Burden
  #bytes = 0

  constructor(burden: Burden) {
    this.#burden = burden
  }

  get bytes(): number {
    return this.#bytes
  }

  /** Holds so many bytes more, or refuses to. */
  take(more: number): void {
    this.#burden.admit(more, this.#bytes + more)
    this.keep(this.#bytes + more)
  }

  /** Holds so many bytes, which are already there. */
  keep(bytes: number): void {
    this.#burden.move(bytes - this.#bytes)
    this.#bytes = bytes
  }
}

export type { Hold }
