// The trail: who has read whose data, and who was refused. Each answer to a question and each refusal is one record of the
// day's audit log, durable before the answer is sent; never what was asked for or told. Who did write something is told by
// what they wrote.

import * as z from 'zod'
import { command } from '../core/command.ts'
import { type Draft, events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { opaqueId } from '../core/fields.ts'
import { badCursor, cursorTo, namedBy, paged, pageRefuses, paging } from '../core/page.ts'
import { query, time } from '../core/query.ts'
import type { Recorded } from '../core/record.ts'
import type { Noted } from '../core/trail.ts'
import { type NewRow, type Read, type Row, view } from '../core/view.ts'
import { wasAssigned } from './assignments.ts'
import { sessions } from './sessions.ts'

/** A record names so many users at most; who asks about more leaves more than one. */
const MOST_USERS = 1000

const about = {
  route: z.string().max(200).describe('as the contract writes it'),
  role: z.string().max(32).describe('of whoever asked; nobody, of somebody who did not prove who they are'),
  proved_by: z.string().max(64).optional().describe('what it was proved by: the id of a key, or of a sign-in'),
  users: z.array(opaqueId).max(MOST_USERS).describe('whose data was asked for or shown'),
  request_id: z.string().regex(/^[A-Za-z0-9._-]{1,64}$/),
  address: z.string().max(64).optional().describe('where the request came from'),
}

export const { read, refused } = events(
  'audit',
  { home: 'audit', source: 'audit' },
  {
    read: {
      v: 1,
      does: 'Somebody was shown something. What it was is not told, but whose.',
      data: z.strictObject({
        ...about,
        session_id: opaqueId.optional(),
        emergency: z.boolean().optional().describe('true where it was shown by emergency access'),
      }),
      says: ({ performer_id, data }) => `${performer_id} was answered ${data.route}${ofUsers(data.users)}.`,
    },
    refused: {
      v: 1,
      does: 'Somebody was refused.',
      data: z.strictObject({ ...about, reason: z.string().max(64) }),
      says: ({ performer_id, data }) => `${performer_id} was refused ${data.route}${ofUsers(data.users)}: ${data.reason}.`,
    },
  },
)

const ofUsers = (users: readonly string[]) => (users.length > 0 ? `, of ${users.join(', ')}` : '')

const columns = {
  audit_id: 'TEXT PRIMARY KEY -- when it was, and its place among the records of its log',
  record_id: 'TEXT NOT NULL -- the record',
  account_id: 'TEXT NOT NULL -- who asked; anonymous for somebody who did not prove who they are',
  role: 'TEXT NOT NULL -- of whoever asked',
  proved_by: 'TEXT -- what they proved it by: the id of a key, or of a sign-in',
  route: 'TEXT NOT NULL -- what was asked, as the contract writes it',
  users: 'TEXT NOT NULL -- JSON: the ids of those whose data was asked for or shown',
  session_id: 'TEXT -- the session that was read',
  emergency: 'INTEGER NOT NULL -- 1 where it was shown by emergency access',
  outcome: 'TEXT NOT NULL -- read or refused',
  reason: 'TEXT -- why it was refused',
  request_id: 'TEXT NOT NULL',
  address: 'TEXT',
} as const

export const audit = view('audit', 'Every answer to a question and every refusal.', columns, {
  indexes: ['(account_id, audit_id)'],
})
  .on(read, (record, rows) => {
    const { session_id, emergency } = record.data
    rows.put(rowOf(record, { outcome: 'read', session_id, emergency: Number(emergency === true) }))
  })
  .on(refused, (record, rows) => rows.put(rowOf(record, { outcome: 'refused', reason: record.data.reason, emergency: 0 })))

type Told = z.infer<z.ZodObject<typeof about>>

/** Times sort before places, which are as many digits long as a log can have lines; parts of a day have the same places. */
const auditIdOf = ({ timestamp, seq, record_id }: Recorded) =>
  `${timestamp} ${String(seq).padStart(12, '0')}-${record_id.slice(0, 8)}`

type Outcome = Pick<NewRow<typeof columns>, 'outcome' | 'reason' | 'session_id' | 'emergency'>

// There is one of these for every question: what begins with another object's fields would be given a shape of its own each time.
const rowOf = (record: Recorded<Told>, { outcome, reason, session_id, emergency }: Outcome): NewRow<typeof columns> => ({
  audit_id: auditIdOf(record),
  record_id: record.record_id,
  account_id: record.performer_id,
  role: record.data.role,
  proved_by: record.data.proved_by,
  route: record.data.route,
  users: JSON.stringify(record.data.users),
  request_id: record.data.request_id,
  address: record.data.address,
  outcome,
  reason,
  session_id,
  emergency,
})

// Keyed by the user first: whoever asks who looked at one user's data reads one piece of this table, however long it is.
const concerned = view('concerned', 'Whose data each entry of the trail is about.', {
  concerned_id: 'TEXT PRIMARY KEY -- the user, a space, and the audit_id',
})
  .on(read, (record, rows) => putConcerned(record, rows))
  .on(refused, (record, rows) => putConcerned(record, rows))

function putConcerned(record: Recorded<Told>, rows: { put(row: { concerned_id: string }): void }): void {
  for (const user_id of record.data.users) rows.put({ concerned_id: `${user_id} ${auditIdOf(record)}` })
}

// --- recording --------------------------------------------------------------------------------------------------------

const note = command<Noted>({
  does: 'Write down who was answered, or refused.',
  may: 'operate',
  input: z.custom<Noted>(),
  output: z.object({}),
  whose: ({ users }) => users,
  decide: ({ input }) => pieces(input.users).map((users) => noted(input, users)),
  answer: () => ({}),
})

function noted({ caller, route, request_id, address, session_id, reason }: Noted, users: readonly string[]): Draft {
  const [user, ...others] = users
  const { account_id: performer_id, role, by: proved_by, emergencies } = caller
  const owner = { user_id: user !== undefined && others.length === 0 ? user : performer_id, performer_id }
  const whom = users as string[]
  if (reason !== undefined) return refused(owner, { route, role, proved_by, users: whom, request_id, address, reason })
  const emergency = users.some((user) => emergencies?.has(user)) || undefined
  return read(owner, { route, role, proved_by, users: whom, request_id, address, session_id, emergency })
}

const pieces = (users: readonly string[]): (readonly string[])[] =>
  users.length <= MOST_USERS ? [users] : [users.slice(0, MOST_USERS), ...pieces(users.slice(MOST_USERS))]

// --- reading it -------------------------------------------------------------------------------------------------------

const STEP = 200
/**
 * So many entries are looked through for one page: what is rare is found page by page, and no search keeps others waiting.
 * A page may then be short, or empty, although there is more.
 */
const MOST_LOOKED_THROUGH = 5000

type AuditRow = Row<typeof columns>

interface Span {
  /** Only entries about this user; only those of this account. */
  user?: string | undefined
  account?: string | undefined
  from?: string | undefined
  to?: string | undefined
  cursor?: string | undefined
}

/** The entries of the trail in a span of time, newest first, read a few at a time. */
function* entriesIn(read: Read, { user, account, from, to, cursor }: Span): Generator<AuditRow> {
  const least = from === undefined ? '' : new Date(from).toISOString()
  // Ids begin with digits, so that a letter is behind them all.
  let before = cursor !== undefined ? namedIn(read, cursor, user) : to === undefined ? 'z' : new Date(to).toISOString()
  const inSpan = (column: string) => `${column} < ? AND ${column} >= ? ORDER BY ${column} DESC LIMIT ${STEP}`
  const step = (): AuditRow[] => {
    if (user !== undefined)
      return read(concerned)
        .find(`WHERE ${inSpan('concerned_id')}`, `${user} ${before}`, `${user} ${least}`)
        .map(({ concerned_id }) => read(audit).get({ audit_id: concerned_id.slice(user.length + 1) }) as AuditRow)
    if (account !== undefined) return read(audit).find(`WHERE account_id = ? AND ${inSpan('audit_id')}`, account, before, least)
    return read(audit).find(`WHERE ${inSpan('audit_id')}`, before, least)
  }
  for (;;) {
    const rows = step()
    yield* rows
    if (rows.length < STEP) return
    before = (rows.at(-1) as AuditRow).audit_id
  }
}

// A cursor names a record by its id, and not by its place in the trail: that would tell each patient how many others were
// looked at meanwhile.
const cursorOf = (row: AuditRow) => cursorTo(timeOf(row), row.record_id)

/** Only where the trail of this user has it: whether an entry about others is there, is told to nobody. */
function namedIn(read: Read, cursor: string, user: string | undefined): string {
  const [time, record_id] = namedBy(cursor)
  const named = read(audit).find('WHERE audit_id > ? AND audit_id < ? AND record_id = ?', `${time} `, `${time} z`, record_id)[0]
  if (!named || (user !== undefined && !read(concerned).get({ concerned_id: `${user} ${named.audit_id}` }))) throw badCursor()
  return named.audit_id
}

interface Page {
  rows: AuditRow[]
  next_cursor: string | null
  has_more: boolean
}

function pageOf(entries: Iterable<AuditRow>, limit: number, fits: (row: AuditRow) => boolean): Page {
  const rows: AuditRow[] = []
  let looked = 0
  let last: AuditRow | undefined
  for (const row of entries) {
    if (last && looked === MOST_LOOKED_THROUGH) return { rows, next_cursor: cursorOf(last), has_more: true }
    looked++
    last = row
    if (!fits(row)) continue
    // What does not fit leaves no trace: the page ends with what it shows, and there is more only if that fits.
    if (rows.length === limit) return { rows, next_cursor: cursorOf(rows.at(-1) as AuditRow), has_more: true }
    rows.push(row)
  }
  return { rows, next_cursor: null, has_more: false }
}

const timeOf = ({ audit_id }: AuditRow) => audit_id.slice(0, audit_id.indexOf(' '))

const access = query({
  at: 'GET /api/v1/users/{user_id}/access',
  does: 'Who has looked at the data of one user, newest first.',
  did: 'looked up who had seen this data',
  may: 'read',
  ofTrail: true,
  input: z.strictObject({ user_id: opaqueId, ...paging }),
  output: z.object({
    looks: z.array(
      z.object({
        at: z.string(),
        account_id: z.string(),
        role: z.string(),
        did: z.string().describe('what they have done, in plain words'),
        session_id: z.string().nullable(),
        session_number: z.int().nullable(),
        emergency: z.boolean().describe('by emergency access, for which they had to give a reason'),
      }),
    ),
    ...paged,
  }),
  refuses: pageRefuses,
  read: ({ input: { user_id, limit, cursor }, read, permit, did }) => {
    permit(user_id)
    const { rows, ...rest } = pageOf(entriesIn(read, { user: user_id, cursor }), limit, ({ outcome }) => outcome === 'read')
    // Somebody may have asked about this user and named a session of another.
    const ownSession = (session_id: string | null) => {
      const row = session_id === null ? undefined : read(sessions).get({ session_id })
      return row?.user_id === user_id ? row : undefined
    }
    const looks = rows.map((row) => {
      const { session_id = null, session_number = null } = ownSession(row.session_id) ?? {}
      const { account_id, role } = row
      const at = timeOf(row)
      // A list may have shown others because of an emergency, of which this user is told nothing.
      const emergency = row.emergency === 1 && !wasAssigned(read, account_id, user_id, at)
      return { at, account_id, role, did: did(row.route), session_id, session_number, emergency }
    })
    return { looks, ...rest }
  },
})

const entryOf = (row: AuditRow) => {
  const { audit_id: _, record_id: __, ...rest } = row
  return {
    at: timeOf(row),
    ...rest,
    users: JSON.parse(row.users) as string[],
    emergency: row.emergency === 1,
    outcome: row.outcome as 'read' | 'refused',
  }
}

const search = query({
  at: 'GET /api/v1/audit',
  does: 'The audit trail, newest first: every answer to a question and every refusal. A page may be short although there is more: has_more tells.',
  did: 'searched the audit trail',
  may: 'administer',
  ofTrail: true,
  input: z.strictObject({
    account: z.string().max(64).optional().describe('who asked; anonymous for somebody who did not prove who they are'),
    user: opaqueId.optional().describe('whose data was asked for or shown'),
    route: z.string().max(200).optional().describe('such as GET /api/v1/sessions'),
    outcome: z.enum(['read', 'refused']).optional(),
    request_id: z.string().max(64).optional(),
    from: time.optional().describe('at or after'),
    to: time.optional().describe('before'),
    ...paging,
  }),
  output: z.object({
    entries: z.array(
      z.object({
        at: z.string(),
        account_id: z.string(),
        role: z.string(),
        proved_by: z.string().nullable(),
        route: z.string(),
        users: z.array(z.string()),
        session_id: z.string().nullable(),
        emergency: z.boolean(),
        outcome: z.enum(['read', 'refused']),
        reason: z.string().nullable(),
        request_id: z.string(),
        address: z.string().nullable(),
      }),
    ),
    ...paged,
  }),
  refuses: pageRefuses,
  read: ({ input: { limit, account, user, route, outcome, request_id, ...span }, read, permit }) => {
    // Who asks about somebody has looked at them, and they are told.
    permit(...(user === undefined ? [] : [user]))
    const wanted = { account_id: account, route, outcome, request_id }
    const fits = (row: AuditRow) =>
      Object.entries(wanted).every(([column, value]) => value === undefined || row[column as keyof typeof wanted] === value)
    const { rows, ...rest } = pageOf(entriesIn(read, { user, account, ...span }), limit, fits)
    return { entries: rows.map(entryOf), ...rest }
  },
})

export const auditFeature: Feature = {
  name: 'audit',
  events: [read, refused],
  views: [audit, concerned],
  queries: [access, search],
  trail: note,
}
