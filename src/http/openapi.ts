// The contract of the door as OpenAPI 3.1, printed from what the features declare: every route, every field, and every
// refusal with its reason.

import * as z from 'zod'
import type { Command, Refuses } from '../core/command.ts'
import { absentReason } from '../core/concealing.ts'
import type { RefusalKind } from '../core/errors.ts'
import type { Gathered } from '../core/feature.ts'
import { type Action, isOpen, nobody, policy, withoutFactor } from '../core/policy.ts'
import { jsonSchema } from '../core/print.ts'
import type { Query } from '../core/query.ts'
import { LARGEST_LINE } from '../core/record.ts'
import { MOST_BYTES } from './body.ts'
import { DEEPEST, LONGEST_STRING, MOST_ENTRIES } from './json.ts'
import { type Door, headersOf, statusOf, success } from './problem.ts'

/** What any route may answer, whatever it declares itself. */
const always: Refuses = {
  invalid: 'invalid',
  unauthenticated: 'unauthenticated',
  'too-many-requests': 'limited',
  forbidden: 'forbidden',
  'cross-site': 'forbidden',
  'target-too-long': 'too-large',
  'headers-too-large': 'too-large',
  'headers-too-slow': 'invalid',
  starting: 'unavailable',
  rebuilding: 'unavailable',
  'log-damaged': 'unavailable',
  overloaded: 'unavailable',
  // Nothing is told that the trail could not be told of before.
  'not-recorded': 'unavailable',
  'outcome-unknown': 'unavailable',
  stopping: 'unavailable',
}
const alwaysOf = (may: Action): Refuses =>
  withoutFactor.includes(may) ? always : { ...always, 'second-factor-missing': 'forbidden' }
const ofBodies: Refuses = {
  'unsupported-media-type': 'invalid',
  'body-too-large': 'too-large',
  'body-too-slow': 'invalid',
  'record-too-large': 'too-large',
}
const ofCommands: Refuses = {
  ...ofBodies,
  'performer-required': 'invalid',
  'raw-media': 'invalid',
  'not-the-system': 'forbidden',
  'not-yourself': 'forbidden',
  'idempotency-key-reused': 'refused',
  erased: 'not-found',
}

/** Where a deployment conceals what is out of reach, each route may say that something is not there. */
const orAbsent = (refuses: Refuses): Refuses => ({ [absentReason(refuses)]: 'not-found', ...refuses })

type Json = Record<string, unknown>

export function openapi({ commands, queries }: Gathered): Json {
  const paths: Record<string, Json> = {}
  for (const query of queries) place(paths, query.at, ofQuery(query))
  for (const command of commands) if (command.at !== undefined) place(paths, command.at, ofCommand(command))
  return {
    openapi: '3.1.0',
    info: {
      title: 'Sessile',
      version: '1',
      description: 'The system of record for sessions. Every success of a command means that its records are durable.',
    },
    servers: [{ url: '/' }],
    security: [{ bearer: [] }, { cookie: [] }],
    paths,
    components: { securitySchemes, schemas: { Problem: problem }, headers },
  }
}

const securitySchemes = {
  bearer: { type: 'http', scheme: 'bearer', description: 'A key, or the access token of a sign-in.' },
  cookie: {
    type: 'apiKey',
    in: 'cookie',
    name: '__Host-sessile-access',
    description: 'What a browser was given at sign-in (sessile-access where Sessile is served on a loopback address without TLS).',
  },
}

/** Nobody need prove who they are for what is open to all. */
const openly = (may: Action) => (isOpen(may, nobody) ? { security: [] } : {})

function place(paths: Record<string, Json>, at: string, operation: Json): void {
  const [method, path] = at.split(' ') as [string, string]
  paths[path] = { ...paths[path], [method.toLowerCase()]: operation }
}

function ofCommand({ at = '', does, may, named, input, output, makes, body, refuses, door }: Command): Json {
  const fields = jsonSchema(input, 'input')
  const names = pathNames(at)
  const json = { 'application/json': { schema: bare(body ? jsonSchema(body, 'input') : without(fields, names)) } }
  const bodiless = !body && Object.keys((fields.properties ?? {}) as Json).every((name) => names.includes(name))
  return {
    summary: does,
    operationId: idOf(at),
    ...openly(may),
    parameters: [...names.map((name) => inPath(name, fields)), ...(named ? [idempotencyKey] : [])],
    ...(bodiless
      ? {}
      : {
          requestBody: {
            required: true,
            description: BOUNDS,
            content: body ? { ...json, [NDJSON]: { schema: json['application/json'].schema } } : json,
          },
        }),
    responses: {
      ...answer(may, makes, output),
      // A stream of lines is answered by a stream of lines: refusals are among them.
      ...(body
        ? { [success.done]: { description: 'For each line of the stream its record or its refusal.', content: { [NDJSON]: {} } } }
        : {}),
      ...refusals({ ...alwaysOf(may), ...ofCommands, ...orAbsent(refuses) }, door),
    },
  }
}

const BOUNDS =
  `At most ${MOST_BYTES} bytes (a line of a stream: ${LARGEST_LINE}), nested at most ${DEEPEST} deep, ${MOST_ENTRIES} fields or items ` +
  `side by side, ${LONGEST_STRING} bytes a string. UTF-8, no name twice in one object, no half of a surrogate pair, and no number that a ` +
  'double would turn into another whole number, into infinity or into nothing (RFC 7493).'

const idempotencyKey = {
  name: 'Idempotency-Key',
  in: 'header',
  schema: { type: 'string', pattern: '^[\\x21-\\x7e]{1,255}$' },
  description: 'The caller’s own name for this request: a retry under it records nothing new and gets the first answer.',
}

function ofQuery({ at, does, may, input, output, also, refuses, door }: Query): Json {
  const fields = jsonSchema(input, 'input')
  const names = pathNames(at)
  const posted = at.startsWith('POST ')
  const operation = {
    summary: does,
    operationId: idOf(at),
    ...openly(may),
    responses: {
      ...answer(may, false, output, also),
      ...refusals({ ...alwaysOf(may), ...(posted ? ofBodies : {}), ...orAbsent(refuses) }, door),
    },
  }
  if (posted) {
    const content = { 'application/json': { schema: bare(fields) } }
    return { ...operation, requestBody: { required: true, description: BOUNDS, content } }
  }
  const required = (fields.required ?? []) as string[]
  const parameters = Object.entries((fields.properties ?? {}) as Record<string, Json>).map(([name, schema]) =>
    names.includes(name) ? inPath(name, fields) : { name, in: 'query', required: required.includes(name), schema },
  )
  return { ...operation, parameters: also.includes(EVENTS) ? [...parameters, lastEventId] : parameters }
}

const NDJSON = 'application/x-ndjson'
const EVENTS = 'text/event-stream'

const lastEventId = {
  name: 'Last-Event-ID',
  in: 'header',
  schema: { type: 'string', pattern: '^\\d{1,15}$' },
  description: 'Of a stream that is followed on: the id of the last event that was got. Without follow=1 it means nothing.',
}

const streams: Record<string, Json> = {
  [EVENTS]: {
    schema: {
      type: 'string',
      description:
        'record: one line of the log, its id the record’s seq; erased: a line whose content is gone; caught-up: all that there was has been ' +
        'sent; problem: the stream ends here, and its reason says why. After too-slow and rebuilding go on from the last id; beyond-the-end, ' +
        'log-damaged, unauthenticated, forbidden and session-not-found mean that there is no going on.',
    },
  },
}

const answer = (may: Action, makes: boolean, output: z.ZodType, also: readonly string[] = []) => ({
  [makes ? success.made : success.done]: {
    description: makes ? 'Made, and durable.' : 'Done.',
    headers: told(...COMMON, ...(policy[may].therapist === 'assigned' ? (['X-Emergency-Access'] as const) : [])),
    content: {
      'application/json': { schema: bare(jsonSchema(output)) },
      ...Object.fromEntries(also.map((type) => [type, streams[type] ?? {}])),
    },
  },
})

/** Refusals by status, each with the reasons it may have. */
function refusals(refuses: Refuses, door: Door): Json {
  const byStatus = new Map<number, string[]>()
  const add = (status: number, reason: string) => byStatus.set(status, [...(byStatus.get(status) ?? []), reason])
  for (const [reason, kind] of Object.entries<RefusalKind>(refuses)) add(statusOf(kind, reason, door), reason)
  // Of what is no request at all, nobody can say at which door it stands.
  add(statusOf('invalid', 'not-http', 'device'), 'not-http')
  if ('not-recorded' in refuses) add(statusOf('unavailable', 'not-recorded', door, { disk_full: true }), 'not-recorded')
  return Object.fromEntries(
    [...byStatus].sort().map(([status, reasons]) => [
      status,
      {
        description: reasons.join(', '),
        headers: told(...COMMON, ...(asksToRetry(status) ? (['Retry-After'] as const) : [])),
        content: {
          'application/problem+json': {
            schema: { allOf: [{ $ref: '#/components/schemas/Problem' }, { properties: { reason: { enum: reasons } } }] },
          },
        },
      },
    ]),
  )
}

const asksToRetry = (status: number) => 'retry-after' in headersOf({ status })

const headers = {
  'X-Request-ID': { description: 'The request’s own, or one that was made for it.', schema: { type: 'string' } },
  'X-Emergency-Access': {
    description: 'Where an answer rests on emergency access: to whose data, and until when.',
    schema: { type: 'string', examples: ['ada; until=2031-05-02T10:30:00.000Z'] },
  },
  'RateLimit-Policy': {
    description: 'How often the caller may ask, where that is limited: draft-ietf-httpapi-ratelimit-headers-10.',
    schema: { type: 'string', examples: ['"requests";q=100;w=60'] },
  },
  RateLimit: {
    description: 'How many requests are left, and in how many seconds there will be another.',
    schema: { type: 'string', examples: ['"requests";r=99;t=1'] },
  },
  'Retry-After': { description: 'After how many seconds the same request may succeed.', schema: { type: 'integer', minimum: 0 } },
}
const COMMON = ['X-Request-ID', 'RateLimit-Policy', 'RateLimit'] as const
const told = (...names: (keyof typeof headers)[]) =>
  Object.fromEntries(names.map((name) => [name, { $ref: `#/components/headers/${name}` }]))

const problem = bare(
  jsonSchema(
    z.looseObject({
      type: z.string(),
      title: z.string(),
      status: z.int(),
      detail: z.string(),
      reason: z.string().describe('stable and machine-readable'),
      errors: z.array(z.object({ path: z.string(), message: z.string() })).optional(),
      request_id: z.string().optional().describe('as in X-Request-ID; absent within a stream'),
    }),
  ),
)

const pathNames = (at: string) => [...at.matchAll(/\{(\w+)\}/g)].map(([, name]) => name as string)
const inPath = (name: string, { properties = {} }: Json) => ({
  name,
  in: 'path',
  required: true,
  schema: (properties as Json)[name] ?? { type: 'string' },
})
/** `sessions.start` for a route that is a name; else the method and the path, as words. */
function idOf(at: string): string {
  const last = at.slice(at.lastIndexOf('/') + 1)
  if (last.includes('.')) return last
  return at
    .toLowerCase()
    .replace(/[^a-z0-9.]+/g, '-')
    .replace(/-$/, '')
}

function bare(schema: Json): Json {
  const { $schema: _, ...rest } = schema
  return rest
}

/** An object's schema without the fields that stand in the path. */
function without(schema: Json, names: string[]): Json {
  const properties = Object.entries((schema.properties ?? {}) as Json).filter(([name]) => !names.includes(name))
  const required = ((schema.required ?? []) as string[]).filter((name) => !names.includes(name))
  return { ...schema, properties: Object.fromEntries(properties), required }
}
