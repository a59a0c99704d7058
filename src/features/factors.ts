// Second factors: a code from an app on the phone (TOTP, RFC 6238), and recovery codes for the day the phone is lost. Every
// code works once. The secret that app and Sessile share is recorded sealed; its key lies with the secrets, in no log.

import { Secret, TOTP } from 'otpauth'
import * as z from 'zod'
import { command } from '../core/command.ts'
import { type Draft, events, type Owner } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { numbered, opaqueId, sha256 } from '../core/fields.ts'
import { digest } from '../core/ids.ts'
import type { Recorded } from '../core/record.ts'
import type { Vault } from '../core/vault.ts'
import { type Read, type Row, view } from '../core/view.ts'
import { byCaller, byItself, done, doneAt } from './accounts.ts'
import { statedPassword } from './hashing.ts'
import { proveAgain, unproven } from './passwords.ts'

const PERIOD_MS = 30_000
/** So many periods a phone's clock may be off, either way. */
const DRIFT = 1
const CODES = 10

const factorId = numbered('fac')
const step = z.int().min(0)

export const { enrolled, confirmed, used, recovered, removed } = events(
  'factor',
  { home: 'account', source: 'factors' },
  {
    enrolled: {
      v: 1,
      does: 'A second factor was begun: its secret was shown once, and stands here sealed. It counts from when a code confirms it.',
      data: z.strictObject({ factor_id: factorId, sealed: z.string().regex(/^[A-Za-z0-9_-]{40,200}$/) }),
      says: ({ user_id }) => `${user_id} began to set up a second factor.`,
      sensitivity: 'plain',
    },
    confirmed: {
      v: 1,
      does: 'A second factor is asked for from now on. Of its recovery codes the SHA-256 stand here.',
      data: z.strictObject({ factor_id: factorId, step, recovery_sha256: z.array(sha256).max(20) }),
      says: ({ user_id }) => `${user_id} set up a second factor.`,
      sensitivity: 'plain',
    },
    used: {
      v: 1,
      does: 'A code of this period was taken; no code of it or of an earlier one counts any more.',
      data: z.strictObject({ factor_id: factorId, step }),
      says: ({ user_id }) => `${user_id} proved their second factor.`,
      sensitivity: 'plain',
    },
    recovered: {
      v: 1,
      does: 'A recovery code was taken, and counts no more.',
      data: z.strictObject({ factor_id: factorId, code_sha256: sha256 }),
      says: ({ user_id }) => `${user_id} used a recovery code.`,
      sensitivity: 'plain',
    },
    removed: {
      v: 1,
      does: 'A second factor was taken away.',
      data: z.strictObject({ factor_id: factorId }),
      says: ({ user_id, performer_id }) => `The second factor of ${user_id} was taken away by ${performer_id}.`,
      sensitivity: 'plain',
    },
  },
)

const columns = {
  factor_id: 'TEXT PRIMARY KEY',
  account_id: 'TEXT NOT NULL',
  sealed: 'TEXT NOT NULL -- the secret, which only Sessile can read',
  confirmed_at: 'TEXT -- NULL until a code has confirmed it',
  last_step: 'INTEGER NOT NULL -- the latest period of which a code was taken',
  recovery: 'TEXT NOT NULL -- JSON: the SHA-256 of each recovery code that was not used',
  removed_at: 'TEXT -- NULL while it counts, or may be confirmed',
} as const

export const factors = view('factors', 'Every second factor.', columns, {
  indexes: ['UNIQUE (account_id) WHERE removed_at IS NULL'],
})
  .on(enrolled, ({ user_id, timestamp, data: { factor_id, sealed } }, rows) => {
    // One that was never confirmed gives way.
    for (const row of rows.find('WHERE account_id = ? AND removed_at IS NULL', user_id))
      rows.set({ factor_id: row.factor_id }, { removed_at: timestamp })
    rows.put({ factor_id, account_id: user_id, sealed, last_step: 0, recovery: '[]' })
  })
  .on(confirmed, ({ timestamp, data: { factor_id, step, recovery_sha256 } }, rows) =>
    rows.set({ factor_id }, { confirmed_at: timestamp, last_step: step, recovery: JSON.stringify(recovery_sha256) }),
  )
  .on(used, ({ data: { factor_id, step } }, rows) => rows.set({ factor_id }, { last_step: step }))
  .on(recovered, ({ data: { factor_id, code_sha256 } }, rows) => {
    const left = recoveryOf(rows.get({ factor_id }) as FactorRow).filter((one) => one !== code_sha256)
    rows.set({ factor_id }, { recovery: JSON.stringify(left) })
  })
  .on(removed, ({ timestamp, data: { factor_id } }, rows) => rows.set({ factor_id }, { removed_at: timestamp }))

type FactorRow = Row<typeof columns>

const recoveryOf = ({ recovery }: FactorRow) => JSON.parse(recovery) as string[]

const openFactor = (read: Read, account_id: string): FactorRow | undefined =>
  read(factors).find('WHERE account_id = ? AND removed_at IS NULL', account_id)[0]

/** The factor that an account is asked for. */
export function factorOf(read: Read, account_id: string): FactorRow | undefined {
  const row = openFactor(read, account_id)
  return row?.confirmed_at === null ? undefined : row
}

/** The factor that was begun, and that no code has confirmed yet. */
function waitingFactor(read: Read, account_id: string): FactorRow | undefined {
  const row = openFactor(read, account_id)
  return row?.confirmed_at === null ? row : undefined
}

// --- codes ------------------------------------------------------------------------------------------------------------

export const code = z.string().min(6).max(40).describe('six digits from the app, or a recovery code')

/** What a code proves, as far as can be told without knowing whether it was used before. */
export type Proof = { factor_id: string; step: number } | { factor_id: string; code_sha256: string }

/** Undefined where it proves nothing. */
export function prove(vault: Vault, row: FactorRow, code: string, now: number): Proof | undefined {
  const { factor_id, account_id, sealed } = row
  if (!/^\d{6}$/.test(code)) {
    const code_sha256 = digest(code.toLowerCase().replace(/[^a-z2-7]/g, ''))
    return recoveryOf(row).includes(code_sha256) ? { factor_id, code_sha256 } : undefined
  }
  const secret = vault.unseal(sealed, aboutOf(account_id))
  if (secret === undefined) return undefined
  const drift = appOf(secret).validate({ token: code, timestamp: now, window: DRIFT })
  return drift === null ? undefined : { factor_id, step: Math.floor(now / PERIOD_MS) + drift }
}

/** The record that a code was taken; undefined where it counts no more. Of two that come at once, one is taken. */
export function taking(row: FactorRow | undefined, proof: Proof | undefined, owner: Owner): Draft | undefined {
  if (!row || proof?.factor_id !== row.factor_id) return undefined
  if ('step' in proof) return proof.step > row.last_step ? used(owner, proof) : undefined
  return recoveryOf(row).includes(proof.code_sha256) ? recovered(owner, proof) : undefined
}

const aboutOf = (account_id: string) => `totp ${account_id}`

const appOf = (secret: string, label = '') =>
  new TOTP({ issuer: 'Sessile', label, algorithm: 'SHA1', digits: 6, period: PERIOD_MS / 1000, secret: Secret.fromBase32(secret) })

/** So many bytes of a secret, as people type them. */
const base32 = (secret: string, bytes: number) =>
  new Secret({ buffer: Uint8Array.from(Buffer.from(secret, 'base64url').subarray(0, bytes)).buffer }).base32

/** Letters and digits that nobody takes for one another; 120 bits, of which a plain digest tells nothing. */
const recoveryCode = (secret: string) => (base32(secret, 15).toLowerCase().match(/.{4}/g) ?? []).join('-')

// --- setting it up, and taking it away --------------------------------------------------------------------------------

const password = statedPassword.optional().describe('where the account has one')

const enrol = command({
  at: 'POST /api/v1/account/totp',
  does: 'Begin to set up a second factor: gives its secret, for an app on the phone. It counts when a code has confirmed it.',
  may: 'own account',
  named: false,
  tries: (_, { account_id }) => account_id,
  makes: true,
  input: z.strictObject({ password }),
  output: z.object({ factor_id: z.string(), secret: z.string(), uri: z.string().describe('for the app, as a QR code') }),
  whose: (_, { account_id }) => [account_id],
  refuses: { ...unproven, 'factor-exists': 'refused' },
  prepare: async ({ input, caller, read, vault, secret, refuse }) => {
    const { name } = await proveAgain({ caller, read, refuse }, input.password)
    const shared = base32(secret(), 20)
    return { shared, name, sealed: vault.seal(shared, aboutOf(caller.account_id)) }
  },
  decide: ({ caller, prepared: { shared, name, sealed }, read, ulid, refuse, reveal }) => {
    if (factorOf(read, caller.account_id)) throw refuse('factor-exists', 'There is a second factor: take it away first.')
    reveal({ secret: shared, uri: appOf(shared, name).toString() })
    return [enrolled(byItself(caller.account_id), { factor_id: `fac_${ulid()}`, sealed })]
  },
  answer: ([record]) => ({ factor_id: (record as Recorded<{ factor_id: string }>).data.factor_id }),
})

const notRight = 'The code is not right, or was used before.'
const NONE_WAITS = 'No second factor is waiting to be confirmed.'

const confirm = command({
  at: 'POST /api/v1/account/totp/confirm',
  does: 'Confirm a second factor by a code of the app: from now on it is asked for at each sign-in. Gives recovery codes, once.',
  may: 'own account',
  named: false,
  tries: (_, { account_id }) => account_id,
  input: z.strictObject({ code }),
  output: z.object({ factor_id: z.string(), recovery_codes: z.array(z.string()) }),
  whose: (_, { account_id }) => [account_id],
  refuses: { 'code-wrong': 'unauthenticated', 'factor-not-found': 'not-found' },
  prepare: async ({ input, caller, read, vault, now, secret, refuse }) => {
    const row = waitingFactor(read, caller.account_id)
    if (!row) throw refuse('factor-not-found', NONE_WAITS)
    const proof = prove(vault, row, input.code, now)
    if (!proof || !('step' in proof)) throw refuse('code-wrong', notRight)
    return { ...proof, codes: Array.from({ length: CODES }, () => recoveryCode(secret())) }
  },
  decide: ({ caller, prepared: { factor_id, step, codes }, read, refuse, reveal }) => {
    if (waitingFactor(read, caller.account_id)?.factor_id !== factor_id) throw refuse('factor-not-found', NONE_WAITS)
    reveal({ recovery_codes: codes })
    return [
      confirmed(byItself(caller.account_id), {
        factor_id,
        step,
        recovery_sha256: codes.map((code) => digest(code.replaceAll('-', ''))),
      }),
    ]
  },
  answer: ([record]) => ({ factor_id: (record as Recorded<{ factor_id: string }>).data.factor_id }),
})

const remove = command({
  at: 'POST /api/v1/account/totp/remove',
  does: 'Take one’s second factor away, by the password and a code.',
  may: 'own account',
  named: false,
  tries: (_, { account_id }) => account_id,
  input: z.strictObject({ password, code }),
  output: done,
  whose: (_, { account_id }) => [account_id],
  refuses: { ...unproven, 'code-wrong': 'unauthenticated', 'factor-not-found': 'not-found' },
  prepare: async ({ input, caller, read, vault, now, refuse }) => {
    await proveAgain({ caller, read, refuse }, input.password)
    const row = factorOf(read, caller.account_id)
    if (!row) throw refuse('factor-not-found', 'There is no second factor.')
    return prove(vault, row, input.code, now)
  },
  decide: ({ caller, prepared: proof, read, refuse }) => {
    const row = factorOf(read, caller.account_id)
    const taken = taking(row, proof, byItself(caller.account_id))
    if (!row || !taken) throw refuse('code-wrong', notRight)
    return [taken, removed(byItself(caller.account_id), { factor_id: row.factor_id })]
  },
  answer: doneAt,
})

const removeFor = command({
  at: 'POST /api/v1/accounts/{account_id}/totp/remove',
  does: 'Take the second factor of an account away, for somebody who lost their phone and their recovery codes.',
  may: 'administer',
  input: z.strictObject({ account_id: opaqueId }),
  output: done,
  whose: () => [],
  refuses: { 'factor-not-found': 'not-found' },
  decide: ({ input: { account_id }, caller, read, refuse }) => {
    const row = factorOf(read, account_id)
    if (!row) throw refuse('factor-not-found', 'There is no such account, or it has no second factor.')
    return [removed(byCaller(account_id, caller), { factor_id: row.factor_id })]
  },
  answer: doneAt,
})

export const factorsFeature: Feature = {
  name: 'factors',
  events: [enrolled, confirmed, used, recovered, removed],
  views: [factors],
  commands: [enrol, confirm, remove, removeFor],
}
