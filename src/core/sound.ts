// Reading a log and believing it. Each line is checked against the seal of the one before it, so that a reader is told what
// was recorded, or that the log is damaged: a flipped bit never passes for something that somebody said.

import { Refusal } from './errors.ts'
import { linesOf, type PlacedLine, type Shelf } from './log.ts'
import { check, genesis, statedHash } from './seal.ts'

/** A place between two lines: where the next one begins, and what it follows. */
export interface Place {
  end: number
  hash: string
  /** Of the line before, counted from 1; unknown where reading began in the middle. */
  number: number | undefined
}

export const beginningOf = (log: string): Place => ({ end: 0, hash: genesis(log), number: 0 })

/** The whole lines of a log from a place on, or up to where one ended, each following from the one before it; refuses where one does not. */
export function* soundLines(
  shelf: Shelf,
  log: string,
  { from = beginningOf(log), to, least = to ?? 0 }: { from?: Place; to?: number | undefined; least?: number | undefined } = {},
): Generator<PlacedLine & Place> {
  let { end, hash, number } = from
  const unfinished = () => {
    throw damagedAt(number === undefined ? undefined : number + 1, 'it has no end')
  }
  for (const line of linesOf(shelf, log, end, to ?? Number.POSITIVE_INFINITY, unfinished)) {
    if (number !== undefined) number++
    const checked = check(hash, line.bytes)
    if (!checked.ok) throw damagedAt(number, checked.why)
    end = line.end
    hash = checked.hash
    yield { bytes: line.bytes, offset: line.offset, end, hash, number }
  }
  if (end < least) throw damagedAt(number === undefined ? undefined : number + 1, 'it was recorded, and is not there')
}

/** The place before the line that begins at this offset, going by what the line before it says of itself. */
export function placeAt(shelf: Shelf, log: string, offset: number): Place {
  if (offset === 0) return beginningOf(log)
  const pieces: Buffer[] = []
  let at = Math.max(0, offset - LONGEST_END)
  while (at < offset) {
    const piece = shelf.read(log, at, offset - at)
    if (piece.length === 0) break
    pieces.push(piece)
    at += piece.length
  }
  const before = Buffer.concat(pieces)
  return { end: offset, hash: statedHash(before.subarray(before.lastIndexOf(10, -2) + 1, -1)), number: undefined }
}

/** An erased line is shorter than that, and any other ends with its seal. */
const LONGEST_END = 512

const damagedAt = (number: number | undefined, why: string) =>
  new Refusal(
    'unavailable',
    'log-damaged',
    `${number === undefined ? 'A line' : `Line ${number}`} of this log is damaged: ${why}. The operator can find out more with sessile verify.`,
  )
