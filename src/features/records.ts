// Downstream records: what other modules append to an active session, how anyone entitled reads a session's log, follows
// it live, and sees it as a timeline.

import * as z from 'zod'
import { command } from '../core/command.ts'
import { events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { opaqueId, sha256 } from '../core/fields.ts'
import { sessionLog } from '../core/log.ts'
import { query, whole } from '../core/query.ts'
import { isErased } from '../core/record.ts'
import { ownSession, shownSession } from './sessions.ts'

const MOST_AT_ONCE = 1000
/** A page of sentences is no longer than this and one of them, whatever its limit. */
const MOST_IN_PAGE = 4 * 1024 * 1024

const ref = {
  sha256,
  format: z.string().min(1).max(64).describe('such as npy or parquet'),
  dims: z.array(z.int().min(0)).min(1).max(8),
}

export const { extracted } = events(
  'features',
  { home: 'session', source: 'extractor' },
  {
    extracted: {
      v: 1,
      does: 'Features were extracted from the recording. They lie beside the log; this says where, and what they are.',
      data: z.strictObject({
        raw_features_ref: z.union([
          z.strictObject({ artifact_id: opaqueId, ...ref }),
          z.strictObject({
            uri: z
              .string()
              .max(2000)
              .regex(/^(https|http|s3|gs|file):\/\/\S+$/),
            ...ref,
          }),
        ]),
        extractor: z.string().max(200).optional(),
        from_ms: z.number().min(0).optional(),
        to_ms: z.number().min(0).optional(),
      }),
      says: ({ source, data }) =>
        `${source} extracted features (${data.raw_features_ref.format}, ${data.raw_features_ref.dims.join(' × ')}).`,
      downstream: true,
    },
  },
)

export const { open } = events(
  'x',
  { home: 'session', source: 'x' },
  {
    open: {
      v: 1,
      does: 'The open schema of every x.<vendor>.<name>: any object, within the bounds of a line, and never raw media.',
      data: z.record(z.string(), z.json()),
      says: ({ type, source }) => `${source} recorded ${type}.`,
      downstream: true,
    },
  },
)

const isObject = (value: unknown) => typeof value === 'object' && value !== null && !Array.isArray(value)

// The data is checked by the recorder against its published schema, once; here it only has to be an object.
const record = z.strictObject({
  type: z.string().max(128),
  source: z.string().regex(/^[a-z][a-z0-9_.-]{0,63}$/, 'must be a module’s name: lower case, at most 64 characters'),
  user_id: opaqueId,
  performer_id: opaqueId,
  data: z.unknown().refine(isObject, 'must be an object').meta({ type: 'object', description: 'as schemas/<type>.v<v>.json says' }),
})

const append = command({
  at: 'POST /api/v1/sessions/{session_id}/records',
  does: 'Append records to an active session: one object, an array (all or nothing), or a stream of NDJSON (a line for each line).',
  may: 'record',
  door: 'device',
  makes: true,
  body: z.union([record, z.array(record).min(1).max(MOST_AT_ONCE)]),
  // Nothing is asked as often as this: what is in order is found so by code that was made for it. What is not goes the usual way.
  input: z.compile(z.strictObject({ session_id: opaqueId, many: z.boolean(), records: z.array(record).min(1).max(MOST_AT_ONCE) }), {
    strict: true,
  }),
  output: z.union([z.looseObject({ record_id: z.uuid() }), z.array(z.looseObject({ record_id: z.uuid() }))]),
  shape: (body, { session_id }) => ({ session_id, many: Array.isArray(body), records: Array.isArray(body) ? body : [body] }),
  place: (path, body) =>
    path.replace(/^records\.(\d+)\.?/, (_, i) => (Array.isArray(body) ? (path.length > `records.${i}`.length ? `${i}.` : i) : '')),
  // What else may stand here needs no quoting.
  printed: ({ session_id, many, records }, print) => {
    const each = records.map(
      ({ type, source, user_id, performer_id, data }) =>
        `{"type":${JSON.stringify(type)},"source":"${source}","user_id":"${user_id}","performer_id":"${performer_id}","data":${print(data as object)}}`,
    )
    return `{"session_id":"${session_id}","many":${many},"records":[${each.join(',')}]}`
  },
  whose: ({ records }) => records.map(({ user_id }) => user_id),
  who: ({ records }) => records.map(({ performer_id }) => performer_id),
  refuses: {
    'session-not-found': 'not-found',
    'session-user-mismatch': 'forbidden',
    'session-already-closed': 'invalid',
    'unknown-type': 'invalid',
    'foreign-source': 'invalid',
    'raw-media': 'invalid',
  },
  decide: (on) => {
    const { event, ours, refuse } = on
    const { session_id, records } = on.input
    const session = ownSession(on, records, session_id)
    if (session.status === 'closed') throw refuse('session-already-closed', 'The session has ended: its log takes no more records.')
    return records.map(({ type, source, user_id, performer_id, data }) => {
      const known = event(type)
      if (!known?.downstream)
        throw refuse('unknown-type', `No module may append a ${type.slice(0, 100)}: name a registered type, or x.<vendor>.<name>.`)
      if (ours(source)) throw refuse('foreign-source', `${source} speaks for Sessile itself: a module gives its own name.`)
      return { event: known, type, source, owner: { user_id, session_id, performer_id }, data }
    })
  },
  tells: (_, { many }) => (many ? undefined : 0),
})

const after = whole(0, Number.MAX_SAFE_INTEGER).default(0).describe('only records whose seq is higher')
const inSession = { session_id: opaqueId, after }

const read = query({
  at: 'GET /api/v1/sessions/{session_id}/records',
  does: 'The log of a session: as JSON; as NDJSON, the log’s own bytes (Accept: application/x-ndjson); or with follow=1 as Server-Sent Events, live.',
  did: 'read or followed the records of a session',
  may: 'read',
  input: z.strictObject({
    ...inSession,
    limit: whole(1, 10_000).optional().describe('1,000 where none is given; of NDJSON, all there are'),
    follow: z.enum(['0', '1']).default('0'),
  }),
  also: ['application/x-ndjson', 'text/event-stream'],
  output: z.object({ records: z.array(z.looseObject({ seq: z.int() })), next_after: z.int().nullable() }),
  refuses: { 'session-not-found': 'not-found' },
  read: (on) => {
    const { session_id, after, limit, follow } = on.input
    const session = shownSession(on, session_id)
    return on.slice(sessionLog(session.user_id, session_id), { after, limit, follow: follow === '1' })
  },
})

const entry = z.object({
  seq: z.int(),
  at: z.string(),
  offset_ms: z.int(),
  type: z.string(),
  performer_id: z.string(),
  says: z.string(),
})

const timeline = query({
  at: 'GET /api/v1/sessions/{session_id}/timeline',
  does: 'What happened in a session, in order, with the time since its start and a sentence for people.',
  did: 'read the timeline of a session',
  may: 'read',
  input: z.strictObject({ ...inSession, limit: whole(1, 5000).default(1000) }),
  output: z.object({ session_id: z.string(), started_at: z.string(), entries: z.array(entry), next_after: z.int().nullable() }),
  refuses: { 'session-not-found': 'not-found' },
  read: async (on) => {
    const { session_id, after, limit } = on.input
    const session = shownSession(on, session_id)
    const began = Date.parse(session.started_at)
    const entries: z.infer<typeof entry>[] = []
    let length = 0
    const page = (next_after: number | null) => ({ session_id, started_at: session.started_at, entries, next_after })
    for await (const some of on.records(sessionLog(session.user_id, session_id), after)) {
      for (const record of some) {
        if (isErased(record)) continue
        if (entries.length === limit || length > MOST_IN_PAGE) return page(entries.at(-1)?.seq ?? null)
        const { seq, timestamp, type, performer_id } = record
        const sentence = on.says(record)
        length += sentence.length
        on.hold(sentence.length)
        entries.push({ seq, at: timestamp, offset_ms: Date.parse(timestamp) - began, type, performer_id, says: sentence })
      }
    }
    return page(null)
  },
})

export const recordsFeature: Feature = {
  name: 'records',
  events: [extracted, open],
  commands: [append],
  queries: [read, timeline],
}
