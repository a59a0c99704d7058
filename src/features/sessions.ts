// Sessions and their boundaries: the protocol of capture devices, and the lists that everyone reads. A session starts
// once, ends once, and has a number that never changes; in an exclusive kind a user has at most one that is active.

import * as z from 'zod'
import { command, type Decision } from '../core/command.ts'
import { Refusal } from '../core/errors.ts'
import { events } from '../core/event.ts'
import type { Chore, Feature } from '../core/feature.ts'
import { opaqueId, sessionId } from '../core/fields.ts'
import { isSessionLog, lastName, sessionLog } from '../core/log.ts'
import { type Asked, query } from '../core/query.ts'
import { type Readable, type Row, view } from '../core/view.ts'
import { type Attribute, attributeNames, attributeSchemas, attributes } from './attributes.ts'
import { type Kind, kindNames, limitsOf, rulesOf } from './kinds.ts'
import { flagged } from './transcripts.ts'

export const kind = z.enum(kindNames)

const SOURCE = 'session_manager'

const chosenReasons = ['completed', 'disconnected'] as const
const systemReasons = ['idle-timeout', 'longest-length'] as const

export const { started, ended } = events(
  'session',
  { home: 'session', source: SOURCE },
  {
    started: {
      v: 1,
      does: 'A session began.',
      data: z.strictObject({ kind, session_number: z.int().min(1), ...attributeSchemas }),
      says: ({ performer_id, data }) =>
        `Session ${data.session_number} (${rulesOf(data.kind).does}) was started by ${performer_id}.`,
    },
    ended: {
      v: 1,
      does: 'A session ended: its log takes no more records.',
      data: z.strictObject({ reason: z.enum([...chosenReasons, ...systemReasons]) }),
      says: ({ performer_id, data }) => `The session was ended by ${performer_id} (${data.reason}).`,
    },
  },
)

// A session whose log is damaged can take no more records, not even its end. What is recorded of it stands in its user's log.
export const { abandoned } = events(
  'session',
  { home: 'user', source: SOURCE },
  {
    abandoned: {
      v: 1,
      does: 'A session was given up, so that another one could start: its log is damaged, and nobody knows whether it had ended.',
      data: z.strictObject({ session_id: sessionId }),
      says: ({ data }) => `The session ${data.session_id} was given up, because its log is damaged.`,
    },
  },
)

const abandonedSessions = view('abandoned', 'The sessions that were given up because their logs are damaged.', {
  session_id: 'TEXT PRIMARY KEY',
  user_id: 'TEXT NOT NULL -- whose session it is',
  abandoned_at: 'TEXT NOT NULL -- the time of the server',
}).on(abandoned, ({ user_id, timestamp, data }, rows) => rows.put({ ...data, user_id, abandoned_at: timestamp }))

const columns = {
  session_id: 'TEXT PRIMARY KEY',
  user_id: 'TEXT NOT NULL -- whose session it is',
  session_number: 'INTEGER NOT NULL -- the how-manieth of this user, never reused',
  kind: 'TEXT NOT NULL -- capture, voice, video, therapy or workflow',
  exclusive: 'INTEGER NOT NULL -- 1 where a user has at most one active session of this kind',
  status: 'TEXT NOT NULL -- active or closed',
  started_at: 'TEXT NOT NULL -- the time of the server',
  started_by: 'TEXT NOT NULL -- an account, a device or system',
  ended_at: 'TEXT -- the time of the server; NULL while active, and where nobody knows',
  ended_by: 'TEXT',
  end_reason: 'TEXT -- completed, disconnected, idle-timeout or longest-length; abandoned where its log is damaged before its end',
  duration_seconds: 'REAL -- from start to end; NULL where ended_at is',
  crisis_detected: 'INTEGER NOT NULL -- 1 where a crisis was flagged',
} as const
type AttributeColumns = { [A in keyof typeof attributes]: (typeof attributes)[A]['column'] }
const attributeColumns = Object.fromEntries(attributeNames.map((name) => [name, attributes[name].column])) as AttributeColumns

const givenUp = { status: 'closed', end_reason: 'abandoned' } as const

export const sessions = view(
  'sessions',
  'Every session: one row from its start on.',
  { ...columns, ...attributeColumns },
  {
    indexes: [
      // The last guard of law 8, whatever the code before it believes.
      "UNIQUE (user_id, kind) WHERE status = 'active' AND exclusive = 1",
      'UNIQUE (user_id, session_number)',
      '(started_at, session_id)',
      '(user_id, started_at, session_id)',
      "(kind, started_at) WHERE status = 'active'",
      '(kind, started_at, session_id)',
    ],
  },
)
  .on(started, ({ session_id, user_id, performer_id, timestamp, data }, rows, read) => {
    const isAbandoned = read(abandonedSessions).get({ session_id: session_id as string }) !== undefined
    rows.put({
      session_id: session_id as string,
      user_id,
      exclusive: Number(rulesOf(data.kind).exclusive),
      status: 'active',
      started_at: timestamp,
      started_by: performer_id,
      crisis_detected: 0,
      ...data,
      is_training_data: data.is_training_data === undefined ? null : Number(data.is_training_data),
      ...(isAbandoned ? givenUp : {}),
    })
  })
  .on(abandoned, ({ data: { session_id } }, rows) => {
    // An end that is there after all, since its log was mended, says more.
    if (rows.get({ session_id })?.status === 'active') rows.set({ session_id }, givenUp)
  })
  .on(ended, ({ session_id, performer_id, timestamp, data }, rows) => {
    const { started_at } = rows.get({ session_id: session_id as string }) as SessionRow
    rows.set(
      { session_id: session_id as string },
      {
        status: 'closed',
        ended_at: timestamp,
        ended_by: performer_id,
        end_reason: data.reason,
        duration_seconds: (Date.parse(timestamp) - Date.parse(started_at)) / 1000,
      },
    )
  })
  .on(flagged, ({ session_id }, rows) => rows.set({ session_id: session_id as string }, { crisis_detected: 1 }))

export type SessionRow = Row<typeof columns & AttributeColumns>
type Sessions = Readable<typeof columns & AttributeColumns>

export type Damaged = ReadonlyMap<string, string>

/** A list goes over many sessions that nobody asks for next: the names of their logs are not made, and remembered, for nothing. */
export const isDamaged = (damaged: Damaged, { user_id, session_id }: Pick<SessionRow, 'user_id' | 'session_id'>) =>
  damaged.size > 0 && damaged.has(sessionLog(user_id, session_id))

/** Whose session it is of which nothing can be told, because its log is damaged from its first line on. */
function ownerOfLost(damaged: Damaged, session_id: string): string | undefined {
  for (const log of damaged.keys()) if (isSessionLog(log) && lastName(log) === session_id) return log.split('/')[1]
  return undefined
}

/** How reasons are refused that others declare, too. */
interface Refusing<R extends string> {
  refuse: (reason: R, detail: string) => Refusal
}

const notFound = ({ refuse }: Refusing<'session-not-found'>) => refuse('session-not-found', 'There is no such session.')

/** A session that was recorded: whose it is, and its row, unless nothing can be told of it. */
interface Known {
  user_id: string
  row: SessionRow | undefined
}

/** Looks for it in both places, whatever is found in the first: how long it takes tells nothing of whether it is there. */
function knownSession({ read, damaged }: Pick<Asked<unknown, never>, 'read' | 'damaged'>, session_id: string): Known | undefined {
  const row = read(sessions).get({ session_id })
  const lost = ownerOfLost(damaged(), session_id)
  const user_id = row?.user_id ?? lost
  return user_id === undefined ? undefined : { user_id, row }
}

/** Its row, or a refusal where its log tells nothing of it any more. */
function rowOf({ row }: Known): SessionRow {
  if (row) return row
  throw damagedSession(' from its first line on')
}

const damagedSession = (where: string) =>
  new Refusal(
    'unavailable',
    'log-damaged',
    `The log of this session is damaged${where}. The operator can find out more with sessile verify.`,
  )

/** The session, if the caller may see it; refuses where there is none, or where nothing can be told of it. */
export function shownSession(
  on: Pick<Asked<unknown, 'session-not-found'>, 'read' | 'damaged' | 'permit'> & Refusing<'session-not-found'>,
  session_id: string,
): SessionRow {
  const known = knownSession(on, session_id)
  if (!known) throw notFound(on)
  on.permit(known.user_id)
  return rowOf(known)
}

/** The session that goes on with these, each of which is said to be of its user; refuses where one is not. */
export function ownSession(
  on: Pick<Decision<unknown, never>, 'read' | 'damaged' | 'concerns'> & Refusing<'session-not-found' | 'session-user-mismatch'>,
  those: readonly { user_id: string }[],
  session_id: string,
): SessionRow {
  const known = knownSession(on, session_id)
  if (!known) throw notFound(on)
  on.concerns(known.user_id)
  if (those.some(({ user_id }) => user_id !== known.user_id))
    throw on.refuse('session-user-mismatch', 'The session is another user’s.')
  return rowOf(known)
}

/** The answer of the boundary protocol: the recorded event, the data's fields beside the envelope's. */
const envelope = {
  record_id: z.uuid(),
  seq: z.int().optional().describe('not told to whoever reads the log in part'),
  type: z.string(),
  v: z.int(),
  source: z.string(),
  user_id: opaqueId,
  session_id: z.string(),
  performer_id: opaqueId,
  timestamp: z.string(),
}

// --- boundaries -------------------------------------------------------------------------------------------------------

const boundary = { source: z.literal(SOURCE).optional(), user_id: opaqueId, performer_id: opaqueId }

/** The highest number that a session of this user has had. Sessions whose logs tell nothing any more had numbers, too. */
function highestOf(user_id: string, rows: Sessions, damaged: Damaged): number {
  const number = (what: string) => rows.one<{ n: number | null }>(`${what} AS n`, 'WHERE user_id = ?', user_id)?.n ?? 0
  const folder = sessionLog(user_id, '')
  const lost = [...damaged.keys()].filter((log) => log.startsWith(folder) && !rows.get({ session_id: lastName(log) })).length
  return Math.max(number('max(session_number)'), lost > 0 ? number('count(*)') + lost : 0)
}

const giveUp = (user_id: string, session_id: string) => abandoned({ user_id, performer_id: 'system' }, { session_id })

/** The attributes among these that the kind does not have. */
const foreignTo = (kind: Kind, given: object) =>
  Object.keys(given).filter((name) => name in attributes && !rulesOf(kind).attributes.includes(name as Attribute))

/** The session of an exclusive kind that is in the way of another one. */
export const activeOf = (rows: Sessions, user_id: string, kind: string): SessionRow | undefined =>
  rows.find("WHERE user_id = ? AND kind = ? AND status = 'active' AND exclusive = 1", user_id, kind)[0]

const start = command({
  at: 'POST /session_manager/sessions.start',
  does: 'Start a session. The server gives it its id, its number and its time.',
  may: 'record',
  door: 'device',
  makes: true,
  input: z.strictObject({ ...boundary, kind: kind.default('capture'), ...attributeSchemas }).superRefine((input, context) => {
    for (const name of foreignTo(input.kind, input)) {
      context.addIssue({ code: 'custom', path: [name], message: `is not an attribute of the kind ${input.kind}` })
    }
  }),
  output: z.object({ ...envelope, ...started.data.shape }),
  whose: ({ user_id }) => [user_id],
  refuses: { 'session-already-active': 'refused' },
  decide: ({ input, read, ulid, damaged, refuse }) => {
    const { source: _, user_id, performer_id, kind, ...given } = input
    const { exclusive, defaults } = rulesOf(kind)
    const active = exclusive ? activeOf(read(sessions), user_id, kind) : undefined
    // Nothing more can be recorded in a damaged log: whether its session has ended or not, it is not going on.
    const lost = active && isDamaged(damaged(), active)
    if (active && !lost) {
      throw refuse('session-already-active', `The user has an active ${kind} session.`, { session_id: active.session_id })
    }
    const session_number = highestOf(user_id, read(sessions), damaged()) + 1
    const owner = { user_id, performer_id, session_id: `sess_${ulid()}` }
    return [...(lost ? [giveUp(user_id, active.session_id)] : []), started(owner, { kind, session_number, ...defaults, ...given })]
  },
  tells: (records) => records.findIndex(({ type }) => type === started.type),
})

const end = command({
  at: 'POST /session_manager/sessions.end',
  does: 'End a session.',
  may: 'record',
  door: 'device',
  input: z.strictObject({ ...boundary, session_id: opaqueId, reason: z.enum(chosenReasons).default('completed') }),
  output: z.object({ ...envelope, ...ended.data.shape }),
  whose: ({ user_id }) => [user_id],
  refuses: { 'session-not-found': 'not-found', 'session-user-mismatch': 'forbidden', 'session-already-closed': 'refused' },
  decide: (on) => {
    const { user_id, session_id, performer_id, reason } = on.input
    const session = ownSession(on, [on.input], session_id)
    if (session.status === 'closed')
      throw on.refuse('session-already-closed', 'The session has already ended.', { ended_at: session.ended_at })
    return [ended({ user_id, session_id, performer_id }, { reason })]
  },
})

const validate = query({
  at: 'POST /session_manager/sessions.validate',
  does: 'Is this session of this user active? Foreign and unknown sessions are both invalid.',
  did: 'asked whether a session is active',
  may: 'record',
  door: 'device',
  input: z.strictObject({ user_id: opaqueId, session_id: opaqueId }),
  output: z.object({ status: z.enum(['active', 'closed', 'invalid']) }),
  read: (on) => {
    const { user_id, session_id } = on.input
    on.permit(user_id)
    const known = knownSession(on, session_id)
    if (known?.user_id !== user_id) return { status: 'invalid' }
    const session = rowOf(known)
    // Whether it has ended may stand where its log is damaged; that it goes on cannot be.
    if (session.status === 'active' && isDamaged(on.damaged(), session)) throw damagedSession('')
    return { status: session.status }
  },
})

// --- what the system closes -------------------------------------------------------------------------------------------

/** Ends a session that is past its longest length, or in which nothing was recorded for too long. */
const close = command({
  does: 'Close a session that has outlived its limits.',
  may: 'operate',
  input: z.strictObject({ user_id: opaqueId, session_id: opaqueId }),
  output: z.object({}),
  whose: ({ user_id }) => [user_id],
  refuses: { 'not-due': 'refused' },
  decide: ({ input: { user_id, session_id }, read, now, settings, lastAt, damaged, refuse }) => {
    const session = read(sessions).get({ session_id })
    const reason = session?.status === 'active' && overdue(session, limitsOf(session.kind, settings), now, lastAt)
    if (!reason) throw refuse('not-due', 'The session is within its limits.')
    if (isDamaged(damaged(), { user_id, session_id })) return [giveUp(user_id, session_id)]
    return [ended({ user_id, session_id, performer_id: 'system' }, { reason })]
  },
})

type Times = Pick<SessionRow, 'user_id' | 'session_id' | 'started_at'>

function overdue(
  session: Times,
  limits: { idle: number; longest: number },
  now: number,
  lastAt: (log: string) => number | undefined,
) {
  const since = Date.parse(session.started_at)
  if (limits.longest > 0 && now - since >= limits.longest * 1000) return 'longest-length'
  const last = lastAt(sessionLog(session.user_id, session.session_id)) ?? since
  return limits.idle > 0 && now - last >= limits.idle * 1000 ? 'idle-timeout' : undefined
}

const closeOverdue: Chore = {
  does: 'Close sessions that have outlived their limits.',
  due: ({ read, now, settings, lastAt }) =>
    kindNames.flatMap((kind) => {
      const limits = limitsOf(kind, settings)
      const shortest = Math.min(limits.idle || Number.POSITIVE_INFINITY, limits.longest || Number.POSITIVE_INFINITY)
      if (shortest === Number.POSITIVE_INFINITY) return []
      const before = new Date(now - shortest * 1000).toISOString()
      return read(sessions)
        .find("WHERE kind = ? AND status = 'active' AND started_at <= ?", kind, before)
        .filter((session) => overdue(session, limits, now, lastAt))
        .map(({ user_id, session_id }) => ({ command: close, input: { user_id, session_id } }))
    }),
}

export const sessionsFeature: Feature = {
  name: 'sessions',
  events: [started, ended, abandoned],
  views: [abandonedSessions, sessions],
  commands: [start, end, close],
  queries: [validate],
  chores: [closeOverdue],
}
