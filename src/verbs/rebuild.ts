// Rebuilds the views from the logs, beside the live ones and while a recorder may be running, and switches in one step;
// or checks that a rebuild would give the same rows.

import { rmSync } from 'node:fs'
import { askHolder, holder, needData } from '../cli/reach.ts'
import { exit, put, putJson, say, type Verb } from '../cli/verb.ts'
import type { Config } from '../config.ts'
import { digestsOf } from '../core/digests.ts'
import { agreeing, catchUp, fill, follow, type Progress, takingTurns, type Unfolded } from '../core/fold.ts'
import { linesOf, type Shelf } from '../core/log.ts'
import { replace } from '../core/place.ts'
import { scan } from '../core/record.ts'
import { Tables } from '../core/tables.ts'
import { dwindling, resting } from '../core/turn.ts'
import { type Mark, markOf, Views } from '../core/views.ts'
import { features } from '../features/index.ts'
import { Ahead } from '../log/ahead.ts'
import type { Holder } from '../log/lock.ts'
import { FileShelf, freshOf, projectionOf } from '../log/shelf.ts'
import { openLog } from '../open.ts'

export const rebuildVerb: Verb = {
  does: 'Make the views anew from the logs, or check that this would change nothing.',
  usage: 'sessile rebuild [--check] [--json]',
  options: { check: { type: 'boolean' }, json: { type: 'boolean' } },
  async run({ config, values }) {
    needData(config)
    const done = await (values.check ? check(config) : rebuild(config))
    if (values.json) await putJson(done)
    else await put(`${done.says}\n`)
    return done.ok ? exit.done : exit.found
  },
}

/** How often a check tries to catch a quiet moment. */
const MOST_TRIES = 200

interface Done {
  ok: boolean
  says: string
  logs: number
  records: number
  seconds: number
}

interface Made extends Done {
  unfolded: Unfolded[]
}

/** How many logs may still have grown when the recorder takes over: it folds those itself, between two batches. */
const FEW = 50

async function rebuild(config: Config): Promise<Done> {
  const live = projectionOf(config.home)
  const running = holder(config)
  return running ? agreed((without) => rebuildBeside(config, live, running, without)) : rebuildAlone(config)
}

/** Says of the views that were made in the end which logs are damaged. */
async function agreed<T extends Made>(make: (without: ReadonlySet<string>) => Promise<T>): Promise<Omit<T, 'unfolded'>> {
  const { unfolded, ...done } = await agreeing(make)
  for (const { log, why } of unfolded) say(`${log}: ${why}`)
  return done
}

/** Nobody holds the data: this process does, for as long as it takes. */
export async function rebuildAlone(config: Config): Promise<Done> {
  const live = projectionOf(config.home)
  const log = openLog({ config })
  const make = async (without: ReadonlySet<string>) => {
    const views = Views.create(freshOf(live), features)
    try {
      const shelf = new Ahead(config.home)
      const { latest, ...done } = await filled(views, live, { shelf, settled: true, without })
      views.finish({ journal: log.journal, lsn: log.lsn, timestamp: latest })
      return done
    } catch (error) {
      views.close()
      throw error
    }
  }
  try {
    const done = await agreed(make)
    log.assertOurs()
    replace(live, freshOf(live))
    return done
  } finally {
    log.close()
  }
}

/** A recorder is at work: it tells which logs grow, and takes over when few are left. */
async function rebuildBeside(config: Config, live: string, running: Holder, without: ReadonlySet<string>): Promise<Made> {
  const shelf = new FileShelf(config.home)
  const ask = (what: string, body: object = {}) => askHolder(config, running, 'POST', `/operator/rebuild.${what}`, body)
  const { rebuild } = (await ask('begins')) as { rebuild: string }
  const goesOn = () => ask('goes-on', { rebuild }) as Promise<{ mark: Mark; grown: string[] }>
  const views = Views.create(freshOf(live), features)
  const grown = new Set<string>()
  // Asked now and then, the recorder knows that the rebuild is alive. An answer that is lost is lost for good: it names logs.
  let asked: Promise<void> = Promise.resolve()
  const asking = setInterval(() => {
    asked = asked.then(goesOn).then((step) => step.grown.forEach((log) => void grown.add(log)))
    asked.catch(() => {}) // Heard of below.
  }, 30_000)
  const rest = resting()
  const from = { shelf: new Ahead(config.home), without }
  const { latest, ...done } = await filled(views, live, from, rest).finally(() => clearInterval(asking))
  await asked
  let step = await goesOn()
  const again = dwindling(FEW)
  for (;;) {
    for (const log of [...grown, ...step.grown]) {
      catchUp(views, features.events, shelf, log)
      await rest()
    }
    grown.clear()
    // What grows from here on, the recorder folds itself. Where hardly fewer have grown than in the round before, it will stay at that.
    if (!again(step.grown.length)) break
    step = await goesOn()
  }
  views.finish({ ...step.mark, timestamp: Math.max(step.mark.timestamp, latest) })
  await ask('ends', { rebuild })
  return done
}

/** Fills views from a shelf and tells how it goes. */
async function filled(
  views: Views,
  live: string,
  from: { shelf: Shelf; settled?: boolean; without?: ReadonlySet<string>; until?: (log: string) => number },
  rest?: () => Promise<void>,
): Promise<Made & { latest: number }> {
  const began = performance.now()
  const filling = fill(views, { events: features.events, ...from })
  const { latest, logs, records, unfolded } = await takingTurns(filling, progress(began, expectedRecords(live)), rest)
  const seconds = (performance.now() - began) / 1000
  const damaged = unfolded.length > 0 ? `; ${unfolded.length} of them are damaged (sessile verify tells where)` : ''
  const says = `Rebuilt from ${records} records in ${logs} logs in ${seconds.toFixed(1)} s${damaged}.`
  return { ok: unfolded.length === 0, says, logs, records, seconds, latest, unfolded }
}

function progress(began: number, expected: number): (done: Progress) => void {
  let told = began
  return ({ records }) => {
    if (performance.now() - told < 1000) return
    told = performance.now()
    const rate = records / ((told - began) / 1000)
    const left = expected > records ? `, about ${Math.ceil((expected - records) / rate)} s left` : ''
    say(`${records} records${expected > 0 ? ` of ${expected}` : ''}, ${Math.round(rate)} a second${left}`)
  }
}

/** How many records the present views know of: what the time left is reckoned from. */
function expectedRecords(file: string): number {
  let tables: Tables | undefined
  try {
    tables = new Tables(file, { readonly: true, fileMustExist: true })
    return (tables.sql('SELECT coalesce(sum(seq), 0) AS n FROM logs').get() as { n: number }).n
  } catch {
    return 0
  } finally {
    tables?.close()
  }
}

/**
 * Compares the live rows with those of a rebuild. The live views are read as of one moment; each log is folded as far as
 * they had come in it, so that recording may go on meanwhile.
 */
async function check(config: Config): Promise<Done> {
  const live = projectionOf(config.home)
  const scratch = `${live}.check`
  const running = holder(config)
  const log = running ? undefined : openLog({ config })
  let seen: Tables | undefined
  try {
    const behind = log && catchUpOffline(live, log)
    if (behind !== undefined)
      return { ok: false, says: `The views differ from the logs: ${behind}.`, logs: 0, records: 0, seconds: 0 }
    seen = new Tables(live, { readonly: true, fileMustExist: true })
    const moment = await aMoment(seen, running && (() => askHolder(config, running, 'POST', '/operator/settle', {})))
    const shelf = new Ahead(config.home)
    const size = seen.sql('SELECT size FROM logs WHERE log = ?').pluck()
    const until = (name: string) =>
      (size.get(name) as number | undefined) ?? (beganAfter(shelf, name, moment) ? 0 : Number.POSITIVE_INFINITY)
    const { views, ...done } = await agreed(async (without) => {
      const views = Views.create(scratch, features)
      const { latest: _, ...done } = await filled(views, live, { shelf, until, without })
      views.mustAgree()
      return { views, ...done }
    })
    views.flushNames()
    views.commit({ journal: '', lsn: 0, timestamp: 0 })
    const different = compare(digestsOf(seen, features.views), views.digests())
    // A running recorder writes names less often than rows: those that are there must be right, and more may follow.
    if (running && different.get('commands') && views.hasAll(seen)) different.delete('commands')
    views.close()
    const says =
      different.size === 0
        ? `A rebuild gives the same rows: ${done.records} records in ${done.logs} logs.`
        : `A rebuild gives other rows in: ${[...different.values()].join(', ')}.`
    return { ...done, ok: done.ok && different.size === 0, says }
  } finally {
    seen?.close()
    log?.close()
    rmSync(scratch, { force: true })
  }
}

/**
 * Begins to read the views as of one moment, at which the ends of the logs do not trail behind the rows; tells the latest
 * timestamp. While a recorder goes on, that is just after it has settled, and others may come in between.
 */
async function aMoment(seen: Tables, settle: (() => Promise<unknown>) | undefined): Promise<number> {
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    await settle?.()
    seen.db.exec('BEGIN')
    const { lsn, trailing, timestamp } = markOf(seen)
    if (lsn === trailing) return timestamp
    seen.db.exec('COMMIT')
  }
  throw new Error('the recorder has too much to do: try again when it is quieter')
}

/** Views that are merely behind the journal are brought up before they are compared. Says why they cannot be. */
function catchUpOffline(live: string, log: ReturnType<typeof openLog>): string | undefined {
  const views = Views.open(live, features)
  if (!(views instanceof Views)) return views.why
  try {
    const behind = follow(views, features.events, log)
    if (behind === undefined) views.harden({ ...views.mark, lsn: log.lsn })
    return behind
  } finally {
    views.close()
  }
}

/** A log that the views had not seen: fine if it began after they were read, a missing log if before. */
function beganAfter(shelf: Shelf, name: string, moment: number): boolean {
  const first = linesOf(shelf, name).next()
  const timestamp = first.done ? undefined : scan(first.value.bytes)?.envelope.timestamp
  return timestamp === undefined || Date.parse(timestamp) >= moment
}

type Digests = { table: string; rows: number; digest: string }[]

const compare = (live: Digests, fresh: Digests) =>
  new Map(
    live.flatMap(({ table, rows, digest }, i) =>
      digest === fresh[i]?.digest ? [] : [[table, `${table} (${rows} rows live, ${fresh[i]?.rows} rebuilt)`] as const],
    ),
  )
