// Lists, invites, deactivates and reactivates accounts, whether or not a recorder is running. The first admin is invited so.

import { at, holder, needData, reach, urlOf } from '../cli/reach.ts'
import { exit, put, putJson, say, text, Usage, type Values, type Verb, visible } from '../cli/verb.ts'
import type { Config } from '../config.ts'

interface Shown {
  account_id: string
  name: string
  role: string
  has_password: boolean
  invited_until: string | null
  deactivated_at: string | null
}

interface Invited {
  account_id: string
  link: string
  expires_at: string
}

export const accountsVerb: Verb = {
  does: 'List and invite accounts, and say who may sign in.',
  usage: `sessile accounts list [--role ROLE] [--json]
  sessile accounts invite --name NAME --role ROLE [--account ID] [--json]
  sessile accounts invite ACCOUNT_ID [--json]       a new link, such as for a forgotten password
  sessile accounts deactivate ACCOUNT_ID [--json]
  sessile accounts reactivate ACCOUNT_ID [--json]`,
  options: {
    name: { type: 'string' },
    role: { type: 'string' },
    account: { type: 'string' },
    json: { type: 'boolean' },
  },
  words: 2,
  run({ config, values, words: [what = 'list', account_id] }) {
    if (what === 'list') return list(config, values)
    if (what === 'invite') return account_id === undefined ? invite(config, values) : inviteAgain(config, values, account_id)
    if (what !== 'deactivate' && what !== 'reactivate')
      throw new Usage(`accounts can list, invite, deactivate and reactivate, not ${what}`)
    if (account_id === undefined) throw new Usage(`accounts ${what} names an account: sessile accounts list shows them`)
    return turn(config, values, what, account_id)
  },
}

async function list(config: Config, values: Values): Promise<number> {
  needData(config)
  const role = text(values.role)
  let after: string | null = ''
  while (after !== null) {
    const asked = { limit: '200', ...(role === undefined ? {} : { role }), ...(after === '' ? {} : { after }) }
    const page = (await reach(config, at('GET /api/v1/accounts'), asked)) as { accounts: Shown[]; next_after: string | null }
    for (const account of page.accounts) await (values.json ? putJson(account) : put(`${lineOf(account)}\n`))
    after = page.next_after
  }
  return exit.done
}

async function invite(config: Config, values: Values): Promise<number> {
  const [name, role, account_id] = [text(values.name), text(values.role), text(values.account)]
  if (name === undefined || role === undefined)
    throw new Usage('accounts invite names somebody and their role: --name NAME --role ROLE')
  const asked = { name, role, ...(account_id === undefined ? {} : { account_id }) }
  return tell(config, values, (await reach(config, at('POST /api/v1/accounts'), asked)) as Invited)
}

async function inviteAgain(config: Config, values: Values, account_id: string): Promise<number> {
  needData(config)
  return tell(config, values, (await reach(config, at('POST /api/v1/accounts/{account_id}/invite'), { account_id })) as Invited)
}

async function tell(config: Config, values: Values, invited: Invited): Promise<number> {
  const running = holder(config)
  const from = config.reached.url ?? (running?.url ? urlOf(running, '/').origin : undefined)
  const link = `${from ?? ''}${invited.link}`
  if (values.json) await putJson({ ...invited, link })
  else {
    say(`${invited.account_id} sets a password by this link, once and before ${invited.expires_at}. It is shown this once:`)
    await put(`${link}\n`)
  }
  return exit.done
}

async function turn(config: Config, values: Values, what: 'deactivate' | 'reactivate', account_id: string): Promise<number> {
  needData(config)
  const answer = await reach(config, at(`POST /api/v1/accounts/{account_id}/${what}`), { account_id })
  if (values.json) await putJson(answer)
  else say(what === 'deactivate' ? `${account_id} is refused from now on.` : `${account_id} may sign in again.`)
  return exit.done
}

const stateOf = ({ has_password, invited_until, deactivated_at }: Shown) => {
  if (deactivated_at !== null) return `deactivated ${deactivated_at}`
  return invited_until === null ? (has_password ? 'active' : 'linked') : `invited until ${invited_until}`
}

const lineOf = (account: Shown) => [account.account_id, account.role, stateOf(account), visible(account.name)].join('\t')
