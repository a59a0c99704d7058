// The records of one type as they stand: of those with one key the last, in the place of the first. However long the log is,
// a bounded number of keys is held at a time.
//
//   1  look ahead: from here to the end, where is the last record of each key? Of as many keys as may be held; where the
//      next one begins, the next window does.
//   2  forget the keys that had begun before this window: they have been told.
//   3  tell: go over the window; of each key that is left, tell its last record, once.
//
// The log is looked through twice, and twice more for every further window; where the records end soon, once, and they are kept meanwhile. What comes
// after the first look is left out, so that all is of one moment.

import { bounds } from './bounds.ts'
import { Borrowed } from './log.ts'
import type { Recorded } from './record.ts'
import type { Place, SoundLines } from './sound.ts'
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
  lines(from: Place, to?: number, room?: Buffer): SoundLines
  /** The one line that begins and ends here. */
  lineAt(offset: number, end: number): Buffer
  /** The record in a line, where it is of this type. */
  recordOf(line: Buffer, type: string): Recorded | undefined
}

interface Window {
  from: Place
  /** Where the next one begins, where there is one. */
  next: Place | undefined
  /** Where the last record of this type ends. */
  end: number
  /** Where the last record of each key lies. */
  last: Map<string, { offset: number; end: number }>
  /** All of them that were looked at, where they end soon. */
  seen: (readonly Seen[])[] | undefined
}

/** A record of this type, and where it is. */
interface Seen {
  record: Recorded
  key: string | undefined
  offset: number
  end: number
  /** The place before it, where it has a key: a window may have to begin there. */
  before: Place | undefined
}

const SHORT = SOME_BYTES

/** A key of the greatest length, its place, and what it takes to hold them. */
const ENTRY_BYTES = 256

export async function* standing(source: Source, which: Standing, hold: (bytes: number) => void): Some<Recorded> {
  const within: Within = (from, to) => keyed(source, which, from, to)
  let window = await lookAhead(within, source.beginning, undefined, () => hold(ENTRY_BYTES))
  const { end } = window
  yield* tell(source, within, window)
  while (window.next) {
    // The first was full, and what it took is held.
    window = await lookAhead(within, window.next, end)
    for await (const some of within(source.beginning, window.from.end)) {
      for (const { key } of some) if (key !== undefined) window.last.delete(key)
    }
    yield* tell(source, within, window)
  }
}

type Within = (from: Place, to?: number) => Some<Seen>

/** Goes over the records of this type. Others get their turn, also where there are none. */
async function* keyed(source: Source, { type, keyOf }: Standing, from: Place, to?: number): Some<Seen> {
  const pace = pacer()
  let [some, since]: [Seen[], number] = [[], from.end]
  const borrowed = new Borrowed()
  try {
    const lines = source.lines(from, to, borrowed.room)
    while (lines.advance()) {
      const rest = pace()
      if (rest) await rest
      const { offset, end } = lines
      if (offset - since > SOME_BYTES) {
        borrowed.giveBack() // We are beyond what it holds.
        yield some
        ;[some, since] = [[], offset]
      }
      const record = source.recordOf(lines.bytes, type)
      if (!record) continue
      const key = keyOf(record)
      some.push({ record, key, offset, end, before: key === undefined ? undefined : lines.placeBefore })
    }
  } finally {
    borrowed.giveBack()
  }
  yield some
}

async function lookAhead(within: Within, from: Place, to: number | undefined, entered = () => {}): Promise<Window> {
  const window: Window = { from, next: undefined, end: from.end, last: new Map(), seen: [] }
  const { last } = window
  for await (const some of within(from, to)) {
    for (const { key, offset, end, before } of some) {
      window.end = end
      if (key === undefined) continue
      if (!last.has(key)) {
        if (last.size === bounds.keysAtOnce) window.next ??= before
        if (window.next) continue
        entered()
      }
      last.set(key, { offset, end })
    }
    if (window.end - from.end > SHORT) window.seen = undefined
    window.seen?.push(some)
  }
  return window
}

async function* tell(source: Source, within: Within, { from, next, end, last, seen }: Window): Some<Recorded> {
  const until = next?.end ?? end
  for await (const some of seen ?? within(from, until)) {
    const those: Recorded[] = []
    for (const one of some) {
      const record = one.end > until ? undefined : told(source, one, last)
      if (record) those.push(record)
    }
    yield those
  }
}

/** The record that is told in the place of this one; none where that has been told. */
function told(source: Source, { record, key, offset }: Seen, last: Window['last']): Recorded | undefined {
  if (key === undefined) return record
  const at = last.get(key)
  if (!at) return undefined
  last.delete(key)
  return at.offset === offset ? record : source.recordOf(source.lineAt(at.offset, at.end), record.type)
}
