// Folding: the one way in which a line of a log becomes rows. The recorder's catching up and every rebuild go through here.

import type { Events } from './event.ts'
import type { Gathered } from './feature.ts'
import type { Head } from './heads.ts'
import { type JournalLine, type Log, lastName, linesOf, type PlacedLine, type Report, type Shelf } from './log.ts'
import { isErased, parseLine, scan } from './record.ts'
import { isSqlite } from './tables.ts'
import { type Mark, Views } from './views.ts'

/** Folds one line and tells where its log now ends. An erased line moves the end and no row. */
function foldLine(views: Views, events: Events, log: string, line: PlacedLine, before: Head | undefined): Head {
  const record = parseLine(line.bytes)
  // The hash stands in the last 43 characters of a line before `"}`, or is a field of an erased one.
  if (isErased(record)) return { seq: record.seq, hash: Buffer.from(record.hash, 'base64url'), size: line.end, at: before?.at ?? 0 }
  views.apply(events.upcast(record), log, line.offset)
  const hash = Buffer.from(line.bytes.toString('latin1', line.bytes.length - 45, line.bytes.length - 2), 'base64url')
  return { seq: record.seq, hash, size: line.end, at: Date.parse(record.timestamp) }
}

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
  let head = from
  views.savepoint('log')
  try {
    for (const line of linesOf(shelf, log, from?.size ?? 0, until)) {
      head = foldLine(views, events, log, line, head)
      told()
    }
    if (head && head !== from) views.putHead(log, head)
    views.release('log')
    return { head, wrong: undefined }
  } catch (error) {
    if (isSqlite(error) && !error.code.startsWith('SQLITE_CONSTRAINT')) throw error
    views.undo('log')
    return { head, wrong: `line ${(head?.seq ?? 0) + 1} cannot be folded (${(error as Error).message})` }
  }
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
    const { journal, lsn, timestamp, names } = views.mark
    if (journal !== log.journal) return 'they belong to another journal'
    const lines = lsn <= log.lsn ? log.since(Math.min(lsn, names)) : undefined
    if (!lines) return 'the journal does not reach from where they stand to its end'
    let latest = timestamp
    views.begin()
    for (const line of lines) {
      if (line.lsn > lsn) latest = Math.max(latest, followLine(views, events, line))
      else rememberLine(views, line)
    }
    views.commit({ journal, lsn: log.lsn, timestamp: latest })
    return undefined
  } catch (error) {
    return `they could not be brought up: ${(error as Error).message}`
  }
}

function followLine(views: Views, events: Events, { log, offset, bytes }: JournalLine): number {
  const line = { bytes: bytes.subarray(0, bytes.length - 1), offset, end: offset + bytes.length }
  const head = foldLine(views, events, log, line, views.head(log))
  views.putHead(log, head)
  return head.at
}

/** A line whose rows are there, and whose name may not be. */
function rememberLine(views: Views, { log, offset, bytes }: JournalLine): void {
  const command_id = scan(bytes)?.envelope.command_id
  if (command_id !== undefined) views.remember(command_id, log, offset)
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
