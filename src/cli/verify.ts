// Checks seals and schemas of one log or all, and names the file and line of whatever is wrong.

import { existsSync } from 'node:fs'
import { Schemas } from '../core/schemas.ts'
import { Tables } from '../core/tables.ts'
import { type Finding, verify } from '../core/verify.ts'
import { features } from '../features/index.ts'
import { FileShelf, fileOf, projectionOf } from '../log/shelf.ts'
import { holder } from './reach.ts'
import { exit, green, put, putJson, red, say, type Verb } from './verb.ts'

/** How long a line that a recorder is just writing may look unfinished. */
const SETTLE_MS = 300

export const verifyVerb: Verb = {
  does: 'Check the seals and schemas of one log or all.',
  usage: 'sessile verify [SESSION_ID | LOG] [--json]',
  options: { json: { type: 'boolean' } },
  async run({ config, values, words: [only] }) {
    const shelf = new FileShelf(config.home)
    const running = holder(config)
    const heads = headsOf(config.home)
    const schemas = new Schemas()
    const total = { logs: 0, records: 0, bytes: 0, findings: 0 }
    const report = async (finding: Finding) => {
      total.findings++
      const file = fileOf(config.home, finding.log)
      await (values.json ? putJson({ file, ...finding }) : put(`${file}:${finding.line}: ${red(finding.what, config.colour)}\n`))
    }
    for (const log of shelf.names()) {
      if (only !== undefined && log !== only && !log.endsWith(`/sessions/${only}`)) continue
      const look = () => {
        const findings: Finding[] = []
        const verified = verify({ shelf, events: features.events, schemas }, log, (finding) => findings.push(finding))
        const head = heads(log)
        // Views that a recorder has yet to commit may be behind; they are never ahead of an undamaged log.
        if (head && findings.length === 0 && head.size > verified.bytes) {
          findings.push({
            log,
            line: verified.records + 1,
            what: `the log ends after ${verified.records} records, and it had ${head.seq}`,
          })
        }
        return { findings, verified }
      }
      let { findings, verified } = look()
      if (findings.length > 0 && running) {
        await new Promise((resolve) => setTimeout(resolve, SETTLE_MS))
        ;({ findings, verified } = look())
      }
      for (const finding of findings) await report(finding)
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

const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`

/** Where the views last saw each log end; nothing where there are none to ask. */
function headsOf(home: string): (log: string) => { seq: number; size: number } | undefined {
  const file = projectionOf(home)
  if (!existsSync(file)) return () => undefined
  try {
    const tables = new Tables(file, { readonly: true })
    const heads = tables.sql('SELECT seq, size FROM logs WHERE log = ?')
    return (log) => heads.get(log) as { seq: number; size: number } | undefined
  } catch {
    say('The views cannot be read: whether a log was cut short at a line’s end is not checked.')
    return () => undefined
  }
}
