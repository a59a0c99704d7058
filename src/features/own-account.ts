// One's own account: where one is signed in, and signing out, here, there or everywhere.

import * as z from 'zod'
import { command } from '../core/command.ts'
import type { Refusal } from '../core/errors.ts'
import type { Feature } from '../core/feature.ts'
import type { Caller } from '../core/policy.ts'
import { query } from '../core/query.ts'
import type { Read } from '../core/view.ts'
import { type AccountRow, accounts, byItself, done, doneAt } from './accounts.ts'
import { factorOf } from './factors.ts'
import { ended, GONE, type SigninRow, signins } from './signins.ts'

/** The sign-in that asks; keys have none. */
function asking(read: Read, caller: Caller, refuse: (reason: 'not-signed-in', detail: string) => Refusal): SigninRow {
  const row = caller.by === undefined ? undefined : read(signins).get({ signin_id: caller.by })
  if (!row) throw refuse('not-signed-in', 'A key has no account of its own: sign in.')
  return row
}

const signOut = command({
  at: 'POST /api/v1/sign-out',
  does: 'Sign out, here or everywhere.',
  may: 'own account',
  carries: true,
  input: z.strictObject({ everywhere: z.boolean().default(false) }),
  output: done,
  whose: (_, { account_id }) => [account_id],
  refuses: { 'not-signed-in': 'refused' },
  decide: ({ input: { everywhere }, caller, read, refuse, reveal }) => {
    const { signin_id } = asking(read, caller, refuse)
    reveal({ carried: { access: GONE, refresh: GONE } })
    return [ended(byItself(caller.account_id), { signin_id, why: everywhere ? 'signed-out-everywhere' : 'signed-out' })]
  },
  answer: doneAt,
})

const signOutThere = command({
  at: 'POST /api/v1/account/signins/{signin_id}/end',
  does: 'Sign out on another device.',
  may: 'own account',
  input: z.strictObject({ signin_id: z.string().max(64) }),
  output: done,
  whose: (_, { account_id }) => [account_id],
  refuses: { 'not-signed-in': 'refused', 'signin-not-found': 'not-found' },
  decide: ({ input: { signin_id }, caller, read, refuse }) => {
    const { account_id } = asking(read, caller, refuse)
    const row = read(signins).get({ signin_id })
    if (row?.account_id !== account_id || row.ended_at !== null)
      throw refuse('signin-not-found', 'You have no such sign-in, or it has ended.')
    return [ended(byItself(account_id), { signin_id, why: 'signed-out' })]
  },
  answer: doneAt,
})

const shownSignin = z.object({
  signin_id: z.string(),
  device: z.string().nullable(),
  began_at: z.string(),
  refreshed_at: z.string(),
  expires_at: z.string(),
  asking: z.boolean().describe('is it the one that asks?'),
})

const ownAccount = query({
  at: 'GET /api/v1/account',
  does: 'One’s own account, and where one is signed in.',
  did: 'seen this account, and where it is signed in',
  may: 'own account',
  input: z.strictObject({}),
  output: z.object({
    account_id: z.string(),
    name: z.string(),
    role: z.string(),
    second_factor: z.boolean(),
    signins: z.array(shownSignin),
  }),
  refuses: { 'not-signed-in': 'refused' },
  read: ({ caller, read, now, permit, refuse }) => {
    permit(caller.account_id)
    const { account_id } = asking(read, caller, refuse)
    const { name, role } = read(accounts).get({ account_id }) as AccountRow
    const rows = read(signins).find(
      'WHERE account_id = ? AND ended_at IS NULL AND expires_at > ? ORDER BY began_at DESC, signin_id DESC LIMIT 100',
      ...[account_id, new Date(now).toISOString()],
    )
    return {
      account_id,
      name,
      role,
      second_factor: factorOf(read, account_id) !== undefined,
      signins: rows.map(({ signin_id, device, began_at, refreshed_at, expires_at }) => ({
        ...{ signin_id, device, began_at, refreshed_at, expires_at },
        asking: signin_id === caller.by,
      })),
    }
  },
})

export const ownAccountFeature: Feature = {
  name: 'own-account',
  commands: [signOut, signOutThere],
  queries: [ownAccount],
}
