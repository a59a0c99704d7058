// Named requests, so that a retry is known again. New names are kept here, where they are found at once, until there are
// enough of them for a run in the views' database; the journal holds their records till then.

import { bounds } from './bounds.ts'
import { SIX_BITS } from './ids.ts'
import type { Shelf } from './log.ts'
import { scan } from './record.ts'
import { KEY_BITS, type Named, namesIn, type Place, Runs } from './runs.ts'
import { placeAt, SoundLines } from './sound.ts'
import type { Tables } from './tables.ts'

/** Where the first record of a named request stands in one log, and the digest of what was asked. */
export interface Remembered extends Place {
  body: string
}

// Nearly every name is new, and looking for it in the runs only to find nothing would cost more than all else that is
// done for a record. A Bloom filter answers most of these: four bits a name in 4 MiB, about one false alarm in a hundred
// at three million names. It starts empty, and answers only when it has learned every name of the table, some at a time.
const HALF = 2 ** (KEY_BITS / 2)

class Filter {
  readonly #size = bounds.filterBits
  /** Made when there is a name to be held. */
  #bits: Uint32Array | undefined

  add(key: number): void {
    this.#bits ??= new Uint32Array(this.#size / 32)
    const [step, first] = [Math.floor(key / HALF) | 1, key % HALF]
    for (let i = 0; i < 4; i++) {
      const bit = (first + i * step) % this.#size
      this.#bits[bit >>> 5] = (this.#bits[bit >>> 5] as number) | (1 << (bit & 31))
    }
  }

  mayHold(key: number): boolean {
    if (!this.#bits) return false
    const [step, first] = [Math.floor(key / HALF) | 1, key % HALF]
    for (let i = 0; i < 4; i++) {
      const bit = (first + i * step) % this.#size
      if (((this.#bits[bit >>> 5] as number) & (1 << (bit & 31))) === 0) return false
    }
    return true
  }
}

/** The first 52 bits of a digest in base64url. */
function keyOf(name: string): number {
  let bits = 0
  for (let i = 0; i < 8; i++) bits = bits * 64 + (SIX_BITS[name.charCodeAt(i)] as number)
  return bits * 16 + ((SIX_BITS[name.charCodeAt(8)] as number) >> 2)
}

/**
 * Names that no run holds yet. An open hash table over columns, and not a map of objects: those would live for a second,
 * which is long enough to be moved to where garbage is dear, at a rate of thousands a second. For the same reason what a name
 * is called is kept as bytes, and not as a text. It is made small, since V8 takes much memory at a time for a reason to collect all garbage, and used again.
 */
class Fresh {
  #slots = new Int32Array(2 ** 11)
  #keys = new Float64Array(2 ** 10)
  #offsets = new Float64Array(2 ** 10)
  /** Where each command's id ends in the bytes. */
  #ends = new Uint32Array(2 ** 10)
  #bytes = Buffer.allocUnsafeSlow(2 ** 15)
  readonly #logs: string[] = []

  get size(): number {
    return this.#logs.length
  }

  add(key: number, command_id: string, { log, offset }: Place): void {
    const at = this.size
    const end = this.#endOf(at - 1) + command_id.length
    if (at === this.#keys.length) this.#grow()
    if (end > this.#bytes.length) this.#bytes = Buffer.concat([this.#bytes, Buffer.allocUnsafeSlow(end)])
    this.#keys[at] = key
    this.#slots[this.#freeSlot(key)] = at + 1
    this.#offsets[at] = offset
    this.#bytes.write(command_id, end - command_id.length, 'latin1')
    this.#ends[at] = end
    this.#logs.push(log)
  }

  #endOf(at: number): number {
    return at < 0 ? 0 : (this.#ends[at] as number)
  }

  #commandId(at: number): string {
    return this.#bytes.toString('latin1', this.#endOf(at - 1), this.#endOf(at))
  }

  find(key: number, name: string): Remembered[] {
    const found: Remembered[] = []
    for (let slot = this.#slotOf(key, key); slot >= 0; slot = this.#slotOf(key, slot + 1)) {
      const i = (this.#slots[slot] as number) - 1
      const own = partsOf(this.#commandId(i))
      if (own.name === name) found.push({ log: this.#logs[i] as string, offset: this.#offsets[i] as number, body: own.body })
    }
    return found
  }

  /** Takes back the last ones, so that so many remain. What was added last stands in the way of none before it. */
  cut(size: number): void {
    const mask = this.#slots.length - 1
    for (let i = this.size - 1; i >= size; i--) {
      let slot = (this.#keys[i] as number) & mask
      while (this.#slots[slot] !== i + 1) slot = (slot + 1) & mask
      this.#slots[slot] = 0
    }
    this.#logs.length = size
  }

  /** For how many there is room. */
  get room(): number {
    return this.#keys.length
  }

  /** Holds nothing any more, and is as large as it was. */
  clear(): void {
    this.#slots.fill(0)
    this.#logs.length = 0
  }

  /** In the order of their keys. */
  *inOrder(): Generator<Named> {
    const keys = this.#keys.slice(0, this.size).sort()
    for (let i = 0; i < keys.length; i++) {
      const key = keys[i] as number
      if (key === keys[i - 1]) continue
      for (let slot = this.#slotOf(key, key); slot >= 0; slot = this.#slotOf(key, slot + 1)) {
        const at = (this.#slots[slot] as number) - 1
        yield { key, log: this.#logs[at] as string, offset: this.#offsets[at] as number }
      }
    }
  }

  /** The first slot from there on that holds a name with this key, or -1: they are met in the order in which they came. */
  #slotOf(key: number, from: number): number {
    const mask = this.#slots.length - 1
    for (let slot = from & mask; this.#slots[slot] !== 0; slot = (slot + 1) & mask) {
      if (this.#keys[(this.#slots[slot] as number) - 1] === key) return slot
    }
    return -1
  }

  #freeSlot(key: number): number {
    const mask = this.#slots.length - 1
    let slot = key & mask
    while (this.#slots[slot] !== 0) slot = (slot + 1) & mask
    return slot
  }

  #grow(): void {
    const [keys, offsets, ends] = [this.#keys, this.#offsets, this.#ends]
    this.#keys = new Float64Array(2 * keys.length)
    this.#keys.set(keys)
    this.#offsets = new Float64Array(2 * keys.length)
    this.#offsets.set(offsets)
    this.#ends = new Uint32Array(2 * keys.length)
    this.#ends.set(ends)
    this.#slots = new Int32Array(2 * this.#slots.length)
    for (let i = 0; i < this.size; i++) this.#slots[this.#freeSlot(keys[i] as number)] = i + 1
  }
}

const LEARN_AT_ONCE = 100
/** A table of names that had to grow beyond this, as after a crash, is not kept. */
const MOST_ROOM = 2 ** 17
const NONE: readonly never[] = []

/** A command's id is `<digest of caller and key>.<digest of what was asked>`: its name, and what it must be the same as. */
export function partsOf(command_id: string): { name: string; body: string } {
  const dot = command_id.indexOf('.')
  return { name: command_id.slice(0, dot), body: command_id.slice(dot + 1) }
}

/** The name of the request whose first record stands at a place; undefined where it was erased. */
function nameAt(shelf: Shelf, { log, offset }: Place): { name: string; body: string } | undefined {
  const lines = new SoundLines(shelf, log, { from: placeAt(shelf, log, offset), least: offset + 1 })
  const command_id = lines.advance() ? scan(lines.bytes)?.envelope.command_id : undefined
  return command_id === undefined ? undefined : partsOf(command_id)
}

export class Names {
  /** Names that no run holds yet, or that came with the last one; and those since. */
  #writing = new Fresh()
  #since = new Fresh()
  /** The request and log that were remembered last: the records of one request come one after the other. */
  #last = { command_id: '', log: '' }
  readonly #runs: Runs
  readonly #tables: Tables

  readonly #filter = new Filter()
  /** The last chunk of the table that was learned; undefined once all are. */
  #learned: [number, number] | undefined = [0, -1]

  constructor(tables: Tables) {
    this.#tables = tables
    this.#runs = new Runs(tables)
  }

  /** Learns some of the names that the table holds. */
  learn(): void {
    if (this.#learned === undefined) return
    const rows = this.#tables
      .sql(`SELECT run, first, chunk FROM commands WHERE (run, first) > (?, ?) ORDER BY run, first LIMIT ${LEARN_AT_ONCE}`)
      .all(...this.#learned) as { run: number; first: number; chunk: Buffer }[]
    for (const { chunk } of rows) for (const { key } of namesIn(chunk)) this.#filter.add(key)
    const last = rows.at(-1)
    this.#learned = last && rows.length === LEARN_AT_ONCE ? [last.run, last.first] : undefined
  }

  /** How many wait for a run. */
  get size(): number {
    return this.#since.size
  }

  /** Remembers where a record of this command stands; those in one log are contiguous, and the first counts. */
  remember(command_id: string, log: string, offset: number): void {
    const key = keyOf(command_id)
    if (command_id === this.#last.command_id) {
      if (log === this.#last.log || this.#since.find(key, partsOf(command_id).name).some((place) => place.log === log)) return
    }
    this.#last = { command_id, log }
    this.#filter.add(key)
    this.#since.add(key, command_id, { log, offset })
  }

  /** Is it certain that this name was never remembered? */
  isNew(name: string): boolean {
    return this.#learned === undefined && !this.#filter.mayHold(keyOf(name))
  }

  /** Where the records of this name stand. A run holds no more than its key: what stands there is read from the shelf. */
  find(name: string, shelf: Shelf): readonly Remembered[] {
    if (this.isNew(name)) return NONE
    const key = keyOf(name)
    const fresh = [...this.#since.find(key, name), ...this.#writing.find(key, name)]
    if (fresh.length > 0) return fresh
    return this.#runs.find(key).flatMap((place) => {
      const found = nameAt(shelf, place)
      return found?.name === name ? [{ ...place, body: found.body }] : []
    })
  }

  get savepoint(): number {
    return this.#since.size
  }

  /** Takes back what was remembered since. */
  undo(to: number): void {
    if (to === this.#since.size) return
    this.#since.cut(to)
    this.#last = { command_id: '', log: '' }
  }

  /** Begins a run with the names that wait. */
  gather(): void {
    if (this.#runs.writing) throw new Error('broken: a run is being written')
    const written = this.#writing
    written.clear()
    this.#writing = this.#since
    this.#since = written.room > MOST_ROOM ? new Fresh() : written
    this.#last = { command_id: '', log: '' }
    this.#runs.begin(this.#writing.inOrder())
  }

  /** Writes so many of the names that were gathered. Returns whether all of them are written. */
  write(most: number): boolean {
    this.#runs.write(most)
    return !this.#runs.writing
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
