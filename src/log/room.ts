// Room kept on the disk for the day it is full. What was acknowledged must still get into the views then, or nobody could
// read it: so this room is given up to them, and nothing more is recorded until the disk has as much again.

import { bounds } from '../core/bounds.ts'
import type { Disk } from './disk.ts'

const AGAIN_MS = 250

export class Room {
  readonly #disk: Disk
  readonly #path: string
  #kept: boolean
  #tried = 0

  constructor(disk: Disk, path: string) {
    this.#disk = disk
    this.#path = path
    this.#kept = this.#make()
  }

  /** Is it there? Where it was given up it is made again as soon as that can be. */
  get kept(): boolean {
    if (!this.#kept && performance.now() - this.#tried > AGAIN_MS) {
      this.#tried = performance.now()
      this.#kept = this.#make()
    }
    return this.#kept
  }

  give(): void {
    this.#disk.remove(this.#path)
    this.#kept = false
    this.#tried = performance.now()
  }

  #make(): boolean {
    return this.#disk.keepRoom?.(this.#path, bounds.room) ?? true
  }
}
