// Where each log ends: the seq, hash and size that its next line follows from. A bounded cache of the views' `logs`
// table, never a second truth: changes are noted so that a failed command or batch can be undone, and flushed at commit.

import { genesis } from './seal.ts'

export interface Head {
  readonly seq: number
  readonly hash: Buffer
  readonly size: number
  /** When the log last grew, in milliseconds. */
  readonly at: number
}

const MOST = 32_768

export class Heads {
  readonly #load: (log: string) => Head | undefined
  readonly #known = new Map<string, Head>()
  readonly #dirty = new Set<string>()
  #changes: { log: string; before: Head | undefined }[] = []

  constructor(load: (log: string) => Head | undefined) {
    this.#load = load
  }

  /** The end of a log; for one with no line yet, what its first line follows. */
  of(log: string): Head {
    return this.find(log) ?? { seq: 0, hash: genesis(log), size: 0, at: 0 }
  }

  find(log: string): Head | undefined {
    const known = this.#known.get(log)
    if (known) return known
    const loaded = this.#load(log)
    if (loaded) this.#known.set(log, loaded)
    return loaded
  }

  move(log: string, head: Head): void {
    this.#changes.push({ log, before: this.#known.get(log) })
    // Taking it out first moves it to the end: the cache forgets the log that has been quiet for longest.
    this.#known.delete(log)
    this.#known.set(log, head)
    this.#dirty.add(log)
  }

  /** A place to come back to. */
  get savepoint(): number {
    return this.#changes.length
  }

  undo(to: number): void {
    while (this.#changes.length > to) {
      const { log, before } = this.#changes.pop() as { log: string; before: Head | undefined }
      if (before) this.#known.set(log, before)
      else this.#known.delete(log)
    }
  }

  /** The batch is durable: there is nothing to come back to. */
  keep(): void {
    this.#changes = []
  }

  flush(put: (log: string, head: Head) => void): void {
    for (const log of this.#dirty) {
      const head = this.#known.get(log)
      if (head) put(log, head)
    }
    this.#dirty.clear()
    for (const log of this.#known.keys()) {
      if (this.#known.size <= MOST) break
      this.#known.delete(log)
    }
  }

  /** Forgets everything: the views were replaced. */
  clear(): void {
    this.#known.clear()
    this.#dirty.clear()
    this.#changes = []
  }
}
