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
  hash: string | Line
}

/** A log whose end is known. Whoever looks for it once need not look again. */
class Known {
  readonly log: string
  /** Of a log with no line yet it is what the first one follows, at seq 0. */
  head: Head
  /** Has it grown since its end was gathered to be written? */
  dirty = false

  constructor(log: string, head: Head = { seq: 0, hash: genesis(log), size: 0, at: 0 }) {
    this.log = log
    this.head = head
  }
}

export class Heads {
  readonly #load: (log: string) => End | undefined
  readonly #known = new Map<string, Known>()
  #dirty: Known[] = []
  /** Which logs moved, and from where, in order: what is to be undone. */
  readonly #moved: Known[] = []
  readonly #before: Head[] = []

  constructor(load: (log: string) => End | undefined) {
    this.#load = load
  }

  /** A log and its end, from where it can be moved. */
  of(log: string): Known {
    const known = this.#known.get(log)
    if (known) return known
    const loaded = new Known(log, this.#load(log))
    this.#known.set(log, loaded)
    return loaded
  }

  /** The end of a log; of one with no line yet, none. */
  find(log: string): Head | undefined {
    const known = this.#known.get(log)
    if (known) return known.head.seq === 0 ? undefined : known.head
    const loaded = this.#load(log)
    if (loaded) this.#known.set(log, new Known(log, loaded))
    return loaded
  }

  move(known: Known, head: Head): void {
    this.#moved.push(known)
    this.#before.push(known.head)
    known.head = head
    if (known.dirty) return
    known.dirty = true
    this.#dirty.push(known)
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
      const head = this.#known.get(line.log)?.head
      if (head?.hash === line && line.hash !== undefined) head.hash = line.hash
    }
  }

  /** A place to come back to. */
  get savepoint(): number {
    return this.#moved.length
  }

  undo(to: number): void {
    while (this.#moved.length > to) (this.#moved.pop() as Known).head = this.#before.pop() as Head
  }

  /** The batch is durable: there is nothing to come back to. */
  keep(): void {
    this.#moved.length = 0
    this.#before.length = 0
  }

  /** How many logs have grown since their ends were gathered to be written. */
  get dirty(): number {
    return this.#dirty.length
  }

  /** The logs whose ends are to be written. */
  gather(): string[] {
    const logs = this.#dirty.map(({ log }) => log)
    this.#letGo()
    return logs
  }

  /** Forgets the logs that have been known for longest, where there are too many; those gathered have been written. */
  tidy(): void {
    for (const [log, { dirty }] of this.#known) {
      if (this.#known.size <= bounds.knownHeads) break
      if (!dirty) this.#known.delete(log)
    }
  }

  /** Forgets everything: the views were replaced. */
  clear(): void {
    this.#known.clear()
    this.#letGo()
    this.keep()
  }

  #letGo(): void {
    for (const known of this.#dirty) known.dirty = false
    this.#dirty = []
  }
}
