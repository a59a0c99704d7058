// How an account comes to have a password: by signing up, by taking an invitation, or by changing the one it has.

import * as z from 'zod'
import { command, type Preparing } from '../core/command.ts'
import type { Feature } from '../core/feature.ts'
import { digest } from '../core/ids.ts'
import type { Recorded } from '../core/record.ts'
import type { Read } from '../core/view.ts'
import {
  type AccountRow,
  accepted,
  accountName,
  accounts,
  activeAccount,
  byItself,
  created,
  done,
  doneAt,
  nameOf,
  passwordSet,
  sought,
} from './accounts.ts'
import { hashOf, isPassword, password, statedPassword, weakness } from './hashing.ts'

const weak = { 'password-weak': 'invalid', 'passwords-off': 'refused' } as const
type Weak = (reason: keyof typeof weak, detail: string) => Error

/** The hash of a new password, or a refusal that says why it is not taken. */
async function hashOfNew(password: string, name: string, passwords: boolean, refuse: Weak): Promise<string> {
  if (!passwords) throw refuse('passwords-off', 'Here one signs in through an identity provider, and not with a password.')
  const why = weakness(password, name)
  if (why !== undefined) throw refuse('password-weak', why)
  return hashOf(password)
}

const taken = z.object({ taken: z.literal(true) })

const signUp = command({
  at: 'POST /api/v1/sign-up',
  does: 'Make an account for oneself, as a patient, where the deployment allows it. The answer is the same where the name is taken.',
  may: 'sign in',
  named: false,
  tries: ({ name }) => nameOf(name),
  proves: false,
  input: z.strictObject({ name: accountName, password }),
  output: taken,
  whose: () => [],
  refuses: { ...weak, 'sign-up-off': 'refused' },
  prepare: async ({ input, settings, refuse }) => {
    if (!settings.signUp) throw refuse('sign-up-off', 'Accounts are made by invitation here.')
    return hashOfNew(input.password, nameOf(input.name), settings.passwords, refuse)
  },
  decide: ({ input, prepared: hash, read, ulid }) => {
    const name = nameOf(input.name)
    const row = read(accounts).get({ name })
    // Both ways something is recorded, so that neither the answer nor its time tells them apart.
    if (row) return [sought({ user_id: row.account_id, performer_id: 'anonymous' }, {})]
    const account_id = `acc_${ulid()}`
    const owner = byItself(account_id)
    return [created(owner, { name, role: 'patient' }), passwordSet(owner, { hash })]
  },
  answer: () => ({ taken: true }),
})

const uninvited = { 'invitation-not-found': 'not-found' } as const

/** The account that a link is for, or a refusal. */
function invitee(
  { read, now, refuse }: { read: Read; now: number; refuse: (reason: keyof typeof uninvited, detail: string) => Error },
  token: string,
): AccountRow {
  const row = read(accounts).get({ invitation_sha256: digest(token) })
  if (row && now < Date.parse(row.invitation_expires_at as string)) return row
  throw refuse('invitation-not-found', 'This link was used, has run out, or never was.')
}

const accept = command({
  at: 'POST /api/v1/invitations/accept',
  does: 'Take an invitation: set a password by a one-time link. Whoever was signed in to the account no longer is.',
  may: 'sign in',
  named: false,
  tries: ({ token }) => token,
  input: z.strictObject({ token: z.string().max(100), password }),
  output: z.object({ account_id: z.string() }),
  whose: () => [],
  refuses: { ...weak, ...uninvited },
  prepare: async ({ input: { token, password }, read, settings, now, refuse }) => {
    const row = invitee({ read, now, refuse }, token)
    return hashOfNew(password, row.name, settings.passwords, refuse)
  },
  decide: ({ input: { token }, prepared: hash, read, now, refuse }) => {
    const owner = byItself(invitee({ read, now, refuse }, token).account_id)
    return [accepted(owner, {}), passwordSet(owner, { hash })]
  },
  answer: ([record]) => ({ account_id: (record as Recorded).user_id }),
})

export const unproven = { 'password-wrong': 'unauthenticated', 'not-signed-in': 'refused' } as const

/** Whoever changes how their account is protected proves the password once more, where there is one. */
export async function proveAgain(
  { caller, read, refuse }: Pick<Preparing<unknown, keyof typeof unproven>, 'caller' | 'read' | 'refuse'>,
  password: string | undefined,
): Promise<AccountRow> {
  const row = activeAccount(read, caller.account_id)
  if (!row) throw refuse('not-signed-in', 'A key has no account of its own: sign in.')
  if (row.password_hash !== null && !(await isPassword(row.password_hash, password ?? '')))
    throw refuse('password-wrong', 'The present password is another.')
  return row
}

const change = command({
  at: 'POST /api/v1/account/password',
  does: 'Change one’s password. All other sign-ins of the account end.',
  may: 'own account',
  named: false,
  tries: (_, { account_id }) => account_id,
  input: z.strictObject({ password: statedPassword, new_password: password }),
  output: done,
  whose: (_, { account_id }) => [account_id],
  refuses: { ...weak, ...unproven },
  prepare: async ({ input, caller, read, settings, refuse }) => {
    const row = await proveAgain({ caller, read, refuse }, input.password)
    return { before: row.password_hash, hash: await hashOfNew(input.new_password, row.name, settings.passwords, refuse) }
  },
  decide: ({ caller, prepared: { before, hash }, read, refuse }) => {
    // It may have been changed meanwhile, by somebody who knew the old one as well.
    if (activeAccount(read, caller.account_id)?.password_hash !== before)
      throw refuse('password-wrong', 'The present password is another.')
    return [passwordSet(byItself(caller.account_id), { hash, ...(caller.by === undefined ? {} : { kept_signin_id: caller.by }) })]
  },
  answer: doneAt,
})

export const passwordsFeature: Feature = { name: 'passwords', commands: [signUp, accept, change] }
