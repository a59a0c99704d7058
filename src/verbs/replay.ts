// Replays records to stdout in the order in which they were recorded, across all logs, as fast as they can be read or at
// the pace at which they happened.

import { needData } from '../cli/reach.ts'
import { exit, instant, Printout, text, Usage, type Verb } from '../cli/verb.ts'
import { CHUNK, Lines } from '../core/log.ts'
import { scan } from '../core/record.ts'
import { after } from '../core/turn.ts'
import { FileShelf } from '../log/shelf.ts'

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
    const out = new Printout()
    let before: number | undefined
    try {
      for (const { line, timestamp, type: own } of inOrder(new FileShelf(config.home), text(values.user), text(values.session))) {
        const at = Date.parse(timestamp)
        if (at >= to) break
        if (at < from || (type !== undefined && own !== type)) continue
        if (before !== undefined && speed !== Number.POSITIVE_INFINITY) {
          await out.flush()
          await after(Math.min((at - (before as number)) / speed, LONGEST_WAIT_MS))
        }
        before = at
        await out.add(line)
      }
    } finally {
      // What comes before a fault is printed all the same.
      await out.flush()
    }
    return exit.done
  },
}

/** The longest that a timer can wait; beyond it, it would not wait at all. */
const LONGEST_WAIT_MS = 2 ** 31 - 1

/** Which of its records a log stands at. */
interface Cursor {
  log: string
  timestamp: string
  type: string
  /** None before its first record is due: an open log costs memory, and most begin after others have ended. */
  lines?: Lines
  room?: Buffer | undefined
}

/** So much of a log is looked at for the time of its first record, and all of it where that is not enough. */
const BEGINNING = 4096
/** Logs that are read at a time have room that is used again; beyond so many, each has its own. */
const MOST_ROOMS = 64

/** Merges the logs by time; records of one moment stand by log, and within a log always in its own order. */
function* inOrder(shelf: FileShelf, user: string | undefined, session: string | undefined) {
  const rooms = Array.from({ length: MOST_ROOMS }, () => Buffer.allocUnsafeSlow(CHUNK) as Buffer)
  const heap: Cursor[] = []
  for (const log of shelf.names()) {
    if (!isOf(log, user, session)) continue
    const cursor = { log, timestamp: '', type: '' }
    const among = (most?: number) => advance(cursor, new Lines(shelf, log, 0, most, rooms[0]))
    if (among(BEGINNING) || among()) push(heap, cursor)
  }
  for (let cursor = heap[0]; cursor; cursor = heap[0]) {
    if (cursor.lines) yield { line: cursor.lines.bytes, timestamp: cursor.timestamp, type: cursor.type }
    else {
      cursor.room = rooms.pop()
      cursor.lines = new Lines(shelf, cursor.log, 0, undefined, cursor.room)
    }
    if (advance(cursor, cursor.lines)) sink(heap, cursor)
    else {
      if (cursor.room) rooms.push(cursor.room)
      const last = heap.pop() as Cursor
      if (last !== cursor) sink(heap, last)
    }
  }
}

const isOf = (log: string, user: string | undefined, session: string | undefined) =>
  (user === undefined || log.startsWith(`users/${user}/`)) && (session === undefined || log.endsWith(`/sessions/${session}`))

/** Moves to the next record; an erased line has no time of its own and is passed over. */
function advance(cursor: Cursor, lines: Lines): boolean {
  while (lines.advance()) {
    const scanned = scan(lines.bytes)
    if (!scanned) continue
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

/** Puts a cursor in the place of the first, and then where it belongs. */
function sink(heap: Cursor[], cursor: Cursor): void {
  let at = 0
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
