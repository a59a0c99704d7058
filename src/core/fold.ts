// Folding: the one way in which a line of a log becomes rows. The recorder's catching up and every rebuild go through here.

import type { Events } from './event.ts'
import type { Gathered } from './feature.ts'
import type { End } from './heads.ts'
import { countsInPart, type JournalLine, Lines, type Log, lastName, type PlacedLine, type Report, type Shelf } from './log.ts'
import { partsOf } from './names.ts'
import { replace } from './place.ts'
import { type Erased, isErased, parseLine, type Scanned, scan, skim } from './record.ts'
import { check, genesis, hashIn, statedHash } from './seal.ts'
import { isFull, isSqlite } from './tables.ts'
import { turn } from './turn.ts'
import { Contradiction, Views } from './views.ts'

/** Folds one line. An erased one changes no row. */
function foldLine(views: Views, events: Events, { bytes }: PlacedLine): void {
  const record = parseLine(bytes)
  if (!isErased(record)) views.apply(events.upcast(record))
}

/** What was seen of a log, or of a part of it: its last line, and when the last one was recorded that is not erased. */
interface Seen {
  last: PlacedLine
  /** Is the last line erased? Then it tells no time. */
  isErased: boolean
  /** That of the last line before, if it tells none; undefined where none did. */
  at: number | undefined
}

const timeOf = ({ bytes }: PlacedLine) => Date.parse((scan(bytes) as Scanned).envelope.timestamp)

/** A line more was seen. Of the one before nothing is kept: where its bytes lay, others may lie soon. */
function seeing(last: PlacedLine, isErased: boolean, before: Seen | undefined): Seen {
  if (!isErased) return { last, isErased, at: undefined }
  return { last, isErased, at: before && !before.isErased ? timeOf(before.last) : before?.at }
}

/** Where a log ends, of which this was seen after what was known before. */
function endOf({ last, isErased, at }: Seen, before: End | undefined): End {
  const { end: size, bytes } = last
  if (!isErased) return { seq: (scan(bytes) as Scanned).envelope.seq, hash: hashIn(bytes), size, at: timeOf(last) }
  const { seq, hash } = parseLine(bytes) as Erased
  return { seq, hash, size, at: at ?? before?.at ?? 0 }
}

/**
 * Folds what a log holds from an offset on. Where a line is damaged or cannot be folded, what stands before it is kept
 * and the rest of this log is left out: one damaged log must not cost the others their views.
 *
 * To check every seal would take longer than all else. So the seals are checked of those lines that something is taken from:
 * of those that change rows or bear the name of a request, of what looks like no known record, and of the last one, which
 * tells where the log ends, and when. That no line is missing is seen by their numbers: where what stood between two was damaged, they look
 * like one, which begins like the first and has the seal of the second. Where one of them does not hold, all are checked, to find the first.
 */
function foldLog(
  folding: Folding,
  log: string,
  { from, until }: { from: End | undefined; until: number },
  told: () => void = () => {},
): Folded {
  const quick = foldWithin(folding, log, { from, until }, told)
  if (quick.wrong === undefined) return quick
  const { head, ...why } = foldWithin(folding, log, { from, until, every: true })
  if (head === from || !countsInPart(log)) return { head: from, ...why }
  // The failed line may have changed some rows: its log is folded once more, up to it.
  return { ...foldWithin(folding, log, { from, until: (head as End).size, every: true }), ...why }
}

/** How far a log was folded, and what was wrong; whether it was that its rows cannot stand beside those of another. */
interface Folded {
  head: End | undefined
  wrong: string | undefined
  contradicts: boolean
}

interface Folding {
  views: Views
  events: Events
  shelf: Shelf
  /** Is nobody writing to these logs, so that a last line without an end is damage? */
  settled?: boolean
}

interface Span {
  from: End | undefined
  until: number
  /** Is every seal checked? */
  every?: boolean
}

function foldWithin(folding: Folding, log: string, span: Span, told: () => void = () => {}): Folded {
  const { views, events, shelf } = folding
  const { from } = span
  let seen: Seen | undefined
  let before: string | undefined
  const head = () => (seen ? endOf(seen, from) : from)
  views.savepoint('log')
  try {
    for (const { line, skimmed } of believed(folding, log, span)) {
      // The records of one request may have been seen in part when this log was folded before.
      if (!seen && from) before = requestBefore(views, shelf, log, skimmed?.command_id)
      if (skimmed?.command_id !== before) views.name(skimmed?.command_id, log, line.offset)
      // Most records change no row: their data need not be parsed.
      if (!skimmed || views.folds(skimmed.type)) foldLine(views, events, line)
      seen = seeing(line, skimmed === undefined, seen)
      told()
    }
    const end = head()
    if (end && end !== from) views.folded(log, end)
    views.release('log')
    return { head: end, wrong: undefined, contradicts: false }
  } catch (error) {
    if (isSqlite(error) && !contradicts(error)) throw error
    views.undo('log')
    const end = head()
    const wrong = `line ${(end?.seq ?? 0) + 1} cannot be folded (${(error as Error).message})`
    return { head: end, wrong, contradicts: contradicts(error) }
  }
}

/** The lines of a log, of which those are checked that something is taken from; each against what the line before says of itself. */
function* believed({ views, events, shelf, settled = false }: Folding, log: string, { from, until, every = false }: Span) {
  let before: Buffer | undefined
  let last: Buffer | undefined
  let checked = true
  const mustHold = (line: Buffer) => {
    const sealed = check(before ? statedHash(before) : (from?.hash ?? genesis(log)), line)
    if (!sealed.ok) throw new Error(sealed.why)
  }
  let seq = from?.seq ?? 0
  const lines = new Lines(shelf, log, from?.size ?? 0, until)
  while (lines.advance()) {
    const { bytes, offset, end } = lines
    const skimmed = skim(bytes)
    seq++
    before = last
    last = bytes
    const { type = '', command_id } = skimmed ?? {}
    const plain = command_id === undefined && !views.folds(type) && events.named(type) !== undefined
    checked = every || !plain
    if (checked) mustHold(last)
    if (skimmed && skimmed.seq !== seq) throw new Error(`its seq is ${skimmed.seq}, not ${seq}`)
    yield { line: { bytes, offset, end }, skimmed }
  }
  if (settled && lines.unfinished) throw new Error('it has no end')
  if (last && !checked) mustHold(last)
}

/** The id of the request, if its first records in this log are known already. */
function requestBefore(views: Views, shelf: Shelf, log: string, command_id: string | undefined): string | undefined {
  if (command_id === undefined) return undefined
  return views.names.find(partsOf(command_id).name, shelf).some((place) => place.log === log) ? command_id : undefined
}

/** Folds what a log holds beyond where the views have come. Returns whether that can stand beside what they hold. */
export function catchUp(views: Views, events: Events, shelf: Shelf, log: string): boolean {
  const { wrong, contradicts } = foldLog({ views, events, shelf }, log, { from: views.head(log), until: Number.POSITIVE_INFINITY })
  if (wrong !== undefined) views.noteDamage(log, wrong)
  return !contradicts
}

export interface Progress {
  logs: number
  records: number
  bytes: number
}

/** A log that was folded in part or not at all. */
export interface Unfolded {
  log: string
  why: string
  /** How many bytes of it were folded before that. */
  folded: number
}

export interface Filled extends Progress {
  /** The latest time of a record. */
  latest: number
  /** Told at the end: views that contradict each other are filled once more, and it would be told twice. */
  unfolded: Unfolded[]
}

/** Folds every log of the shelf into fresh views. Yields often, so that others get a turn. */
export function* fill(
  views: Views,
  {
    events,
    shelf,
    settled = false,
    without = NONE,
    until = () => Number.POSITIVE_INFINITY,
  }: {
    events: Events
    shelf: Shelf
    settled?: boolean
    /** The last names of logs that are left out, because they contradict newer ones. */
    without?: ReadonlySet<string>
    until?: (log: string) => number
  },
): Generator<Progress, Filled> {
  const done: Filled = { logs: 0, records: 0, bytes: 0, latest: 0, unfolded: [] }
  let told = 0
  views.begin()
  for (const log of shelf.names()) {
    const folded = without.has(lastName(log))
      ? { head: undefined, wrong: 'it contradicts a newer log: what came between them is lost' }
      : foldLog({ views, events, shelf, settled }, log, { from: undefined, until: until(log) }, () => done.records++)
    if (folded.wrong !== undefined) {
      views.noteDamage(log, folded.wrong)
      done.unfolded.push({ log, why: folded.wrong, folded: folded.head?.size ?? 0 })
    }
    if (folded.head) {
      done.latest = Math.max(done.latest, folded.head.at)
      done.logs++
      done.bytes += folded.head.size
    }
    if (done.records - told >= 2000 || done.logs % 500 === 0) {
      told = done.records
      yield done
    }
  }
  return done
}

/** Brings the views up to the log, without being asked: from the journal where that reaches back, else from the logs. */
export async function restore({
  file,
  gathered,
  log,
  report,
  distrust,
}: {
  file: string
  gathered: Gathered
  log: Log
  report: Report
  distrust?: string
}): Promise<Views> {
  const opened = distrust === undefined ? Views.open(file, gathered) : { why: distrust }
  if (opened instanceof Views) {
    let why: string | undefined = 'they could not be brought up'
    try {
      why = follow(opened, gathered.events, log)
      if (why === undefined) return opened
    } finally {
      if (why !== undefined) opened.close()
    }
    return rebuilt(file, gathered, log, why, report)
  }
  return rebuilt(file, gathered, log, opened.why, report)
}

/** Folds the journal's lines that the views have not seen; says why it cannot where it cannot. */
export function follow(views: Views, events: Events, log: Log): string | undefined {
  try {
    const { journal, lsn, timestamp, trailing } = views.mark
    if (journal !== log.journal) return 'they belong to another journal'
    const lines = lsn <= log.lsn ? log.since(Math.min(lsn, trailing)) : undefined
    if (!lines) return 'the journal does not reach from where they stand to its end'
    let latest = timestamp
    views.begin()
    for (const some of lines) latest = Math.max(latest, followSome(views, events, some, lsn))
    views.commit({ journal, lsn: log.lsn, timestamp: latest })
    return undefined
  } catch (error) {
    // Where there is no room for the rest there is none for all.
    if (isFull(error)) throw error
    return `they could not be brought up: ${(error as Error).message}`
  }
}

/** Folds those of these lines that come after this place in order; returns when the last of them was recorded. */
function followSome(views: Views, events: Events, lines: readonly JournalLine[], lsn: number): number {
  const seen = new Map<string, Seen>()
  for (const { log, offset, bytes, lsn: own } of lines) {
    const line = { bytes: bytes.subarray(0, bytes.length - 1), offset, end: offset + bytes.length }
    const skimmed = skim(line.bytes)
    // Of a line that was folded already, the end of its log and its name may not be in their tables.
    views.name(skimmed?.command_id, log, offset)
    if (own > lsn && (!skimmed || views.folds(skimmed.type))) foldLine(views, events, line)
    seen.set(log, seeing(line, skimmed === undefined, seen.get(log)))
  }
  let latest = 0
  for (const [log, own] of seen) {
    const head = endOf(own, views.head(log))
    views.putHead(log, head)
    latest = Math.max(latest, head.at)
  }
  return latest
}

async function rebuilt(file: string, gathered: Gathered, log: Log, why: string, report: Report): Promise<Views> {
  report('the views are rebuilt from the logs', { why })
  const fresh = `${file}.restored`
  const began = Date.now()
  log.settle()
  const make = async (without: ReadonlySet<string>) => {
    const views = Views.create(fresh, gathered)
    try {
      const { latest, ...done } = await takingTurns(fill(views, { events: gathered.events, shelf: log, settled: true, without }))
      views.finish({ journal: log.journal, lsn: log.lsn, timestamp: latest })
      return done
    } catch (error) {
      views.close()
      throw error
    }
  }
  const { unfolded, ...done } = await agreeing(make)
  for (const { log, why } of unfolded) report('a log is damaged', { log: lastName(log), why })
  report('the views are rebuilt', { ...done, seconds: (Date.now() - began) / 1000 })
  log.assertOurs()
  replace(file, fresh)
  return reopen(file, gathered)
}

const contradicts = (error: unknown) => isSqlite(error) && error.code.startsWith('SQLITE_CONSTRAINT')

const NONE: ReadonlySet<string> = new Set()

/** Makes views; where logs contradict each other once more, without the older ones: so no number is given twice. */
export const agreeing = <T>(make: (without: ReadonlySet<string>) => Promise<T>): Promise<T> =>
  make(NONE).catch((error: unknown) => {
    if (error instanceof Contradiction) return make(error.older)
    throw error
  })

/** Runs a long piece of work while others get their turn; tells how far it is, where somebody asks. */
export async function takingTurns<P, R>(work: Generator<P, R>, tell: (progress: P) => void = () => {}, rest = turn): Promise<R> {
  for (;;) {
    const step = work.next()
    if (step.done) return step.value
    tell(step.value)
    await rest()
  }
}

/** The views cannot be opened, though they were just made. */
export class Unopenable extends Error {}

/** Opens views that were just made. */
export function reopen(file: string, gathered: Gathered): Views {
  const opened = Views.open(file, gathered)
  if (opened instanceof Views) return opened
  throw new Unopenable(`the views in ${file} cannot be opened: ${opened.why}`)
}
