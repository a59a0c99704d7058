// Reading sessions: lists that are limited to what the caller may see, pages that stay right while sessions come and go,
// and one session with its transcript.

import { z } from 'zod'
import type { Feature } from '../core/feature.ts'
import { opaqueId } from '../core/ids.ts'
import { sessionLog } from '../core/log.ts'
import { query, whole } from '../core/query.ts'
import { type Erased, isErased, type Recorded } from '../core/record.ts'
import type { Parameter } from '../core/view.ts'
import { attributeSchemas, attributes, type Kind, kind, kindsOfMode, rulesOf } from './kinds.ts'
import { type SessionRow, type Sessions, sessions, shownSession } from './sessions.ts'
import { type Said, said, transcriptOf } from './transcripts.ts'

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

type Damaged = ReadonlyMap<string, string>

const summaryOf = (row: SessionRow, damaged: Damaged): z.infer<typeof summary> => ({
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
  ...(damaged.has(sessionLog(row.user_id, row.session_id)) ? { damaged: true } : {}),
})

const time = z.iso.datetime({ offset: true }).or(z.iso.date())

const filters = {
  mode: z.enum(['voice', 'video']).optional(),
  kind: kind.optional(),
  status: z.enum(['active', 'closed']).optional(),
  from: time.optional().describe('started at or after'),
  to: time.optional().describe('started before'),
  limit: whole(1, 200, 50),
  offset: whole(0, 1_000_000, 0),
  cursor: z.string().max(200).optional().describe('the next_cursor of the page before'),
}
type Filters = z.infer<z.ZodObject<typeof filters>>

const page = z.object({ sessions: z.array(summary), next_cursor: z.string().nullable(), has_more: z.boolean() })

/** One page, newest first. The cursor names the last row given, so that rows which come or go shift nobody's page. */
function pageOf(
  { rows, damaged, badCursor }: { rows: Sessions; damaged: Damaged; badCursor: () => Error },
  users: 'all' | readonly string[],
  input: Filters,
): z.infer<typeof page> {
  const where: string[] = []
  const values: Parameter[] = []
  const need = (sql: string, ...given: Parameter[]) => {
    where.push(sql)
    values.push(...given)
  }
  const needOneOf = (column: string, these: readonly string[]) =>
    these.length === 1
      ? need(`${column} = ?`, these[0] as string)
      : need(`${column} IN (SELECT value FROM json_each(?))`, JSON.stringify(these))
  if (users !== 'all') needOneOf('user_id', users)
  // Of some users there are never so many sessions that another index than theirs would find them sooner: the plus says so.
  const kind = users === 'all' ? 'kind' : '+kind'
  if (input.mode) needOneOf(kind, kindsOfMode(input.mode))
  if (input.kind) need(`${kind} = ?`, input.kind)
  if (input.status) need('status = ?', input.status)
  if (input.from) need('started_at >= ?', new Date(input.from).toISOString())
  if (input.to) need('started_at < ?', new Date(input.to).toISOString())
  if (input.cursor) need('(started_at, session_id) < (?, ?)', ...readCursor(input.cursor, badCursor))
  const found = rows.find(
    `${where.length > 0 ? `WHERE ${where.join(' AND ')} ` : ''}ORDER BY started_at DESC, session_id DESC LIMIT ? OFFSET ?`,
    ...values,
    input.limit + 1,
    input.offset,
  )
  const has_more = found.length > input.limit
  const shown = found.slice(0, input.limit)
  const last = shown.at(-1)
  return {
    sessions: shown.map((row) => summaryOf(row, damaged)),
    next_cursor: has_more && last ? Buffer.from(`${last.started_at} ${last.session_id}`).toString('base64url') : null,
    has_more,
  }
}

function readCursor(cursor: string, bad: () => Error): [string, string] {
  const found = /^([0-9TZ:.-]{24}) ([A-Za-z0-9_]{1,64})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'))
  if (!found) throw bad()
  return [found[1] as string, found[2] as string]
}

const BAD_CURSOR = 'The cursor is not one that a page gave.'

const list = query({
  at: 'GET /api/v1/sessions',
  does: 'The sessions that the caller may see, newest first.',
  may: 'read',
  input: z.strictObject(filters),
  output: page,
  refuses: { 'bad-cursor': 'invalid' },
  read: ({ input, read, reach, damaged, refuse }) =>
    pageOf({ rows: read(sessions), damaged: damaged(), badCursor: () => refuse('bad-cursor', BAD_CURSOR) }, reach(), input),
})

const listOfUser = query({
  at: 'GET /api/v1/users/{user_id}/sessions',
  does: 'The sessions of one user, newest first.',
  may: 'read',
  input: z.strictObject({ user_id: opaqueId, ...filters }),
  output: page,
  refuses: { 'bad-cursor': 'invalid' },
  read: ({ input, read, permit, damaged, refuse }) => {
    permit(input.user_id)
    return pageOf(
      { rows: read(sessions), damaged: damaged(), badCursor: () => refuse('bad-cursor', BAD_CURSOR) },
      [input.user_id],
      input,
    )
  },
})

const detail = query({
  at: 'GET /api/v1/sessions/{session_id}',
  does: 'One session: its boundaries, its attributes and its transcript.',
  may: 'read',
  input: z.strictObject({ session_id: opaqueId }),
  output: summary.extend({
    started_by: z.string(),
    ended_by: z.string().nullable(),
    end_reason: z.string().nullable(),
    attributes: z.object(attributeSchemas),
    transcript: z.array(z.object({ timestamp: z.string(), speaker: z.string(), text: z.string() })),
  }),
  refuses: { 'session-not-found': 'not-found' },
  read: ({ input: { session_id }, records, ...on }) => {
    const row = shownSession(on, session_id)
    const { started_by, ended_by, end_reason } = row
    return {
      ...summaryOf(row, on.damaged()),
      started_by,
      ended_by,
      end_reason,
      attributes: attributesOf(row),
      transcript: transcriptOf(utterances(records(sessionLog(row.user_id, session_id)))),
    }
  },
})

function* utterances(records: Iterable<Recorded | Erased>): Generator<Said> {
  for (const record of records) if (!isErased(record) && record.type === said.type) yield record as Said
}

const attributesOf = (row: SessionRow) =>
  Object.fromEntries(
    rulesOf(row.kind)
      .attributes.filter((name) => row[name] !== null)
      .map((name) => [name, attributes[name].column.startsWith('INTEGER') ? row[name] === 1 : row[name]]),
  )

export const listsFeature: Feature = { name: 'lists', queries: [list, listOfUser, detail] }
