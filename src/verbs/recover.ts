// Salvages a damaged data directory into a new one, and tells line by line what could not be saved. It never works in
// place, and looks at what it made as if somebody else had made it.

import { resolve } from 'node:path'
import { count, glimpse } from '../cli/looking.ts'
import { aboutLostSessions, makeWhole } from '../cli/make-whole.ts'
import { holder, needData } from '../cli/reach.ts'
import { salvageLogs, sourceOf, type Totals } from '../cli/recovering.ts'
import type { Told } from '../cli/sought.ts'
import { dim, exit, green, put, putJson, red, say, text, Usage, type Verb, visible } from '../cli/verb.ts'
import type { Config } from '../config.ts'
import { Schemas } from '../core/schemas.ts'
import { verify } from '../core/verify.ts'
import { features } from '../features/index.ts'
import { Held } from '../log/lock.ts'
import { Salvage } from '../log/salvage.ts'
import { FileShelf, projectionOf } from '../log/shelf.ts'

export const recoverVerb: Verb = {
  does: 'Salvage a damaged data directory into a new one.',
  usage: 'sessile recover --to NEW_DIR [--from DIR] [--json]',
  options: { from: { type: 'string' }, to: { type: 'string' }, json: { type: 'boolean' } },
  makes: ({ to }) => text(to),
  async run({ config, values }) {
    const target = text(values.to)
    if (!target) throw new Usage('--to names the new directory')
    const from = { ...config, home: resolve(text(values.from) ?? config.home) }
    needData(from)
    mustBeFree(from)
    const salvage = Salvage.begin(from.home, target)
    const to = { ...config, home: salvage.home }
    const told: Told[] = []
    const tell = async (one: Told) => {
      told.push(one)
      await (values.json ? putJson(one) : put(print(one, config.colour)))
    }
    const totals: Totals = { logs: 0, records: 0, bytes: 0 }
    const views = glimpse(projectionOf(from.home), { folder: to.home, by: 'copy' })
    try {
      for (const one of salvageLogs(sourceOf(from.home, views), salvage, totals)) await tell(one)
      for await (const one of makeWhole(to, salvage, views)) await tell(one)
      for (const one of aboutLostSessions(to, views)) await tell(one)
    } finally {
      if ('close' in views) views.close()
    }
    mustBeFree(from)
    mustBeWhole(salvage.home)
    if (told.length > 0) salvage.aside('report.jsonl', [Buffer.from(told.map((one) => `${JSON.stringify(one)}\n`).join(''))])
    await salvage.finish()
    const lost = told.filter(({ level }) => level === 'lost').length
    if (values.json) await putJson({ to: salvage.home, ...totals, lost })
    else say(summary(salvage.home, totals, lost, config.colour))
    return lost > 0 ? exit.lost : exit.done
  },
}

/** Asked before and after: what a recorder writes meanwhile would be missing. */
function mustBeFree(config: Config): void {
  const running = holder(config)
  if (running) throw new Held(config.home, running)
}

function mustBeWhole(home: string): void {
  const shelf = new FileShelf(home)
  const schemas = new Schemas()
  for (const log of shelf.names()) {
    verify({ shelf, events: features.events, schemas }, log, ({ line, what }) => {
      throw new Error(`broken: line ${line} of ${log} was salvaged, and does not verify (${what})`)
    })
  }
}

const MARKS = { lost: 'LOST  ', mended: 'mended', note: 'note  ' }

function print({ level, log, file, line, from, to, what, kept }: Told, colour: boolean): string {
  const mark =
    level === 'lost' ? red(MARKS[level], colour) : level === 'mended' ? green(MARKS[level], colour) : dim(MARKS[level], colour)
  const where = (file ?? log) === undefined ? '' : `${file ?? log}${line === undefined ? '' : `:${line}`}: `
  const bytes = from === undefined ? '' : ` (bytes ${from} to ${to})`
  const aside = kept === undefined ? '' : ` Kept in ${kept}.`
  return `${mark} ${visible(`${where}${what}${bytes}${aside}`)}\n`
}

function summary(home: string, { logs, records }: Totals, lost: number, colour: boolean): string {
  const saved = `${count(records, 'record')} in ${count(logs, 'log')} salvaged into ${home}`
  if (lost === 0) return green(`${saved}: nothing is lost.`, colour)
  return red(`${saved}, with loss: ${lost} of what is told above. It is also in ${home}/salvage/report.jsonl.`, colour)
}
