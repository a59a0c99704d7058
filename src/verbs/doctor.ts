// Looks at everything in a data directory, without holding it and without changing a byte of it, and explains each finding
// in plain words: what is the matter, and what to do.

import { dirname } from 'node:path'
import {
  aboutClock,
  aboutHolder,
  aboutJournal,
  aboutPermissions,
  aboutQuarantine,
  aboutSpace,
  type Found,
  settle,
} from '../cli/examine.ts'
import { aboutFiles, aboutLogs, aboutViews, type Grounds, holdsAside, type Totals } from '../cli/examine-logs.ts'
import { acknowledgedIn, count, glimpse } from '../cli/looking.ts'
import { holder, needData } from '../cli/reach.ts'
import { dim, exit, green, put, putJson, red, say, text, Usage, type Verb, visible } from '../cli/verb.ts'
import type { Config } from '../config.ts'
import { inventoryOf } from '../log/inventory.ts'
import { Joined } from '../log/joined.ts'
import { journalOf, projectionOf } from '../log/shelf.ts'
import { siftJournal } from '../log/sift.ts'

const LEAST_FREE = 1024

export const doctorVerb: Verb = {
  does: 'Look at everything, and say in plain words what is wrong and what to do.',
  usage: 'sessile doctor [--least-free MIB] [--json]',
  options: { 'least-free': { type: 'string' }, json: { type: 'boolean' } },
  async run({ config, values }) {
    const leastFree = Number(text(values['least-free']) ?? LEAST_FREE)
    if (!Number.isSafeInteger(leastFree) || leastFree < 0) throw new Usage('--least-free is a number of MiB')
    needData(config)
    const { found, totals, running } = await examine(config, leastFree)
    for (const finding of found) await (values.json ? putJson(finding) : put(print(finding, config.colour)))
    const of = (level: Found['level']) => found.filter((finding) => finding.level === level).length
    const told = { findings: of('lost') + of('wrong'), lost: of('lost'), notes: of('note') }
    if (values.json) await putJson({ ...told, held_by: running ?? null, ...countsOf(totals) })
    else say(summary(told, totals.records, totals.logs, config.colour))
    if (told.lost > 0) return exit.lost
    return told.findings > 0 ? exit.found : exit.done
  },
}

interface Examined {
  found: Found[]
  totals: Totals
  running: { pid: number; since: string; url?: string } | undefined
}

/** While a recorder is at work, or has just begun, only that is told which is found a second time: the rest was on its way. */
async function examine(config: Config, leastFree: number): Promise<Examined> {
  const first = await examineOnce(config, leastFree)
  if (first.found.length === 0 || !(first.running ?? holder(config))) return first
  await settle()
  const second = await examineOnce(config, leastFree)
  const before = new Set(first.found.map(keyOf))
  return { ...second, found: second.found.filter((finding) => before.has(keyOf(finding))) }
}

const keyOf = ({ check, level, file = '', line = 0, what }: Found) => JSON.stringify([check, level, file, line, what])

async function examineOnce(config: Config, leastFree: number): Promise<Examined> {
  const { home } = config
  const running = holder(config)
  const projection = projectionOf(home)
  const views = glimpse(projection, running ? undefined : { folder: dirname(projection), by: 'name' })
  try {
    const inventory = inventoryOf(home)
    // The views first, then the journal, then the files: lines go the other way round, so that none is missed between them.
    const journal = siftJournal(journalOf(home), acknowledgedIn(views))
    const lines = journal.segments.flatMap(({ lines }) => lines)
    const joined = new Joined(home, { logs: inventory.logs, lines, anyway: true })
    const grounds: Grounds = { home, running: running !== undefined, inventory, journal, joined, views }
    const totals: Totals = { logs: 0, records: 0, bytes: 0, latest: 0 }
    const found: Found[] = []
    for await (const finding of aboutHolder(home, running)) found.push(finding)
    found.push(...aboutJournal(journal, grounds.running), ...aboutQuarantine(journal.quarantine, holdsAside(grounds)))
    found.push(...aboutFiles(grounds), ...aboutLogs(grounds, totals), ...aboutViews(grounds))
    found.push(...aboutPermissions(home), ...aboutSpace(home, leastFree), ...aboutClock(totals.latest))
    const told = running && { pid: running.pid, since: running.since, ...(running.url ? { url: running.url } : {}) }
    return { found, totals, running: told }
  } finally {
    if ('close' in views) views.close()
  }
}

const countsOf = ({ logs, records, bytes }: Totals) => ({ logs, records, bytes })

const MARKS = { lost: 'LOST ', wrong: 'WRONG', note: 'note ' }

function print({ level, file, what, do: remedy }: Found, colour: boolean): string {
  const mark = level === 'note' ? dim(MARKS[level], colour) : red(MARKS[level], colour)
  const where = file === undefined || what.startsWith(file) ? '' : `${visible(file)}: `
  return `${mark} ${where}${visible(what)}\n      ${dim('→', colour)} ${visible(remedy)}\n`
}

function summary({ findings, lost }: { findings: number; lost: number }, records: number, logs: number, colour: boolean): string {
  const looked = `${count(records, 'record')} in ${count(logs, 'log')} looked at`
  if (findings === 0) return green(`${looked}: nothing is wrong.`, colour)
  const worst = lost > 0 ? `, ${lost} of them about what had been acknowledged` : ''
  return red(`${looked}: ${count(findings, 'finding')}${worst}.`, colour)
}
