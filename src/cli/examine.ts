// What is looked at around the logs of a data directory: who holds it, the journal and its quarantine, permissions, space
// and the clock. Each finding says in plain words what is the matter and what to do. Nothing here changes a byte.

import { accessSync, constants, lstatSync, readdirSync, statfsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { type Holder, holderOf, lockDamage } from '../log/lock.ts'
import { journalOf, logsOf, projectionOf } from '../log/shelf.ts'
import type { Quarantined, SiftedJournal } from '../log/sift.ts'
import { asked, isGood } from './asking.ts'
import { count } from './looking.ts'
import { urlOf } from './reach.ts'

export interface Found {
  check:
    | 'holder'
    | 'journal'
    | 'quarantine'
    | 'files'
    | 'log'
    | 'numbers'
    | 'sessions'
    | 'views'
    | 'permissions'
    | 'space'
    | 'clock'
  /** `lost`: something acknowledged is lost or damaged. `wrong`: something else is. `note`: nothing is, but it is good to know. */
  level: 'lost' | 'wrong' | 'note'
  file?: string
  line?: number
  what: string
  do: string
}

export const RECOVER = 'Copy the whole data directory first; then `sessile recover` puts together what can be had, in a new one.'
const NOTHING = 'Nothing: the next start sees to it.'

// --- who holds it -----------------------------------------------------------------------------------------------------

const PATIENCE_MS = 1000

export async function* aboutHolder(home: string, running: Holder | undefined): AsyncGenerator<Found> {
  const left = holderOf(journalOf(home))
  const damage = lockDamage(journalOf(home))
  if (damage !== undefined) {
    yield {
      check: 'holder',
      level: 'wrong',
      file: join(journalOf(home), 'lock'),
      what: 'The lock is damaged, so that no recorder can take it: none can start. No record is in it.',
      do: 'Make sure that no Sessile runs on this data, then remove this file.',
    }
  }
  if (!running) {
    if (!left) return
    yield {
      check: 'holder',
      level: 'note',
      what: `The last recorder (process ${left.pid}, since ${left.since}) did not come to its end; nobody holds the data now.`,
      do: NOTHING,
    }
    return
  }
  const who = `Process ${running.pid} holds the data since ${running.since}`
  if (running.url === undefined) {
    yield {
      check: 'holder',
      level: 'note',
      what: `${who}, and does not say where it can be reached.`,
      do: 'It may be starting, or be another verb at work. If it stays so, look what that process does.',
    }
    return
  }
  const trouble = await askedHow(running.url)
  if (trouble === undefined) return
  yield {
    check: 'holder',
    level: 'wrong',
    what: `${who}, serves on ${running.url}, and ${trouble}.`,
    do: `It may be stopped (kill -CONT ${running.pid} lets it go on), overloaded, or waiting for a disk. Another one can start when it has ended, or takes over from one that does not answer.`,
  }
}

/** What is wrong with how it answers. */
async function askedHow(url: string): Promise<string | undefined> {
  try {
    const { status, text } = await asked(urlOf({ url }, '/readyz'), { signal: AbortSignal.timeout(PATIENCE_MS) })
    if (isGood(status)) return undefined
    const { detail = `answers ${status}` } = JSON.parse(text) as { detail?: string }
    return `says: ${detail}`
  } catch {
    return `does not answer within a second`
  }
}

// --- the journal ------------------------------------------------------------------------------------------------------

export function* aboutJournal(journal: SiftedJournal, running: boolean): Generator<Found> {
  for (const { path, header, damaged, torn } of journal.segments) {
    if (!header) {
      yield {
        check: 'journal',
        level: 'lost',
        file: path,
        what: 'The header of this segment of the journal is damaged. A start is refused, because what it holds may not be in the logs yet.',
        do: RECOVER,
      }
    }
    for (const { from, to } of damaged) {
      yield {
        check: 'journal',
        level: 'lost',
        file: path,
        what: `The journal is damaged from byte ${from} to byte ${to}, in what had been acknowledged. A start is refused, because it would lose what is not in the logs yet.`,
        do: RECOVER,
      }
    }
    if (torn && !running) {
      yield {
        check: 'journal',
        level: 'note',
        file: path,
        what: `The journal has a torn end of ${count(torn.to - torn.from, 'byte')}: writes that a crash cut off, of which nobody was told.`,
        do: 'Nothing: the next start sets it aside.',
      }
    }
  }
  for (const { after, lines } of journal.missing) {
    yield {
      check: 'journal',
      level: 'lost',
      file: after,
      what: `After this segment, ${count(lines, 'record')} of the journal ${lines === 1 ? 'is' : 'are'} missing: a segment is gone, or was cut short.`,
      do: RECOVER,
    }
  }
  const waiting = journal.segments.reduce((sum, { lines }) => sum + lines.length, 0)
  if (waiting > 0 && !running) {
    yield {
      check: 'journal',
      level: 'note',
      what: `The journal still holds ${count(waiting, 'record')}, which the next start brings to their logs.`,
      do: NOTHING,
    }
  }
  for (const path of running ? [] : journal.leftovers) {
    yield {
      check: 'journal',
      level: 'note',
      file: path,
      what: 'A start that was cut off left this segment; another one counts in its place.',
      do: NOTHING,
    }
  }
}

/** What a start once put aside. `holds`: does the log hold these bytes at this place by now? */
export function* aboutQuarantine(
  quarantine: readonly Quarantined[],
  holds: (log: string, offset: number, path: string) => boolean,
): Generator<Found> {
  for (const aside of quarantine) {
    if (aside.is === 'torn') {
      yield {
        check: 'quarantine',
        level: 'note',
        file: aside.path,
        what: 'A start set this torn end of the journal aside: writes that a crash cut off, of which nobody was told.',
        do: 'Nothing. It may be removed.',
      }
    } else if (aside.is === 'lines' && holds(aside.log, aside.offset, aside.path)) {
      yield {
        check: 'quarantine',
        level: 'wrong',
        file: aside.path,
        what: `These records of ${aside.log} were set aside; the log has them by now, and takes no more as long as this file lies here.`,
        do: 'Stop the recorder, move this file elsewhere, and start again.',
      }
    } else if (aside.is === 'lines') {
      yield {
        check: 'quarantine',
        level: 'lost',
        file: aside.path,
        what: `These acknowledged records of ${aside.log} could not be put into its file, because that is damaged. The log takes no more.`,
        do: RECOVER,
      }
    }
  }
}

// --- what is around -----------------------------------------------------------------------------------------------------

const MOST_NAMED = 5

interface Looked {
  path: string
  mode: number
  uid: number
  isFolder: boolean
}

/** Every folder and file that Sessile keeps, the folder above them first. No link is followed. */
function* everything(home: string): Generator<Looked> {
  yield* under(logsOf(home))
  // Beside the database there may be printed schemas, which are for everyone.
  for (const ending of ['', '-wal', '-shm']) yield* under(`${projectionOf(home)}${ending}`)
}

function* under(path: string): Generator<Looked> {
  const stat = lstatSync(path, { throwIfNoEntry: false })
  if (!stat || stat.isSymbolicLink()) return
  yield { path, mode: stat.mode, uid: stat.uid, isFolder: stat.isDirectory() }
  if (stat.isDirectory() && may(path, constants.R_OK | constants.X_OK))
    for (const name of readdirSync(path).sort()) yield* under(join(path, name))
}

function may(path: string, how: number): boolean {
  try {
    accessSync(path, how)
    return true
  } catch {
    return false
  }
}

export function* aboutPermissions(home: string): Generator<Found> {
  const open: string[] = []
  const foreign: string[] = []
  const closed: string[] = []
  // What lies in a folder that others may not enter is closed to them, whatever its own mode says.
  const shut: string[] = openToOthers(statSync(home).mode) ? [] : [home]
  const owner = statSync(logsOf(home)).uid
  for (const { path, mode, uid, isFolder } of everything(home)) {
    if (!shut.some((folder) => path.startsWith(`${folder}/`))) {
      if (openToOthers(mode)) open.push(path)
      else if (isFolder) shut.push(path)
    }
    if (uid !== owner) foreign.push(path)
    if (!may(path, constants.R_OK | constants.W_OK)) closed.push(path)
  }
  if (open.length > 0) {
    yield {
      check: 'permissions',
      level: 'wrong',
      file: open[0],
      what: `Others than the owner may read or enter ${some(open)}. This is health data.`,
      do: `chmod -R go-rwx ${logsOf(home)} ${projectionOf(home)}*`,
    }
  }
  if (foreign.length > 0) {
    yield {
      check: 'permissions',
      level: 'wrong',
      file: foreign[0],
      what: `${some(foreign)} ${foreign.length === 1 ? 'belongs' : 'belong'} to somebody else than ${logsOf(home)} does.`,
      do: 'Give them to the one who runs Sessile, with chown, while nobody holds the data.',
    }
  }
  if (closed.length > 0) {
    yield {
      check: 'permissions',
      level: 'wrong',
      file: closed[0],
      what: `You may not both read and write ${some(closed)}: a recorder that you start could not either.`,
      do: 'Start Sessile as the owner of the files, or give them to yourself with chown.',
    }
  }
}

const openToOthers = (mode: number) => (mode & 0o077) !== 0

const some = (paths: string[]) =>
  paths.slice(0, MOST_NAMED).join(', ') + (paths.length > MOST_NAMED ? ` and ${paths.length - MOST_NAMED} more` : '')

const MEBIBYTE = 1024 * 1024
const FEWEST_FILES = 1000

export function* aboutSpace(home: string, leastMebibytes: number): Generator<Found> {
  const { bavail, bsize, files, ffree } = statfsSync(home)
  const free = Math.floor((bavail * bsize) / MEBIBYTE)
  if (free < leastMebibytes) {
    yield {
      check: 'space',
      level: 'wrong',
      what: `There are ${free} MiB left on the disk of ${home}, and there should be ${leastMebibytes}. When it is full, nothing more is recorded until there is room.`,
      do: 'Make room on this disk, or move the data directory to a larger one while nobody holds it.',
    }
  }
  if (files > 0 && ffree < FEWEST_FILES) {
    yield {
      check: 'space',
      level: 'wrong',
      what: `The disk of ${home} has room for only ${count(ffree, 'more file')}, and every session is a file.`,
      do: 'Remove files that are not needed on this disk, or move the data directory to another one while nobody holds it.',
    }
  }
}

/** A clock that is this little behind may be that of another machine, or have been set right by a moment. */
const CLOCK_MS = 2000

export function* aboutClock(latest: number): Generator<Found> {
  const ahead = latest - Date.now()
  if (ahead <= CLOCK_MS) return
  yield {
    check: 'clock',
    level: 'wrong',
    what: `The last record is of ${new Date(latest).toISOString()}, which is ${Math.ceil(ahead / 1000)} seconds from now. Until then all records get that same time, because time never goes back in a log.`,
    do: 'Look whether the clock of this machine is right. If the clock was wrong when that record was made, it mends itself with time.',
  }
}

/** Waits as long as what is on its way may take. */
export const settle = () => setTimeout(700)
