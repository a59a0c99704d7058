// The published contract of the log: what is printed is what is committed, what Zod lets in fits what is printed, and a
// line that was once written is read for ever.

import { spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { Events, type EventType, events, logOf } from '../src/core/event.ts'
import { linesOf } from '../src/core/log.ts'
import { isErased, parseLine, type Recorded, type Scanned, scan } from '../src/core/record.ts'
import { Schemas } from '../src/core/schemas.ts'
import { openDatabase } from '../src/core/tables.ts'
import { verify } from '../src/core/verify.ts'
import { features } from '../src/features/index.ts'
import { FileShelf, projectionOf } from '../src/log/shelf.ts'
import { cli, clockAt, filesUnder, makeHome, type Ran, run } from './harness.ts'

const root = new URL('../', import.meta.url).pathname
const schemas = new Schemas()
const registered = features.events
const printed = readdirSync(join(root, 'schemas')).filter((name) => /\.v\d+\.json$/.test(name))
const sha256 = (text: string | Buffer) => createHash('sha256').update(text).digest('hex')

/** Every version of every event that may stand in a log, by the name of its schema. */
const versions = new Map<string, { type: string; v: number; data: z.ZodType }>(
  registered.all.flatMap(({ type, v, data, older }) => [
    [`${type}.v${v}`, { type, v, data }] as const,
    ...older.map((old) => [`${type}.v${old.v}`, { type, v: old.v, data: old.data }] as const),
  ]),
)

// --- printing ---------------------------------------------------------------------------------------------------------

function node(cwd: string, args: string[], env: Record<string, string> = {}): Promise<Ran> {
  const child = spawn(process.execPath, ['src/load.cjs', ...args], { cwd, env: { ...process.env, ...env } })
  const ran = { out: '', err: '' }
  child.stdout.on('data', (data) => {
    ran.out += data
  })
  child.stderr.on('data', (data) => {
    ran.err += data
  })
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...ran })))
}

const print = (house: string, ...args: string[]) => node(house, ['src/cli/print.ts', ...args])

/** A copy of this house in which something can be changed. */
function copyOfTheHouse(): string {
  const copy = makeHome()
  for (const name of ['src', 'schemas', 'package.json']) cpSync(join(root, name), join(copy, name), { recursive: true })
  for (const name of ['projections/sessile.sql', 'docs/POLICY.md']) cpSync(join(root, name), join(copy, name))
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
  return copy
}

function change(house: string, file: string, from: string | RegExp, to: string): void {
  const path = join(house, file)
  const before = readFileSync(path, 'utf8')
  const after = before.replace(from, to)
  expect(after).not.toBe(before)
  writeFileSync(path, after)
}

const published = (house: string) =>
  filesUnder(join(house, 'schemas')).map((name) => `${name} ${sha256(readFileSync(join(house, 'schemas', name)))}`)

describe('print', () => {
  it('has nothing to print that is not committed', async () => {
    expect(await print(root, '--check')).toEqual({ code: 0, out: '', err: '' })
  })

  it('has listed the digest of every published schema', () => {
    const listed = readFileSync(join(root, 'schemas/published.sha256'), 'utf8').trimEnd().split('\n')
    const found = printed.map((name) => `${sha256(readFileSync(join(root, 'schemas', name)))}  ${name}`)
    expect(listed.sort()).toEqual(found.sort())
    expect(printed.sort()).toEqual([...versions.keys(), 'record.v1'].map((name) => `${name}.json`).sort())
  })

  it.each([
    ['changes a published schema', 'src/features/transcripts.ts', 'max(100_000)', 'max(99_999)', 'transcript.said.v1.json'],
    ['takes a published event away', 'src/features/transcripts.ts', '[said, flagged]', '[said]', 'crisis.flagged.v1.json'],
    ['changes the envelope', 'src/core/print.ts', 'v: z.int().min(1)', 'v: z.int().min(0)', 'record.v1.json'],
    [
      'alters a listed digest',
      'schemas/published.sha256',
      /[0-9a-f]{64}( {2}key.revoked)/,
      `${'0'.repeat(64)}$1`,
      'key.revoked.v1.json',
    ],
  ])('refuses a house that %s, and writes nothing', async (_, file, from, to, named) => {
    const house = copyOfTheHouse()
    change(house, file, from, to)
    const before = published(house)
    for (const { code, err } of await Promise.all([print(house), print(house, '--check')])) {
      const said = `Published schemas never change; a change is a new version. Changed or gone: ${named}\n`
      expect({ code, err }).toEqual({ code: 1, err: said })
    }
    expect(published(house)).toEqual(before)
  })

  it('notices what was changed by hand, and puts it right', async () => {
    const house = copyOfTheHouse()
    const files = ['schemas/session.ended.v1.json', 'projections/sessile.sql', 'docs/POLICY.md', 'schemas/openapi.json']
    for (const file of files) change(house, file, /"completed"|"3\.1\.0"|TEXT|therapist/, '"else"')
    const { code, err } = await print(house, '--check')
    expect({ code, err }).toEqual({ code: 1, err: `Not as it would be printed (npm run print): ${files.join(', ')}\n` })
    expect((await print(house)).code).toBe(0)
    for (const file of files) expect(readFileSync(join(house, file))).toEqual(readFileSync(join(root, file)))
  })
})

/** `crisis.flagged` as it may be one day: a second version, and the way from the first. */
const SECOND = `v: 2,
      older: [
        {
          v: 1,
          data: z.strictObject({ note: z.string().max(1000).optional(), segment_id: z.string().min(1).max(128).optional() })
            .describe('Something in the session called for immediate attention.'),
          up: (data: object) => ({ ...data, severity: 'unknown' }),
        },
      ],
      data: z.strictObject({ note: z.string().optional(), segment_id: z.string().optional(), severity: z.string() }),
      says: ({ data }) => \`A crisis was flagged: \${data.severity}, \${data.note}.\`,`
const FIRST = /v: 1,(\s+does: 'Something in the session[^\n]+\n)\s+data: [^\n]+\n\s+says: [^\n]+\n/

describe('a new version', () => {
  it('is published beside the old one, whose lines are checked, folded and told as if written today', async () => {
    const house = copyOfTheHouse()
    change(house, 'src/features/transcripts.ts', FIRST, `${SECOND}$1`)
    change(
      house,
      'src/features/sessions.ts',
      /\.on\(flagged, .+/,
      '.on(flagged, ({ session_id, data }, rows) => rows.set({ session_id }, { room_name: data.severity }))',
    )
    expect(await print(house)).toEqual({ code: 0, out: '', err: '' })
    const before = published(root).filter((file) => /\.v\d+\.json /.test(file))
    expect(published(house)).toEqual(expect.arrayContaining([...before, expect.stringContaining('crisis.flagged.v2.json')]))

    const home = layOut()
    const sessile = (...args: string[]) => node(house, ['src/cli.ts', ...args], { SESSILE_HOME: home })
    expect(await sessile('verify')).toMatchObject({ code: 0, out: '' })
    expect(await sessile('rebuild')).toMatchObject({ code: 0 })
    const { session_id } = JSON.parse(readFileSync(join(FIXTURES, 'crisis.jsonl'), 'utf8').split('\n')[0] as string)
    expect((await sessile('cat', session_id, '--says')).out).toContain('A crisis was flagged: unknown, asked for help.')
    const views = openDatabase(projectionOf(home), { readonly: true })
    expect(views.prepare('SELECT room_name FROM sessions WHERE session_id = ?').get(session_id)).toEqual({ room_name: 'unknown' })
    views.close()
  })
})

// --- Zod and the printed schemas --------------------------------------------------------------------------------------

/** Any text at all, as JSON can carry it: every plane, control characters, halves of surrogate pairs. */
const text = (most: number, least = 0) =>
  fc.oneof(
    fc.string({ minLength: least, maxLength: Math.min(most, 40), unit: 'binary' }),
    fc.string({
      minLength: least,
      maxLength: Math.min(most, 40),
      unit: fc.integer({ max: 0xffff }).map((n) => String.fromCharCode(n)),
    }),
    fc.constantFrom('x'.repeat(most), '\u{1f642}'.repeat(most)),
  )
const matching = (pattern: RegExp) => fc.stringMatching(pattern)
const hex = matching(/^[0-9a-f]{64}$/)
const ulid = matching(/^[0-9A-HJKMNP-TV-Z]{26}$/)
const opaque = matching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
const share = fc.double({ min: 0, max: 1, noNaN: true })
const since = fc.double({ min: 0, noNaN: true, noDefaultInfinity: true })
const date = fc.date({ min: new Date(0), max: new Date('9999-12-31'), noInvalidDate: true })
const instant = fc
  .tuple(date, fc.constantFrom('Z', '+05:30', '-23:59'))
  .map(([at, offset]) => at.toISOString().replace('Z', offset))
const day = date.map((at) => at.toISOString().slice(0, 10))
const some = <T>(needed: { [K in keyof T]: fc.Arbitrary<T[K]> }, requiredKeys: (keyof T)[]) =>
  fc.record(needed, { requiredKeys, noNullPrototype: true })

const dims = fc.array(fc.nat(), { minLength: 1, maxLength: 8 })
const file = { sha256: hex, format: text(64, 1), dims }
const segment_id = text(128, 1)
const nothing = fc.constant({})
const utc = date.map((at) => at.toISOString())
const accountName = matching(/^[!-~]{3,200}$/)
const accountRole = fc.constantFrom('patient', 'therapist', 'researcher', 'analyst', 'admin')
const signin_id = ulid.map((id) => `sign_${id}`)
const factor_id = ulid.map((id) => `fac_${id}`)
const argon2 = matching(/^\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,2},p=[0-9]{1,2}\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)

const asked = {
  route: text(200),
  role: text(32),
  proved_by: text(64),
  users: fc.array(opaque, { maxLength: 5 }),
  request_id: matching(/^[A-Za-z0-9._-]{1,64}$/),
  address: text(64),
}

/** Valid data of every version, written by hand: a new one fails the test below until it has its line here. */
const valid: Record<string, fc.Arbitrary<unknown>> = {
  'session.started.v1': some(
    {
      kind: fc.constantFrom('capture', 'voice', 'video', 'therapy', 'workflow'),
      session_number: fc.integer({ min: 1 }),
      is_training_data: fc.boolean(),
      training_intent_label: text(200),
      session_notes: text(4000),
      counselor_category: text(100),
      room_name: text(200),
      language: text(35),
      session_date: day,
      site_name: text(200),
      site_description: text(4000),
      project_key: text(100),
      llm_provider_choice: text(100),
    },
    ['kind', 'session_number'],
  ),
  'session.ended.v1': fc.record({ reason: fc.constantFrom('completed', 'disconnected', 'idle-timeout', 'longest-length') }),
  'session.abandoned.v1': fc.record({ session_id: ulid.map((id) => `sess_${id}`) }),
  'transcript.said.v1': some(
    {
      speaker: text(64, 1),
      text: text(100_000),
      at: instant,
      lang: text(35),
      confidence: share,
      segment_id,
      words: fc.array(some({ text: text(500), start: since, end: since, confidence: share }, ['text']), { maxLength: 5 }),
    },
    ['speaker', 'text', 'at'],
  ),
  'crisis.flagged.v1': some({ note: text(1000), segment_id }, []),
  'features.extracted.v1': some(
    {
      raw_features_ref: fc.oneof(
        fc.record({ artifact_id: opaque, ...file }),
        fc.record({ uri: matching(/^(https|http|s3|gs|file):\/\/\S{1,50}$/), ...file }),
      ),
      extractor: text(200),
      from_ms: since,
      to_ms: since,
    },
    ['raw_features_ref'],
  ),
  'x.open.v1': fc.dictionary(text(10), fc.jsonValue(), { noNullPrototype: true }),
  'key.created.v1': some(
    {
      key_id: ulid.map((id) => `key_${id}`),
      role: fc.constantFrom('device', 'admin'),
      users: fc.oneof(fc.constant('all'), fc.array(opaque, { minLength: 1, maxLength: 5 })),
      system: fc.boolean(),
      name: text(200),
      secret_sha256: hex,
    },
    ['key_id', 'role', 'users', 'system', 'secret_sha256'],
  ),
  'key.revoked.v1': fc.record({ key_id: ulid.map((id) => `key_${id}`) }),
  'factor.enrolled.v1': fc.record({ factor_id, sealed: matching(/^[A-Za-z0-9_-]{40,200}$/) }),
  'factor.confirmed.v1': fc.record({ factor_id, step: fc.nat(), recovery_sha256: fc.array(hex, { maxLength: 10 }) }),
  'factor.used.v1': fc.record({ factor_id, step: fc.nat() }),
  'factor.recovered.v1': fc.record({ factor_id, code_sha256: hex }),
  'factor.removed.v1': fc.record({ factor_id }),
  'identity.linked.v1': fc.record({ issuer: text(500), subject: text(255, 1) }),
  'assignment.begun.v1': fc.record({
    assignment_id: ulid.map((id) => `asg_${id}`),
    user_id: opaque,
    relationship_type: text(64, 1),
  }),
  'assignment.ended.v1': fc.record({ assignment_id: ulid.map((id) => `asg_${id}`), user_id: opaque }),
  'emergency.opened.v1': fc.record({
    access_id: ulid.map((id) => `emg_${id}`),
    user_id: opaque,
    reason: matching(/^\S[\s\S]{8,100}\S$/),
    until: instant,
  }),
  'account.created.v1': fc.record({ name: accountName, role: accountRole }),
  'account.invited.v1': fc.record({ invitation_sha256: hex, expires_at: utc }),
  'account.accepted.v1': nothing,
  'account.deactivated.v1': nothing,
  'account.reactivated.v1': nothing,
  'account.moved.v1': fc.record({ role: accountRole }),
  'account.sought.v1': nothing,
  'password.set.v1': some({ hash: argon2, kept_signin_id: text(64) }, ['hash']),
  'signin.began.v1': some(
    {
      signin_id,
      by: fc.constantFrom('password', 'identity'),
      second: fc.constantFrom('totp', 'recovery-code'),
      device: text(100),
      refresh_sha256: hex,
      expires_at: utc,
    },
    ['signin_id', 'by', 'refresh_sha256', 'expires_at'],
  ),
  'signin.refreshed.v1': fc.record({ signin_id, refresh_sha256: hex, expires_at: utc }),
  'signin.ended.v1': fc.record({ signin_id, why: fc.constantFrom('signed-out', 'signed-out-everywhere', 'token-reused') }),
  'audit.read.v1': some({ ...asked, session_id: opaque, emergency: fc.boolean() }, ['route', 'role', 'users', 'request_id']),
  'audit.refused.v1': some({ ...asked, reason: text(64) }, ['route', 'role', 'users', 'request_id', 'reason']),
}

type Holder = Record<string, unknown>

const others = [null, true, 7, 0.5, 'text', '', [], {}, [1], { a: 1 }]
const numbers = [-1, -0.5, 0, 0.5, 1, 1.01, 1.5, 2, 2 ** 53, -(2 ** 53), 1e308, -1e-9]
const DAYS = [
  '2031-02-28',
  '2031-02-29',
  '2032-02-29',
  '2100-02-29',
  '2031-04-31',
  '2031-13-01',
  '0000-01-01',
  '2031-5-2',
  '20310502',
]
const TIMES = [
  'T09:30:00Z',
  'T09:30Z',
  'T24:00:00Z',
  'T23:59:60Z',
  'T09:30:00',
  'T09:30:00.Z',
  'T09:30:00.1234567890Z',
  't09:30:00z',
  ' 09:30:00Z',
  'T09:30:00+0200',
  'T09:30:00+24:00',
  'T09:30:00-00:00',
  'T09:30:00Z\n',
]
const IDS = [
  'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV',
  'key_01ARZ3NDEKTSV4RRFFQ69G5FAI',
  'a/b',
  '.a',
  'a b',
  'https://x',
  'ftp://x',
  'https:// x',
  'A'.repeat(64),
  'f'.repeat(64),
  'F'.repeat(64),
  'Capture',
  'all',
]
const nearMisses = [...IDS, ...DAYS, ...DAYS.flatMap((one) => TIMES.map((time) => one + time))]
const lengths = [0, 1, 9, 36, 65, 101, 129, 201, 501, 1001, 2001, 4001, 10_001, 100_001]

/** Spoils a value in every way there is, one after the other and each undone before the next; tells what it did. */
function* spoilt(value: unknown): Generator<string> {
  if (typeof value !== 'object' || value === null) return
  const holder = value as Holder
  for (const field of Array.isArray(value) ? [] : ['colour', 'constructor', '']) {
    if (Object.hasOwn(holder, field)) continue
    holder[field] = 1
    yield `${field} is too much`
    delete holder[field]
  }
  for (const [field, before] of Object.entries(holder)) {
    if (!Array.isArray(value)) {
      delete holder[field]
      yield `${field} is missing`
    }
    const near = typeof before === 'string' ? nearMisses : typeof before === 'number' ? numbers : []
    for (const other of [...others, ...near]) {
      holder[field] = other
      yield `${field} is ${JSON.stringify(other)}`
    }
    holder[field] = before
    yield* spoilt(before)
  }
}

/** Every text and every list within a value. */
function longPlaces(value: unknown): { holder: Holder; field: string }[] {
  if (typeof value !== 'object' || value === null) return []
  const holder = value as Holder
  const own = Object.keys(holder).filter((field) => typeof holder[field] === 'string' || Array.isArray(holder[field]))
  return [...own.map((field) => ({ holder, field })), ...Object.values(holder).flatMap(longPlaces)]
}

function lengthen({ holder, field }: { holder: Holder; field: string }, length: number, letter: string): void {
  const before = holder[field]
  if (Array.isArray(before)) holder[field] = Array.from({ length: Math.min(length, 10_001) }, () => before[0] ?? 1)
  else holder[field] = letter.repeat(length)
}

const copyOf = (value: unknown) => JSON.parse(JSON.stringify(value)) as unknown

/** Whether Zod and the printed schema take this value; where they disagree, the test ends here. */
function agree(name: string, value: unknown): boolean {
  const { type, v, data } = versions.get(name) as { type: string; v: number; data: z.ZodType }
  const byZod = data.safeParse(value)
  const fault = schemas.fault(type, v, value)
  if (byZod.success !== (fault === undefined)) {
    throw new Error(
      `Zod ${byZod.success ? 'takes' : `refuses (${byZod.error.message})`} what ${name} ${fault ? `refuses (${fault.path} ${fault.message})` : 'takes'}`,
    )
  }
  return byZod.success
}

describe('Zod and the printed schemas', () => {
  it('are compared for every version there is', () => {
    expect(Object.keys(valid).sort()).toEqual([...versions.keys()].sort())
  })

  describe.each(Object.keys(valid))('%s', (name) => {
    const data = valid[name] as fc.Arbitrary<unknown>

    it('both take what is valid', () => {
      fc.assert(fc.property(data, (value) => agree(name, copyOf(value))))
    })

    it('both take or both refuse what is spoilt a little, wherever that is', () => {
      let refused = 0
      fc.assert(
        fc.property(data, (value) => {
          const changed = copyOf(value)
          for (const what of spoilt(changed)) {
            try {
              if (!agree(name, changed)) refused++
            } catch (error) {
              throw new Error(`${what}: ${(error as Error).message}`)
            }
          }
          expect(changed).toEqual(copyOf(value))
        }),
        { numRuns: 12 },
      )
      // What has no field can be spoilt only by one too many.
      if (name !== 'x.open.v1') expect(refused).toBeGreaterThan(data === nothing ? 20 : 100)
    })

    it('both take or both refuse texts and lists of every length', () => {
      const letter = fc.constantFrom('x', '\u{1f642}', '\ud83d', '0')
      fc.assert(
        fc.property(data, fc.nat(), fc.constantFrom(...lengths), letter, (value, which, length, one) => {
          const changed = copyOf(value)
          const places = longPlaces(changed)
          if (places.length === 0) return
          lengthen(places[which % places.length] as { holder: Holder; field: string }, length, one)
          agree(name, changed)
        }),
        { numRuns: 200 },
      )
    })

    it('both refuse what is no object', () => {
      for (const value of others.filter((other) => typeof other !== 'object' || Array.isArray(other) || other === null)) {
        expect(agree(name, value)).toBe(false)
      }
    })

    it('both refuse a field that is not declared', () => {
      const open = name === 'x.open.v1'
      fc.assert(
        fc.property(data, fc.constantFrom('colour', 'constructor', 'hasOwnProperty', '__proto__'), (value, field) => {
          const text = JSON.stringify(value)
          const more = JSON.parse(`${text.slice(0, -1)}${text === '{}' ? '' : ','}"${field}":1}`) as unknown
          expect(agree(name, more)).toBe(open)
        }),
        { numRuns: 30 },
      )
    })
  })
})

// --- what a schema cannot say -----------------------------------------------------------------------------------------

interface Def {
  type?: string
  check?: string
  pattern?: RegExp
  coerce?: boolean
  catchall?: z.core.$ZodType
  checks?: { _zod: { def: Def } }[]
  getter?: () => z.core.$ZodType
}

const told = [
  'string',
  'number',
  'boolean',
  'null',
  'literal',
  'enum',
  'never',
  'unknown',
  'any',
  'object',
  'array',
  'tuple',
  'record',
  'union',
  'intersection',
  'optional',
  'nullable',
  'lazy',
  'readonly',
]
const toldChecks = [
  'min_length',
  'max_length',
  'length_equals',
  'less_than',
  'greater_than',
  'multiple_of',
  'number_format',
  'string_format',
]

/** What of a schema is lost, or turned into something else, when it is printed: all of it, down to the last leaf. */
function lost(schema: z.core.$ZodType, seen = new Set<z.core.$ZodType>()): string[] {
  if (seen.has(schema)) return []
  seen.add(schema)
  const def = schema._zod.def as Def
  const own = [def, ...(def.checks ?? []).map((check) => check._zod.def)].flatMap(({ check, pattern }) => {
    if (check === undefined) return []
    if (!toldChecks.includes(check)) return [`the check ${check}`]
    if (check === 'string_format' && !pattern) return ['a format without a pattern']
    return pattern?.flags ? [`the flags of ${pattern}`] : []
  })
  if (!told.includes(def.type ?? '')) own.push(`the type ${def.type}`)
  if (def.coerce) own.push('a coercion')
  if (def.type === 'object' && !def.catchall) own.push('an object that drops what it does not know')
  const inner = [...(def.getter ? [def.getter()] : []), ...Object.values(def).flatMap(schemasIn)]
  return [...own, ...inner.flatMap((one) => lost(one, seen))]
}

function schemasIn(value: unknown): z.core.$ZodType[] {
  if (value instanceof z.core.$ZodType) return [value]
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(schemasIn) : []
}

describe('the data of an event', () => {
  it.each([...versions])('says nothing that a schema cannot: %s', (_, { data }) => {
    expect(lost(data)).toEqual([])
    expect(() => z.toJSONSchema(data, { unrepresentable: 'throw' })).not.toThrow()
  })

  it.each<[string, z.ZodType, string]>([
    ['refine', z.string().refine((text) => text !== 'x'), 'the check custom'],
    ['superRefine', z.strictObject({}).superRefine(() => {}), 'the check custom'],
    ['trim', z.string().trim(), 'the check overwrite'],
    ['lower case', z.string().toLowerCase(), 'the check overwrite'],
    ['transform', z.string().transform((text) => text.length), 'the type pipe'],
    ['a date', z.date(), 'the type date'],
    ['a default', z.string().default('x'), 'the type default'],
    ['a catch', z.string().catch('x'), 'the type catch'],
    ['a coercion', z.coerce.number(), 'a coercion'],
    ['a big integer', z.bigint(), 'the type bigint'],
    ['custom', z.custom<string>(() => true), 'the type custom'],
    ['a pattern with flags', z.string().regex(/^a$/i), 'the flags of /^a$/i'],
    ['a format without a pattern', z.url(), 'a format without a pattern'],
    ['an object that drops', z.object({ a: z.string() }), 'an object that drops what it does not know'],
  ])('would be noticed to hold %s, however deep', (_, schema, what) => {
    const deep = z.strictObject({
      a: z.array(
        z.union([
          z.null(),
          z.record(
            z.string(),
            z.lazy(() => schema.optional()),
          ),
        ]),
      ),
    })
    expect(lost(schema)).toContain(what)
    expect(lost(deep)).toContain(what)
  })

  it.each(printed)('is printed so that Ajv compiles it in its strictest mode: %s', (name) => {
    const schema = JSON.parse(readFileSync(join(root, 'schemas', name), 'utf8')) as object
    const ajv = new Ajv2020({ strict: true, strictRequired: true, strictTypes: true, validateFormats: false })
    expect(() => ajv.compile(schema)).not.toThrow()
    // Formats are not looked at when a record is checked: what they mean must stand there as a pattern.
    expect(nodesIn(schema).filter((node) => typeof node.format === 'string' && !node.pattern)).toEqual([])
  })
})

const nodesIn = (value: unknown): Record<string, unknown>[] =>
  typeof value === 'object' && value !== null ? [value as Record<string, unknown>, ...Object.values(value).flatMap(nodesIn)] : []

describe('x.<vendor>.<name>', () => {
  const vendor = matching(/^x\.[a-z0-9][a-z0-9_-]{0,31}\.[a-z0-9][a-z0-9_-]{0,63}$/)

  it('falls under the open event, and fits the envelope', () => {
    const line = (type: string) => ({ ...envelope, type, data: {}, salt: 'A'.repeat(22), hash: 'A'.repeat(43) })
    fc.assert(
      fc.property(vendor, (type) => {
        expect(registered.named(type)?.type).toBe('x.open')
        expect(schemas.fault('record', 1, line(type), '')).toBeUndefined()
      }),
    )
  })

  it.each([
    'x.acme',
    'x.acme.',
    'x..pulse',
    'x.acme.a.b',
    'x.Acme.pulse',
    'y.acme.pulse',
    'x.acme.pulse\n',
    'x.open',
    'X.a.b',
    '',
    `x.a.${'b'.repeat(65)}`,
  ])('does not hold of %j', (type) => expect(registered.named(type)).toBeUndefined())
})

// --- versions ---------------------------------------------------------------------------------------------------------

const envelope = {
  record_id: '6a2f41a3-c54c-4f6b-8b0a-0d6f4e9f4a11',
  seq: 1,
  type: 'test.made',
  v: 1,
  source: 'test',
  user_id: 'ada',
  performer_id: 'ada',
  timestamp: '2031-05-02T09:30:00.000Z',
}

/** Once a name; then a name and its length; today first and last. */
const { made } = events(
  'test',
  { home: 'account', source: 'test' },
  {
    made: {
      v: 3,
      does: 'Something was made.',
      data: z.strictObject({ first: z.string(), last: z.string(), length: z.int() }),
      says: ({ data }) => `${data.first} ${data.last} (${data.length})`,
      older: [
        { v: 1, data: z.strictObject({ name: z.string() }), up: ({ name }: { name: string }) => ({ name, length: name.length }) },
        {
          v: 2,
          data: z.strictObject({ name: z.string(), length: z.int() }),
          up: ({ name, length }: { name: string; length: number }) => {
            const [first = '', last = ''] = name.split(' ')
            return { first, last, length }
          },
        },
      ],
    },
  },
)

describe('upcasting', () => {
  const own = new Events([made as EventType])
  const line = (v: number, data: unknown): Recorded => ({ ...envelope, v, data })

  it('turns a first version into today’s, through every version between', () => {
    const now = own.upcast(line(1, { name: 'Ada Lovelace' }))
    expect(now).toEqual(line(3, { first: 'Ada', last: 'Lovelace', length: 12 }))
    expect(made.data.safeParse(now.data).success).toBe(true)
    expect(made.says(now)).toBe('Ada Lovelace (12)')
  })

  it('turns a second version into today’s, and lets today’s be', () => {
    const now = line(3, { first: 'Ada', last: 'Lovelace', length: 4 })
    expect(own.upcast(line(2, { name: 'Ada Lovelace', length: 4 }))).toEqual(now)
    expect(own.upcast(now)).toBe(now)
  })

  it('leaves the line that it was given as it was', () => {
    const old = line(1, { name: 'Ada Lovelace' })
    own.upcast(old)
    expect(old).toEqual(line(1, { name: 'Ada Lovelace' }))
  })

  it.each([0, 4])('throws where there is no way: v%i', (v) => {
    expect(() => own.upcast(line(v, {}))).toThrow(`test.made v${v} has no way to v3`)
  })

  it('throws where a step is missing', () => {
    const gap = new Events([{ ...made, older: made.older.filter(({ v }) => v !== 2) } as EventType])
    expect(() => gap.upcast(line(1, { name: 'Ada' }))).toThrow('test.made v1 has no way to v3')
  })

  it('has a way from every version that an event ever had: its steps stand in order, none left out', () => {
    for (const { type, v, older } of registered.all) {
      expect([type, ...older.map((old) => old.v)]).toEqual([type, ...Array.from({ length: v - 1 }, (_, i) => i + 1)])
    }
  })
})

// --- old lines --------------------------------------------------------------------------------------------------------

// Logs as Sessile once wrote them, and never to be changed: each is the whole log that its first line tells of. When an
// event gets a new version, a log with lines of that version joins them.
const FIXTURES = join(root, 'test/fixtures/lines')

/** A data directory that holds those logs and nothing else. */
function layOut(): string {
  const home = makeHome()
  for (const name of readdirSync(FIXTURES)) {
    const bytes = readFileSync(join(FIXTURES, name))
    const { envelope } = scan(bytes) as Scanned
    const { home: own } = registered.named(envelope.type) as EventType
    const to = join(home, 'logs', `${logOf(own, envelope)}.jsonl`)
    mkdirSync(dirname(to), { recursive: true })
    writeFileSync(to, bytes)
  }
  return home
}

const lineTexts = (home: string, log: string) => [...linesOf(new FileShelf(home), log)].map(({ bytes }) => bytes.toString())
const LATEST = '2031-05-03T09:30:32.500Z'

describe('a line that was once written', () => {
  const home = () => layOut()
  const every = (at: string) => [...new FileShelf(at).names()].flatMap((log) => lineTexts(at, log).map((line) => ({ log, line })))

  it('is kept here in every version that was ever published', () => {
    const kept = every(home()).map(({ line }) => {
      const { type, v } = JSON.parse(line) as Recorded
      return `${registered.named(type)?.type}.v${v}`
    })
    expect([...new Set(kept)].sort()).toEqual([...versions.keys()].sort())
  })

  it('is read, fits the schema of its version, and reads today as what it says', () => {
    for (const { log, line } of every(home())) {
      const whole = JSON.parse(line) as Recorded & { salt: string; hash: string }
      const record = parseLine(Buffer.from(line)) as Recorded
      expect(isErased(record)).toBe(false)
      const { salt, hash, ...rest } = whole
      expect(record).toEqual(rest)
      expect(schemas.fault('record', 1, whole, '')).toBeUndefined()
      const event = registered.named(record.type) as EventType
      expect(schemas.fault(event.type, record.v, record.data), log).toBeUndefined()
      const now = registered.upcast(record)
      expect(now.v).toBe(event.v)
      expect(event.data.safeParse(now.data).error).toBeUndefined()
      expect(event.says(now)).toMatch(/^\S.*\.$|^\w+ said: /s)
    }
  })

  it('verifies', async () => {
    const at = home()
    const shelf = new FileShelf(at)
    const found: unknown[] = []
    let records = 0
    for (const log of shelf.names())
      records += verify({ shelf, events: registered, schemas }, log, (finding) => found.push(finding)).records
    expect(found).toEqual([])
    expect(records).toBe(every(at).length)
    expect(await cli(at, ['verify'])).toMatchObject({ code: 0, out: '' })
  })

  it('folds into the views', async () => {
    const at = home()
    const rebuilt = await cli(at, ['rebuild', '--json'])
    expect(rebuilt).toMatchObject({ code: 0 })
    expect(JSON.parse(rebuilt.out)).toMatchObject({
      ok: true,
      records: every(at).length,
      logs: [...new FileShelf(at).names()].length,
    })
    expect(await cli(at, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })

  it('is told through the door as it always was', async () => {
    const { admin } = await run(home(), {}, clockAt(LATEST))
    const { body } = await admin.get('/api/v1/sessions')
    const told = body.sessions.map(
      ({
        user_id,
        session_number,
        kind,
        mode,
        counselor_category,
        status,
        duration_seconds,
        crisis_detected,
        disconnected,
      }: Record<string, unknown>) =>
        [user_id, session_number, kind, mode, counselor_category, status, duration_seconds, crisis_detected, disconnected].join(
          ' ',
        ),
    )
    expect(told).toEqual([
      'ada 5 workflow   active  false false',
      'carol 2 therapy   closed 3.75 false false',
      'carol 1 capture   closed 3.75 false false',
      'bob 2 voice voice  closed 3.75 true false',
      'bob 1 capture   closed 5 false false',
      'ada 4 therapy   closed 86401.25 false false',
      'ada 3 video video sleep closed 1801.25 false false',
      'ada 2 voice voice grief closed 1.25 false true',
      'ada 1 capture   closed 1.25 false false',
    ])
    const spoken = body.sessions.find(
      ({ user_id, session_number }: Record<string, unknown>) => user_id === 'bob' && session_number === 1,
    )
    const { body: detail } = await admin.get(`/api/v1/sessions/${spoken.session_id}`)
    expect(detail.transcript).toEqual([
      { timestamp: '2031-05-03T09:30:00Z', speaker: 'user', text: 'hello' },
      { timestamp: '2031-05-03T09:30:00Z', speaker: 'bot', text: 'so far' },
      {
        timestamp: '2031-05-03T09:30:00Z',
        speaker: 'user',
        text: 'line\nend \u2028\u2029 nul \u0000 bell \u0007 delete \u007f quote " back \\ 漢字 👩🏽‍🚀 half \ud83d \udc00 é',
      },
    ])
    const { body: known } = await admin.get('/api/v1/keys')
    expect(known.keys).toMatchObject([
      { account_id: 'device-7', role: 'device', users: 'all', system: true, name: null, revoked_at: null },
      {
        account_id: 'device-7',
        users: ['ada', 'bob'],
        system: false,
        name: 'the device by the door',
        revoked_at: '2031-05-03T09:30:31.250Z',
      },
      { account_id: 'admin', role: 'admin', users: 'all', name: 'preset', revoked_at: null },
    ])
  })
})
