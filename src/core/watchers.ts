// Whoever watches a log is woken when it has grown; what it grew by, they read from the log. However many they are,
// others get their turn between two parts of them. Where it grew by what somebody may do, that counts before anybody is told.

import { type Line, saysWhoMay } from './log.ts'
import { turn } from './turn.ts'

/** Called when a log has grown, and perhaps once more after it has left; it throws nothing. */
type Watcher = () => void

/** How many are woken, and for how long, before others have their turn. */
const SLICE = 64
const SLICE_MS = 2

export class Watchers {
  readonly #byLog = new Map<string, Set<Watcher>>()
  /** The logs that have grown since their watchers were last woken. */
  readonly #grown = new Set<string>()
  #waking = false
  /** How many records by which somebody may do more, or less, have become durable. */
  #rulings = 0
  readonly #decided: () => number

  /** `decided`: how many have been decided, and how often what was decided was taken back. */
  constructor(decided: () => number = () => 0) {
    this.#decided = decided
  }

  /** Another number whenever somebody may do more, or less, than before: when it is decided, and when it is durable. */
  get rulings(): number {
    return this.#rulings + this.#decided()
  }

  /** Calls the watcher whenever this log has grown, until the returned function is called. */
  add(log: string, watcher: Watcher): () => void {
    const watchers = this.#byLog.get(log) ?? new Set()
    this.#byLog.set(log, watchers.add(watcher))
    return () => {
      watchers.delete(watcher)
      if (watchers.size === 0 && this.#byLog.get(log) === watchers) this.#byLog.delete(log)
    }
  }

  get count(): number {
    let count = 0
    for (const watchers of this.#byLog.values()) count += watchers.size
    return count
  }

  grew(lines: readonly Line[]): void {
    for (const { log } of lines) if (saysWhoMay(log)) this.#rulings++
    if (this.#byLog.size === 0) return
    for (const { log } of lines) if (this.#byLog.has(log)) this.#grown.add(log)
    if (!this.#waking && this.#grown.size > 0) void this.#wake()
  }

  /** A log that grows while its watchers are being woken takes its place behind the others. */
  async #wake(): Promise<void> {
    this.#waking = true
    let until = performance.now() + SLICE_MS
    let woken = 0
    for (const log of this.#grown) {
      this.#grown.delete(log)
      for (const watcher of [...(this.#byLog.get(log) ?? [])]) {
        if (++woken % SLICE === 0 || performance.now() > until) {
          await turn()
          until = performance.now() + SLICE_MS
        }
        watcher()
      }
    }
    this.#waking = false
  }
}
