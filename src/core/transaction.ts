// The views' transaction, as lazy as can be: most records change no row, so nothing is said to the database until
// something is written. Savepoints are noted when they are asked for, and made when it comes to that.

import type { Tables } from './tables.ts'

export type Savepoint = 'batch' | 'one' | 'log'

export class Transaction {
  readonly #tables: Tables
  readonly #savepoints: { name: Savepoint; made: boolean }[] = []
  #open = false
  #made = false

  constructor(tables: Tables) {
    this.#tables = tables
  }

  /** Has it begun, whether or not the database knows? */
  get open(): boolean {
    return this.#open
  }

  begin(): void {
    this.#open = true
  }

  /** To be called before a row is written. */
  write(): void {
    const last = this.#savepoints.at(-1)
    if (last ? last.made : this.#made) return
    if (!this.#made) this.#tables.sql('BEGIN IMMEDIATE').run()
    this.#made = true
    for (const savepoint of this.#savepoints) {
      if (!savepoint.made) this.#tables.sql(`SAVEPOINT ${savepoint.name}`).run()
      savepoint.made = true
    }
  }

  savepoint(name: Savepoint): void {
    this.#savepoints.push({ name, made: false })
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

  #pop(name: Savepoint): boolean {
    const last = this.#savepoints.pop()
    if (last?.name !== name) throw new Error(`broken: the savepoint ${name} is not the last one`)
    return last.made
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
  }
}
