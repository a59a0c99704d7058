// Checks seals and schemas of one log or all, and names the file and line of whatever is wrong.

import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { count, type KnownEnd, lookAt } from '../cli/looking.ts'
import { holder, needData } from '../cli/reach.ts'
import { exit, green, put, putJson, red, say, type Verb, visible } from '../cli/verb.ts'
import { Schemas } from '../core/schemas.ts'
import { Tables } from '../core/tables.ts'
import { after } from '../core/turn.ts'
import type { Finding } from '../core/verify.ts'
import { features } from '../features/index.ts'
import { HEADER } from '../log/frame.ts'
import { FileShelf, fileOf, journalOf, projectionOf } from '../log/shelf.ts'

/** How long a line that a recorder is just writing may look unfinished. */
const SETTLE_MS = 300

export const verifyVerb: Verb = {
  does: 'Check the seals and schemas of one log or all.',
  usage: 'sessile verify [SESSION_ID | LOG] [--json]',
  options: { json: { type: 'boolean' } },
  words: 1,
  async run({ config, values, words: [only] }) {
    needData(config)
    const shelf = new FileShelf(config.home)
    const running = holder(config)
    const heads = headsOf(config.home, running !== undefined)
    const schemas = new Schemas()
    const total = { logs: 0, records: 0, bytes: 0, findings: 0 }
    const told = new Set<string>()
    const report = async (finding: Finding) => {
      total.findings++
      const file = fileOf(config.home, finding.log)
      const what = visible(finding.what)
      await (values.json ? putJson({ file, ...finding }) : put(`${file}:${finding.line}: ${red(what, config.colour)}\n`))
    }
    for (const finding of astray(shelf, only)) await report(finding)
    for (const log of withLost(shelf, heads)) {
      if ((only !== undefined && log !== only && !log.endsWith(`/sessions/${only}`)) || told.has(log)) continue
      // Asked first: views that a recorder has yet to commit may be behind, and are never ahead of an undamaged log.
      const head = heads.of(log)
      const look = () => lookAt({ shelf, events: features.events, schemas }, log, head)
      let { findings, verified } = look()
      if (findings.length > 0 && running) {
        await after(SETTLE_MS)
        ;({ findings, verified } = look())
      }
      for (const finding of findings) await report(finding)
      if (findings.length > 0) told.add(log)
      total.logs++
      total.records += verified.records
      total.bytes += verified.bytes
    }
    if (only !== undefined && total.logs === 0) {
      say(`There is no log ${only} in ${config.home}.`)
      return exit.found
    }
    if (values.json) await putJson(total)
    else if (total.findings === 0)
      say(green(`${count(total.records, 'record')} in ${count(total.logs, 'log')} verified.`, config.colour))
    else say(red(`${count(total.findings, 'finding')} in ${count(total.logs, 'log')}.`, config.colour))
    return total.findings === 0 ? exit.done : exit.found
  },
}

/** Where the views last saw each log end. */
interface Heads {
  of(log: string): KnownEnd | undefined
  all(): Iterable<string>
}

function* astray(shelf: FileShelf, only: string | undefined): Generator<Finding> {
  if (only !== undefined) return
  const what = 'it leads elsewhere: nothing is read or written through links'
  for (const log of shelf.astray()) yield { log, line: 0, what }
}

/** The logs that are there, and then those that the views know and that are not at their own place: some are there twice. */
function* withLost(shelf: FileShelf, heads: Heads): Generator<string> {
  yield* shelf.names()
  for (const log of heads.all()) if (!shelf.has(log)) yield log
}

/** Nothing where there are no views to ask, or where they may rightly be ahead of the logs. */
function headsOf(home: string, running: boolean): Heads {
  const none: Heads = { of: () => undefined, all: () => [] }
  const file = projectionOf(home)
  if (!existsSync(file)) return none
  if (!running && holdsLines(journalOf(home))) {
    say('The last recorder did not come to its end: whether a log was cut short cannot be told before the next start.')
    return none
  }
  try {
    const tables = new Tables(file, { readonly: true })
    const head = tables.sql('SELECT seq, size, hash FROM logs WHERE log = ?')
    const all = tables.sql('SELECT log FROM logs ORDER BY log').pluck()
    return { of: (log) => head.get(log) as KnownEnd | undefined, all: () => all.all() as string[] }
  } catch {
    say('The views cannot be read: whether a log was cut short at a line’s end is not checked.')
    return none
  }
}

/** Does a journal that nobody is writing still hold lines, which the next start copies to their logs? */
const holdsLines = (journal: string) =>
  existsSync(journal) &&
  readdirSync(journal).some(
    (name) => name.endsWith('.wal') && (statSync(join(journal, name), { throwIfNoEntry: false })?.size ?? 0) > HEADER,
  )
