// Assignments: which therapist cares for which user, from when and until when. They begin and end as records, and what a
// therapist reaches follows from them at each request anew.

import * as z from 'zod'
import { command } from '../core/command.ts'
import { events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { numbered, opaqueId } from '../core/fields.ts'
import { paged, pageOf, pageRefuses, paging, Where } from '../core/page.ts'
import { query } from '../core/query.ts'
import type { Recorded } from '../core/record.ts'
import { type Read, type Row, view } from '../core/view.ts'
import { activeAccount, byCaller } from './accounts.ts'

const assignmentId = numbered('asg')
const relationship = z.string().min(1).max(64)

export const { begun, ended } = events(
  'assignment',
  { home: 'account', source: 'assignments' },
  {
    begun: {
      v: 1,
      does: 'A therapist was assigned to a user: from now on their data is within reach.',
      data: z.strictObject({ assignment_id: assignmentId, user_id: opaqueId, relationship_type: relationship }),
      says: ({ user_id, data }) => `${user_id} was assigned to ${data.user_id} (${data.relationship_type}).`,
    },
    ended: {
      v: 1,
      does: 'An assignment ended: from now on the user’s data is out of reach.',
      data: z.strictObject({ assignment_id: assignmentId, user_id: opaqueId }),
      says: ({ user_id, data }) => `${user_id} is no longer assigned to ${data.user_id}.`,
    },
  },
)

const columns = {
  assignment_id: 'TEXT PRIMARY KEY',
  therapist_id: 'TEXT NOT NULL -- the account that is assigned',
  user_id: 'TEXT NOT NULL -- whose data is within its reach',
  relationship_type: 'TEXT NOT NULL -- in the words of whoever assigned it',
  begun_at: 'TEXT NOT NULL',
  begun_by: 'TEXT NOT NULL',
  ended_at: 'TEXT -- NULL while it is active',
  ended_by: 'TEXT',
} as const

export const assignments = view('assignments', 'Every assignment of a therapist to a user.', columns, {
  indexes: [
    'UNIQUE (therapist_id, user_id) WHERE ended_at IS NULL',
    '(begun_at, assignment_id)',
    '(therapist_id, begun_at, assignment_id)',
    '(user_id, begun_at, assignment_id)',
  ],
})
  .on(begun, ({ user_id: therapist_id, performer_id, timestamp, data }, rows) =>
    rows.put({ ...data, therapist_id, begun_at: timestamp, begun_by: performer_id }),
  )
  .on(ended, ({ performer_id, timestamp, data: { assignment_id } }, rows) =>
    rows.set({ assignment_id }, { ended_at: timestamp, ended_by: performer_id }),
  )

/** The users to whom this account is assigned. */
export const assignedTo = (read: Read, therapist_id: string): string[] =>
  read(assignments)
    .find('WHERE therapist_id = ? AND ended_at IS NULL', therapist_id)
    .map(({ user_id }) => user_id)

/** Was this account assigned to the user at this moment? */
export const wasAssigned = (read: Read, therapist_id: string, user_id: string, at: string): boolean =>
  read(assignments)
    .find('WHERE therapist_id = ? AND user_id = ?', therapist_id, user_id)
    .some(({ begun_at, ended_at }) => begun_at <= at && (ended_at === null || at < ended_at))

const shown = z.object({
  assignment_id: z.string(),
  therapist_id: z.string(),
  user_id: z.string(),
  relationship_type: z.string(),
  status: z.enum(['active', 'ended']),
  begun_at: z.string(),
  begun_by: z.string(),
  ended_at: z.string().nullable(),
  ended_by: z.string().nullable(),
})

const shownOf = (row: Row<typeof columns>): z.infer<typeof shown> => ({
  assignment_id: row.assignment_id,
  therapist_id: row.therapist_id,
  user_id: row.user_id,
  relationship_type: row.relationship_type,
  status: row.ended_at === null ? 'active' : 'ended',
  begun_at: row.begun_at,
  begun_by: row.begun_by,
  ended_at: row.ended_at,
  ended_by: row.ended_by,
})

const begin = command({
  at: 'POST /api/v1/assignments',
  does: 'Assign a therapist to a user: from the next request on the user’s data is within their reach.',
  may: 'administer',
  makes: true,
  input: z.strictObject({
    therapist_id: opaqueId.describe('the account of a therapist'),
    user_id: opaqueId,
    relationship_type: relationship.describe('in your own words, such as primary, or covering'),
  }),
  output: shown.omit({ status: true, begun_by: true, ended_at: true, ended_by: true }),
  whose: () => [],
  refuses: { 'not-a-therapist': 'refused', 'already-assigned': 'refused' },
  decide: ({ input: { therapist_id, user_id, relationship_type }, caller, read, ulid, refuse }) => {
    if (activeAccount(read, therapist_id)?.role !== 'therapist')
      throw refuse('not-a-therapist', 'There is no therapist with this account who may sign in.')
    const [active] = read(assignments).find('WHERE therapist_id = ? AND user_id = ? AND ended_at IS NULL', therapist_id, user_id)
    if (active)
      throw refuse('already-assigned', 'This therapist is assigned to this user.', { assignment_id: active.assignment_id })
    const data = { assignment_id: `asg_${ulid()}`, user_id, relationship_type }
    return [begun(byCaller(therapist_id, caller), data)]
  },
  answer: ([record]) => {
    const { user_id: therapist_id, timestamp: begun_at, data } = record as Recorded<z.infer<typeof begun.data>>
    return { ...data, therapist_id, begun_at }
  },
})

const end = command({
  at: 'POST /api/v1/assignments/{assignment_id}/end',
  does: 'End an assignment: from the next request on the user’s data is out of the therapist’s reach.',
  may: 'administer',
  input: z.strictObject({ assignment_id: z.string().max(64) }),
  output: shown.pick({ assignment_id: true, therapist_id: true, user_id: true }).extend({ ended_at: z.string() }),
  whose: () => [],
  refuses: { 'assignment-not-found': 'not-found', 'assignment-already-ended': 'refused' },
  decide: ({ input: { assignment_id }, caller, read, refuse }) => {
    const row = read(assignments).get({ assignment_id })
    if (!row) throw refuse('assignment-not-found', 'There is no such assignment.')
    if (row.ended_at !== null) throw refuse('assignment-already-ended', 'The assignment has already ended.')
    const { therapist_id, user_id } = row
    return [ended(byCaller(therapist_id, caller), { assignment_id, user_id })]
  },
  answer: ([record]) => {
    const { user_id: therapist_id, timestamp: ended_at, data } = record as Recorded<z.infer<typeof ended.data>>
    return { ...data, therapist_id, ended_at }
  },
})

const list = query({
  at: 'GET /api/v1/assignments',
  does: 'Assignments, newest first: an admin sees all, anybody else those that concern themselves.',
  did: 'seen who is assigned',
  may: 'see assignments',
  input: z.strictObject({
    therapist_id: opaqueId.optional(),
    user_id: opaqueId.optional(),
    status: z.enum(['active', 'ended']).optional(),
    ...paging,
  }),
  output: z.object({ assignments: z.array(shown), ...paged }),
  refuses: pageRefuses,
  shows: ({ assignments }) => assignments.map(({ user_id }) => user_id),
  read: ({ input: { therapist_id, user_id, status, ...turned }, read, reach }) => {
    const where = new Where()
    const within = reach()
    if (within !== 'all') where.needOneOfEither(['therapist_id', 'user_id'], within)
    if (therapist_id) where.need('therapist_id = ?', therapist_id)
    if (user_id) where.need('user_id = ?', user_id)
    if (status) where.need(`ended_at IS ${status === 'active' ? '' : 'NOT '}NULL`)
    const { rows, ...rest } = pageOf(read(assignments), where, ['begun_at', 'assignment_id'], turned)
    return { assignments: rows.map(shownOf), ...rest }
  },
})

export const assignmentsFeature: Feature = {
  name: 'assignments',
  events: [begun, ended],
  views: [assignments],
  commands: [begin, end],
  queries: [list],
}
