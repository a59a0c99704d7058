// What follows the views at leisure: where each log ends, and which requests were named. The journal holds both till
// then, so they are written some rows at a time, in proportion to what is recorded, and nobody waits for many at once.

import { bounds } from './bounds.ts'
import type { Heads } from './heads.ts'
import type { Views } from './views.ts'

export class Trailing {
  readonly #views: Views
  readonly #heads: Heads
  /** Everything up to this place is in the tables. */
  #done: number
  /** The round under way: everything up to this place in order, and the logs whose ends have yet to be written. */
  #round: { lsn: number; logs: string[] } | undefined
  /** Those of them whose last line was on its way to the disk each time they were looked at. */
  #late: string[] = []

  constructor(views: Views, heads: Heads) {
    this.#views = views
    this.#heads = heads
    this.#done = views.mark.trailing
  }

  /** Does some of the work, about so many rows; `lsn` is how far the views have come, and `durable` how far the log. */
  work(rows: number, lsn: number, durable: number): void {
    if (!this.#round) {
      // Names of the last round are found in memory until the next one; by then their lines must be there to be read.
      if (durable < this.#done) return
      if (this.#views.names.size < bounds.names && this.#heads.dirty < bounds.heads) return
      this.#begin(lsn)
    }
    this.#go(rows)
    this.#views.names.tidy(rows)
  }

  /** Does some of the work that is left up to a place in order; returns whether all of it is done. */
  step(upTo: number, lsn: number): boolean {
    if (this.#done >= upTo) return true
    if (!this.#round) this.#begin(lsn)
    this.catchUp()
    this.#go(bounds.rowsAStep)
    return this.#done >= upTo
  }

  #begin(lsn: number): void {
    this.#round = { lsn, logs: this.#heads.gather() }
    this.#views.names.gather()
  }

  #go(rows: number): void {
    const { lsn, logs } = this.#round as { lsn: number; logs: string[] }
    this.#views.writing()
    for (const log of logs.splice(-Math.ceil(rows / 2))) this.#put(log)
    // The last names and the mark are written together: a name that counts twice would be answered twice.
    if (logs.length > 0 || this.#late.length > 0 || !this.#views.names.write(rows)) return
    this.#views.noteTrailing(lsn)
    this.#heads.tidy()
    this.#done = lsn
    this.#round = undefined
  }

  #put(log: string): void {
    const end = this.#heads.endOf(log)
    if (end) this.#views.putHead(log, end)
    else if (this.#heads.find(log)) this.#late.push(log)
  }

  /** Nothing is on its way: what grows all the time has an end now. */
  catchUp(): void {
    if (this.#late.length > 0) this.#views.writing()
    for (const log of this.#late.splice(0)) this.#put(log)
  }
}
