// Whoever watches a log is woken when it has grown; what it grew by, they read from the log.

import type { Line } from './log.ts'

export type Watcher = () => void

export class Watchers {
  readonly #byLog = new Map<string, Set<Watcher>>()

  /** Returns how to stop watching. */
  add(log: string, watcher: Watcher): () => void {
    const watchers = this.#byLog.get(log) ?? new Set()
    this.#byLog.set(log, watchers.add(watcher))
    return () => {
      watchers.delete(watcher)
      if (watchers.size === 0) this.#byLog.delete(log)
    }
  }

  grew(lines: readonly Line[]): void {
    if (this.#byLog.size === 0) return
    for (const log of new Set(lines.map((line) => line.log))) for (const watcher of this.#byLog.get(log) ?? []) watcher()
  }
}
