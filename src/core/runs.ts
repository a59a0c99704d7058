// Runs: where named requests lie in the views' database. A name's key is a digest and falls anywhere, so one sorted table
// would have all of its pages rewritten for every few thousand names. Instead names are written in runs, each in
// order of its keys, one after the other; many small runs are merged into a large one. (Databases call this a
// log-structured merge tree.) Everything is done in small steps, in proportion to what is recorded, so that nobody
// waits for a long one.

import type { Tables } from './tables.ts'

/** Where the first record of a named request stands in one log. */
export interface Place {
  log: string
  offset: number
}

interface Run {
  run: number
  names: number
}

interface Named extends Place {
  key: number
}

/** Keys are the first bits of a digest, so many that a number holds them exactly. Two names may share one: the log tells. */
export const KEY_BITS = 52
const KEYS = 2 ** KEY_BITS

/** This many runs of about the same size are merged into one. */
const MERGE = 16
const SMALLEST = 4096
const ROWS_AT_ONCE = 16
const STEP = 64

const INSERT = 'INSERT INTO commands (run, key, log, offset) VALUES '
const ONE = `${INSERT}(?, ?, ?, ?)`
const MANY = `${INSERT}${Array.from({ length: ROWS_AT_ONCE }, () => '(?, ?, ?, ?)').join(', ')}`

export class Runs {
  readonly #tables: Tables
  #live: Run[]
  /** Runs that were merged or never completed: their rows are on their way out. */
  #dead: number[] = []
  #last: number
  #writing: { run: number; names: Named[]; at: number } | undefined
  #merging: { run: number; of: Run[]; upTo: number; names: number } | undefined

  constructor(tables: Tables) {
    this.#tables = tables
    const text = tables.sql("SELECT value FROM meta WHERE key = 'runs'").pluck().get() as string | undefined
    this.#live = text === undefined ? [] : (JSON.parse(text) as Run[])
    const after = tables.sql('SELECT min(run) FROM commands WHERE run > ?').pluck()
    const found: number[] = []
    for (let run = after.get(0); run !== null; run = after.get(run)) found.push(run as number)
    this.#dead = found.filter((run) => !this.#live.some((live) => live.run === run))
    this.#last = found.at(-1) ?? 0
  }

  /** The places of all names with this key. */
  find(key: number): Place[] {
    const statement = this.#tables.sql('SELECT log, offset FROM commands WHERE run = ? AND key = ?')
    return this.#live.flatMap(({ run }) => statement.all(run, key) as Place[])
  }

  /** Begins a run with these names; `write` writes it. */
  begin(names: Named[]): void {
    names.sort((a, b) => a.key - b.key)
    this.#writing = { run: ++this.#last, names, at: 0 }
  }

  /** Is a run being written? */
  get writing(): boolean {
    return this.#writing !== undefined
  }

  /** Writes about so many names of the run that was begun. */
  write(most: number): void {
    if (!this.#writing) return
    const { run, names, at } = this.#writing
    const to = Math.min(names.length, at + most)
    let next = at
    for (; next + ROWS_AT_ONCE <= to; next += ROWS_AT_ONCE) {
      const row: (string | number)[] = []
      for (let i = next; i < next + ROWS_AT_ONCE; i++) {
        const { key, log, offset } = names[i] as Named
        row.push(run, key, log, offset)
      }
      this.#tables.sql(MANY).run(row)
    }
    for (; next < to; next++) {
      const { key, log, offset } = names[next] as Named
      this.#tables.sql(ONE).run(run, key, log, offset)
    }
    this.#writing.at = next
    if (next < names.length) return
    if (names.length > 0) this.#live.push({ run, names: names.length })
    this.#writing = undefined
    this.#note()
  }

  /** Merges runs, and takes away about so many rows of those that were merged. */
  tidy(most: number): void {
    for (let left = most; left > 0; left -= STEP) if (!this.#remove() && !this.#merge()) return
  }

  /** Merges the next few keys of the runs that are being merged, or sees whether there are some to merge. */
  #merge(): boolean {
    this.#merging ??= this.#toMerge()
    if (!this.#merging) return false
    const { run, of, upTo, names } = this.#merging
    const runs = of.map(() => '?').join(', ')
    // Digests are spread evenly: so wide a range of keys holds about a step's worth of them.
    const to = Math.min(KEYS, upTo + Math.ceil((KEYS / names) * STEP))
    this.#tables
      .sql(
        `INSERT INTO commands SELECT ?, key, log, offset FROM commands WHERE run IN (${runs}) AND key >= ? AND key < ? ORDER BY key, log, offset`,
      )
      .run(run, ...of.map(({ run }) => run), upTo, to)
    this.#merging.upTo = to
    if (to === KEYS) {
      this.#live = [...this.#live.filter((live) => !of.includes(live)), { run, names }]
      this.#dead.push(...of.map(({ run }) => run))
      this.#merging = undefined
      this.#note()
    }
    return true
  }

  #toMerge(): { run: number; of: Run[]; upTo: number; names: number } | undefined {
    const bySize = new Map<number, Run[]>()
    for (const live of this.#live) {
      const size = Math.floor(Math.log(Math.max(live.names, SMALLEST) / SMALLEST) / Math.log(MERGE))
      const same = bySize.get(size) ?? []
      same.push(live)
      bySize.set(size, same)
      if (same.length === MERGE) {
        return { run: ++this.#last, of: same, upTo: 0, names: same.reduce((sum, { names }) => sum + names, 0) }
      }
    }
    return undefined
  }

  /** Takes away rows of a run that counts no more. */
  #remove(): boolean {
    const run = this.#dead[0]
    if (run === undefined) return false
    const { changes } = this.#tables
      .sql(
        `DELETE FROM commands WHERE run = ? AND key <= (SELECT max(key) FROM (SELECT key FROM commands WHERE run = ? ORDER BY key LIMIT ${STEP}))`,
      )
      .run(run, run)
    if (changes === 0) this.#dead.shift()
    return true
  }

  #note(): void {
    this.#tables.sql("INSERT OR REPLACE INTO meta (key, value) VALUES ('runs', ?)").run(JSON.stringify(this.#live))
  }

  /** Every name in the order of its key, whatever run it lies in. */
  *rows(): Generator<Named> {
    const names = this.#live.reduce((sum, { names }) => sum + names, 0)
    if (names === 0) return
    const runs = this.#live.map(({ run }) => run)
    const statement = this.#tables.sql(
      `SELECT key, log, offset FROM commands WHERE run IN (${runs.map(() => '?').join(', ')}) AND key >= ? AND key < ? ORDER BY key, log, offset`,
    )
    const width = Math.ceil((KEYS / names) * 1000)
    for (let from = 0; from < KEYS; from += width) yield* statement.all(...runs, from, from + width) as Named[]
  }
}
