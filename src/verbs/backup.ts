// Brings what is new in the data directory to a backup of it, while a recorder serves or while nobody does, or checks a
// backup that was made.

import { existsSync, readdirSync, realpathSync } from 'node:fs'
import { constants, setPriority } from 'node:os'
import { dirname, join, relative, resolve, sep } from 'node:path'
import { askHolder, holder, needData } from '../cli/reach.ts'
import { exit, put, putJson, say, Usage, type Verb, visible } from '../cli/verb.ts'
import type { Config } from '../config.ts'
import { Refusal } from '../core/errors.ts'
import { leftIn } from '../log/joined.ts'
import { Held } from '../log/lock.ts'
import { type Original, Restarted, save, type Told } from '../log/saving.ts'
import { FileShelf, journalOf } from '../log/shelf.ts'

export const backupVerb: Verb = {
  does: 'Save the data directory, or what is new in it, to a folder outside of it.',
  usage: 'sessile backup FOLDER [--forget] [--json]      (sessile restore FOLDER --check looks whether it is whole)',
  options: { forget: { type: 'boolean' }, json: { type: 'boolean' } },
  words: 1,
  async run({ config, values, words: [folder] }) {
    if (folder === undefined) throw new Usage('name the folder to save to: sessile backup FOLDER')
    needData(config)
    const to = resolve(folder)
    refuseWithin(config.home, to)
    const began = performance.now()
    const told = await whole(config, to, values.forget === true)
    const seconds = (performance.now() - began) / 1000
    for (const { name, what } of told.findings) say(visible(`${name}: ${what}`))
    if (values.json) await putJson({ to, ...told, seconds })
    else await put(`${inWords(told, to)}\n`)
    return told.findings.length === 0 ? exit.done : exit.found
  },
}

/** A backup that lies in what it saves goes with it, and would be a change to it. */
function refuseWithin(home: string, to: string): void {
  let there = to
  while (!existsSync(there)) there = dirname(there)
  const way = relative(realpathSync(home), join(realpathSync(there), relative(there, to)))
  if (way === '' || (way !== '..' && !way.startsWith(`..${sep}`)))
    throw new Refusal(
      'refused',
      'backup-within',
      `A backup does not belong into the data that it saves: name a folder outside of ${home}.`,
    )
}

/** How often it begins anew because a recorder was started meanwhile. */
const MOST_TRIES = 5

async function whole(config: Config, to: string, forget: boolean): Promise<Told> {
  // Whoever is recording goes first.
  setPriority(constants.priority.PRIORITY_LOW)
  for (let tries = 1; ; tries++) {
    const life = lifeOf(config.home)
    try {
      const { until, ...original } = await present(config)
      return await save(to, original, { until, forget, stillSo: () => lifeOf(config.home) === life })
    } catch (error) {
      if (!(error instanceof Restarted)) throw error
      if (tries === MOST_TRIES)
        throw new Refusal('unavailable', 'restarted', 'The recorder was started anew again and again: this backup does not count.')
    }
  }
}

/** What there is to save: up to a moment that the recorder names, or all that a start would find. */
async function present(config: Config): Promise<Original & { until: string | undefined }> {
  const { home } = config
  const running = holder(config)
  if (!running) {
    const shelf = leftIn(home)
    return { home, shelf, end: (log) => shelf.end(log), misfits: shelf.misfits(), until: undefined }
  }
  const { until } = (await askHolder(config, running, 'POST', '/operator/backup.begins', {}).catch((error) => {
    // Nobody answers, or somebody else holds the data now: it has just ended.
    throw error instanceof Held && holder(config)?.pid !== running.pid ? new Restarted() : error
  })) as { until: string }
  return { home, shelf: new FileShelf(home), until }
}

/** Each start of a recorder begins a new epoch of the journal. */
const lifeOf = (home: string) =>
  existsSync(journalOf(home))
    ? readdirSync(journalOf(home))
        .filter((name) => name.endsWith('.wal'))
        .map((name) => name.split('-')[0] as string)
        .sort()
        .at(-1)
    : undefined

function inWords(told: Told, to: string): string {
  const { records, files, made, grown, replaced, gone, unchanged, written, until } = told
  const changes = [
    [made, 'new'],
    [grown, 'grown'],
    [replaced, 'replaced because lines were erased'],
    [gone, 'gone'],
    [unchanged, 'as they were'],
  ].flatMap(([n, what]) => (n ? [`${n} ${what}`] : []))
  return `${records} records up to ${until} are saved in ${to}: ${files} files (${changes.join(', ')}), ${written} bytes written.`
}
