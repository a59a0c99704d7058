// The views' transaction, as lazy as can be: most records change no row, so nothing is said to the database until
// something is written. Savepoints are noted when they are asked for, and made when it comes to that.

import type { Tables } from './tables.ts'

export type Savepoint = 'batch' | 'one' | 'log'

export class Transaction {
  readonly #tables: Tables
  readonly #savepoints: Savepoint[] = []
  /** How many of them the database knows. */
  #known = 0
  #open = false
  #made = false

  constructor(tables: Tables) {
    this.#tables = tables
  }

  /** Has it begun, whether or not the database knows? */
  get open(): boolean {
    return this.#open
  }

  /** Has anything been written in it? */
  get made(): boolean {
    return this.#made
  }

  begin(): void {
    this.#open = true
  }

  /** To be called before a row is written. */
  write(): void {
    if (!this.#made) this.#tables.sql('BEGIN IMMEDIATE').run()
    this.#made = true
    while (this.#known < this.#savepoints.length) this.#tables.sql(`SAVEPOINT ${this.#savepoints[this.#known++]}`).run()
  }

  savepoint(name: Savepoint): void {
    this.#savepoints.push(name)
  }

  release(name: Savepoint): void {
    if (this.#pop(name)) this.#tables.sql(`RELEASE ${name}`).run()
  }

  undo(name: Savepoint): void {
    if (!this.#pop(name)) return
    this.#tables.sql(`ROLLBACK TO ${name}`).run()
    this.#tables.sql(`RELEASE ${name}`).run()
    this.#tables.forget()
  }

  /** Was the last savepoint made, and not only noted? */
  #pop(name: Savepoint): boolean {
    if (this.#savepoints.pop() !== name) throw new Error(`broken: the savepoint ${name} is not the last one`)
    const made = this.#known > this.#savepoints.length
    if (made) this.#known--
    return made
  }

  commit(): void {
    this.#tables.sql('COMMIT').run()
    this.#open = false
    this.#made = false
  }

  abandon(): void {
    this.#open = false
    this.#made = false
    this.#savepoints.length = 0
    this.#known = 0
  }
}
