// Lines of the journal as they go to the files of their logs, those of each log in one piece; and what may stand in the place where
// a piece belongs.

import { bounds } from '../core/bounds.ts'
import { assert } from '../core/errors.ts'
import type { JournalLine } from '../core/log.ts'
import { type Disk, readInto } from './disk.ts'

/** What a journal holds, some lines at a time: those told together are there until the next are asked for. */
export type Holds = () => Iterable<readonly JournalLine[]>

/** A part of a log, in which its lines lie without a gap. */
interface Extent {
  offset: number
  length: number
}

/** Its bytes. */
export interface Piece {
  offset: number
  bytes: Buffer
}

/** What is held of each log. */
export class Extents extends Map<string, Extent> {
  note({ log, offset, length }: JournalLine): void {
    const known = this.get(log)
    if (known) known.length += length
    else this.set(log, { offset, length })
  }
}

/**
 * The lines of these logs, those of each in one piece, which is there until the next is asked for. What fits in the room is
 * put there while the journal is read; then it is read again for the logs that come next.
 */
export function* piecesOf(extents: Extents, holds: Holds): Generator<[log: string, Piece]> {
  let room = Buffer.allocUnsafeSlow(Math.min(lengthOf(extents), bounds.journalHeld))
  for (const logs of fitting(extents)) {
    const needed = lengthOf(logs)
    if (room.length < needed) room = Buffer.allocUnsafeSlow(needed)
    const filled = fill(room, logs, holds)
    let at = 0
    for (const [log, { offset, length }] of logs) {
      assert(filled.get(log) === at + length, 'the journal was read otherwise the second time')
      yield [log, { offset, bytes: room.subarray(at, at + length) }]
      at += length
    }
  }
}

function lengthOf(logs: Iterable<[log: string, Extent]>): number {
  let sum = 0
  for (const [, { length }] of logs) sum += length
  return sum
}

/** As many logs as fit in the room at a time, and at least one. */
function* fitting(extents: Extents): Generator<[log: string, Extent][]> {
  let [logs, length] = [[] as [string, Extent][], 0]
  for (const entry of extents) {
    if (logs.length > 0 && length + entry[1].length > bounds.journalHeld) {
      yield logs
      logs = []
      length = 0
    }
    logs.push(entry)
    length += entry[1].length
  }
  if (logs.length > 0) yield logs
}

/** Puts the lines of each of these logs behind each other, one log behind the other; returns where each ends. */
function fill(room: Buffer, logs: readonly [log: string, Extent][], holds: Holds): Map<string, number> {
  const ends = new Map<string, number>()
  let from = 0
  for (const [log, { length }] of logs) {
    ends.set(log, from)
    from += length
  }
  for (const lines of holds())
    for (const { log, bytes } of lines) {
      const end = ends.get(log)
      if (end !== undefined) ends.set(log, end + bytes.copy(room, end))
    }
  return ends
}

/** Why a file of this size cannot have lines put from one place to another: it ends before them, or behind them. */
export function wrongLength(size: number, from: number, to: number): string | undefined {
  if (size < from) return `its file ends at byte ${size}, and its next record begins at byte ${from}`
  return size > to ? `its file has ${size - to} bytes that no record accounts for` : undefined
}

/** Where bytes stand that neither a crash nor Sessile can have left: not the expected ones, and not zeros. */
export function foreignIn(found: Buffer, offset: number, expected: Buffer): string | undefined {
  if (found.equals(expected.subarray(0, found.length))) return undefined
  const at = found.findIndex((byte, i) => byte !== expected[i] && byte !== 0)
  return at < 0 ? undefined : `its file differs from the journal at byte ${offset + at}`
}

/** Room for what a file holds. */
const FOUND = Buffer.alloc(64 * 1024)

/** Why this cannot be put in its place: what the file holds there was left by neither Sessile nor a crash. */
export function mismatch(disk: Disk, fd: number, { offset, bytes }: Piece): string | undefined {
  const size = disk.size(fd)
  let wrong = wrongLength(size, offset, offset + bytes.length)
  for (let at = offset; wrong === undefined && at < size; at += FOUND.length) {
    const expected = bytes.subarray(at - offset, at - offset + FOUND.length)
    wrong = foreignIn(readInto(disk, fd, FOUND.subarray(0, expected.length), at), at, expected)
  }
  return wrong
}
