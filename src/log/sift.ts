// What a journal holds, read by somebody who neither holds it nor trusts it: every good frame, also behind a bad one, and
// a word on each place where none is. Nothing here changes a byte, and nothing refuses.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import type { JournalLine } from '../core/log.ts'
import { LARGEST_LINE } from '../core/record.ts'
import { readAnyway } from './anyway.ts'
import { asideIn, quarantineOf } from './aside.ts'
import { codeOf } from './disk.ts'
import { type Frame, HEADER, type Header, isSegment, lastByte, marks, nameOf, readFrame, readHeader, seedOf } from './frame.ts'

/** A part of a file. */
export interface Span {
  from: number
  to: number
}

/** A part that holds no good frame although it had been synced. */
export interface DamagedSpan extends Span {
  /** The first line in order that it held, and how many it must have held, as the frames around it tell. */
  first: number
  lines: number
  /** What can still be read of which lines they were: ids of records, and hashes, each at most once a line. */
  names: string[]
}

/** What is known to have been acknowledged, from views that saw it: their journal, and the last line in order. */
export interface Acknowledged {
  journal: string
  lsn: number
}

/** A line that may be damaged, and the log that it may be of, where something but the line itself tells that. */
export interface Stray {
  bytes: Buffer
  log?: string
}

export interface Sifted {
  /** What was acknowledged, or is whole before a torn tail: what a start would take if nothing were damaged. */
  lines: JournalLine[]
  damaged: DamagedSpan[]
  /** What a crash left of writes that nobody was told about. */
  torn: Span | undefined
  /** Lines of which no good frame tells the place: those in damaged parts, and all where no frame can be checked. */
  strays: Stray[]
  /** The last line in order that it has, or had. */
  reached: number
}

export interface SiftedSegment extends Sifted {
  path: string
  name: string
  /** Missing where it is damaged: then frames are believed for their shape, and whoever takes a line looks at its seal. */
  header: Header | undefined
}

/** A file that a start put into the quarantine. */
export type Quarantined = { path: string } & ({ is: 'torn' } | { is: 'foreign' } | { is: 'lines'; log: string; offset: number })

export interface SiftedJournal {
  /** Those of the highest epoch, in order. */
  segments: SiftedSegment[]
  /** Left by a start that was cut off before it had removed them, or after it had only begun. */
  leftovers: string[]
  /** Segments that are not there, as the ones around them tell: how many lines they held, and what came before. */
  missing: { after: string; lines: number }[]
  quarantine: Quarantined[]
}

const NAMED = /^(?:users|accounts|audit)\/[A-Za-z0-9._/-]+$/
/** How often a journal is read again whose files go while it is read. */
const MOST_TRIES = 5

/** Reads a whole journal. One that is being written may look torn, or damaged where a read met a write: look twice. */
export function siftJournal(folder: string, acknowledged?: Acknowledged): SiftedJournal {
  for (let tries = 1; ; tries++) {
    try {
      return siftOnce(folder, acknowledged)
    } catch (error) {
      // A checkpoint drops segments while somebody reads them.
      if (codeOf(error) !== 'ENOENT' || tries === MOST_TRIES) throw error
    }
  }
}

function siftOnce(folder: string, acknowledged: Acknowledged | undefined): SiftedJournal {
  const names = namesIn(folder)
  const wals = names.filter((name) => isSegment(name))
  const epoch = wals.at(-1)?.slice(0, 8)
  const current = wals.filter((name) => name.slice(0, 8) === epoch)
  const segments = current.map((name, i) => siftSegment(folder, name, i === current.length - 1, acknowledged))
  const leftovers = names.filter((name) => name.endsWith('.wal.new') || (isSegment(name) && name.slice(0, 8) !== epoch))
  return {
    segments,
    leftovers: leftovers.map((name) => join(folder, name)),
    missing: segments.flatMap((segment, i) => missingAfter(segment, segments[i + 1])),
    quarantine: namesIn(quarantineOf(folder)).map((name) => quarantined(quarantineOf(folder), name)),
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder).sort()
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return []
    throw error
  }
}

/** Between two segments no place in order is left out. */
function missingAfter(segment: SiftedSegment, next: SiftedSegment | undefined): { after: string; lines: number }[] {
  if (!next?.header || next.header.first <= segment.reached + 1) return []
  return [{ after: segment.path, lines: next.header.first - segment.reached - 1 }]
}

function quarantined(folder: string, name: string): Quarantined {
  const path = join(folder, name)
  if (/^torn-\d{8}-\d{6}\.wal$/.test(name)) return { path, is: 'torn' }
  const aside = asideIn(name)
  return aside ? { path, is: 'lines', ...aside } : { path, is: 'foreign' }
}

function siftSegment(folder: string, name: string, last: boolean, acknowledged: Acknowledged | undefined): SiftedSegment {
  const path = join(folder, name)
  const bytes = readAnyway(path)
  const header = readHeader(bytes)
  // A header that was copied or renamed by somebody else is not this file's.
  const own = header && nameOf(header) === name ? header : undefined
  const seen = last && (own === undefined || acknowledged?.journal === own.journal) ? (acknowledged?.lsn ?? 0) : 0
  return { path, name, header: own, ...sift(bytes, own, last, seen) }
}

/**
 * Tells good frames from bad places, and bad places from each other, as `readFrames` does, but goes on behind them. A bad
 * place is damage where it begins before what is known to have been synced; beyond that it is the torn tail, and what
 * stands behind a torn write was never acknowledged either. A segment that another one follows was synced as a whole, and
 * so was every line that the views have `seen`.
 */
function sift(bytes: Buffer, header: Header | undefined, last: boolean, seen: number): Sifted {
  const end = Math.max(HEADER, lastByte(bytes))
  const seed = seedIn(bytes, header)
  const frames = framesIn(bytes, end, seed)
  const copied = header?.copied ?? HEADER
  const synced = last ? frames.reduce((most, { frame }) => Math.max(most, frame.synced), copied) : end
  const damaged: DamagedSpan[] = []
  const taken: { at: number; frame: Frame }[] = []
  let torn: Span | undefined
  let [at, lsn] = [HEADER, (header?.first ?? frames[0]?.frame.lsn ?? 1) - 1]
  const damage = (to: number, next: number) => {
    const part = bytes.subarray(at, to)
    const lines = Math.max(next - lsn - 1, 1)
    damaged.push({ from: at, to, first: lsn + 1, lines, names: namesOf(part) })
    lsn += lines
  }
  for (const next of [...frames, undefined]) {
    const from = next?.at ?? end
    if (from > at && (at < synced || lsn < seen)) damage(from, next?.frame.lsn ?? seen + 1)
    else if (from > at) {
      torn = { from: at, to: end }
      break
    }
    if (!next) break
    taken.push(next)
    at = next.frame.end
    lsn = next.frame.lsn
  }
  if (at === end && end < copied) damage(copied, seen + 1)
  else if (at === end && lsn < seen) damage(end, seen + 1)
  torn = unfinished(taken, synced, end) ?? torn
  const lines = taken.map(({ frame }) => frame)
  const strays = damaged.flatMap(({ from, to }) => straysIn(bytes.subarray(from, to)))
  // Without a CRC a frame may say anything of where its line belongs; the line itself says it under its seal.
  if (seed === undefined)
    return { lines: [], damaged, torn, strays: [...lines.map(({ bytes }) => ({ bytes })), ...strays], reached: lsn }
  return { lines, damaged, torn, strays, reached: lsn }
}

/** Takes the frames of a last command away that is not there as a whole: nobody was told of it. */
function unfinished(taken: { at: number; frame: Frame }[], synced: number, end: number): Span | undefined {
  let from: number | undefined
  for (let last = taken.at(-1); last?.frame.more && last.at >= synced; last = taken.at(-1)) {
    taken.pop()
    from = last.at
  }
  return from === undefined ? undefined : { from, to: end }
}

/** One byte that is wrong spares the record's id or its hash. */
const namesOf = (bytes: Buffer): string[] =>
  [...bytes.toString('latin1').matchAll(/"record_id":"([0-9a-f-]{36})"|"hash":"([\w-]{43})"/g)].map(
    ([, id, hash]) => id ?? hash ?? '',
  )

/** What seeds the CRCs of a segment. Where its header is damaged, the part of it that tells may still be right. */
function seedIn(bytes: Buffer, header: Header | undefined): number | undefined {
  if (header) return seedOf(header.segment)
  const seed = seedOf(bytes.toString('hex', 48, 64))
  for (const at of marks(bytes, HEADER, bytes.length)) if (readFrame(bytes, at, seed)) return seed
  return undefined
}

function framesIn(bytes: Buffer, end: number, seed: number | undefined): { at: number; frame: Frame }[] {
  const found: { at: number; frame: Frame }[] = []
  let at = HEADER
  while (at < end) {
    const frame = readFrame(bytes, at, seed)
    if (frame && (seed !== undefined || plausible(frame))) {
      found.push({ at, frame })
      at = frame.end
    } else at = marks(bytes, at + 1, end).next().value ?? end
  }
  return found
}

const plausible = ({ log, bytes }: Frame) => NAMED.test(log) && bytes.length <= LARGEST_LINE && bytes.at(-1) === 10

const BEGIN = Buffer.from('{"record_id":"')

/** By how a line begins and ends, and by the frames around them: one byte that is wrong spares one of the two. */
function straysIn(bytes: Buffer): Stray[] {
  const found: Stray[] = []
  for (let at = bytes.indexOf(BEGIN); at >= 0; at = bytes.indexOf(BEGIN, at + 1)) {
    const end = bytes.indexOf(10, at)
    if (end >= 0) found.push({ bytes: bytes.subarray(at, end + 1) })
  }
  for (const at of marks(bytes, 0, bytes.length)) {
    const frame = readFrame(bytes, at, undefined)
    if (frame && NAMED.test(frame.log) && frame.bytes.length > 1) found.push({ bytes: frame.bytes, log: frame.log })
  }
  return found
}

/** How many records this journal has counted: there are at least as many in the logs, unless some are lost. */
export const countedBy = ({ segments }: SiftedJournal): number =>
  segments.reduce((most, { header, reached }) => (header ? Math.max(most, reached) : most), 0)
