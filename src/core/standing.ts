// The records of one type as they stand: of those with one key the last, in the place of the first. However long the log is,
// a bounded number of keys is held at a time.
//
//   1  look ahead: from here to the end, where is the last record of each key? Of as many keys as may be held; where the
//      next one begins, the next window does.
//   2  forget the keys that had begun before this window: they have been told.
//   3  tell: go over the window; of each key that is left, tell its last record, once.
//
// The log is looked through twice, and twice more for every further window; a short one once, and kept meanwhile. What comes
// after the first look is left out, so that all is of one moment.

import { bounds } from './bounds.ts'
import type { PlacedLine } from './log.ts'
import type { Recorded } from './record.ts'
import type { Place } from './sound.ts'
import { pacer, SOME_BYTES, type Some } from './turn.ts'

/** Which records are meant, and by what they replace each other; a record without a key stands for itself. */
export interface Standing {
  type: string
  keyOf(record: Recorded): string | undefined
}

/** The log that is read: each of its lines is found to be what was recorded. */
export interface Source {
  readonly beginning: Place
  /** Its lines from one place up to another. */
  lines(from: Place, to?: number): Iterable<PlacedLine & Place>
  /** The one line that begins and ends here. */
  lineAt(offset: number, end: number): PlacedLine
  /** The record in a line, where it is of this type. */
  recordOf(line: PlacedLine, type: string): Recorded | undefined
}

interface Window {
  from: Place
  /** Where the next one begins, where there is one. */
  next: Place | undefined
  /** Where the log ends. */
  end: number
  /** Where the last record of each key lies. */
  last: Map<string, { offset: number; end: number }>
  /** All that was looked at, where that is short. */
  seen: (readonly Seen[])[] | undefined
}

interface Seen {
  line: PlacedLine & Place
  before: Place
  record: Recorded | undefined
  key: string | undefined
}

const SHORT = SOME_BYTES

/** A key of the greatest length, its place, and what it takes to hold them. */
const ENTRY_BYTES = 256

export async function* standing(source: Source, which: Standing, hold: (bytes: number) => void): Some<Recorded> {
  const keyed = keyedIn(source, which)
  let window = await lookAhead(keyed, source.beginning, undefined, () => hold(ENTRY_BYTES))
  const { end } = window
  yield* tell(source, keyed, window)
  while (window.next) {
    // The first was full, and what it took is held.
    window = await lookAhead(keyed, window.next, end)
    for await (const some of keyed(source.beginning, window.from.end)) {
      for (const { key } of some) if (key !== undefined) window.last.delete(key)
    }
    yield* tell(source, keyed, window)
  }
}

type Keyed = ReturnType<typeof keyedIn>

/** Goes over the lines with what is known of each, and the place before it. Others get their turn. */
function keyedIn(source: Source, { type, keyOf }: Standing) {
  return async function* keyed(from: Place, to?: number): Some<Seen> {
    const pace = pacer()
    let before = from
    let [some, since]: [Seen[], number] = [[], from.end]
    for (const line of source.lines(from, to)) {
      const rest = pace()
      if (rest) await rest
      if (before.end - since > SOME_BYTES) {
        yield some
        ;[some, since] = [[], before.end]
      }
      const record = source.recordOf(line, type)
      some.push({ line, before, record, key: record && keyOf(record) })
      before = line
    }
    yield some
  }
}

async function lookAhead(keyed: Keyed, from: Place, to: number | undefined, entered = () => {}): Promise<Window> {
  const window: Window = { from, next: undefined, end: from.end, last: new Map(), seen: [] }
  const { last } = window
  for await (const some of keyed(from, to)) {
    for (const { line, before, key } of some) {
      window.end = line.end
      if (key === undefined) continue
      if (!last.has(key)) {
        if (last.size === bounds.keysAtOnce) window.next ??= before
        if (window.next) continue
        entered()
      }
      last.set(key, { offset: line.offset, end: line.end })
    }
    if (window.end - from.end > SHORT) window.seen = undefined
    window.seen?.push(some)
  }
  return window
}

async function* tell(source: Source, keyed: Keyed, { from, next, end, last, seen }: Window): Some<Recorded> {
  const until = next?.end ?? end
  for await (const some of seen ?? keyed(from, until)) {
    yield some.flatMap((one) => (one.line.end > until ? [] : (told(source, one, last) ?? [])))
  }
}

/** The record that is told in the place of this one; none where that has been told. */
function told(source: Source, { line, record, key }: Seen, last: Window['last']): Recorded | undefined {
  if (!record || key === undefined) return record
  const at = last.get(key)
  if (!at) return undefined
  last.delete(key)
  return at.offset === line.offset ? record : source.recordOf(source.lineAt(at.offset, at.end), record.type)
}
