// Salvaging a data directory into a new one. What is found of each log, in its file, in the journal and in the quarantine,
// is put together as far as the seals hold; what does not fit is kept beside it, and told. The source is only read.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { type Assembled, assemble, type Left, linesIn, type Piece } from '../core/assemble.ts'
import { assert } from '../core/errors.ts'
import { logOf } from '../core/event.ts'
import { linesOf, type Shelf } from '../core/log.ts'
import { type Envelope, scan } from '../core/record.ts'
import { Schemas } from '../core/schemas.ts'
import { hashIn } from '../core/seal.ts'
import { type Contract, checkLine, type Place } from '../core/verify.ts'
import { features } from '../features/index.ts'
import { type Inventory, inventoryOf } from '../log/inventory.ts'
import { Joined } from '../log/joined.ts'
import type { Salvage } from '../log/salvage.ts'
import { FileShelf, fileOf, journalOf, logsOf } from '../log/shelf.ts'
import { countedBy, type SiftedJournal, siftJournal } from '../log/sift.ts'
import { acknowledgedIn, count, endsIn, type Glimpse, type KnownEnd, lookAt, type Unseen } from './looking.ts'
import { aboutJournal, Sought, type Told } from './sought.ts'

export interface Source {
  home: string
  inventory: Inventory
  journal: SiftedJournal
  joined: Joined
  ends: Map<string, KnownEnd>
  /** Up to this place in order, the views know where every log ended. */
  proven: number
  /** Is there nothing beyond that place? */
  exact: boolean
  /** Lines from elsewhere than the files and the good frames of the journal. */
  pieces: Map<string, Piece[]>
}

export function sourceOf(home: string, views: Glimpse | Unseen): Source {
  const inventory = inventoryOf(home)
  const mark = acknowledgedIn(views)
  const journal = siftJournal(journalOf(home), mark)
  const lines = journal.segments.flatMap(({ lines }) => lines)
  const joined = new Joined(home, { logs: inventory.logs, lines, anyway: true })
  const own = journal.segments.find(({ header }) => header)?.header?.journal
  // Places in order mean something within one journal only.
  const { trailing, lsn } = mark && (own ?? mark.journal) === mark.journal ? mark : { trailing: 0, lsn: -1 }
  const exact = trailing === lsn && journal.segments.every(({ reached }) => reached <= lsn)
  return { home, inventory, journal, joined, ends: endsIn(views), proven: trailing, exact, pieces: piecesIn(journal) }
}

function piecesIn({ segments, quarantine }: SiftedJournal): Map<string, Piece[]> {
  const pieces = new Map<string, Piece[]>()
  const add = (log: string, bytes: Buffer, from: string) =>
    pieces.set(log, [...(pieces.get(log) ?? []), { bytes, from, doubtful: true }])
  for (const aside of quarantine) {
    if (aside.is !== 'lines') continue
    const text = readFileSync(aside.path)
    for (const [from, to] of linesIn(text)) add(aside.log, text.subarray(from, to - 1), aside.path)
  }
  for (const { path, strays } of segments) {
    for (const stray of strays) {
      const bytes = stray.bytes.subarray(0, -1)
      const envelope = scan(bytes)?.envelope
      const log = stray.log ?? (envelope && homeOf(envelope))
      if (log !== undefined) add(log, bytes, path)
    }
  }
  return pieces
}

/** The log that a record is of, by what it says; of an event that is not known, nothing can be told. */
function homeOf(envelope: Envelope): string | undefined {
  const event = features.events.named(envelope.type)
  return event && logOf(event.home, envelope)
}

export interface Totals {
  logs: number
  records: number
  bytes: number
}

const NEWLINE = Buffer.from('\n')

/** Writes every log anew, as far as it can be had, and tells what cannot. */
export function* salvageLogs(source: Source, salvage: Salvage, totals: Totals): Generator<Told> {
  const { joined, ends, pieces, inventory, home } = source
  const contract = { events: features.events, schemas: new Schemas() }
  const sought = new Sought(source.journal, source.proven)
  for (const log of [...new Set([...joined.names(), ...pieces.keys(), ...ends.keys()])].sort()) {
    const { findings, verified } = lookAt({ shelf: joined, ...contract }, log, ends.get(log))
    const whole = findings.length === 0 && !pieces.has(log) && joined.mismatch(log) === undefined
    const lines = whole ? verified.records : yield* salvageLog(source, contract, salvage, log)
    if (whole && lines > 0) salvage.log(log, piecesOf(joined, log, verified.bytes))
    if (lines === 0) continue
    // As it lies in the new directory, and not as it was meant to.
    let written = 0
    for (const { bytes } of linesOf(new FileShelf(salvage.home), log)) {
      sought.found(bytes)
      written++
      totals.bytes += bytes.length + 1
    }
    assert(written === lines, `${written} of ${lines} lines of ${log} were written`)
    totals.logs++
    totals.records += lines
  }
  yield* sought.missing()
  yield* aboutJournal(source.journal)
  const counted = countedBy(source.journal)
  if (totals.records < counted) {
    const what = `The journal has counted ${counted} records, and here are ${totals.records}: at least ${counted - totals.records} cannot be had, whether or not anything else tells of them.`
    yield { level: 'lost', what }
  }
  for (const path of inventory.artifacts) salvage.artifact(path, join(logsOf(home), path))
  for (const { path, why } of inventory.strange) {
    yield { level: 'note', file: path, what: `It was left where it is: ${why}.` }
  }
}

const PIECE = 1024 * 1024

/** A part of a log may be read in less than was asked for: where its file ends, the journal goes on. */
function* piecesOf(shelf: Shelf, log: string, length: number): Generator<Buffer> {
  for (let at = 0; at < length; ) {
    const piece = shelf.read(log, at, Math.min(PIECE, length - at))
    if (piece.length === 0) return
    at += piece.length
    yield piece
  }
}

/** Puts one log together that is not whole; returns how many records it has. */
function* salvageLog(source: Source, contract: Contract, salvage: Salvage, log: string): Generator<Told, number> {
  const { home, joined } = source
  const file = fileOf(home, log)
  const text = joined.file(log, 0, Number.MAX_SAFE_INTEGER)
  const journal = joined.linesOf(log).map(({ bytes }) => ({ bytes: bytes.subarray(0, -1), from: journalOf(home) }))
  const found = assemble(contract, log, text, [...journal, ...(source.pieces.get(log) ?? [])])
  const { lines, end, at } = found
  const withEnds = (all: readonly Buffer[]) => all.flatMap((line) => [line, NEWLINE])
  if (lines.length > 0) salvage.log(log, withEnds(lines))
  yield* whatWasMended(found, log, file)
  if (joined.unreadable.has(log))
    yield { level: 'note', log, file, what: 'The disk has lost a part of this file (EIO): it was read as zeros.' }

  const known = source.ends.get(log)
  const reached = source.exact && known?.seq === end.seq && known.hash === end.hash
  const behind = found.left.filter(({ from }) => from >= at)
  if (behind.length > 0) {
    const rest = behind.map(({ from, to }) => text.subarray(from, to))
    const kept = salvage.aside(`${log}.rest`, rest)
    for (const left of behind) yield ofLeft({ contract, log, file, text, end, reached }, left, left === behind[0], kept)
  }
  const beyond = unlike(found.beyond, text)
  if (beyond.length > 0) {
    const bytes = beyond.map((piece) => piece.bytes)
    const kept = salvage.aside(`${log}.found`, withEnds(bytes))
    for (const { bytes, from } of beyond) {
      const line = seqIn(bytes)
      yield { level: 'lost', log, file: from, line, what: `Line ${line} is there, and what goes before it is not.`, kept }
    }
  }
  const tally = Math.max(known?.seq ?? 0, ...beyond.map(({ bytes }) => seqIn(bytes)))
  if (tally > lines.length) {
    const saved = lines.length === 0 ? 'None' : lines.length
    const what = `${saved} of ${count(tally, 'record')} could be saved: the log ends before ${count(tally - lines.length, 'record')} that had been acknowledged.`
    yield { level: 'lost', log, file, line: lines.length + 1, what }
  }
  return lines.length
}

const seqIn = (line: Buffer) => scan(line)?.envelope.seq ?? 0

function* whatWasMended({ left, mended, at }: Assembled, log: string, file: string): Generator<Told> {
  const what = 'These bytes were damaged, or not of this log. The records around them are whole.'
  for (const { line, from, to } of left) if (from < at) yield { level: 'mended', log, file, line, from, to, what }
  for (const { seq, at: place } of mended) {
    const where = place === undefined ? '' : `, at byte ${place}`
    yield {
      level: 'mended',
      log,
      file,
      line: seq,
      what: `One byte of line ${seq} was wrong${where}. It was put back, and the seal proves it.`,
    }
  }
}

interface Ending {
  contract: Contract
  log: string
  file: string
  text: Buffer
  end: Place
  reached: boolean
}

/** Says of a line that stands behind the end of the log why it is not in it. */
function ofLeft({ contract, log, file, text, end, reached }: Ending, { line, from, to }: Left, first: boolean, kept: string): Told {
  const place = { log, file, line, from, to, kept }
  if (reached) return { ...place, level: 'note', what: 'These bytes stand behind the last record, and are of none.' }
  const bytes = text.subarray(from, to)
  if (bytes.every((byte) => byte === 0)) return { ...place, level: 'lost', what: 'Here are only zeros.' }
  if (!first) return { ...place, level: 'lost', what: 'What goes before it is lost, so that no seal proves it.' }
  const faults: string[] = []
  if (bytes.at(-1) !== 10) faults.push('it is unfinished')
  else checkLine(contract, log, end, bytes.subarray(0, -1), (what) => faults.push(what))
  return { ...place, level: 'lost', what: `It cannot be told what stood here: ${faults[0] ?? 'it is out of its order'}.` }
}

/** The pieces that stand nowhere in the file, each once. */
function unlike(pieces: readonly Piece[], text: Buffer): Piece[] {
  const seen = new Set<string>()
  return pieces.filter(({ bytes }) => {
    const hash = hashIn(bytes)
    if (seen.has(hash) || text.includes(bytes)) return false
    seen.add(hash)
    return true
  })
}
