// Where each log ends: the seq, hash and size that its next line follows from. A bounded cache of the views' `logs`
// table, never a second truth: changes are noted so that a failed command or batch can be undone.

import { bounds } from './bounds.ts'
import type { Line } from './log.ts'
import { genesis } from './seal.ts'

/** The end of a log, as it is kept. */
export interface End {
  readonly seq: number
  /** Of its last line, as it stands there. */
  readonly hash: string
  readonly size: number
  /** When the log last grew, in milliseconds. */
  readonly at: number
}

/** The end of a log while it grows: the hash of a line that is on its way to the disk is the line, which will have it. */
interface Head extends Omit<End, 'hash'> {
  readonly hash: string | Line
}

export class Heads {
  readonly #load: (log: string) => End | undefined
  readonly #known = new Map<string, Head>()
  readonly #dirty = new Set<string>()
  /** Which logs moved, and from where, in order: what is to be undone. */
  readonly #moved: string[] = []
  readonly #before: (Head | undefined)[] = []

  constructor(load: (log: string) => End | undefined) {
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
    this.#moved.push(log)
    this.#before.push(this.#known.get(log))
    this.#known.set(log, head)
    this.#dirty.add(log)
  }

  /** The end of a log that can be kept; undefined while its last line is on its way. */
  endOf(log: string): End | undefined {
    const head = this.find(log)
    const hash = typeof head?.hash === 'object' ? head.hash.hash : head?.hash
    return head && hash !== undefined ? { ...head, hash } : undefined
  }

  /** These lines are durable: what is known of their hashes no longer hangs on them. */
  sealed(lines: readonly Line[]): void {
    for (const line of lines) {
      const head = this.#known.get(line.log)
      if (head?.hash === line && line.hash !== undefined) this.#known.set(line.log, { ...head, hash: line.hash })
    }
  }

  /** A place to come back to. */
  get savepoint(): number {
    return this.#moved.length
  }

  undo(to: number): void {
    while (this.#moved.length > to) {
      const log = this.#moved.pop() as string
      const before = this.#before.pop()
      if (before) this.#known.set(log, before)
      else this.#known.delete(log)
    }
  }

  /** The batch is durable: there is nothing to come back to. */
  keep(): void {
    this.#moved.length = 0
    this.#before.length = 0
  }

  /** How many logs have grown since their ends were gathered to be written. */
  get dirty(): number {
    return this.#dirty.size
  }

  /** The logs whose ends are to be written. */
  gather(): string[] {
    const logs = [...this.#dirty]
    this.#dirty.clear()
    return logs
  }

  /** Forgets the logs that have been known for longest, where there are too many; those gathered have been written. */
  tidy(): void {
    for (const log of this.#known.keys()) {
      if (this.#known.size <= bounds.knownHeads) break
      if (!this.#dirty.has(log)) this.#known.delete(log)
    }
  }

  /** Forgets everything: the views were replaced. */
  clear(): void {
    this.#known.clear()
    this.#dirty.clear()
    this.keep()
  }
}
