// Named requests, so that a retry is known again. New names are kept here, where they are found at once, until there are
// enough of them for a run in the views' database; the journal holds their records till then.

import { KEY_BITS, type Place, Runs } from './runs.ts'
import type { Tables } from './tables.ts'

/** Where the first record of a named request stands in one log, and the digest of what was asked. */
export interface Remembered extends Place {
  body: string
}

// Nearly every name is new, and looking for it in the runs only to find nothing would cost more than all else that is
// done for a record. A Bloom filter answers most of these: four bits a name in 4 MiB, about one false alarm in a hundred
// at three million names. It starts empty, and answers only when it has learned every name of the table, some at a time.
const BITS = 2 ** 25
const HALF = 2 ** (KEY_BITS / 2)

class Filter {
  readonly #bits = new Uint32Array(BITS / 32)

  add(key: number): void {
    const [step, first] = [Math.floor(key / HALF) | 1, key % HALF]
    for (let i = 0; i < 4; i++) {
      const bit = (first + i * step) % BITS
      this.#bits[bit >>> 5] = (this.#bits[bit >>> 5] as number) | (1 << (bit & 31))
    }
  }

  mayHold(key: number): boolean {
    const [step, first] = [Math.floor(key / HALF) | 1, key % HALF]
    for (let i = 0; i < 4; i++) {
      const bit = (first + i * step) % BITS
      if (((this.#bits[bit >>> 5] as number) & (1 << (bit & 31))) === 0) return false
    }
    return true
  }
}

const SIX_BITS = new Uint8Array(128)
for (const [i, c] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].entries())
  SIX_BITS[c.charCodeAt(0)] = i

/** The first 52 bits of a digest in base64url. */
function keyOf(name: string): number {
  let bits = 0
  for (let i = 0; i < 8; i++) bits = bits * 64 + (SIX_BITS[name.charCodeAt(i)] as number)
  return bits * 16 + ((SIX_BITS[name.charCodeAt(8)] as number) >> 2)
}

const LEARN_AT_ONCE = 5000
const NONE: readonly never[] = []

export class Names {
  /** Names that no run holds yet: those of the run that is being written, and those since. */
  #writing = new Map<string, Remembered[]>()
  #since = new Map<string, Remembered[]>()
  /** The name of each place that was remembered, in order: what is to be undone. */
  readonly #changes: string[] = []
  readonly #runs: Runs
  readonly #tables: Tables

  readonly #filter = new Filter()
  /** The last row of the table that was learned; undefined once all are. */
  #learned: [number, number, string, number] | undefined = [0, 0, '', 0]

  constructor(tables: Tables) {
    this.#tables = tables
    this.#runs = new Runs(tables)
  }

  /** Learns some of the names that the table holds. */
  learn(): void {
    if (this.#learned === undefined) return
    const rows = this.#tables
      .sql(
        `SELECT run, key, log, offset FROM commands WHERE (run, key, log, offset) > (?, ?, ?, ?) ORDER BY run, key, log, offset LIMIT ${LEARN_AT_ONCE}`,
      )
      .raw()
      .all(...this.#learned) as [number, number, string, number][]
    for (const [, key] of rows) this.#filter.add(key)
    this.#learned = rows.length < LEARN_AT_ONCE ? undefined : rows.at(-1)
  }

  /** How many wait for a run. */
  get size(): number {
    return this.#since.size
  }

  /** A command's id is `<digest of caller and key>.<digest of what was asked>`; its records in a log are contiguous. */
  remember(command_id: string, log: string, offset: number): void {
    const dot = command_id.indexOf('.')
    const name = command_id.slice(0, dot)
    const known = this.#since.get(name)
    if (known === undefined) {
      this.#filter.add(keyOf(name))
      this.#since.set(name, [{ log, offset, body: command_id.slice(dot + 1) }])
    } else if (known.every((place) => place.log !== log)) known.push({ log, offset, body: command_id.slice(dot + 1) })
    else return
    this.#changes.push(name)
  }

  /** Is it certain that this name was never remembered? */
  isNew(name: string): boolean {
    return this.#learned === undefined && !this.#filter.mayHold(keyOf(name))
  }

  /** Where the records of this name stand. What a run holds under its key is told by `read`: the name and body of a place. */
  find(name: string, read: (place: Place) => { name: string; body: string } | undefined): readonly Remembered[] {
    if (this.isNew(name)) return NONE
    const since = this.#since.get(name) ?? this.#writing.get(name)
    if (since) return since
    return this.#runs.find(keyOf(name)).flatMap((place) => {
      const found = read(place)
      return found?.name === name ? [{ ...place, body: found.body }] : []
    })
  }

  get savepoint(): number {
    return this.#changes.length
  }

  /** Takes back what was remembered since, the latest first. */
  undo(to: number): void {
    while (this.#changes.length > to) {
      const name = this.#changes.pop() as string
      const known = this.#since.get(name) as Remembered[]
      known.pop()
      if (known.length === 0) this.#since.delete(name)
    }
  }

  /** There is nothing to come back to. */
  keep(): void {
    this.#changes.length = 0
  }

  /** Begins a run with the names that wait. */
  gather(): void {
    if (this.#runs.writing) throw new Error('broken: a run is being written')
    this.#writing = this.#since
    this.#since = new Map()
    const names = []
    for (const [name, places] of this.#writing) {
      const key = keyOf(name)
      for (const { log, offset } of places) names.push({ key, log, offset })
    }
    this.#runs.begin(names)
  }

  /** Writes so many of the names that were gathered. Returns whether all of them are written. */
  write(most: number): boolean {
    this.#runs.write(most)
    if (this.#runs.writing) return false
    if (this.#writing.size > 0) this.#writing = new Map()
    return true
  }

  /** Tidies the runs a little. */
  tidy(most: number): void {
    this.#runs.tidy(most)
  }

  /** Does a run hold this very place under this key? */
  holds(key: number, { log, offset }: Place): boolean {
    return this.#runs.find(key).some((place) => place.log === log && place.offset === offset)
  }
}
