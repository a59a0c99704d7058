// Putting a log together again from whatever of it is found: its damaged file, and lines that lay elsewhere. The seals
// decide: a line is taken where it follows from the one before it and fits its schema, wherever it was found, and the log
// ends where none does. Nothing is sealed here, so that what comes out is what was recorded, or less.

import { mend } from './mend.ts'
import { isErased, parsed, scan } from './record.ts'
import { hashIn } from './seal.ts'
import { type Contract, checkLine, firstPlace, type Place } from './verify.ts'

/** A line that was found beside the log's file, without its newline. */
export interface Piece {
  bytes: Buffer
  /** Where it was found. */
  from: string
  /** It may be damaged: nothing but its seal says that it is not. */
  doubtful?: boolean
}

/** A line of the file, or what is left of one, that the log could not take. */
export interface Left {
  line: number
  from: number
  to: number
}

export interface Assembled {
  /** The lines of the log, without their newlines. */
  lines: Buffer[]
  /** Lines in which one byte was put back; `at`: where in the file, if it stood there. */
  mended: { seq: number; at: number | undefined }[]
  /** What of the file is beyond the log's end, or between its lines: whatever it was, it is not in the log. */
  left: Left[]
  /** Where the log ends. */
  end: Place
  /** Where in the file its next line would begin. */
  at: number
  /** Lines from elsewhere that would go on behind the log's end, if it reached to them. */
  beyond: Piece[]
}

interface Candidate {
  bytes: Buffer
  piece: Piece | undefined
  /** Where it stands in the file, its newline included. */
  from: number
  to: number
  mended?: number
}

export function assemble(contract: Contract, log: string, text: Buffer, pieces: readonly Piece[]): Assembled {
  const bySeq = new Map<number, Candidate[]>()
  const offer = (candidate: Candidate) => {
    const seq = seqOf(candidate.bytes)
    if (seq !== undefined) bySeq.set(seq, [...(bySeq.get(seq) ?? []), candidate])
  }
  for (const [from, to] of linesIn(text)) offer({ bytes: text.subarray(from, to - 1), piece: undefined, from, to })
  for (const piece of pieces) offer({ bytes: piece.bytes, piece, from: 0, to: 0 })

  const taken: Candidate[] = []
  let place = firstPlace(log)
  /** Where in the file the next line should begin. */
  let at = 0
  for (;;) {
    const next =
      pick(contract, log, place, bySeq.get(place.seq + 1) ?? []) ??
      pickMended(contract, log, place, text, at, doubtfulOf(pieces, taken, place.seq + 1))
    if (!next) break
    place = next.place
    taken.push(next.candidate)
    const { piece, to, bytes } = next.candidate
    at = piece ? at + bytes.length + 1 : to
    // What followed a newline that was damaged seemed to belong to the line before it.
    if (next.candidate.mended !== undefined && !piece)
      for (const [from, to] of linesIn(text, at)) {
        offer({ bytes: text.subarray(from, to - 1), piece: undefined, from, to })
        break
      }
  }
  return {
    lines: taken.map(({ bytes }) => bytes),
    mended: taken.flatMap(({ mended, piece }, i) => (mended === undefined ? [] : [{ seq: i + 1, at: piece ? undefined : mended }])),
    left: leftOf(
      text,
      taken.filter(({ piece }) => !piece),
    ),
    end: place,
    at,
    beyond: pieces.filter(({ bytes }) => (seqOf(bytes) ?? 0) > place.seq),
  }
}

type Picked = { candidate: Candidate; place: Place } | undefined

/** The one of them that follows from the line before and has no fault. */
function pick(contract: Contract, log: string, before: Place, candidates: readonly Candidate[]): Picked {
  for (const candidate of candidates) {
    let faults = 0
    const place = checkLine(contract, log, before, candidate.bytes, () => faults++)
    if (faults === 0) return { candidate, place }
  }
  return undefined
}

/** The line that is due, with the one byte put back that is wrong in it. */
function pickMended(contract: Contract, log: string, before: Place, text: Buffer, at: number, doubtful: readonly Piece[]): Picked {
  const inFile = at < text.length ? mend(before.hash, text.subarray(at)) : undefined
  const tries: Candidate[] = inFile
    ? [{ bytes: inFile.line, piece: undefined, from: at, to: Math.min(at + inFile.taken, text.length), mended: at + inFile.at }]
    : []
  for (const piece of inFile ? [] : doubtful) {
    const mended = mend(before.hash, piece.bytes)
    if (mended) tries.push({ bytes: mended.line, piece, from: 0, to: 0, mended: mended.at })
  }
  return pick(contract, log, before, tries)
}

/** Each of them may take a second. */
const MOST_DOUBTFUL = 4

/** Those that may be the line that is due: one that tells neither its seq nor a hash that is in the log already comes last. */
function doubtfulOf(pieces: readonly Piece[], taken: readonly Candidate[], due: number): Piece[] {
  const doubtful = pieces.filter((piece) => piece.doubtful)
  if (doubtful.length === 0) return []
  const there = new Set(taken.map(({ bytes }) => hashIn(bytes)))
  const open = doubtful.filter(({ bytes }) => !there.has(hashIn(bytes)) && (seqOf(bytes) ?? due) >= due)
  const [first, others] = [open.filter(({ bytes }) => seqOf(bytes) === due), open.filter(({ bytes }) => seqOf(bytes) !== due)]
  return [...first, ...others].slice(0, MOST_DOUBTFUL)
}

function seqOf(line: Buffer): number | undefined {
  const scanned = scan(line)
  if (scanned) return scanned.envelope.seq
  const value = line.length < 400 ? parsed(line) : undefined
  return isErased(value) ? value.seq : undefined
}

/** Where each line begins, and where it ends with its newline; an unfinished last one is left out. */
export function* linesIn(text: Buffer, start = 0): Generator<[from: number, to: number]> {
  let from = start
  for (let end = text.indexOf(10, from); end >= 0; end = text.indexOf(10, from)) {
    yield [from, end + 1]
    from = end + 1
  }
}

function leftOf(text: Buffer, taken: readonly Candidate[]): Left[] {
  const left: Left[] = []
  const spans = [...taken].sort((a, b) => a.from - b.from)
  let [at, line] = [0, 1]
  for (const { from, to } of [...spans, { from: text.length, to: text.length }]) {
    while (at < from) {
      const newline = text.indexOf(10, at)
      const end = newline < 0 || newline >= from ? from : newline + 1
      left.push({ line, from: at, to: end })
      if (newline >= 0 && newline < from) line++
      at = end
    }
    for (; at < to; at++) if (text[at] === 10) line++
  }
  return left
}
