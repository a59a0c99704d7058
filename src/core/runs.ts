// Runs: where named requests lie in the views' database. A name's key is a digest and falls anywhere, so one sorted table
// would have all of its pages rewritten for every few thousand names. Instead names are written in runs, each in
// order of its keys, one after the other; many small runs are merged into a large one. (Databases call this a
// log-structured merge tree.) Everything is done in small steps, in proportion to what is recorded, so that nobody
// waits for a long one.
//
//   a run     chunk · chunk · …     a chunk: a row of the table, found by its first key
//   a chunk   name · name · …       a name: key (8 bytes, a double) · offset (6) · length of the log's name (1) · log

import { bounds } from './bounds.ts'
import type { Tables } from './tables.ts'

/** Where the first record of a named request stands in one log. */
export interface Place {
  log: string
  offset: number
}

export interface Named extends Place {
  key: number
}

interface Run {
  run: number
  names: number
}

/** Keys are the first bits of a digest, so many that a number holds them exactly. Two names may share one: the log tells. */
export const KEY_BITS = 52

const CHUNKS_REMOVED = 8

/** Writes a run, a chunk at a time. */
class Writer {
  readonly run: number
  readonly #names: Iterator<Named>
  #next: Named | undefined
  count = 0

  constructor(run: number, names: Iterable<Named>) {
    this.run = run
    this.#names = names[Symbol.iterator]()
    this.#next = this.#names.next().value as Named | undefined
  }

  get done(): boolean {
    return this.#next === undefined
  }

  writeChunk(tables: Tables): void {
    const first = this.#next
    if (!first) return
    let end = 0
    // All names with one key lie in one chunk.
    for (let last = first.key, taken = 0; this.#next && (taken < bounds.namesInChunk || this.#next.key === last); taken++) {
      last = this.#next.key
      end = print(this.#next, end)
      this.#next = this.#names.next().value as Named | undefined
      this.count++
    }
    tables.sql('INSERT INTO commands (run, first, chunk) VALUES (?, ?, ?)').run(this.run, first.key, printed.subarray(0, end))
  }
}

export class Runs {
  readonly #tables: Tables
  #live: Run[]
  /** Runs that were merged or never completed: their rows are on their way out. */
  readonly #dead: number[]
  #last: number
  #fresh: Writer | undefined
  #merge: { writer: Writer; of: Run[] } | undefined

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
    const before = this.#tables.sql('SELECT chunk FROM commands WHERE run = ? AND first <= ? ORDER BY first DESC LIMIT 1').pluck()
    const found: Place[] = []
    for (const { run } of this.#live) {
      const chunk = before.get(run, key) as Buffer | undefined
      if (!chunk) continue
      for (const name of namesIn(chunk)) if (name.key === key) found.push({ log: name.log, offset: name.offset })
    }
    return found
  }

  /** Begins a run with these names, which come in order of their keys; `write` writes it. */
  begin(names: Iterable<Named>): void {
    this.#fresh = new Writer(++this.#last, names)
  }

  /** Is a run being written? */
  get writing(): boolean {
    return this.#fresh !== undefined
  }

  /** Writes about so many names of the run that was begun. */
  write(most: number): void {
    const fresh = this.#fresh
    if (!fresh) return
    for (let left = most; left > 0 && !fresh.done; left -= bounds.namesInChunk) fresh.writeChunk(this.#tables)
    if (!fresh.done) return
    this.#fresh = undefined
    this.#put(fresh, [])
  }

  /** Merges runs, and takes away those that were merged, about so many names at a time. */
  tidy(most: number): void {
    for (let left = most; left > 0; left -= bounds.namesInChunk) if (!this.#removeSome() && !this.#mergeSome()) return
  }

  #mergeSome(): boolean {
    if (!this.#merge) {
      const of = this.#likeSized()
      if (!of) return false
      this.#merge = { of, writer: new Writer(++this.#last, inOrder(this.#tables, of)) }
    }
    const { writer, of } = this.#merge
    writer.writeChunk(this.#tables)
    if (writer.done) {
      this.#merge = undefined
      this.#put(writer, of)
    }
    return true
  }

  /** The run that was written counts from now on, and those that it was made of do not. */
  #put({ run, count }: Writer, of: readonly Run[]): void {
    const kept = this.#live.filter((live) => !of.includes(live))
    this.#live = count > 0 ? [...kept, { run, names: count }] : kept
    this.#dead.push(...of.map((merged) => merged.run))
    this.#tables.note('runs', JSON.stringify(this.#live))
  }

  #likeSized(): Run[] | undefined {
    const bySize = new Map<number, Run[]>()
    for (const live of this.#live) {
      const size = Math.floor(Math.log(Math.max(live.names, bounds.smallestRun) / bounds.smallestRun) / Math.log(bounds.mergedRuns))
      const same = [...(bySize.get(size) ?? []), live]
      if (same.length === bounds.mergedRuns) return same
      bySize.set(size, same)
    }
    return undefined
  }

  /** Takes away some rows of a run that counts no more. */
  #removeSome(): boolean {
    const run = this.#dead[0]
    if (run === undefined) return false
    const { changes } = this.#tables
      .sql(
        `DELETE FROM commands WHERE run = ? AND first <= (SELECT max(first) FROM (SELECT first FROM commands WHERE run = ? ORDER BY first LIMIT ${CHUNKS_REMOVED}))`,
      )
      .run(run, run)
    if (changes === 0) this.#dead.shift()
    return true
  }

  /** Every name in the order of its key, whatever run it lies in. */
  names(): Iterable<Named> {
    return inOrder(this.#tables, this.#live)
  }
}

/** The names of many runs in one order: of those that come next in each, the least. */
function* inOrder(tables: Tables, runs: readonly Run[]): Generator<Named> {
  const left = runs.map(({ run }) => namesOf(tables, run))
  const next = left.map((names) => names.next().value as Named | undefined)
  for (;;) {
    let least = -1
    for (let i = 0; i < next.length; i++) {
      const name = next[i]
      if (name && (least < 0 || isBefore(name, next[least] as Named))) least = i
    }
    if (least < 0) return
    yield next[least] as Named
    next[least] = left[least]?.next().value as Named | undefined
  }
}

const isBefore = (a: Named, b: Named) =>
  a.key < b.key || (a.key === b.key && (a.log < b.log || (a.log === b.log && a.offset < b.offset)))

function* namesOf(tables: Tables, run: number): Generator<Named> {
  const after = tables.sql('SELECT first, chunk FROM commands WHERE run = ? AND first > ? ORDER BY first LIMIT 1')
  let row = after.get(run, -1) as { first: number; chunk: Buffer } | undefined
  while (row) {
    yield* namesIn(row.chunk)
    row = after.get(run, row.first) as typeof row
  }
}

const HEAD = 8 + 6 + 1
let printed = Buffer.alloc(64 * 1024)

/** Prints a name into the chunk that is being made; returns where it ends. */
function print({ key, log, offset }: Named, at: number): number {
  if (at + HEAD + log.length > printed.length) printed = Buffer.concat([printed, Buffer.alloc(printed.length)])
  printed.writeDoubleLE(key, at)
  printed.writeUIntLE(offset, at + 8, 6)
  printed.writeUInt8(log.length, at + 14)
  printed.write(log, at + HEAD, 'latin1')
  return at + HEAD + log.length
}

export function* namesIn(chunk: Buffer): Generator<Named> {
  for (let at = 0; at < chunk.length; ) {
    const end = at + HEAD + chunk.readUInt8(at + 14)
    yield { key: chunk.readDoubleLE(at), offset: chunk.readUIntLE(at + 8, 6), log: chunk.toString('latin1', at + HEAD, end) }
    at = end
  }
}
