// Named requests since the last commit: where the records of each stand, so that a retry is known again. Their keys are
// digests, and so fall anywhere in the table's tree: they are gathered here and written in order, many at a time.

import type { Tables } from './tables.ts'

/** Where the records of a named request stand in one log. */
export interface Remembered {
  log: string
  body: string
  offset: number
  count: number
}

const AT_ONCE = 10
const INSERT = 'INSERT INTO commands (key, log, body, offset, count) VALUES '
const ONE = `${INSERT}(?, ?, ?, ?, ?)`
const MANY = `${INSERT}${Array.from({ length: AT_ONCE }, () => '(?, ?, ?, ?, ?)').join(', ')}`

export class Names {
  readonly #since = new Map<string, Remembered[]>()
  /** The key of each record that was remembered, in order: what is to be undone. */
  readonly #changes: string[] = []

  get size(): number {
    return this.#since.size
  }

  /** A command's id is `<digest of caller and key>.<digest of what was asked>`; its records in a log are contiguous. */
  remember(command_id: string, log: string, offset: number): void {
    const dot = command_id.indexOf('.')
    const key = command_id.slice(0, dot)
    const known = this.#since.get(key)
    const same = known?.find((found) => found.log === log)
    if (same) same.count++
    else {
      const first = { log, body: command_id.slice(dot + 1), offset, count: 1 }
      if (known) known.push(first)
      else this.#since.set(key, [first])
    }
    this.#changes.push(key)
  }

  find(key: string): readonly Remembered[] {
    return this.#since.get(key) ?? []
  }

  get savepoint(): number {
    return this.#changes.length
  }

  /** Takes back what was remembered since, the latest first. */
  undo(to: number): void {
    while (this.#changes.length > to) {
      const key = this.#changes.pop() as string
      const known = this.#since.get(key) as Remembered[]
      const last = known.at(-1) as Remembered
      last.count--
      if (last.count === 0) known.pop()
      if (known.length === 0) this.#since.delete(key)
    }
  }

  /** There is nothing to come back to. */
  keep(): void {
    this.#changes.length = 0
  }

  flush(tables: Tables): void {
    const rows = [...this.#since.keys()]
      .sort()
      .flatMap((key) => this.find(key).map(({ log, body, offset, count }) => [key, log, body, offset, count]))
    let at = 0
    for (; at + AT_ONCE <= rows.length; at += AT_ONCE) tables.sql(MANY).run(...rows.slice(at, at + AT_ONCE).flat())
    for (; at < rows.length; at++) tables.sql(ONE).run(...(rows[at] as (string | number)[]))
    this.#since.clear()
    this.#changes.length = 0
  }
}
