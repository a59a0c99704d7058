// Room kept on the disk for the day it is full. What was acknowledged must still get into the views then, or nobody could
// read it, and a start must be able to begin: so this room is given up to them, and nothing more is recorded until the disk
// has as much again.

import { bounds } from '../core/bounds.ts'
import type { Disk } from './disk.ts'
import { isFull } from './pen.ts'

const AGAIN_MS = 250

export class Room {
  readonly #disk: Disk
  readonly #path: string
  #kept = false
  #tried = Number.NEGATIVE_INFINITY

  constructor(disk: Disk, path: string) {
    this.#disk = disk
    this.#path = path
  }

  /** Is it there? Where it is not, it is made as soon as that can be. */
  get kept(): boolean {
    if (!this.#kept && performance.now() - this.#tried > AGAIN_MS) {
      this.#tried = performance.now()
      this.#kept = this.#disk.keepRoom?.(this.#path, bounds.room) ?? true
    }
    return this.#kept
  }

  give(): void {
    this.#disk.remove(this.#path)
    this.#kept = false
    this.#tried = performance.now()
  }

  /** Does what nothing can go on without: where the disk is too full for it, once more with what was kept. */
  readonly spend = <T>(work: () => T): T => {
    try {
      return work()
    } catch (error) {
      if (!isFull(error)) throw error
      this.give()
      return work()
    }
  }
}
