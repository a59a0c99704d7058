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

// Nearly every name is new, and looking for it in the table only to find nothing would cost more than all else that is
// done for a record. A Bloom filter answers most of these: four bits a name in 4 MiB, about one false alarm in a hundred
// at three million names. It starts empty, and answers only when it has learned every name of the table, some at a time.
const BITS = 2 ** 25
const SIX_BITS = new Uint8Array(128)
for (const [i, c] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].entries())
  SIX_BITS[c.charCodeAt(0)] = i

class Filter {
  readonly #bits = new Uint32Array(BITS / 32)

  add(key: string): void {
    for (let from = 0; from < 20; from += 5) {
      const bit = bitOf(key, from)
      this.#bits[bit >>> 5] = (this.#bits[bit >>> 5] as number) | (1 << (bit & 31))
    }
  }

  mayHold(key: string): boolean {
    for (let from = 0; from < 20; from += 5) {
      const bit = bitOf(key, from)
      if (((this.#bits[bit >>> 5] as number) & (1 << (bit & 31))) === 0) return false
    }
    return true
  }
}

/** A key is a digest: any 25 bits of it are as good as a hash. */
function bitOf(key: string, from: number): number {
  let bits = 0
  for (let i = from; i < from + 5; i++) bits = ((bits << 6) | (SIX_BITS[key.charCodeAt(i)] as number)) >>> 0
  return bits % BITS
}

const LEARN_AT_ONCE = 5000

const AT_ONCE = 10
const INSERT = 'INSERT INTO commands (key, log, body, offset, count) VALUES '
const ONE = `${INSERT}(?, ?, ?, ?, ?)`
const MANY = `${INSERT}${Array.from({ length: AT_ONCE }, () => '(?, ?, ?, ?, ?)').join(', ')}`

export class Names {
  readonly #since = new Map<string, Remembered[]>()
  /** The key of each record that was remembered, in order: what is to be undone. */
  readonly #changes: string[] = []

  readonly #filter = new Filter()
  /** The last name of the table that was learned; undefined once all are. */
  #learned: string | undefined = ''

  /** Learns some of the names that the table holds. */
  learn(tables: Tables): void {
    if (this.#learned === undefined) return
    const keys = tables
      .sql(`SELECT key FROM commands WHERE key > ? ORDER BY key LIMIT ${LEARN_AT_ONCE}`)
      .pluck()
      .all(this.#learned) as string[]
    for (const key of keys) this.#filter.add(key)
    this.#learned = keys.length < LEARN_AT_ONCE ? undefined : keys.at(-1)
  }

  /** Is it certain that this name was never remembered? */
  isNew(key: string): boolean {
    return this.#learned === undefined && !this.#filter.mayHold(key)
  }

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
      this.#filter.add(key)
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
