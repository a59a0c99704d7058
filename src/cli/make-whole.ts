// After the logs were salvaged: views are folded from them as any start would. Where a log cannot be folded beside the
// others because an end is lost that let it begin, the recorder records that end anew, as the system's, now; where it
// cannot be folded for another reason, it is cut before the line. And what was shut stays shut: lost revocations are
// recorded again.

import { existsSync } from 'node:fs'
import { openLog, openRecorder } from '../app.ts'
import type { Config } from '../config.ts'
import { atRoute } from '../core/feature.ts'
import { fill, takingTurns, type Unfolded } from '../core/fold.ts'
import { linesOf } from '../core/log.ts'
import { parseLine, type Recorded } from '../core/record.ts'
import { type Sessile, system } from '../core/sessile.ts'
import { Tables } from '../core/tables.ts'
import { Views } from '../core/views.ts'
import { features } from '../features/index.ts'
import { keys } from '../features/keys.ts'
import { activeOf, sessions, started } from '../features/sessions.ts'
import type { Salvage } from '../log/salvage.ts'
import { FileShelf, fileOf, freshOf, projectionOf } from '../log/shelf.ts'
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
  let revoked = 0
  for await (const told of revokeAgain(config, known)) {
    revoked++
    yield told
  }
  if (revoked > 0) await fold(config)
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
    Views.replace(live, freshOf(live))
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

/** Keys that the damaged directory's views knew as revoked, and that would open again. */
async function* revokeAgain(config: Config, known: Glimpse | Unseen): AsyncGenerator<Told> {
  const lost = revokedIn(known).filter((key_id) => works(config, key_id))
  if (lost.length === 0) return
  await recording(config, async (sessile) => {
    for (const key_id of lost) {
      await sessile.perform(atRoute(features.commands, 'POST /api/v1/keys/{key_id}/revoke'), { body: { key_id }, caller: system })
    }
  })
  for (const key_id of lost)
    yield { level: 'note', what: `The key ${key_id} had been revoked, and that record is lost: it has been revoked again.` }
}

function revokedIn(known: Glimpse | Unseen): string[] {
  if (!('tables' in known)) return []
  try {
    return known.tables
      .read(keys)
      .find('WHERE revoked_at IS NOT NULL')
      .map(({ key_id }) => key_id)
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

const works = (config: Config, key_id: string) =>
  asking(config, ({ read }) => read(keys).find('WHERE key_id = ? AND revoked_at IS NULL', key_id).length > 0)

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
