// Keys: how devices prove who they are, and operators beside their accounts. A key is made, listed and revoked; its
// secret is shown once and kept only as a digest.

import * as z from 'zod'
import { command } from '../core/command.ts'
import { events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { numbered, opaqueId, sha256 } from '../core/fields.ts'
import { digest, reservedIds } from '../core/ids.ts'
import { pageOf, Where } from '../core/page.ts'
import type { Caller } from '../core/policy.ts'
import { Listed, query } from '../core/query.ts'
import type { Recorded } from '../core/record.ts'
import { type Some, turn } from '../core/turn.ts'
import { type Read, type Row, view } from '../core/view.ts'
import { accounts, byCaller, deactivated, moved } from './accounts.ts'

const users = z.union([z.literal('all'), z.array(opaqueId).min(1).max(10_000)])
const keyId = numbered('key')
/** Keys are held by devices, and by those who administer. */
const holders = ['device', 'admin'] as const
const about = { role: z.enum(holders), users, system: z.boolean(), name: z.string().max(200).optional() }

export const { created, revoked } = events(
  'key',
  { home: 'account', source: 'keys' },
  {
    created: {
      v: 1,
      does: 'A key was made for an account or a device. Its secret was shown once; here stands its SHA-256.',
      data: z.strictObject({ key_id: keyId, ...about, secret_sha256: sha256 }),
      says: ({ user_id, data }) => `A ${data.role} key was made for ${user_id}.`,
      sensitivity: 'plain',
    },
    revoked: {
      v: 1,
      does: 'A key was revoked: from now on it opens nothing.',
      data: z.strictObject({ key_id: keyId }),
      says: ({ user_id }) => `A key of ${user_id} was revoked.`,
      sensitivity: 'plain',
    },
  },
)

const columns = {
  key_id: 'TEXT PRIMARY KEY',
  account_id: 'TEXT NOT NULL -- the account or device that holds it',
  role: 'TEXT NOT NULL -- device or admin',
  users: "TEXT NOT NULL -- JSON: 'all', or the ids of the users in its scope",
  system: 'INTEGER NOT NULL -- 1 where it may record in the name of the system',
  name: 'TEXT -- what people call it',
  secret_sha256: 'TEXT NOT NULL',
  created_at: 'TEXT NOT NULL',
  revoked_at: 'TEXT -- NULL while it works',
} as const

export const keys = view('keys', 'Every key that was made.', columns, {
  indexes: ['UNIQUE (secret_sha256)', '(created_at, key_id)'],
})
  .on(created, ({ user_id, timestamp, data: { key_id, role, users, system, name, secret_sha256 } }, rows) =>
    rows.put({
      key_id,
      account_id: user_id,
      role,
      users: JSON.stringify(users),
      system: Number(system),
      name,
      secret_sha256,
      created_at: timestamp,
    }),
  )
  .on(revoked, ({ timestamp, data: { key_id } }, rows) => rows.set({ key_id }, { revoked_at: timestamp }))
  .on(deactivated, ({ user_id, timestamp }, rows) => {
    for (const { key_id } of rows.find('WHERE account_id = ? AND revoked_at IS NULL', user_id))
      rows.set({ key_id }, { revoked_at: timestamp })
  })
  // Whoever no longer administers does not do so by a key either.
  .on(moved, ({ user_id, timestamp, data }, rows) => {
    if (data.role === 'admin') return
    for (const { key_id } of rows.find("WHERE account_id = ? AND role = 'admin' AND revoked_at IS NULL", user_id))
      rows.set({ key_id }, { revoked_at: timestamp })
  })

type KeyRow = Row<typeof columns>

const shown = z.object({
  key_id: z.string(),
  account_id: z.string(),
  ...about,
  name: z.string().nullable(),
  created_at: z.string(),
  revoked_at: z.string().nullable(),
})

const shownOf = (row: KeyRow): z.infer<typeof shown> => ({
  key_id: row.key_id,
  account_id: row.account_id,
  role: row.role as (typeof holders)[number],
  users: JSON.parse(row.users) as 'all' | string[],
  system: row.system === 1,
  name: row.name,
  created_at: row.created_at,
  revoked_at: row.revoked_at,
})

// Which key a digest belongs to, so that the many requests of one caller are one look-up. Whether the key still works, and
// that the digest is its own, is looked at each time.
const lately = new Map<string, string>()
const MOST_LATELY = 4096
const callers = new WeakMap<KeyRow, Caller>()

/** Who holds the secret with this digest; undefined for nobody. */
export function holderOf(read: Read, stated: string): Caller | undefined {
  const known = lately.get(stated)
  const row = (known === undefined ? undefined : read(keys).get({ key_id: known })) ?? read(keys).get({ secret_sha256: stated })
  // Digests are compared, not secrets: what the time of that tells of a digest tells nothing of what it was made from.
  if (!row || row.revoked_at !== null || row.secret_sha256 !== stated) return undefined
  if (row.key_id !== known) {
    if (lately.size >= MOST_LATELY) lately.clear()
    lately.set(stated, row.key_id)
  }
  let caller = callers.get(row)
  if (!caller) {
    const { account_id, role, users, system } = shownOf(row)
    caller = { account_id, role, users, system, by: row.key_id }
    callers.set(row, caller)
  }
  return caller
}

const create = command({
  at: 'POST /api/v1/keys',
  does: 'Make a key. Its secret is in this answer and nowhere else.',
  may: 'administer',
  makes: true,
  input: z.strictObject({
    account_id: opaqueId.describe('the account or device that will hold it'),
    role: z.enum(holders).default('device'),
    users: users.optional().describe('the users in its scope: a list, or all; an admin’s reach all'),
    system: z.boolean().default(false).describe('may it record in the name of the system?'),
    name: z.string().max(200).optional(),
  }),
  output: shown.omit({ revoked_at: true }).extend({ secret: z.string().optional() }),
  whose: () => [],
  refuses: {
    'scope-required': 'invalid',
    'scope-of-admin': 'invalid',
    'reserved-account': 'invalid',
    'account-deactivated': 'refused',
  },
  decide: ({ input: { account_id, role, users, system, name }, caller, read, ulid, secret, reveal, refuse }) => {
    // Records in these names are asserted by Sessile itself, and by the owner of the files.
    if (reservedIds.includes(account_id)) throw refuse('reserved-account', `${account_id} is not an account that holds keys.`)
    if (read(accounts).get({ account_id })?.deactivated_at) throw refuse('account-deactivated', 'The account has been deactivated.')
    // A list would promise what the table does not keep.
    if (role === 'admin' && Array.isArray(users)) throw refuse('scope-of-admin', 'An admin’s key reaches all, and names no users.')
    const scope = users ?? (role === 'admin' ? 'all' : undefined)
    if (!scope) throw refuse('scope-required', 'A device’s key names the users in its scope, or all.')
    const token = `sessile_${secret()}`
    reveal({ secret: token })
    const data = {
      key_id: `key_${ulid()}`,
      role,
      users: scope,
      system,
      ...(name === undefined ? {} : { name }),
      secret_sha256: digest(token),
    }
    return [created(byCaller(account_id, caller), data)]
  },
  answer: ([record]) => {
    const { user_id, timestamp, data } = record as Recorded<z.infer<typeof created.data>>
    const { secret_sha256: _, name = null, ...rest } = data
    return { ...rest, name, account_id: user_id, created_at: timestamp }
  },
})

/** The admin key that the operator presets: the same on every start, recorded once. */
export const preset = command({
  does: 'Take an admin key whose secret the operator chose.',
  may: 'administer',
  input: z.strictObject({ secret: z.string().min(32) }),
  output: z.object({}),
  whose: () => [],
  refuses: { 'key-known': 'refused' },
  decide: ({ input: { secret }, read, ulid, refuse }) => {
    if (read(keys).get({ secret_sha256: digest(secret) })) throw refuse('key-known', 'This key is known.')
    const data = {
      key_id: `key_${ulid()}`,
      role: 'admin' as const,
      users: 'all' as const,
      system: true,
      name: 'preset',
      secret_sha256: digest(secret),
    }
    return [created({ user_id: 'admin', performer_id: 'system' }, data)]
  },
})

const revoke = command({
  at: 'POST /api/v1/keys/{key_id}/revoke',
  does: 'Revoke a key: from the next request on it opens nothing.',
  may: 'administer',
  input: z.strictObject({ key_id: z.string().max(64) }),
  output: z.looseObject({ key_id: z.string(), timestamp: z.string() }),
  whose: () => [],
  refuses: { 'key-not-found': 'not-found', 'key-already-revoked': 'refused' },
  decide: ({ input: { key_id }, caller, read, refuse }) => {
    const row = read(keys).get({ key_id })
    if (!row) throw refuse('key-not-found', 'There is no such key.')
    if (row.revoked_at !== null) throw refuse('key-already-revoked', 'The key has already been revoked.')
    return [revoked(byCaller(row.account_id, caller), { key_id })]
  },
})

/** A few at a time: the scope of each may name thousands. */
const A_FEW = 16

async function* allShown(read: Read): Some<z.infer<typeof shown>> {
  for (let cursor: string | null | undefined; cursor !== null; await turn()) {
    const page = pageOf(read(keys), new Where(), ['created_at', 'key_id'], { limit: A_FEW, cursor })
    yield page.rows.map(shownOf)
    cursor = page.next_cursor
  }
}

const list = query({
  at: 'GET /api/v1/keys',
  does: 'Every key, newest first, without its secret.',
  did: 'seen the list of keys',
  may: 'administer',
  input: z.strictObject({}),
  output: z.object({ keys: z.array(shown) }),
  read: ({ read, permit }) => {
    permit()
    return new Listed({}, 'keys', allShown(read))
  },
})

/** Was there ever an admin key? One that was revoked is not to come back by itself, told to whatever keeps what we print. */
export const hadAdmin = (read: Read) => read(keys).find("WHERE role = 'admin' LIMIT 1").length > 0

export const makeKey = create

export const keysFeature: Feature = {
  name: 'keys',
  events: [created, revoked],
  views: [keys],
  commands: [create, preset, revoke],
  queries: [list],
}
