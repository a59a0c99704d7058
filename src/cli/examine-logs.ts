// What is looked at in the logs of a data directory, and between them: seals and schemas, the numbers of sessions, how many
// of them are active at once, and whether the views stand where the logs do. Nothing here changes a byte.

import { readFileSync } from 'node:fs'
import type { Envelope } from '../core/record.ts'
import { parsed } from '../core/record.ts'
import { Schemas } from '../core/schemas.ts'
import { fingerprint, type Tables } from '../core/tables.ts'
import type { Finding } from '../core/verify.ts'
import { markOf } from '../core/views.ts'
import { features } from '../features/index.ts'
import { rulesOf } from '../features/kinds.ts'
import { abandoned, ended, started } from '../features/sessions.ts'
import type { Inventory } from '../log/inventory.ts'
import type { Joined } from '../log/joined.ts'
import { fileOf } from '../log/shelf.ts'
import { countedBy, type SiftedJournal } from '../log/sift.ts'
import { type Found, RECOVER } from './examine.ts'
import { count, endsIn, type Glimpse, lookAt, type Unseen } from './looking.ts'

/** What is known of a data directory before its logs are read. */
export interface Grounds {
  home: string
  running: boolean
  inventory: Inventory
  journal: SiftedJournal
  joined: Joined
  /** The views, where they can be read; else why not. */
  views: Glimpse | Unseen
}

export interface Totals {
  logs: number
  records: number
  bytes: number
  /** The time of the latest record, in milliseconds. */
  latest: number
}

const READ_ON =
  'Nothing else is harmed. If the log matters, `sessile recover` keeps what is before it and sets the rest aside; a backup may have all of it.'

export function* aboutFiles({ home, inventory, joined, running }: Grounds): Generator<Found> {
  for (const { path, why } of inventory.strange) {
    yield {
      check: 'files',
      level: 'wrong',
      file: path,
      what: `${path}: ${why}. No record accounts for it.`,
      do: 'Find out who put it there, and move it out of the data directory while nobody holds it.',
    }
  }
  for (const log of joined.names()) {
    const file = fileOf(home, log)
    // The file of a running recorder grows while it is compared: only what stands there can be wrong.
    const why = running ? joined.difference(log) : joined.mismatch(log)
    if (why === undefined) continue
    const what = running
      ? `Somebody wrote to this log: ${why}.`
      : `Records of this log wait in the journal, and cannot be put into the file: ${why}. The next start would set them aside, and the log would take no more.`
    yield { check: 'log', level: 'lost', file, what, do: `${running ? 'Stop the recorder.' : 'Do not start on it.'} ${RECOVER}` }
  }
}

interface Session {
  session_id: string
  number: number
  kind: string
  ended: boolean
}

/** Reads every log once, and tells what is wrong within each, and between those of a user. */
export function* aboutLogs({ home, inventory, journal, joined, views }: Grounds, totals: Totals): Generator<Found> {
  const known = endsIn(views)
  const schemas = new Schemas()
  let [user, sessions]: [string | undefined, Session[]] = [undefined, []]
  for (const log of new Set([...joined.names(), ...known.keys()].sort())) {
    const [top, owner, , session_id] = log.split('/')
    if (top !== 'users' || owner !== user) {
      yield* aboutSessions(user, sessions)
      ;[user, sessions] = [top === 'users' ? owner : undefined, []]
    }
    let session: Session | undefined
    const { findings, verified } = lookAt(
      { shelf: joined, events: features.events, schemas },
      log,
      known.get(log),
      (envelope, line) => {
        totals.latest = Math.max(totals.latest, Date.parse(envelope.timestamp))
        session = seen(session, envelope, line)
        if (envelope.type === abandoned.type) giveUp(sessions, line)
      },
    )
    if (session && session_id !== undefined) sessions.push(session)
    totals.logs++
    totals.records += verified.records
    totals.bytes += verified.bytes
    yield* findings.map((finding) => ofLog(home, finding, inventory.logs.includes(log)))
  }
  yield* aboutSessions(user, sessions)
  const counted = countedBy(journal)
  if (totals.records < counted) {
    yield {
      check: 'log',
      level: 'lost',
      what: `The journal has counted ${counted} records, and the logs hold ${totals.records}: whole logs may be gone, of which nothing else tells.`,
      do: 'Look for the missing logs in a backup. `sessile recover` keeps what is there.',
    }
  }
  for (const log of joined.unreadable) {
    yield {
      check: 'log',
      level: 'lost',
      file: fileOf(home, log),
      what: 'The disk has lost a part of this file (EIO), and reads it no more.',
      do: `Trust this disk no longer. ${RECOVER}`,
    }
  }
}

function seen(session: Session | undefined, { type, session_id = '' }: Envelope, line: Buffer): Session | undefined {
  if (type === started.type) {
    const { data } = parsed(line) as { data: { session_number: number; kind: string } }
    return { session_id, number: data.session_number, kind: data.kind, ended: false }
  }
  return session && type === ended.type ? { ...session, ended: true } : session
}

/** One that was given up is in nobody's way. The log of a user, in which that stands, comes after those of the sessions. */
function giveUp(sessions: readonly Session[], line: Buffer): void {
  const { data } = parsed(line) as { data: { session_id: string } }
  for (const session of sessions) if (session.session_id === data.session_id) session.ended = true
}

const ofLog = (home: string, { log, line, what }: Finding, there: boolean): Found => ({
  check: 'log',
  level: 'lost',
  file: fileOf(home, log),
  line,
  what: there ? `Line ${line}: ${what}.` : `The log is not there: ${what}.`,
  do: READ_ON,
})

function* aboutSessions(user: string | undefined, sessions: readonly Session[]): Generator<Found> {
  if (user === undefined) return
  const byNumber = grouped(sessions, ({ number }) => number)
  const highest = Math.max(0, ...byNumber.keys())
  const absent = Array.from({ length: highest }, (_, i) => i + 1).filter((number) => !byNumber.has(number))
  if (absent.length > 0) {
    yield {
      check: 'numbers',
      level: 'lost',
      what: `Of the sessions of ${user}, the highest has the number ${highest}, and no log begins with ${ranges(absent)}: ${count(absent.length, 'session')} lost, or the first line of each.`,
      do: 'Look for the logs in a backup. `sessile recover` tells what else is known of them.',
    }
  }
  for (const [number, same] of byNumber) {
    if (same.length < 2) continue
    yield {
      check: 'numbers',
      level: 'wrong',
      what: `${count(same.length, 'session')} of ${user} have the number ${number}: ${ids(same)}.`,
      do: 'Find out which of the logs was put there by somebody else: Sessile gives a number once. Take the other one away while nobody holds the data.',
    }
  }
  const active = sessions.filter((session) => !session.ended && rulesOf(session.kind).exclusive)
  for (const [kind, same] of grouped(active, (session) => session.kind)) {
    if (same.length < 2) continue
    yield {
      check: 'sessions',
      level: 'wrong',
      what: `${count(same.length, `${kind} session`)} of ${user} are active at once, and only one may be: ${ids(same)}. The views can hold only one of them.`,
      do: 'The end of all but the last is missing from its log. `sessile recover` ends those in a new data directory.',
    }
  }
}

function grouped<K, V>(values: readonly V[], keyOf: (value: V) => K): Map<K, V[]> {
  const groups = new Map<K, V[]>()
  for (const value of values) groups.set(keyOf(value), [...(groups.get(keyOf(value)) ?? []), value])
  return groups
}

const ids = (sessions: readonly Session[]) => sessions.map(({ session_id }) => session_id).join(', ')

/** `3, 5 to 9`. */
function ranges(numbers: readonly number[]): string {
  const runs: [number, number][] = []
  for (const number of numbers) {
    const last = runs.at(-1)
    if (last && last[1] === number - 1) last[1] = number
    else runs.push([number, number])
  }
  return runs.map(([from, to]) => (from === to ? `${from}` : `${from} to ${to}`)).join(', ')
}

// --- the views --------------------------------------------------------------------------------------------------------

/** Beyond this size, whether every index agrees with its table is not looked at: it would take minutes. */
const LARGE = 256 * 1024 * 1024

export function* aboutViews({ running, journal, views }: Grounds): Generator<Found> {
  const harmless = 'Nothing: the next start makes them anew from the logs, and so does `sessile rebuild`.'
  if ('why' in views) {
    yield { check: 'views', level: views.is === 'absent' ? 'note' : 'wrong', ...unseen(views, harmless) }
    return
  }
  try {
    const { tables } = views
    const wrong = integrity(tables)
    if (wrong !== undefined) {
      yield {
        check: 'views',
        level: 'wrong',
        what: `The database of the views is damaged (${wrong}). No record is in it that is not in a log.`,
        do: running ? 'sessile rebuild' : harmless,
      }
    }
    if (tables.sql("SELECT value FROM meta WHERE key = 'fingerprint'").pluck().get() !== fingerprint(features)) {
      yield { check: 'views', level: 'note', what: 'The views were made by another version of Sessile.', do: harmless }
      return
    }
    yield* aboutMark(markOf(tables), journal)
  } catch (error) {
    yield { check: 'views', level: 'wrong', what: `The views cannot be read (${(error as Error).message}).`, do: harmless }
  }
}

const unseen = ({ is, why }: Unseen, harmless: string): Pick<Found, 'what' | 'do'> =>
  ({
    absent: { what: 'There are no views.', do: harmless },
    damaged: { what: `The views cannot be read (${why}). No record is in them that is not in a log.`, do: harmless },
    'out of reach': {
      what: `The views could not be looked at (${why}), nor what they know of where each log ends. All else was.`,
      do: 'Make room on their disk, or let this account write to their folder, and look again.',
    },
  })[is]

function integrity(tables: Tables): string | undefined {
  const pages = tables.sql('PRAGMA page_count').pluck().get() as number
  const size = pages * (tables.sql('PRAGMA page_size').pluck().get() as number)
  const told = tables
    .sql(`PRAGMA ${size > LARGE ? 'quick_check' : 'integrity_check'}(1)`)
    .pluck()
    .get() as string
  return told === 'ok' ? undefined : told.split('\n').slice(0, 2).join(' ')
}

function* aboutMark(mark: { journal: string; lsn: number }, journal: SiftedJournal): Generator<Found> {
  const [oldest, newest] = [journal.segments[0], journal.segments.at(-1)]
  if (!oldest?.header || !newest?.header) return
  const anew = 'Nothing: the next start makes them anew from the logs.'
  if (mark.journal !== newest.header.journal)
    yield { check: 'views', level: 'note', what: 'The views belong to another life of this data directory.', do: anew }
  else if (mark.lsn < oldest.header.first - 1)
    yield { check: 'views', level: 'note', what: 'The views are further behind than the journal reaches.', do: anew }
}

/** Does the log hold the bytes of this file at this place? */
export const holdsAside =
  ({ joined, inventory }: Grounds) =>
  (log: string, offset: number, path: string): boolean => {
    const aside = readFileSync(path)
    return inventory.logs.includes(log) && joined.read(log, offset, aside.length).equals(aside)
  }
