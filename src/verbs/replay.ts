// Replays records to stdout in the order in which they were recorded, across all logs, as fast as they can be read or at
// the pace at which they happened.

import { needData } from '../cli/reach.ts'
import { exit, instant, put, text, Usage, type Verb } from '../cli/verb.ts'
import { linesOf, type PlacedLine } from '../core/log.ts'
import { scan } from '../core/record.ts'
import { FileShelf } from '../log/shelf.ts'

interface Cursor {
  log: string
  lines: Generator<PlacedLine>
  line: Buffer
  timestamp: string
  type: string
}

export const replayVerb: Verb = {
  does: 'Print records in order, across all logs.',
  usage: 'sessile replay [--from TIME] [--to TIME] [--user ID] [--session ID] [--type TYPE] [--speed N]',
  options: {
    from: { type: 'string' },
    to: { type: 'string' },
    user: { type: 'string' },
    session: { type: 'string' },
    type: { type: 'string' },
    speed: { type: 'string' },
    json: { type: 'boolean' },
  },
  async run({ config, values }) {
    const from = instant('from', values.from) ?? Number.NEGATIVE_INFINITY
    const to = instant('to', values.to) ?? Number.POSITIVE_INFINITY
    const speed = values.speed === undefined ? Number.POSITIVE_INFINITY : Number(values.speed)
    if (!(speed > 0)) throw new Usage('--speed must be a number above 0: 1 for the pace at which it happened')
    const type = text(values.type)
    needData(config)
    let before: number | undefined
    for (const { line, timestamp, type: own } of inOrder(new FileShelf(config.home), text(values.user), text(values.session))) {
      const at = Date.parse(timestamp)
      if (at >= to) break
      if (at < from || (type !== undefined && own !== type)) continue
      if (before !== undefined && speed !== Number.POSITIVE_INFINITY)
        await new Promise((resolve) => setTimeout(resolve, Math.min((at - (before as number)) / speed, LONGEST_WAIT_MS)))
      before = at
      await put(Buffer.concat([line, NEWLINE]))
    }
    return exit.done
  },
}

const NEWLINE = Buffer.from('\n')
/** The longest that a timer can wait; beyond it, it would not wait at all. */
const LONGEST_WAIT_MS = 2 ** 31 - 1

/** Merges the logs by time; records of one moment stand by log, and within a log always in its own order. */
function* inOrder(shelf: FileShelf, user: string | undefined, session: string | undefined): Generator<Cursor> {
  const heap: Cursor[] = []
  for (const log of shelf.names()) {
    if (user !== undefined && !log.startsWith(`users/${user}/`)) continue
    if (session !== undefined && !log.endsWith(`/sessions/${session}`)) continue
    const cursor: Cursor = { log, lines: linesOf(shelf, log), line: NEWLINE, timestamp: '', type: '' }
    // The first line is read and let go: an open log costs memory, and most begin after others have ended.
    if (advance(cursor)) push(heap, { ...cursor, lines: undefined as never })
  }
  while (heap.length > 0) {
    const cursor = heap[0] as Cursor
    if (cursor.lines === undefined) {
      cursor.lines = linesOf(shelf, cursor.log)
      advance(cursor)
    }
    yield cursor
    if (advance(cursor)) sink(heap, 0)
    else {
      const last = heap.pop() as Cursor
      if (heap.length > 0) {
        heap[0] = last
        sink(heap, 0)
      }
    }
  }
}

/** Moves to the next record; an erased line has no time of its own and is passed over. */
function advance(cursor: Cursor): boolean {
  for (let next = cursor.lines.next(); !next.done; next = cursor.lines.next()) {
    const scanned = scan(next.value.bytes)
    if (!scanned) continue
    cursor.line = next.value.bytes
    cursor.timestamp = scanned.envelope.timestamp
    cursor.type = scanned.envelope.type
    return true
  }
  return false
}

const earlier = (a: Cursor, b: Cursor) => a.timestamp < b.timestamp || (a.timestamp === b.timestamp && a.log < b.log)

function push(heap: Cursor[], cursor: Cursor): void {
  let at = heap.push(cursor) - 1
  while (at > 0) {
    const parent = (at - 1) >> 1
    if (!earlier(cursor, heap[parent] as Cursor)) break
    heap[at] = heap[parent] as Cursor
    at = parent
  }
  heap[at] = cursor
}

function sink(heap: Cursor[], from: number): void {
  const cursor = heap[from] as Cursor
  let at = from
  for (;;) {
    let child = 2 * at + 1
    if (child >= heap.length) break
    if (child + 1 < heap.length && earlier(heap[child + 1] as Cursor, heap[child] as Cursor)) child++
    if (!earlier(heap[child] as Cursor, cursor)) break
    heap[at] = heap[child] as Cursor
    at = child
  }
  heap[at] = cursor
}
