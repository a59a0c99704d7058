// Makes a data directory of a backup, once every file and every seal of it has been looked at; or only looks.

import { resolve } from 'node:path'
import { exit, instant, put, putJson, say, text, Usage, type Verb, visible } from '../cli/verb.ts'
import { Refusal } from '../core/errors.ts'
import { Schemas } from '../core/schemas.ts'
import { verify } from '../core/verify.ts'
import { features } from '../features/index.ts'
import { Restoring } from '../log/restoring.ts'
import { Backup } from '../log/saved.ts'
import { rebuildAlone } from './rebuild.ts'

export const restoreVerb: Verb = {
  does: 'Make a data directory of a backup, or only check the backup.',
  usage: 'sessile restore FOLDER [--to HOME] [--at TIME] [--check] [--json]',
  options: { to: { type: 'string' }, at: { type: 'string' }, check: { type: 'boolean' }, json: { type: 'boolean' } },
  words: 1,
  makes: ({ to }) => text(to),
  async run({ config, values, words: [folder] }) {
    if (folder === undefined) throw new Usage('name the folder of the backup: sessile restore FOLDER')
    if (values.check && (values.to !== undefined || values.at !== undefined))
      throw new Usage('--check restores nothing: it takes no --to and no --at')
    const at = instant('at', values.at)
    const backup = Backup.open(resolve(folder))
    const home = resolve(text(values.to) ?? config.home)
    const restoring = values.check ? undefined : new Restoring(home)
    refuseFaults(backup)
    const findings = verified(backup)
    for (const finding of findings) say(visible(finding))
    const { until, files } = backup.manifest
    let ok = findings.length === 0
    if (!restoring) {
      if (values.json) await putJson({ from: backup.to, files: files.size, until, findings: findings.length })
      else await put(`The backup is whole: ${files.size} files, with all that was recorded up to ${until}.\n`)
    } else {
      try {
        const done = await restoring.fill(backup, at === undefined ? undefined : new Date(at).toISOString())
        const views = await rebuildAlone({ ...config, home: restoring.aside })
        ok &&= views.ok
        restoring.finish()
        if (values.json) await putJson({ from: backup.to, to: home, ...done, views: views.ok, findings: findings.length })
        else await put(`${done.records} records in ${done.files} files are restored in ${home}, the last of ${done.until}.\n`)
      } catch (error) {
        throw restoring.undo(error)
      }
    }
    return ok ? exit.done : exit.found
  },
}

/** Nothing is restored of a backup of which anything is not what was saved. */
function refuseFaults(backup: Backup): void {
  const faults = [...backup.faults()]
  for (const { name, what } of faults) say(visible(`${name}: ${what}`))
  if (faults.length === 0) return
  throw new Refusal(
    'refused',
    'backup-damaged',
    `The backup in ${backup.to} is not whole: ${faults.length} of its ${backup.manifest.files.size} files ${faults.length === 1 ? 'is' : 'are'} not what was saved. ` +
      'Nothing was restored.',
  )
}

/** What was wrong with the data when it was saved: it is restored as it was, and told. */
function verified(backup: Backup): string[] {
  const findings: string[] = []
  const schemas = new Schemas()
  for (const log of backup.names())
    verify({ shelf: backup, events: features.events, schemas }, log, ({ line, what }) =>
      findings.push(`logs/${log}.jsonl:${line}: ${what}, and so it was when it was saved`),
    )
  return findings
}
