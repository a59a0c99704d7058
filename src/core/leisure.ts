// What the recorder does while it waits for a sync and nobody waits for it: what is in the log goes on to where readers and
// the next start find it. Where it is never at leisure, it is done all the same, in proportion to what is recorded.

import { bounds } from './bounds.ts'
import type { Log } from './log.ts'
import type { Trailing } from './trailing.ts'

/** How many rows of what trails the views are written for each line. */
const ROWS_A_LINE = 2

/** What it needs of the recorder. */
interface Recording {
  log: Log
  trailing(): Trailing
  /** The views could not be written. */
  failed(error: unknown): void
}

export class Leisure {
  readonly #recording: Recording
  /** How many rows should have been written by now. */
  #owed = 0

  constructor(recording: Recording) {
    this.#recording = recording
  }

  /** So many lines more were recorded. */
  owe(lines: number): void {
    this.#owed += ROWS_A_LINE * lines
    if (this.#owed >= bounds.rowsOwed + bounds.rowsAtLeast) this.#trail(this.#owed - bounds.rowsOwed)
  }

  /** Does a little, for which nobody has to wait for long; returns whether there was anything to do. */
  work(): boolean {
    if (this.#owed < bounds.rowsAtLeast) return this.#recording.log.copySome()
    this.#trail(bounds.rowsAtLeast)
    return true
  }

  #trail(rows: number): void {
    const { log, trailing, failed } = this.#recording
    this.#owed -= rows
    try {
      trailing().work(rows, log.lsn, log.durable)
    } catch (error) {
      failed(error)
    }
  }
}
