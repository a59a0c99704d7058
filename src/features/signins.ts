// Sign-ins: a person signs in on a device and stays signed in there until they sign out, or do not come back for a week.
// A sign-in is a family of tokens: access tokens, good for half an hour, and refresh tokens, each good for one use, of
// which the log keeps the digest of the latest. Whoever uses an old one again has a copy, or was copied: the family ends.

import * as z from 'zod'
import { command, type Preparing } from '../core/command.ts'
import { Refusal } from '../core/errors.ts'
import { type Draft, events, type Owner } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { numbered, sha256 } from '../core/fields.ts'
import { digest } from '../core/ids.ts'
import type { Caller } from '../core/policy.ts'
import type { Recorded } from '../core/record.ts'
import type { Settings } from '../core/settings.ts'
import type { Claims, TokenKind } from '../core/vault.ts'
import { type Read, type Row, view } from '../core/view.ts'
import {
  type AccountRole,
  type AccountRow,
  accountName,
  accounts,
  activeAccount,
  byItself,
  deactivated,
  nameOf,
  passwordSet,
} from './accounts.ts'
import { reachOf } from './emergency.ts'
import { code, factorOf, prove, taking, used } from './factors.ts'
import { isPassword, statedPassword } from './hashing.ts'

const ACCESS_MS = 30 * 60 * 1000
const REFRESH_MS = 7 * 24 * 3600 * 1000
/** However often it is refreshed, a sign-in ends after this. */
const LONGEST_MS = 30 * 24 * 3600 * 1000
/** Two tabs that refresh at once have the same token in hand: within this time the one that came second is not a thief. */
const RACE_MS = 10_000

const signinId = numbered('sign')
const at = z.iso.datetime()
const whys = ['signed-out', 'signed-out-everywhere', 'token-reused'] as const

export const { began, refreshed, ended } = events(
  'signin',
  { home: 'account', source: 'signins' },
  {
    began: {
      v: 1,
      does: 'Somebody signed in. Of the refresh token its SHA-256 stands here.',
      data: z.strictObject({
        signin_id: signinId,
        by: z.enum(['password', 'identity']),
        second: z.enum(['totp', 'recovery-code']).optional(),
        device: z.string().max(100).optional(),
        refresh_sha256: sha256,
        expires_at: at,
      }),
      says: ({ user_id, data }) => `${user_id} signed in${data.device === undefined ? '' : ` on ${data.device}`}.`,
      sensitivity: 'plain',
    },
    refreshed: {
      v: 1,
      does: 'A sign-in goes on: its refresh token was used, and here stands the SHA-256 of the next.',
      data: z.strictObject({ signin_id: signinId, refresh_sha256: sha256, expires_at: at }),
      says: ({ user_id }) => `${user_id} is still signed in.`,
      sensitivity: 'plain',
    },
    ended: {
      v: 1,
      does: 'A sign-in ended, or where everywhere is said, all of the account’s: no token of it opens anything any more.',
      data: z.strictObject({ signin_id: signinId, why: z.enum(whys) }),
      says: ({ user_id, data }) =>
        data.why === 'token-reused'
          ? `A sign-in of ${user_id} was ended: an old token of it was used again.`
          : `${user_id} signed out${data.why === 'signed-out' ? '' : ' everywhere'}.`,
      sensitivity: 'plain',
    },
  },
)

const columns = {
  signin_id: 'TEXT PRIMARY KEY',
  account_id: 'TEXT NOT NULL',
  by: 'TEXT NOT NULL -- what it was proved by',
  second: 'TEXT -- the second factor that proved it; NULL for none',
  device: 'TEXT -- what people call it',
  refresh_sha256: 'TEXT NOT NULL -- of the refresh token that is good',
  before_sha256: 'TEXT -- of the one before',
  refreshed_at: 'TEXT NOT NULL',
  expires_at: 'TEXT NOT NULL -- unless it is refreshed by then',
  began_at: 'TEXT NOT NULL',
  ended_at: 'TEXT -- NULL while it was not ended',
} as const

/** Ends those of an account's sign-ins that are open, except one. */
function endAll(rows: { find: SigninRows['find']; set: SigninRows['set'] }, account_id: string, ended_at: string, kept = ''): void {
  for (const { signin_id } of rows.find('WHERE account_id = ? AND ended_at IS NULL', account_id))
    if (signin_id !== kept) rows.set({ signin_id }, { ended_at })
}

export const signins = view('signins', 'Every sign-in: a family of tokens.', columns, {
  indexes: ['(account_id) WHERE ended_at IS NULL'],
})
  .on(began, ({ user_id, timestamp, data: { signin_id, by, second, device, refresh_sha256, expires_at } }, rows) =>
    rows.put({
      signin_id,
      account_id: user_id,
      by,
      second,
      device,
      refresh_sha256,
      refreshed_at: timestamp,
      expires_at,
      began_at: timestamp,
    }),
  )
  .on(refreshed, ({ timestamp, data: { signin_id, refresh_sha256, expires_at } }, rows) => {
    const before_sha256 = rows.get({ signin_id })?.refresh_sha256 ?? null
    rows.set({ signin_id }, { refresh_sha256, before_sha256, refreshed_at: timestamp, expires_at })
  })
  .on(ended, ({ user_id, timestamp, data: { signin_id, why } }, rows) =>
    why === 'signed-out-everywhere' ? endAll(rows, user_id, timestamp) : rows.set({ signin_id }, { ended_at: timestamp }),
  )
  .on(passwordSet, ({ user_id, timestamp, data }, rows) => endAll(rows, user_id, timestamp, data.kept_signin_id))
  .on(deactivated, ({ user_id, timestamp }, rows) => endAll(rows, user_id, timestamp))

export type SigninRow = Row<typeof columns>
type SigninRows = Parameters<Parameters<typeof signins.on<typeof ended.data>>[1]>[1]

/** Who an access token speaks for at this moment; undefined where its account or its sign-in is no more. */
export function signedIn(
  read: Read,
  { account_id, signin_id }: Claims,
  { now, settings }: Pick<Preparing<unknown, never>, 'now' | 'settings'>,
): Caller | undefined {
  const signin = read(signins).get({ signin_id })
  if (signin?.account_id !== account_id || signin.ended_at !== null) return undefined
  const account = activeAccount(read, account_id)
  if (!account) return undefined
  const role = account.role as AccountRole
  const within =
    role === 'therapist' ? reachOf(read, account_id, now) : { users: role === 'admin' ? ('all' as const) : [account_id] }
  const lacking = lacksFactor(read, signin, role, settings) ? { lacksFactor: true } : {}
  return { account_id, role, ...within, system: role === 'admin', by: signin_id, ...lacking }
}

/**
 * Is a second factor demanded, by which this sign-in was not proved? It does not help to have set one up since: somebody else
 * who knows the password may have been signed in before that.
 */
function lacksFactor(read: Read, { by, second, account_id }: SigninRow, role: AccountRole, { secondFactor }: Settings): boolean {
  if (secondFactor === 'off' || (secondFactor === 'staff' && role === 'patient') || by !== 'password') return false
  return second === null || factorOf(read, account_id) === undefined
}

// --- tokens -----------------------------------------------------------------------------------------------------------

export const tokens = z.looseObject({
  account_id: z.string(),
  signin_id: z.string(),
  expires_at: z.string().describe('when the refresh token runs out'),
  access_expires_in: z.int().describe('seconds'),
  access_token: z.string().optional().describe('Authorization: Bearer …'),
  refresh_token: z.string().optional().describe('good for one use'),
})

export const as = z
  .enum(['tokens', 'cookies'])
  .default('tokens')
  .describe('cookies: for browsers, which carry the tokens themselves; no script can read them')

export const device = z.string().max(100).optional().describe('what you call the device, for your own list of sign-ins')

/** A pair of tokens, and what of it is recorded. They open nothing before that is. */
export async function newTokens(
  { vault, now }: Pick<Preparing<unknown, never>, 'vault' | 'now'>,
  { account_id, signin_id }: { account_id: string; signin_id: string },
  began_at = now,
) {
  const until = Math.min(now + REFRESH_MS, began_at + LONGEST_MS)
  const ends = { access: Math.min(now + ACCESS_MS, until), refresh: until }
  const sign = async (kind: TokenKind) => ({
    value: await vault.sign(kind, { account_id, signin_id, until: ends[kind] }, now),
    seconds: Math.floor((ends[kind] - now) / 1000),
  })
  const [access, refresh] = await Promise.all([sign('access'), sign('refresh')])
  const kept = { signin_id, refresh_sha256: digest(refresh.value), expires_at: new Date(until).toISOString() }
  return { kept, made: { access, refresh } }
}

/** Tokens are told to whoever keeps them, or given to a browser to carry. */
export const telling = (
  made: Awaited<ReturnType<typeof newTokens>>['made'],
  as: 'tokens' | 'cookies',
): { carried?: typeof made; access_token?: string; refresh_token?: string } =>
  as === 'cookies' ? { carried: made } : { access_token: made.access.value, refresh_token: made.refresh.value }

/** What a browser is to carry no more. */
export const GONE = { value: '', seconds: 0 }

export const tellsOf = ([record]: Recorded[]) => {
  const { user_id, data } = record as Recorded<z.infer<typeof refreshed.data>>
  return { account_id: user_id, signin_id: data.signin_id, expires_at: data.expires_at, access_expires_in: ACCESS_MS / 1000 }
}

// --- signing in -------------------------------------------------------------------------------------------------------

const signIn = command({
  at: 'POST /api/v1/sign-in',
  does: 'Sign in with a password. The answer is the same for a wrong password, an unknown name and a deactivated account.',
  may: 'sign in',
  named: false,
  tries: ({ name }) => nameOf(name),
  carries: true,
  makes: true,
  input: z.strictObject({
    name: accountName,
    password: statedPassword,
    code: code.optional().describe('where the account has a second factor'),
    device,
    as,
  }),
  output: tokens,
  whose: () => [],
  refuses: { 'sign-in-failed': 'unauthenticated', 'second-factor-required': 'unauthenticated', 'passwords-off': 'refused' },
  prepare: async ({ input, read, settings, vault, now, ulid, concerns, refuse }) => {
    if (!settings.passwords)
      throw refuse('passwords-off', 'Here one signs in through an identity provider, and not with a password.')
    const found = read(accounts).get({ name: nameOf(input.name) })
    if (found) concerns(found.account_id)
    const account = found?.deactivated_at === null ? found : undefined
    if (!(await isPassword(account?.password_hash, input.password))) throw failed(refuse)
    const { account_id, password_hash } = account as AccountRow
    const factor = factorOf(read, account_id)
    const proof = factor && input.code !== undefined ? prove(vault, factor, input.code, now) : undefined
    return { password_hash, proof, ...(await newTokens({ vault, now }, { account_id, signin_id: `sign_${ulid()}` })), account_id }
  },
  decide: ({ input, caller, prepared, read, refuse, reveal }) => {
    const { account_id, password_hash, proof, kept, made } = prepared
    // What was proved must still be true: the account may have been deactivated, or its password changed.
    if (activeAccount(read, account_id)?.password_hash !== password_hash) throw failed(refuse)
    const factor = factorOf(read, account_id)
    if (factor && input.code === undefined)
      throw refuse('second-factor-required', 'Sign in with the code of the second factor as well.')
    const taken = taking(factor, proof, byItself(account_id))
    if (factor && !taken) throw failed(refuse)
    reveal(telling(made, input.as))
    const begun = beginning(byItself(account_id), 'password', input.device, kept, taken)
    return [begun, ...(taken ? [taken] : []), ...leaving(read, caller, input.as)]
  },
  answer: tellsOf,
})

/** The record that a sign-in began; `taken`: that of the code that proved the second factor. */
export function beginning(
  owner: Owner,
  by: 'password' | 'identity',
  device: string | undefined,
  kept: Awaited<ReturnType<typeof newTokens>>['kept'],
  taken?: Draft,
): Draft {
  const second = taken && { second: taken.type === used.type ? ('totp' as const) : ('recovery-code' as const) }
  return began(owner, { by, ...second, ...(device === undefined ? {} : { device }), ...kept })
}

/** A browser carries one sign-in at a time: that which it carried until now ends with the next. */
export function leaving(read: Read, { by = '' }: Caller, as: 'tokens' | 'cookies'): Draft[] {
  const row = as === 'cookies' ? read(signins).get({ signin_id: by }) : undefined
  return row?.ended_at === null ? [ended(byItself(row.account_id), { signin_id: by, why: 'signed-out' })] : []
}

const failed = (refuse: (reason: 'sign-in-failed', detail: string) => Refusal) =>
  refuse('sign-in-failed', 'This name and this password do not go together.')

const refresh = command({
  at: 'POST /api/v1/refresh',
  does: 'Go on being signed in: gives new tokens for a refresh token, which is good for one use. One that is used again ends the sign-in.',
  may: 'sign in',
  named: false,
  carries: true,
  input: z.strictObject({ refresh_token: z.string().max(2000).optional().describe('none where a browser carries it') }),
  output: tokens,
  whose: () => [],
  refuses: { 'refresh-failed': 'unauthenticated', 'refreshed-already': 'refused' },
  prepare: async ({ input, carried, read, vault, now, concerns, refuse }) => {
    const token = input.refresh_token ?? carried?.refresh
    const claims = token === undefined ? undefined : await vault.verify('refresh', token, now)
    if (claims) concerns(claims.account_id)
    const row = claims && read(signins).get({ signin_id: claims.signin_id })
    if (!claims || !row) throw refuse('refresh-failed', NOT_GOOD)
    const next = await newTokens({ vault, now }, claims, Date.parse(row.began_at))
    return { ...next, claims, used: digest(token as string), as: input.refresh_token === undefined ? 'cookies' : 'tokens' } as const
  },
  decide: ({ prepared: { claims, used, kept, made, as }, read, now, settings, refuse, reveal }): Draft[] => {
    const { account_id, signin_id } = claims
    const row = read(signins).get({ signin_id })
    if (!row || !signedIn(read, claims, { now, settings }) || now >= Date.parse(row.expires_at))
      throw refuse('refresh-failed', NOT_GOOD)
    if (used === row.refresh_sha256) {
      reveal(telling(made, as))
      return [refreshed(byItself(account_id), kept)]
    }
    if (used === row.before_sha256 && now - Date.parse(row.refreshed_at) < RACE_MS)
      throw refuse('refreshed-already', 'Another request has just used this token: its answer brings the next.')
    return [ended({ user_id: account_id, performer_id: 'system' }, { signin_id, why: 'token-reused' })]
  },
  answer: (records) => {
    // That the family ended is recorded, and yet whoever asked is refused.
    if (records[0]?.type === ended.type) throw new Refusal('unauthenticated', 'refresh-failed', NOT_GOOD)
    return tellsOf(records)
  },
})

const NOT_GOOD = 'This refresh token is not good (any more): sign in.'

export const signinsFeature: Feature = {
  name: 'signins',
  events: [began, refreshed, ended],
  views: [signins],
  commands: [signIn, refresh],
}
