// Rebuilds the views from the logs, beside the live ones and while a recorder may be running, and switches in one step;
// or checks that a rebuild would give the same rows.

import { rmSync } from 'node:fs'
import { openLog } from '../app.ts'
import type { Config } from '../config.ts'
import { catchUp, fill, follow, type Progress, takingTurns } from '../core/fold.ts'
import { linesOf, type Shelf } from '../core/log.ts'
import { scan } from '../core/record.ts'
import { Tables } from '../core/tables.ts'
import { type Mark, Views } from '../core/views.ts'
import { features } from '../features/index.ts'
import { FileShelf, freshOf, projectionOf } from '../log/shelf.ts'
import { askHolder, holder } from './reach.ts'
import { exit, put, putJson, say, type Verb } from './verb.ts'

export const rebuildVerb: Verb = {
  does: 'Make the views anew from the logs, or check that this would change nothing.',
  usage: 'sessile rebuild [--check] [--json]',
  options: { check: { type: 'boolean' }, json: { type: 'boolean' } },
  async run({ config, values }) {
    const done = await (values.check ? check(config) : rebuild(config))
    if (values.json) await putJson(done)
    else await put(`${done.says}\n`)
    return done.ok ? exit.done : exit.found
  },
}

interface Done {
  ok: boolean
  says: string
  logs: number
  records: number
  seconds: number
}

/** How many logs may still have grown when the recorder takes over: it folds those itself, between two batches. */
const FEW = 50
const MOST_ROUNDS = 20

async function rebuild(config: Config): Promise<Done> {
  const live = projectionOf(config.home)
  const fresh = freshOf(live)
  const running = holder(config)
  const ask = (what: string) => (running ? askHolder(config, running, 'POST', `/operator/${what}`, {}) : undefined)
  const log = running ? undefined : openLog({ config })
  try {
    const shelf: Shelf = log ?? new FileShelf(config.home)
    let { mark } = ((await ask('rebuild.goes-on')) as { mark: Mark } | undefined) ?? {
      mark: { journal: log?.journal ?? '', lsn: log?.lsn ?? 0, timestamp: 0 },
    }
    const views = Views.create(fresh, features)
    const { done, seconds, latest } = await filled(views, shelf, log ? undefined : () => Number.POSITIVE_INFINITY)
    for (let round = 0; running && round < MOST_ROUNDS; round++) {
      const step = (await ask('rebuild.goes-on')) as { mark: Mark; grown: string[] }
      mark = step.mark
      for (const grown of step.grown) catchUp(views, features.events, shelf, grown)
      if (step.grown.length <= FEW) break
    }
    views.commit(mark)
    views.finish({ ...mark, timestamp: Math.max(mark.timestamp, latest) })
    if (running) await ask('rebuild.ends')
    else Views.replace(live, fresh)
    return {
      ok: true,
      says: `Rebuilt from ${done.records} records in ${done.logs} logs in ${seconds.toFixed(1)} s.`,
      ...done,
      seconds,
    }
  } finally {
    log?.close()
  }
}

/** Fills views from a shelf and tells how it goes. */
async function filled(views: Views, shelf: Shelf, until?: (log: string) => number) {
  const began = performance.now()
  const expected = expectedRecords(views.file.replace(/\.(fresh|check)$/, ''))
  const { latest, ...done } = await takingTurns(
    fill(views, { events: features.events, shelf, ...(until ? { until } : {}) }),
    progress(began, expected),
  )
  return { done, latest, seconds: (performance.now() - began) / 1000 }
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
    seen.db.exec('BEGIN')
    const { value: moment } = seen.sql("SELECT value FROM meta WHERE key = 'timestamp'").get() as { value: string }
    if (running) await askHolder(config, running, 'POST', '/operator/rebuild.goes-on', {})
    const shelf: Shelf = log ?? new FileShelf(config.home)
    const size = seen.sql('SELECT size FROM logs WHERE log = ?').pluck()
    const until = (name: string) =>
      (size.get(name) as number | undefined) ?? (beganAfter(shelf, name, Number(moment)) ? 0 : Number.POSITIVE_INFINITY)
    const views = Views.create(scratch, features)
    const { done, seconds } = await filled(views, shelf, until)
    views.commit({ journal: '', lsn: 0, timestamp: 0 })
    const different = compare([...seen.digests(features.views)], [...views.digests()])
    views.close()
    const says =
      different.length === 0
        ? `A rebuild gives the same rows: ${done.records} records in ${done.logs} logs.`
        : `A rebuild gives other rows in: ${different.join(', ')}.`
    return { ok: different.length === 0, says, ...done, seconds }
  } finally {
    seen?.close()
    log?.close()
    rmSync(scratch, { force: true })
  }
}

/** Views that are merely behind the journal are brought up before they are compared. Says why they cannot be. */
function catchUpOffline(live: string, log: ReturnType<typeof openLog>): string | undefined {
  const views = Views.open(live, features)
  if (!(views instanceof Views)) return views.why
  try {
    return follow(views, features.events, log)
  } finally {
    views.close()
  }
}

/** A log that the views had not seen: fine if it began after they were read, a missing log if before. */
function beganAfter(shelf: Shelf, name: string, moment: number): boolean {
  const first = linesOf(shelf, name).next()
  const timestamp = first.done ? undefined : scan(first.value.bytes)?.envelope.timestamp
  return timestamp === undefined || Date.parse(timestamp) > moment
}

type Digests = { table: string; rows: number; digest: string }[]

const compare = (live: Digests, fresh: Digests) =>
  live.flatMap(({ table, rows, digest }, i) =>
    digest === fresh[i]?.digest ? [] : [`${table} (${rows} rows live, ${fresh[i]?.rows} rebuilt)`],
  )
