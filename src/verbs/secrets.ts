// Lists the keys that sign and seal, and makes new ones to do so from now on, whether or not a recorder is running.

import { askHolder, holder, needData } from '../cli/reach.ts'
import { exit, put, putJson, Usage, type Verb } from '../cli/verb.ts'
import type { Config } from '../config.ts'
import type { ShownKey } from '../core/vault.ts'
import { openLog, secretsOf } from '../open.ts'

export const secretsVerb: Verb = {
  does: 'List the keys that sign tokens and seal second factors, or rotate: new ones do, and nobody is signed out.',
  usage: `sessile secrets list [--json]
  sessile secrets rotate [--json]`,
  options: { json: { type: 'boolean' } },
  words: 1,
  async run({ config, values, words: [what = 'list'] }) {
    if (what !== 'list' && what !== 'rotate') throw new Usage(`secrets can list and rotate, not ${what}`)
    needData(config)
    for (const key of await keysAfter(config, what)) await (values.json ? putJson(key) : put(`${lineOf(key)}\n`))
    return exit.done
  },
}

async function keysAfter(config: Config, what: 'list' | 'rotate'): Promise<ShownKey[]> {
  const running = holder(config)
  if (running) return ((await askHolder(config, running, 'POST', `/operator/secrets.${what}`, {})) as { keys: ShownKey[] }).keys
  // Whoever holds the log holds the secrets.
  const log = openLog({ config })
  try {
    return await secretsOf(config)[what](Date.now())
  } finally {
    log.close()
  }
}

const lineOf = ({ kid, made_at, use, until }: ShownKey) => [kid, made_at, until === null ? use : `${use} until ${until}`].join('\t')
