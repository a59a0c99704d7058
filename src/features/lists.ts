// Reading sessions: lists that are limited to what the caller may see, pages that stay right while sessions come and go,
// and one session with its transcript.

import * as z from 'zod'
import type { Feature } from '../core/feature.ts'
import { opaqueId } from '../core/fields.ts'
import { sessionLog } from '../core/log.ts'
import { paged, pageOf, pageRefuses, paging, Where } from '../core/page.ts'
import { type Asked, Listed, query, time, whole } from '../core/query.ts'
import { attributeSchemas, attributes } from './attributes.ts'
import { type Kind, kindsOfMode, rulesOf } from './kinds.ts'
import { type Damaged, isDamaged, kind, type SessionRow, sessions, shownSession } from './sessions.ts'
import { transcriptOf, utterance } from './transcripts.ts'

const summary = z.object({
  session_id: z.string(),
  user_id: z.string(),
  session_number: z.int(),
  kind,
  mode: z.enum(['voice', 'video']).nullable(),
  counselor_category: z.string().nullable(),
  status: z.enum(['active', 'closed']),
  started_at: z.string(),
  ended_at: z.string().nullable(),
  duration_seconds: z.number().nullable(),
  crisis_detected: z.boolean(),
  disconnected: z.boolean(),
  damaged: z.literal(true).optional().describe('its log is damaged: what is told here may be less than was recorded'),
})

/** What is told of a session in a list, and not how it was remarked on at length. */
const shown = [
  'session_id',
  'user_id',
  'session_number',
  'kind',
  'counselor_category',
  'status',
  'started_at',
  'ended_at',
  'end_reason',
  'duration_seconds',
  'crisis_detected',
] as const

const summaryOf = (row: Pick<SessionRow, (typeof shown)[number]>, damaged: Damaged): z.infer<typeof summary> => ({
  session_id: row.session_id,
  user_id: row.user_id,
  session_number: row.session_number,
  kind: row.kind as Kind,
  mode: rulesOf(row.kind).mode,
  counselor_category: row.counselor_category,
  status: row.status as 'active' | 'closed',
  started_at: row.started_at,
  ended_at: row.ended_at,
  duration_seconds: row.duration_seconds,
  crisis_detected: row.crisis_detected === 1,
  disconnected: row.end_reason === 'disconnected',
  ...(isDamaged(damaged, row) ? { damaged: true } : {}),
})

const filters = {
  mode: z.enum(['voice', 'video']).optional(),
  kind: kind.optional(),
  status: z.enum(['active', 'closed']).optional(),
  from: time.optional().describe('started at or after'),
  to: time.optional().describe('started before'),
  offset: whole(0, 1_000_000).default(0),
  ...paging,
}
type Filters = z.infer<z.ZodObject<typeof filters>>

const page = z.object({ sessions: z.array(summary), ...paged })

function listed(
  { input, read, damaged }: Pick<Asked<Filters, never>, 'input' | 'read' | 'damaged'>,
  users: 'all' | readonly string[],
): z.infer<typeof page> {
  const where = new Where()
  if (users !== 'all') where.needOneOf('user_id', users)
  // Of some users there are never so many sessions that another index than theirs would find them sooner: the plus says so.
  const kind = users === 'all' ? 'kind' : '+kind'
  if (input.mode) where.needOneOf(kind, kindsOfMode(input.mode))
  if (input.kind) where.need(`${kind} = ?`, input.kind)
  if (input.status) where.need('status = ?', input.status)
  if (input.from) where.need('started_at >= ?', new Date(input.from).toISOString())
  if (input.to) where.need('started_at < ?', new Date(input.to).toISOString())
  const { rows, next_cursor, has_more } = pageOf(read(sessions).only(shown), where, ['started_at', 'session_id'], input)
  return { sessions: rows.map((row) => summaryOf(row, damaged())), next_cursor, has_more }
}

const list = query({
  at: 'GET /api/v1/sessions',
  does: 'The sessions that the caller may see, newest first.',
  did: 'seen a list of sessions',
  may: 'read',
  input: z.strictObject(filters),
  output: page,
  refuses: pageRefuses,
  shows: ({ sessions }) => sessions.map(({ user_id }) => user_id),
  read: (on) => listed(on, on.reach()),
})

const listOfUser = query({
  at: 'GET /api/v1/users/{user_id}/sessions',
  does: 'The sessions of one user, newest first.',
  did: 'seen the list of sessions',
  may: 'read',
  input: z.strictObject({ user_id: opaqueId, ...filters }),
  output: page,
  refuses: pageRefuses,
  read: (on) => {
    on.permit(on.input.user_id)
    return listed(on, [on.input.user_id])
  },
})

const detail = query({
  at: 'GET /api/v1/sessions/{session_id}',
  does: 'One session: its boundaries, its attributes and its transcript.',
  did: 'read a session with its transcript',
  may: 'read',
  input: z.strictObject({ session_id: opaqueId }),
  output: summary.extend({
    started_by: z.string(),
    ended_by: z.string().nullable(),
    end_reason: z.string().nullable(),
    attributes: z.object(attributeSchemas),
    transcript: z.array(utterance),
  }),
  refuses: { 'session-not-found': 'not-found' },
  read: (on) => {
    const { session_id } = on.input
    const row = shownSession(on, session_id)
    const { started_by, ended_by, end_reason } = row
    const about = Object.assign(summaryOf(row, on.damaged()), { started_by, ended_by, end_reason, attributes: attributesOf(row) })
    const log = sessionLog(row.user_id, session_id)
    const transcript = transcriptOf((which) => on.standing(log, which))
    return new Listed(about, 'transcript', transcript)
  },
})

const attributesOf = (row: SessionRow) =>
  Object.fromEntries(
    rulesOf(row.kind)
      .attributes.filter((name) => row[name] !== null)
      .map((name) => [name, attributes[name].column.startsWith('INTEGER') ? row[name] === 1 : row[name]]),
  )

export const listsFeature: Feature = { name: 'lists', queries: [list, listOfUser, detail] }
