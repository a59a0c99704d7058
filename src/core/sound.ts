// Reading a log and believing it. Each line is checked against the seal of the one before it, so that a reader is told what
// was recorded, or that the log is damaged: a flipped bit never passes for something that somebody said.

import { Refusal } from './errors.ts'
import { Lines, type Shelf } from './log.ts'
import { type Checked, check, following, genesis, statedHash } from './seal.ts'

/** A place between two lines: where the next one begins, and what it follows. */
export interface Place {
  end: number
  hash: string
  /** Of the line before, counted from 1; unknown where reading began in the middle. */
  number: number | undefined
}

export const beginningOf = (log: string): Place => ({ end: 0, hash: genesis(log), number: 0 })

interface Part {
  from?: Place
  to?: number | undefined
  least?: number | undefined
  /** Borrowed for what is read first. */
  room?: Buffer | undefined
}

/** Goes over the whole lines of a log from a place on, or up to where one ended, each following from the one before it; refuses where one does not. */
export class SoundLines extends Lines {
  /** Of the line that it is at, and of the one before. */
  hash: string
  #before: string
  number: number | undefined
  readonly #least: number

  constructor(shelf: Shelf, log: string, { from = beginningOf(log), to, least = to ?? 0, room }: Part = {}) {
    super(shelf, log, from.end, to, room)
    this.hash = from.hash
    this.#before = from.hash
    this.number = from.number
    this.#least = least
  }

  override advance(): boolean {
    if (!super.advance()) {
      this.#mustBeAll()
      return false
    }
    if (this.number !== undefined) this.number++
    this.#before = this.hash
    this.hash = following(this.hash, this.bytes) ?? otherwise(check(this.hash, this.bytes), this.number)
    return true
  }

  /** Behind the line that it is at, and before it. */
  get place(): Place {
    return { end: this.end, hash: this.hash, number: this.number }
  }
  get placeBefore(): Place {
    return { end: this.offset, hash: this.#before, number: this.number === undefined ? undefined : this.number - 1 }
  }

  #mustBeAll(): void {
    const missing = this.unfinished ? 'it has no end' : this.end < this.#least ? 'it was recorded, and is not there' : undefined
    if (missing !== undefined) throw damagedAt(this.number === undefined ? undefined : this.number + 1, missing)
  }
}

/** The hash of a line whose seal does not follow: it has been erased, or is damaged. */
function otherwise(checked: Checked, number: number | undefined): string {
  if (!checked.ok) throw damagedAt(number, checked.why)
  return checked.hash
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
