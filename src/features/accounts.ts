// Accounts: people who sign in. An account is invited by an admin, or signs up where the deployment allows it; it has one
// role, and is refused everywhere from the moment it is deactivated. A patient's account has the id of the user whose
// data it is.

import * as z from 'zod'
import { command } from '../core/command.ts'
import { events, type Owner } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { opaqueId, sha256 } from '../core/fields.ts'
import { digest, reservedIds } from '../core/ids.ts'
import { Where } from '../core/page.ts'
import type { Caller } from '../core/policy.ts'
import { query, whole } from '../core/query.ts'
import type { Recorded } from '../core/record.ts'
import { type Read, type Row, view } from '../core/view.ts'
import { passwordHash } from './hashing.ts'

/** The roles that people have. */
const accountRoles = ['patient', 'therapist', 'researcher', 'analyst', 'admin'] as const
export type AccountRole = (typeof accountRoles)[number]
const role = z.enum(accountRoles)

/** What an account signs in by: nothing that looks like another name to anybody. Capitals make no difference. */
export const accountName = z
  .string()
  .min(3)
  .max(200)
  .regex(/^[!-~]+$/, 'must be an e-mail address or another name, of ASCII without spaces')
export const nameOf = (given: string) => given.toLowerCase()

const at = z.iso.datetime()
const INVITATION_MS = 72 * 3600 * 1000

export const { created, invited, accepted, deactivated, reactivated, moved, sought } = events(
  'account',
  { home: 'account', source: 'accounts' },
  {
    created: {
      v: 1,
      does: 'An account was made.',
      data: z.strictObject({ name: accountName, role }),
      says: ({ user_id, data }) => `The account ${user_id} was made (${data.role}).`,
      sensitivity: 'plain',
    },
    invited: {
      v: 1,
      does: 'A one-time link was made, by which an account sets its password. The link was shown once; here stands its SHA-256.',
      data: z.strictObject({ invitation_sha256: sha256, expires_at: at }),
      says: ({ user_id, data }) => `${user_id} was invited to set a password by ${data.expires_at}.`,
      sensitivity: 'plain',
    },
    accepted: {
      v: 1,
      does: 'An invitation was taken: its link opens nothing any more.',
      data: z.strictObject({}),
      says: ({ user_id }) => `${user_id} took the invitation.`,
      sensitivity: 'plain',
    },
    deactivated: {
      v: 1,
      does: 'An account was deactivated: it is refused everywhere, and its sign-ins have ended.',
      data: z.strictObject({}),
      says: ({ user_id }) => `The account ${user_id} was deactivated.`,
      sensitivity: 'plain',
    },
    reactivated: {
      v: 1,
      does: 'A deactivated account may sign in again.',
      data: z.strictObject({}),
      says: ({ user_id }) => `The account ${user_id} was reactivated.`,
      sensitivity: 'plain',
    },
    moved: {
      v: 1,
      does: 'An account was given another role.',
      data: z.strictObject({ role }),
      says: ({ user_id, data }) => `The account ${user_id} now has the role ${data.role}.`,
      sensitivity: 'plain',
    },
    sought: {
      v: 1,
      does: 'Somebody wanted to sign up under the name of this account. They were told nothing of it.',
      data: z.strictObject({}),
      says: ({ user_id }) => `Somebody wanted to sign up under the name of ${user_id}.`,
      sensitivity: 'plain',
    },
  },
)

export const { set: passwordSet } = events(
  'password',
  { home: 'account', source: 'accounts' },
  {
    set: {
      v: 1,
      does: 'An account has a new password, of which its Argon2id hash stands here. All its sign-ins ended, except the one that is kept.',
      data: z.strictObject({ hash: passwordHash, kept_signin_id: z.string().max(64).optional() }),
      says: ({ user_id }) => `The password of ${user_id} was set.`,
      sensitivity: 'plain',
    },
  },
)

const columns = {
  account_id: 'TEXT PRIMARY KEY -- of a patient the id of the user',
  name: 'TEXT NOT NULL -- what it signs in by, in lower case',
  role: 'TEXT NOT NULL -- patient, therapist, researcher, analyst or admin',
  password_hash: 'TEXT -- Argon2id; NULL while it has no password',
  invitation_sha256: 'TEXT -- of the link that is open; NULL for none',
  invitation_expires_at: 'TEXT',
  created_at: 'TEXT NOT NULL',
  deactivated_at: 'TEXT -- NULL while it may sign in',
} as const

export const accounts = view('accounts', 'Every account of a person.', columns, {
  indexes: ['UNIQUE (name)', 'UNIQUE (invitation_sha256) WHERE invitation_sha256 IS NOT NULL'],
})
  .on(created, ({ user_id, timestamp, data: { name, role } }, rows) =>
    rows.put({ account_id: user_id, name, role, created_at: timestamp }),
  )
  .on(invited, ({ user_id, data: { invitation_sha256, expires_at } }, rows) =>
    rows.set({ account_id: user_id }, { invitation_sha256, invitation_expires_at: expires_at }),
  )
  .on(accepted, ({ user_id }, rows) => rows.set({ account_id: user_id }, { invitation_sha256: null, invitation_expires_at: null }))
  .on(deactivated, ({ user_id, timestamp }, rows) =>
    rows.set({ account_id: user_id }, { deactivated_at: timestamp, invitation_sha256: null, invitation_expires_at: null }),
  )
  .on(reactivated, ({ user_id }, rows) => rows.set({ account_id: user_id }, { deactivated_at: null }))
  .on(moved, ({ user_id, data }, rows) => rows.set({ account_id: user_id }, { role: data.role }))
  // Whoever has a password of their own needs no link for one: it would lie about in their mail.
  .on(passwordSet, ({ user_id, data }, rows) =>
    rows.set({ account_id: user_id }, { password_hash: data.hash, invitation_sha256: null, invitation_expires_at: null }),
  )

export type AccountRow = Row<typeof columns>

/** Whose a record is that somebody makes of another. */
export const byCaller = (user_id: string, { account_id }: Caller): Owner => ({ user_id, performer_id: account_id })

/** In the name of the account itself. */
export const byItself = (account_id: string): Owner => ({ user_id: account_id, performer_id: account_id })

/** What is told of something that was recorded, where there is nothing else to tell. */
export const done = z.object({ timestamp: z.string() })
export const doneAt = (records: Recorded[]) => ({ timestamp: (records[0] as Recorded).timestamp })

/** The account, while it may sign in. */
export function activeAccount(read: Read, account_id: string): AccountRow | undefined {
  const row = read(accounts).get({ account_id })
  return row?.deactivated_at === null ? row : undefined
}

const shown = z.object({
  account_id: z.string(),
  name: z.string(),
  role,
  has_password: z.boolean(),
  invited_until: z.string().nullable(),
  created_at: z.string(),
  deactivated_at: z.string().nullable(),
})

const shownOf = (row: AccountRow): z.infer<typeof shown> => ({
  account_id: row.account_id,
  name: row.name,
  role: row.role as AccountRole,
  has_password: row.password_hash !== null,
  invited_until: row.invitation_expires_at,
  created_at: row.created_at,
  deactivated_at: row.deactivated_at,
})

// --- administration ---------------------------------------------------------------------------------------------------

/** A link, told once, and what is kept of it. What stands behind a `#` browsers send to nobody; the name is for the page to show. */
function newLink({ now, secret, name }: { now: number; secret: string; name: string }) {
  const token = `invite_${secret}`
  const kept = { invitation_sha256: digest(token), expires_at: new Date(now + INVITATION_MS).toISOString() }
  return { kept, told: { token, link: `/welcome#${token}&name=${encodeURIComponent(name)}` } }
}

const withLink = z.looseObject({
  account_id: z.string(),
  expires_at: z.string(),
  token: z.string().optional().describe('in this answer and nowhere else'),
  link: z.string().optional().describe('the page where it is taken, from the address of Sessile on'),
})

const inviting = (records: Recorded[]) => {
  const { user_id, data } = records.find(({ type }) => type === invited.type) as Recorded<z.infer<typeof invited.data>>
  return { account_id: user_id, expires_at: data.expires_at }
}

const invite = command({
  at: 'POST /api/v1/accounts',
  does: 'Invite somebody: makes their account, and a link by which they set their password, once and within three days.',
  may: 'administer',
  makes: true,
  input: z.strictObject({
    account_id: opaqueId.optional().describe('a new one where none is given; of a patient, the id of the user whose data it is'),
    name: accountName.describe('what they will sign in by'),
    role,
  }),
  output: withLink,
  whose: () => [],
  refuses: { 'account-exists': 'refused', 'name-taken': 'refused', 'reserved-account': 'invalid' },
  decide: ({ input, caller, read, now, ulid, secret, refuse, reveal }) => {
    const account_id = input.account_id ?? `acc_${ulid()}`
    if ([...reservedIds, 'admin'].includes(account_id))
      throw refuse('reserved-account', `${account_id} is not an account of a person.`)
    if (read(accounts).get({ account_id })) throw refuse('account-exists', 'There is an account with this id.')
    const name = nameOf(input.name)
    if (read(accounts).get({ name })) throw refuse('name-taken', 'Another account has this name.')
    const { kept, told } = newLink({ now, secret: secret(), name })
    reveal(told)
    const owner = byCaller(account_id, caller)
    return [created(owner, { name, role: input.role }), invited(owner, kept)]
  },
  answer: inviting,
})

const account = z.strictObject({ account_id: opaqueId })
const none = { 'account-not-found': 'not-found' } as const

/** An account by its id, or a refusal. */
function known(read: Read, account_id: string, refuse: (reason: 'account-not-found', detail: string) => Error): AccountRow {
  const row = read(accounts).get({ account_id })
  if (!row) throw refuse('account-not-found', 'There is no such account.')
  return row
}

const reinvite = command({
  at: 'POST /api/v1/accounts/{account_id}/invite',
  does: 'Make a new one-time link for an account, such as for somebody who forgot their password; an older link opens nothing any more.',
  may: 'administer',
  makes: true,
  input: account,
  output: withLink,
  whose: () => [],
  refuses: { ...none, 'account-deactivated': 'refused' },
  decide: ({ input: { account_id }, caller, read, now, secret, refuse, reveal }) => {
    const { name, deactivated_at } = known(read, account_id, refuse)
    if (deactivated_at !== null) throw refuse('account-deactivated', 'The account has been deactivated.')
    const { kept, told } = newLink({ now, secret: secret(), name })
    reveal(told)
    return [invited(byCaller(account_id, caller), kept)]
  },
  answer: inviting,
})

const deactivate = command({
  at: 'POST /api/v1/accounts/{account_id}/deactivate',
  does: 'Deactivate an account: its next request is refused, and its sign-ins have ended.',
  may: 'administer',
  input: account,
  output: done,
  whose: () => [],
  refuses: { ...none, 'account-deactivated': 'refused' },
  decide: ({ input: { account_id }, caller, read, refuse }) => {
    if (known(read, account_id, refuse).deactivated_at !== null)
      throw refuse('account-deactivated', 'The account has already been deactivated.')
    return [deactivated(byCaller(account_id, caller), {})]
  },
  answer: doneAt,
})

const reactivate = command({
  at: 'POST /api/v1/accounts/{account_id}/reactivate',
  does: 'Let a deactivated account sign in again, with the password it had.',
  may: 'administer',
  input: account,
  output: done,
  whose: () => [],
  refuses: { ...none, 'account-active': 'refused' },
  decide: ({ input: { account_id }, caller, read, refuse }) => {
    if (known(read, account_id, refuse).deactivated_at === null) throw refuse('account-active', 'The account is active.')
    return [reactivated(byCaller(account_id, caller), {})]
  },
  answer: doneAt,
})

const move = command({
  at: 'POST /api/v1/accounts/{account_id}/role',
  does: 'Give an account another role, from its next request on. Its admin keys open nothing any more where that is not admin.',
  may: 'administer',
  input: z.strictObject({ account_id: opaqueId, role }),
  output: done,
  whose: () => [],
  refuses: none,
  decide: ({ input: { account_id, role }, caller, read, refuse }) => {
    known(read, account_id, refuse)
    return [moved(byCaller(account_id, caller), { role })]
  },
  answer: doneAt,
})

const list = query({
  at: 'GET /api/v1/accounts',
  does: 'Accounts in the order of their ids.',
  did: 'seen a list of accounts',
  may: 'administer',
  input: z.strictObject({
    name: accountName.optional().describe('only the account of this name'),
    role: role.optional(),
    after: opaqueId.optional().describe('go on after this account'),
    limit: whole(1, 200).default(50),
  }),
  output: z.object({ accounts: z.array(shown), next_after: z.string().nullable() }),
  shows: ({ accounts }) => accounts.map(({ account_id }) => account_id),
  read: ({ input: { name, role, after = '', limit }, read, permit }) => {
    permit()
    const where = new Where()
    where.need('account_id > ?', after)
    if (name) where.need('name = ?', nameOf(name))
    if (role) where.need('role = ?', role)
    const rows = read(accounts).find(`${where.sql} ORDER BY account_id LIMIT ?`, ...where.values, limit + 1)
    const page = rows.slice(0, limit)
    return { accounts: page.map(shownOf), next_after: rows.length > limit ? (page.at(-1) as AccountRow).account_id : null }
  },
})

export const accountsFeature: Feature = {
  name: 'accounts',
  events: [created, invited, accepted, deactivated, reactivated, moved, sought, passwordSet],
  views: [accounts],
  commands: [invite, reinvite, deactivate, reactivate, move],
  queries: [list],
}
