// Makes, lists and revokes keys, whether or not a recorder is running.

import { at, needData, reach } from '../cli/reach.ts'
import { exit, put, putJson, say, text, Usage, type Values, type Verb, visible } from '../cli/verb.ts'
import type { Config } from '../config.ts'

interface Shown {
  key_id: string
  account_id: string
  role: string
  users: 'all' | string[]
  system: boolean
  name: string | null
  revoked_at: string | null
}

export const keysVerb: Verb = {
  does: 'Make, list and revoke keys.',
  usage: `sessile keys list [--json]
  sessile keys create --account ID (--users a,b | --all-users | --role admin) [--system] [--name TEXT] [--json]
  sessile keys revoke KEY_ID [--json]`,
  options: {
    account: { type: 'string' },
    role: { type: 'string' },
    users: { type: 'string' },
    'all-users': { type: 'boolean' },
    system: { type: 'boolean' },
    name: { type: 'string' },
    json: { type: 'boolean' },
  },
  words: 2,
  run({ config, values, words: [what = 'list', key_id] }) {
    if (what === 'list') return list(config, values)
    if (what === 'create') return create(config, values)
    if (what === 'revoke' && key_id) return revoke(config, values, key_id)
    throw new Usage(
      what === 'revoke' ? 'keys revoke names a key: sessile keys list shows them' : `keys can list, create and revoke, not ${what}`,
    )
  },
}

async function list(config: Config, values: Values): Promise<number> {
  needData(config)
  const { keys } = (await reach(config, at('GET /api/v1/keys'), {})) as { keys: Shown[] }
  for (const key of keys) await (values.json ? putJson(key) : put(`${lineOf(key)}\n`))
  return exit.done
}

async function revoke(config: Config, values: Values, key_id: string): Promise<number> {
  needData(config)
  const answer = await reach(config, at('POST /api/v1/keys/{key_id}/revoke'), { key_id })
  if (values.json) await putJson(answer)
  else say(`The key ${key_id} opens nothing any more.`)
  return exit.done
}

async function create(config: Config, values: Values): Promise<number> {
  const account_id = text(values.account)
  if (!account_id) throw new Usage('keys create names the account or device that will hold the key: --account ID')
  if (values['all-users'] && values.users !== undefined)
    throw new Usage('a key reaches --all-users or the --users it names, not both')
  const input = {
    account_id,
    role: values.role,
    users: values['all-users'] ? 'all' : text(values.users)?.split(','),
    system: values.system,
    name: values.name,
  }
  const given = Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined))
  const made = (await reach(config, at('POST /api/v1/keys'), given)) as Shown & { secret: string }
  if (values.json) await putJson(made)
  else {
    say(`Made ${made.key_id} for ${made.account_id}. The key is shown this once:`)
    await put(`${made.secret}\n`)
  }
  return exit.done
}

const lineOf = ({ key_id, account_id, role, users, system, name, revoked_at }: Shown) =>
  [
    key_id,
    account_id,
    role,
    users === 'all' ? 'all users' : users.join(','),
    system ? 'system' : '-',
    revoked_at ? `revoked ${revoked_at}` : 'works',
    visible(name ?? ''),
  ].join('\t')
