// Emergency access: a therapist who is not assigned to a user reaches their data all the same, for a reason and for an
// hour. Each is a record, each answer that relied on it says so, and the admin sees them all.

import * as z from 'zod'
import { command } from '../core/command.ts'
import { events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { instant, numbered, opaqueId } from '../core/fields.ts'
import { paged, pageOf, pageRefuses, paging, Where } from '../core/page.ts'
import type { Caller } from '../core/policy.ts'
import { query } from '../core/query.ts'
import type { Recorded } from '../core/record.ts'
import { type Read, type Row, view } from '../core/view.ts'
import { assignedTo } from './assignments.ts'

const LASTS_MS = 60 * 60 * 1000

const accessId = numbered('emg')
const reason = z
  .string()
  .min(10)
  .max(500)
  .regex(/^\S[\s\S]*\S$/, 'must begin and end with a word')

export const { opened } = events(
  'emergency',
  { home: 'account', source: 'emergency' },
  {
    opened: {
      v: 1,
      does: 'A therapist took emergency access to a user’s data, for a reason and for an hour.',
      data: z.strictObject({ access_id: accessId, user_id: opaqueId, reason, until: instant }),
      says: ({ user_id, data }) => `${user_id} took emergency access to the data of ${data.user_id}: ${data.reason}.`,
    },
  },
)

const columns = {
  access_id: 'TEXT PRIMARY KEY',
  therapist_id: 'TEXT NOT NULL -- the account that took it',
  user_id: 'TEXT NOT NULL -- whose data is within its reach',
  reason: 'TEXT NOT NULL -- in the words of the therapist',
  opened_at: 'TEXT NOT NULL',
  until: 'TEXT NOT NULL -- from then on it is over',
} as const

export const emergencies = view('emergencies', 'Every emergency access that was taken.', columns, {
  indexes: ['(therapist_id, until)', '(opened_at, access_id)', '(user_id, opened_at, access_id)'],
}).on(opened, ({ user_id: therapist_id, timestamp, data }, rows) => rows.put({ ...data, therapist_id, opened_at: timestamp }))

const timeOf = (ms: number) => new Date(ms).toISOString()

/**
 * What an account reaches at this moment because somebody was put into its care: those assigned, and those reached by
 * emergency access, of whom it is told apart until when.
 */
export function reachOf(read: Read, account_id: string, now: number): Pick<Caller, 'users' | 'emergencies'> {
  const assigned = assignedTo(read, account_id)
  const taken = read(emergencies).find('WHERE therapist_id = ? AND until > ? ORDER BY until', account_id, timeOf(now))
  const alone = new Map(taken.filter(({ user_id }) => !assigned.includes(user_id)).map(({ user_id, until }) => [user_id, until]))
  return { users: [...assigned, ...alone.keys()], emergencies: alone }
}

const shown = z.object({
  access_id: z.string(),
  therapist_id: z.string(),
  user_id: z.string(),
  reason: z.string(),
  opened_at: z.string(),
  until: z.string(),
})

const take = command({
  at: 'POST /api/v1/emergency-access',
  does: 'Take emergency access to a user’s data, for a reason and for an hour. It is recorded, the admin sees it, and the user what is looked at by it.',
  may: 'break glass',
  makes: true,
  input: z.strictObject({ user_id: opaqueId, reason: reason.describe('why it cannot wait, in plain words') }),
  output: shown,
  whose: ({ user_id }) => [user_id],
  decide: ({ input, caller: { account_id }, now, ulid }) => [
    opened(
      { user_id: account_id, performer_id: account_id },
      { access_id: `emg_${ulid()}`, ...input, until: timeOf(now + LASTS_MS) },
    ),
  ],
  answer: ([record]) => {
    const { user_id: therapist_id, timestamp: opened_at, data } = record as Recorded<z.infer<typeof opened.data>>
    return { ...data, therapist_id, opened_at }
  },
})

const stateOf = (row: Row<typeof columns>, now: number) => (row.until > timeOf(now) ? ('open' as const) : ('over' as const))

const list = query({
  at: 'GET /api/v1/emergency-access',
  does: 'Every emergency access, newest first, with its reason and whether it is open.',
  did: 'seen the list of emergency accesses',
  may: 'administer',
  input: z.strictObject({ therapist_id: opaqueId.optional(), user_id: opaqueId.optional(), ...paging }),
  output: z.object({ accesses: z.array(shown.extend({ state: z.enum(['open', 'over']) })), ...paged }),
  refuses: pageRefuses,
  shows: ({ accesses }) => accesses.map(({ user_id }) => user_id),
  read: ({ input: { therapist_id, user_id, ...turned }, read, permit, now }) => {
    permit()
    const where = new Where()
    if (therapist_id) where.need('therapist_id = ?', therapist_id)
    if (user_id) where.need('user_id = ?', user_id)
    const { rows, ...rest } = pageOf(read(emergencies), where, ['opened_at', 'access_id'], turned)
    return { accesses: rows.map((row) => ({ ...row, state: stateOf(row, now) })), ...rest }
  },
})

export const emergencyFeature: Feature = {
  name: 'emergency',
  events: [opened],
  views: [emergencies],
  commands: [take],
  queries: [list],
}
