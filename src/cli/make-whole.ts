// After the logs were salvaged: views are folded from them as any start would. Where a log cannot be folded beside the
// others because an end is lost that let it begin, the recorder records that end anew, as the system's, now; where it
// cannot be folded for another reason, it is cut before the line. And what was shut stays shut: where it is lost that a key
// was revoked, an account deactivated or an assignment ended, that is recorded again.

import { existsSync } from 'node:fs'
import type { Config } from '../config.ts'
import { atRoute } from '../core/feature.ts'
import { fill, takingTurns, type Unfolded } from '../core/fold.ts'
import { linesOf } from '../core/log.ts'
import { replace } from '../core/place.ts'
import { parseLine, type Recorded } from '../core/record.ts'
import { type Sessile, system } from '../core/sessile.ts'
import { Tables } from '../core/tables.ts'
import type { Read } from '../core/view.ts'
import { Views } from '../core/views.ts'
import { accounts, activeAccount } from '../features/accounts.ts'
import { assignments } from '../features/assignments.ts'
import { factorOf } from '../features/factors.ts'
import { features } from '../features/index.ts'
import { keys } from '../features/keys.ts'
import { activeOf, sessions, started } from '../features/sessions.ts'
import type { Salvage } from '../log/salvage.ts'
import { FileShelf, fileOf, freshOf, projectionOf } from '../log/shelf.ts'
import { openLog, openRecorder } from '../open.ts'
import type { Glimpse, Unseen } from './looking.ts'
import type { Told } from './sought.ts'

export async function* makeWhole(config: Config, salvage: Salvage, known: Glimpse | Unseen): AsyncGenerator<Told> {
  for (;;) {
    const wrong = await fold(config)
    if (wrong.length === 0) break
    let ended = 0
    const logs = wrong.map(({ log }) => log)
    for await (const told of endWhatIsInTheWay(config, salvage, logs)) {
      ended++
      yield told
    }
    if (ended === 0) for (const unfolded of wrong) yield cut(config, salvage, unfolded)
  }
  let again = 0
  for await (const told of shutAgain(config, known)) {
    again++
    yield told
  }
  if (again > 0) await fold(config)
}

/** Makes the views of the new directory, and tells which logs cannot be folded, and how far they can. */
async function fold(config: Config): Promise<Unfolded[]> {
  const live = projectionOf(config.home)
  const log = openLog({ config })
  try {
    const views = Views.create(freshOf(live), features, true)
    const shelf = new FileShelf(config.home, { reuse: true })
    const { latest, unfolded } = await takingTurns(fill(views, { events: features.events, shelf }))
    views.finish({ journal: log.journal, lsn: log.lsn, timestamp: latest })
    replace(live, freshOf(live))
    return unfolded
  } finally {
    log.close()
  }
}

/** Lets the recorder do something in the new directory, and comes to a clean end. */
async function recording<T>(config: Config, work: (sessile: Sessile) => Promise<T>): Promise<T> {
  const sessile = await openRecorder(openLog({ config }), { config })
  try {
    return await work(sessile)
  } finally {
    await sessile.recorder.close()
  }
}

/** Ends the active sessions that keep others from beginning. The others are out of sight meanwhile. */
async function* endWhatIsInTheWay(config: Config, salvage: Salvage, logs: readonly string[]): AsyncGenerator<Told> {
  const shelf = new FileShelf(config.home)
  const begun = logs.flatMap((log) => startIn(shelf, log))
  for (const log of logs) salvage.withhold(log)
  const told: Told[] = []
  try {
    await fold(config)
    await recording(config, async (sessile) => {
      for (const { user_id, session_id, data } of begun) {
        const active = sessile.reading((read) => activeOf(read(sessions), user_id, data.kind))
        if (!active) continue
        const body = { user_id, session_id: active.session_id, performer_id: 'system', reason: 'disconnected' }
        await sessile.perform(atRoute(features.commands, 'POST /session_manager/sessions.end'), { body, caller: system })
        const log = `users/${user_id}/sessions/${active.session_id}`
        const what = `The end of this session is lost, and ${session_id} began after it: the system has ended it anew, as of now.`
        told.push({ level: 'note', log, file: fileOf(config.home, log), what })
      }
    })
  } finally {
    for (const log of logs) salvage.bringBack(log)
  }
  yield* told
}

function startIn(shelf: FileShelf, log: string): Recorded<{ kind: string }>[] {
  const [first] = linesOf(shelf, log)
  const record = first && parseLine(first.bytes)
  return record && 'type' in record && record.type === started.type ? [record as Recorded<{ kind: string }>] : []
}

/** Keeps what of a log can be folded, and sets the rest aside. */
function cut(config: Config, salvage: Salvage, { log, why, folded }: Unfolded): Told {
  const shelf = new FileShelf(config.home)
  const whole = shelf.read(log, 0, shelf.size(log))
  const kept = salvage.aside(`${log}.unfolded`, [whole.subarray(folded)])
  if (folded === 0) salvage.remove(log)
  else salvage.log(log, [whole.subarray(0, folded)])
  const line = whole.subarray(0, folded).filter((byte) => byte === 10).length + 1
  return {
    level: 'lost',
    log,
    file: kept,
    line,
    from: folded,
    to: whole.length,
    what: `From here on the views cannot hold it: ${why}.`,
    kept,
  }
}

/** What was shut, how it is shut again, and which of those that the damaged directory's views knew stand open in the new one. */
interface Shut {
  at: string
  by: string
  opens: (known: Read, now: Read) => string[]
  says: (id: string) => string
}

/** Keys go with their account, so that accounts come first. */
const shut: readonly Shut[] = [
  {
    at: 'POST /api/v1/accounts/{account_id}/deactivate',
    by: 'account_id',
    opens: (known, now) =>
      known(accounts)
        .find('')
        .filter(({ account_id, deactivated_at, role, password_hash }) => {
          const row = activeAccount(now, account_id)
          if (!row) return false
          const weaker = factorOf(known, account_id) !== undefined && factorOf(now, account_id) === undefined
          return weaker || deactivated_at !== null || role !== row.role || password_hash !== row.password_hash
        })
        .map(({ account_id }) => account_id),
    says: (id) =>
      `The account ${id} had been deactivated, or had another role, another password or a second factor, and that record is lost: it is deactivated until an admin reactivates it.`,
  },
  {
    at: 'POST /api/v1/keys/{key_id}/revoke',
    by: 'key_id',
    opens: (known, now) =>
      known(keys)
        .find('WHERE revoked_at IS NOT NULL')
        .map(({ key_id }) => key_id)
        .filter((key_id) => now(keys).get({ key_id })?.revoked_at === null),
    says: (id) => `The key ${id} had been revoked, and that record is lost: it has been revoked again.`,
  },
  {
    at: 'POST /api/v1/assignments/{assignment_id}/end',
    by: 'assignment_id',
    opens: (known, now) =>
      known(assignments)
        .find('WHERE ended_at IS NOT NULL')
        .map(({ assignment_id }) => assignment_id)
        .filter((assignment_id) => now(assignments).get({ assignment_id })?.ended_at === null),
    says: (id) => `The assignment ${id} had ended, and that record is lost: it has been ended again.`,
  },
]

/** Shuts again what had been shut. */
async function* shutAgain(config: Config, known: Glimpse | Unseen): AsyncGenerator<Told> {
  for (const { at, by, opens, says } of shut) {
    const open = openAgain(config, known, opens)
    if (open.length === 0) continue
    await recording(config, async (sessile) => {
      for (const id of open) await sessile.perform(atRoute(features.commands, at), { body: { [by]: id }, caller: system })
    })
    for (const id of open) yield { level: 'note', what: says(id) }
  }
}

function openAgain(config: Config, known: Glimpse | Unseen, opens: Shut['opens']): string[] {
  if (!('tables' in known)) return []
  const { read } = known.tables
  try {
    return asking(config, (now) => opens(read, now.read))
  } catch {
    return [] // These views are damaged, too.
  }
}

/** Asks the views of the new directory. */
function asking<T>({ home }: Config, ask: (tables: Tables) => T): T {
  const tables = new Tables(projectionOf(home), { readonly: true, fileMustExist: true })
  try {
    return ask(tables)
  } finally {
    tables.close()
  }
}

/** What the views of the damaged directory know of sessions that have no log any more. */
export function* aboutLostSessions(config: Config, known: Glimpse | Unseen): Generator<Told> {
  for (const { session_id, user_id, session_number, kind, started_at } of sessionsIn(known)) {
    const log = `users/${user_id}/sessions/${session_id}`
    if (existsSync(fileOf(config.home, log))) continue
    const highest = asking(
      config,
      ({ read }) => read(sessions).one<{ n: number | null }>('max(session_number) AS n', 'WHERE user_id = ?', user_id)?.n ?? 0,
    )
    const again = session_number > highest ? ` The next session of ${user_id} would get a number that was given already.` : ''
    const what = `The ${kind} session ${session_number} of ${user_id}, begun at ${started_at}, is lost as a whole.${again}`
    yield { level: 'lost', log, what }
  }
}

type KnownSession = { session_id: string; user_id: string; session_number: number; kind: string; started_at: string }

function* sessionsIn(known: Glimpse | Unseen): Generator<KnownSession> {
  if (!('tables' in known)) return
  try {
    for (const row of known.tables.rowsIn('sessions', ['session_id'])) yield row as unknown as KnownSession
  } catch {
    // These views are damaged, too; what could be read of them has been told.
  }
}
