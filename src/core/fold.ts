// Folding: the one way in which a line of a log becomes rows. The recorder's catching up and every rebuild go through here.

import type { Events } from './event.ts'
import type { Gathered } from './feature.ts'
import type { Head } from './heads.ts'
import { type Log, lastName, linesOf, type PlacedLine, type Report, type Shelf } from './log.ts'
import { type Erased, isErased, parseLine, scan, skim } from './record.ts'
import { isSqlite } from './tables.ts'
import { type Mark, Views } from './views.ts'

/** Folds one line and tells where its log now ends. An erased line moves the end and no row. */
function foldLine(views: Views, events: Events, line: PlacedLine, before: Head | undefined): Head {
  const record = parseLine(line.bytes)
  if (isErased(record)) return erasedEnd(record, line, before)
  views.apply(events.upcast(record))
  return endAfter(record, line)
}

/** The same for a line whose rows are there. */
function passLine(line: PlacedLine, before: Head | undefined): Head {
  const scanned = scan(line.bytes)
  return scanned ? endAfter(scanned.envelope, line) : erasedEnd(parseLine(line.bytes) as Erased, line, before)
}

const erasedEnd = ({ seq, hash }: Erased, line: PlacedLine, before: Head | undefined): Head => ({
  seq,
  hash,
  size: line.end,
  at: before?.at ?? 0,
})

/** The hash stands in the last 43 characters of a line before `"}`. */
const endAfter = ({ seq, timestamp }: { seq: number; timestamp: string }, { bytes, end }: PlacedLine): Head => ({
  seq,
  hash: bytes.toString('latin1', bytes.length - 45, bytes.length - 2),
  size: end,
  at: Date.parse(timestamp),
})

/**
 * Folds what a log holds from an offset on. Where a line cannot be folded, what stands before it is kept and the rest
 * of this log is left out: one damaged log must not cost the others their views.
 */
function foldLog(
  { views, events, shelf }: Folding,
  log: string,
  { from, until }: { from: Head | undefined; until: number },
  line: () => void = () => {},
): { head: Head | undefined; wrong: string | undefined } {
  const whole = foldWithin({ views, events, shelf }, log, from, until, line)
  if (whole.wrong === undefined || whole.head === from) return whole
  // The failed line may have changed some rows: its log is folded once more, up to it.
  const { size } = whole.head as Head
  return { ...foldWithin({ views, events, shelf }, log, from, size, () => {}), wrong: whole.wrong }
}

interface Folding {
  views: Views
  events: Events
  shelf: Shelf
}

function foldWithin({ views, events, shelf }: Folding, log: string, from: Head | undefined, until: number, told: () => void) {
  // Where a log ends is reckoned from its last line, and its time from the last one that is not erased.
  let last: PlacedLine | undefined
  let whole: PlacedLine | undefined
  let before: string | undefined
  const head = () => (last ? endOf(last, whole, from) : from)
  views.savepoint('log')
  try {
    for (const line of linesOf(shelf, log, from?.size ?? 0, until)) {
      const skimmed = skim(line.bytes)
      // The records of one request may have been seen in part when this log was folded before.
      if (!last && from) before = requestBefore(views, shelf, log, skimmed?.command_id)
      if (skimmed?.command_id !== before) views.name(skimmed?.command_id, log, line.offset)
      // Most records change no row: their data need not be parsed.
      if (!skimmed || views.folds(skimmed.type)) foldLine(views, events, line, undefined)
      last = line
      if (skimmed) whole = line
      told()
    }
    const end = head()
    if (end && end !== from) views.folded(log, end)
    views.release('log')
    return { head: end, wrong: undefined }
  } catch (error) {
    if (isSqlite(error) && !error.code.startsWith('SQLITE_CONSTRAINT')) throw error
    views.undo('log')
    const end = head()
    return { head: end, wrong: `line ${(end?.seq ?? 0) + 1} cannot be folded (${(error as Error).message})` }
  }
}

/** The id of the request, if its first records in this log are known already. */
function requestBefore(views: Views, shelf: Shelf, log: string, command_id: string | undefined): string | undefined {
  const name = command_id?.split('.')[0]
  return name !== undefined && views.names.find(name, shelf).some((place) => place.log === log) ? command_id : undefined
}

function endOf(last: PlacedLine, whole: PlacedLine | undefined, from: Head | undefined): Head {
  const scanned = whole && scan(whole.bytes)
  const before = scanned && whole ? endAfter(scanned.envelope, whole) : from
  return whole === last && before ? before : erasedEnd(parseLine(last.bytes) as Erased, last, before)
}

/** Folds what a log holds beyond where the views have come. */
export function catchUp(views: Views, events: Events, shelf: Shelf, log: string): void {
  foldLog({ views, events, shelf }, log, { from: views.head(log), until: Number.POSITIVE_INFINITY })
}

export interface Progress {
  logs: number
  records: number
  bytes: number
}

/** Folds every log of the shelf into fresh views. Yields often, so that others get a turn. Ends with the latest time. */
export function* fill(
  views: Views,
  {
    events,
    shelf,
    until = () => Number.POSITIVE_INFINITY,
    wrong = () => {},
  }: { events: Events; shelf: Shelf; until?: (log: string) => number; wrong?: (log: string, why: string) => void },
): Generator<Progress, Progress & { latest: number }> {
  const done = { logs: 0, records: 0, bytes: 0, latest: 0 }
  let told = 0
  views.begin()
  for (const log of shelf.names()) {
    const folded = foldLog({ views, events, shelf }, log, { from: undefined, until: until(log) }, () => done.records++)
    if (folded.wrong !== undefined) wrong(log, folded.wrong)
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
    const why = follow(opened, gathered.events, log)
    if (why === undefined) return opened
    opened.close()
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
    const heads = new Map<string, Head>()
    views.begin()
    for (const { log, offset, bytes, lsn: own } of lines) {
      const line = { bytes: bytes.subarray(0, bytes.length - 1), offset, end: offset + bytes.length }
      const before = heads.get(log) ?? views.head(log)
      // Of a line that was folded already, the end of its log and its name may not be in their tables.
      views.name(skim(line.bytes)?.command_id, log, offset)
      const head = own > lsn ? foldLine(views, events, line, before) : passLine(line, before)
      heads.set(log, head)
      latest = Math.max(latest, head.at)
    }
    for (const [log, head] of heads) views.putHead(log, head)
    views.commit({ journal, lsn: log.lsn, timestamp: latest })
    return undefined
  } catch (error) {
    return `they could not be brought up: ${(error as Error).message}`
  }
}

async function rebuilt(file: string, gathered: Gathered, log: Log, why: string, report: Report): Promise<Views> {
  report('the views are rebuilt from the logs', { why })
  const fresh = `${file}.restored`
  const began = Date.now()
  log.settle()
  const views = Views.create(fresh, gathered)
  const { latest, ...done } = await takingTurns(
    fill(views, {
      events: gathered.events,
      shelf: log,
      wrong: (name, why) => report('a log is damaged', { log: lastName(name), why }),
    }),
  )
  views.finish({ journal: log.journal, lsn: log.lsn, timestamp: latest })
  report('the views are rebuilt', { ...done, seconds: (Date.now() - began) / 1000 })
  Views.replace(file, fresh)
  return reopen(file, gathered)
}

/** Runs a long piece of work while others get their turn; tells how far it is, where somebody asks. */
export async function takingTurns<P, R>(work: Generator<P, R>, tell: (progress: P) => void = () => {}): Promise<R> {
  for (;;) {
    const step = work.next()
    if (step.done) return step.value
    tell(step.value)
    await new Promise((resolve) => setImmediate(resolve))
  }
}

/**
 * Puts views that were filled beside the live ones in their place. Called between two batches, with every acknowledged
 * line in its file: what grew since the filling is folded first, then one rename decides.
 */
export function adopt(
  { fresh, live, gathered, shelf }: { fresh: string; live: Views; gathered: Gathered; shelf: Shelf },
  touched: Iterable<string>,
  mark: Mark,
): Views {
  const views = reopen(fresh, gathered)
  try {
    views.begin()
    for (const log of touched) catchUp(views, gathered.events, shelf, log)
    views.commit(mark)
    views.harden(mark)
  } finally {
    views.close()
  }
  live.close()
  Views.replace(live.file, fresh)
  return reopen(live.file, gathered)
}

function reopen(file: string, gathered: Gathered): Views {
  const opened = Views.open(file, gathered)
  if (opened instanceof Views) return opened
  throw new Error(`the views in ${file} cannot be opened: ${opened.why}`)
}
