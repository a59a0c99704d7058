// What is sent to hurt: bodies beyond every bound, JSON of which two readers see different things, texts that would break a
// line, a terminal, a header or a stream, and requests that are not what they seem. One Sessile takes all of it.

import { readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import pino from 'pino'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { serve } from '../src/app.ts'
import { DEEPEST, LONGEST_STRING, MOST_ENTRIES } from '../src/http/json.ts'
import { HOSTILE } from './drawing.ts'
import {
  ADMIN,
  Client,
  cli,
  configOf,
  type Json,
  logBytes,
  makeHome,
  type Reply,
  type Running,
  said,
  sessionFile,
} from './harness.ts'

let running: Running
let session_id: string
const told: string[] = []

beforeAll(async () => {
  // It outlives each test, and so does its folder.
  const home = `${makeHome()}-shared`
  const logger = pino({ level: 'info' }, { write: (line: string) => void told.push(line) })
  const serving = await serve({ config: configOf(home), logger })
  running = { ...serving, home, admin: new Client(serving.url, ADMIN), anyone: new Client(serving.url, undefined) } as Running
  session_id = (await running.admin.start()).body.session_id
})
afterAll(async () => {
  await running.stop()
  rmSync(running.home, { recursive: true, force: true })
})

const path = () => `/api/v1/sessions/${session_id}/records`

/** What comes back on a connection over which these bytes are sent, until it is closed. */
const wire = (...pieces: (string | Buffer)[]) => wireUntil(/^(?!)/, ...pieces)

/** The same, or until this has come and then nothing for a while. */
function wireUntil(enough: RegExp, ...pieces: (string | Buffer)[]): Promise<string> {
  return new Promise((resolve) => {
    let came = ''
    const socket = connect(Number(new URL(running.url).port), '127.0.0.1', () => {
      for (const piece of pieces) socket.write(piece)
    })
    const done = () => {
      socket.destroy()
      resolve(came)
    }
    socket.on('data', (data) => {
      came += data.toString('latin1')
      if (enough.test(came)) socket.setTimeout(300, done)
    })
    socket.on('error', () => {})
    socket.on('close', done)
  })
}

const KEY = `Host: x\r\nAuthorization: Bearer ${ADMIN}\r\n`
const statuses = (came: string) => [...came.matchAll(/^HTTP\/1\.1 (\d+)/gm)].map(([, status]) => Number(status))
const reasons = (came: string) => [...came.matchAll(/"reason":"([a-z-]+)"/g)].map(([, reason]) => reason)

async function send(
  body: string | Buffer,
  type = 'application/json',
  at = path(),
  headers: Record<string, string> = {},
): Promise<Reply> {
  const response = await running.admin.raw('POST', at, { body, headers: { 'content-type': type, ...headers } })
  return { status: response.status, headers: response.headers, body: JSON.parse((await response.text()).split('\n')[0] as string) }
}

/** A record whose data is this, as it is written. */
const record = (data: string) => `{"type":"x.acme.thing","source":"a","user_id":"ada","performer_id":"device-7","data":${data}}`

/** How a record may come, what is around it, and how it is answered. */
const ways: [string, (text: string) => Promise<Reply>, number][] = [
  ['an object', (text) => send(text), 0],
  ['an array', (text) => send(`[${text}]`), 1],
  ['a line of a stream', (text) => send(text, 'application/x-ndjson'), 0],
]
const statusOf = ({ status, body }: Reply) => (Array.isArray(body) || body.record_id ? 'taken' : (body.status ?? status))

async function unchanged(send: () => Promise<Reply>): Promise<Reply> {
  const before = logBytes(running)
  const reply = await send()
  expect(logBytes(running)).toBe(before)
  return reply
}

describe.each(ways)('a bound of %s', (_, send, around) => {
  const nested = (depth: number) => `${'['.repeat(depth - 2)}${']'.repeat(depth - 2)}`
  const many = (n: number) => Array.from({ length: n }, () => 'true').join()
  const fields = (n: number) => Array.from({ length: n }, (_, i) => `"f${i}":true`).join()
  it.each([
    ['depth', `{"v":${nested(DEEPEST - around)}}`, `{"v":${nested(DEEPEST - around + 1)}}`, 'invalid', 400],
    ['items of an array', `{"v":[${many(MOST_ENTRIES)}]}`, `{"v":[${many(MOST_ENTRIES + 1)}]}`, 'invalid', 400],
    ['fields of an object', `{${fields(MOST_ENTRIES)}}`, `{${fields(MOST_ENTRIES + 1)}}`, 'invalid', 400],
  ])('(%s) is taken, and one beyond it refused', async (_, within, beyond, reason, status) => {
    expect(statusOf(await send(record(within)))).toBe('taken')
    const { body } = await unchanged(() => send(record(beyond)))
    expect(body).toMatchObject({ reason, status, errors: [{ path: '', message: expect.any(String) }] })
  })
})

describe('a bound', () => {
  it('of bytes is taken, and one beyond it refused, whether or not its length was told', async () => {
    const padded = (length: number) => record('{}').padEnd(length, ' ')
    expect((await send(padded(4 * 1024 * 1024))).status).toBe(201)
    expect((await unchanged(() => send(padded(4 * 1024 * 1024 + 1)))).body.reason).toBe('body-too-large')
    const chunked = new Blob([padded(4 * 1024 * 1024 + 1)]).stream()
    const init = { body: chunked, duplex: 'half' as const, headers: { 'content-type': 'application/json' } }
    expect((await running.admin.raw('POST', path(), init)).status).toBe(413)
  })

  it('of a line is taken, and one beyond it refused, and the stream goes on', async () => {
    const line = (length: number) => record('{}').padEnd(length, ' ')
    const body = [line(512 * 1024), line(512 * 1024 + 1), record('{}')].join('\n')
    const response = await running.admin.raw('POST', path(), { body, headers: { 'content-type': 'application/x-ndjson' } })
    const answers = (await response.text())
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as Json)
    expect(answers.map(({ seq, reason }) => reason ?? typeof seq)).toEqual(['number', 'record-too-large', 'number'])
  })

  it('of a string is that of a record', async () => {
    const ask = (length: number) =>
      send(JSON.stringify({ user_id: 'x'.repeat(length), session_id }), 'application/json', '/session_manager/sessions.validate')
    expect((await ask(LONGEST_STRING)).body.reason).toBe('invalid')
    expect((await ask(LONGEST_STRING + 1)).body).toMatchObject({ reason: 'record-too-large', status: 413 })
  })

  it('of an address, of its parameters and of the headers', async () => {
    const get = async (target: string, headers = '') => wire(`GET ${target} HTTP/1.1\r\n${KEY}Connection: close\r\n${headers}\r\n`)
    const target = (length: number) => '/api/v1/sessions?cursor='.padEnd(length, 'x')
    expect(reasons(await get(target(4096)))).toEqual(['invalid'])
    expect(reasons(await get(target(4097)))).toEqual(['target-too-long'])
    expect(statuses(await get('/api/v1/sessions', 'X: y\r\n'.repeat(97)))).toEqual([200])
    expect(reasons(await get('/api/v1/sessions', 'X: y\r\n'.repeat(98)))).toEqual(['headers-too-large'])
    const large = await get('/api/v1/sessions', `X: ${'y'.repeat(20_000)}\r\n`)
    expect([statuses(large), reasons(large)]).toEqual([[431], ['headers-too-large']])
    for (const twice of ['?limit=1&limit=1', '?limit=1&limit=2', '?__proto__=1', '?constructor=1', '?colour=red'])
      expect([twice, ...reasons(await get(`/api/v1/sessions${twice}`))]).toEqual([twice, 'invalid'])
  })

  it('of what a refusal tells of many faults', async () => {
    const wrongs = Array.from({ length: MOST_ENTRIES }, () => 0)
    const unknown = Object.fromEntries(wrongs.map((_, i) => [`f${i}`.repeat(30), 1]))
    for (const body of [wrongs, unknown, { user_id: 'ada', performer_id: 'd', ['f'.repeat(400_000)]: 1 }]) {
      const response = await running.admin.raw('POST', '/session_manager/sessions.start', {
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      })
      const text = await response.text()
      expect(response.status).toBe(400)
      expect(text.length).toBeLessThan(10_000)
      expect(JSON.parse(text).errors.length).toBeGreaterThan(0)
    }
  })

  it('of what a body costs that is cut into single bytes', async () => {
    const text = record(`{"v":"${'x '.repeat(20_000)}"}`)
    const cut = Buffer.from([...text].map((c) => `1\r\n${c}\r\n`).join(''))
    const joined = { bytes: 0, pieces: 0 }
    const real = Buffer.concat
    const watched = vi.spyOn(Buffer, 'concat').mockImplementation((list, length) => {
      const whole = real(list, length)
      joined.bytes += whole.length
      joined.pieces = Math.max(joined.pieces, list.length)
      return whole
    })
    for (const type of ['application/json', 'application/x-ndjson']) {
      const head = `POST ${path()} HTTP/1.1\r\n${KEY}Connection: close\r\nContent-Type: ${type}\r\nTransfer-Encoding: chunked\r\n\r\n`
      expect(await wire(head, cut, '0\r\n\r\n')).toContain('"record_id"')
    }
    watched.mockRestore()
    expect(joined.pieces).toBeLessThan(100)
    expect(joined.bytes).toBeLessThan(20 * text.length)
  })
})

describe('JSON of which two readers may see different things', () => {
  it.each([
    ['a name twice', '{"a":1,"a":1}'],
    ['a name twice, once in escapes', '{"a":1,"\\u0061":2}'],
    ['a name twice, far down', '{"v":[{"w":{"a":1,"b":2,"a":3}}]}'],
    ['__proto__ twice', '{"__proto__":1,"__proto__":2}'],
    ['the first half of a pair', '{"a":"\\ud800"}'],
    ['the second half of a pair', '{"a":"x\\udc00y"}'],
    ['two first halves', '{"a":"\\uD83D\\uD83D\\uDE00"}'],
    ['half a pair in a name', '{"\\udfff":1}'],
    ['a whole number beyond 2^53', '{"a":9007199254740993}'],
    ['a whole number far beyond it, below zero', '{"a":[-123456789012345678901234567890]}'],
    ['a number that would be infinite', '{"a":1e400}'],
    ['a number that would be infinite without an exponent', `{"a":${'9'.repeat(400)}.0}`],
    ['a number that would be nothing', '{"a":-1e-400}'],
    ['a number that would be nothing without an exponent', `{"a":0.${'0'.repeat(400)}1}`],
    ['half of UTF-8', Buffer.from(record('{"a":"é"}')).subarray(0, -3)],
    ['a surrogate as bytes', Buffer.from(record('{"a":"?"}').replace('?', '\xed\xa0\x80'), 'latin1')],
    ['a letter in too many bytes', Buffer.from(record('{"a":"?"}').replace('?', '\xc0\x80'), 'latin1')],
    ['a control character as it is', '{"a":"\u0001"}'],
    ['a mark in the middle', '{"a":\ufeff1}'],
    ['a comment', '{"a":1/**/}'],
    ['NaN', '{"a":NaN}'],
    ['a comma too many', '{"a":1,}'],
    ['a zero in front', '{"a":01}'],
  ])('is refused: %s', async (_, data) => {
    const body = typeof data === 'string' ? record(data) : data
    for (const type of ['application/json', 'application/x-ndjson']) {
      const reply = await unchanged(() => send(body, type))
      expect(reply.body).toMatchObject({ reason: 'invalid', status: 400 })
    }
  })

  it.each([
    [
      '__proto__ and its like, as plain data',
      '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}},"prototype":[{"__proto__":null}]}',
    ],
    ['whole numbers up to 2^53', '{"a":[9007199254740991,-9007199254740991,0,100000000000000]}'],
    ['fractions as near as a double comes', '{"a":[0.1,1e308,5e-324,0.30000000000000004,1e-7,123456789012345680000.5]}'],
    ['whole pairs, however they are written', '{"a":"\\ud83d\\ude00 😀 \\uDBFF\\uDFFF \\\\ud800"}'],
    ['all that a string may hold', '{"a":"\\u0000\\u001b\\r\\n\\u2028\\u2029\\u0085\\u202e\\ufeff\\uffff\\"\\\\"}'],
    ['names that are none', '{"":1," ":2,"\\u0000":3,"0":4,"toString":5}'],
  ])('is not: %s', async (_, data) => {
    const { status, body } = await send(record(data))
    expect(status).toBe(201)
    running.sessile.log.settle()
    const line = readFileSync(sessionFile(running.home, session_id), 'utf8').trimEnd().split('\n').at(-1) as string
    expect(JSON.stringify(JSON.parse(line).data)).toBe(JSON.stringify(JSON.parse(data)))
    const { records } = (await running.admin.get(`${path()}?after=${body.seq - 1}`)).body
    expect(JSON.stringify(records[0].data)).toBe(JSON.stringify(JSON.parse(data)))
    expect(({} as Json).polluted).toBeUndefined()
  })

  it('is not: a zero below zero, which is zero; a mark in front, which is none of it', async () => {
    const { status } = await send(`\ufeff${record('{"a":-0,"b":-0.0}')}`)
    expect(status).toBe(201)
    running.sessile.log.settle()
    expect(readFileSync(sessionFile(running.home, session_id), 'utf8')).toContain('"data":{"a":0,"b":0}')
  })

  it.each(['__proto__', 'constructor', 'prototype', 'toString'])('names no field that is not there: %s', async (name) => {
    const field = `"${name}":{"user_id":"eve"}`
    for (const [at, body] of [
      ['/session_manager/sessions.start', `{"user_id":"bob","performer_id":"d",${field}}`],
      [path(), record('{}').replace('"data"', `${field},"data"`)],
      ['/api/v1/keys', `{"account_id":"d","users":["ada"],${field}}`],
      [path(), JSON.stringify(said('x')).replace('"speaker"', `${field},"speaker"`)],
    ] as const) {
      const reply = await unchanged(() => send(body, 'application/json', at))
      expect(reply.body.errors.map(({ path }: Json) => path.split('.').at(-1))).toContain(name)
    }
  })
})

describe('a hostile text', () => {
  interface Field {
    at: string
    name: string
    /** With this text in it; each of many is another user's, so that none is in another's way. */
    body: (value: string, i: number) => Json
  }
  const contract = JSON.parse(readFileSync(new URL('../schemas/openapi.json', import.meta.url), 'utf8')) as Json
  const needed: Json = {
    user_id: 'ada',
    performer_id: 'device-7',
    session_id: () => session_id,
    account_id: 'device-7',
    kind: 'workflow',
  }
  const given = (name: string) => (typeof needed[name] === 'function' ? needed[name]() : needed[name])
  const kindOf: Record<string, string> = {
    session_notes: 'capture',
    training_intent_label: 'capture',
    counselor_category: 'voice',
    room_name: 'video',
    language: 'therapy',
    session_date: 'therapy',
  }
  const isText = (schema: Json): boolean =>
    schema.type === 'string' || (schema.anyOf ?? []).some(isText) || (schema.items !== undefined && isText(schema.items))

  /** Every field that may hold a text, of every command and of every record that may be appended, as the contract has them. */
  const fields: Field[] = Object.entries(contract.paths as Json).flatMap(([at, { post }]: [string, Json]) => {
    const schema = post?.requestBody?.content['application/json'].schema
    return Object.entries(schema?.properties ?? {})
      .filter(([, of]) => isText(of))
      .map(([name]) => ({
        at,
        name,
        body: (value: string, i: number) => ({
          ...Object.fromEntries(schema.required.map((field: string) => [field, given(field)])),
          ...(at.endsWith('sessions.start')
            ? { kind: kindOf[name] ?? 'workflow', user_id: `u${i}-${name}` }
            : at === '/api/v1/keys'
              ? { users: ['ada'] }
              : {}),
          [name]: name === 'users' ? [value] : value,
        }),
      }))
  })
  for (const type of ['transcript.said', 'crisis.flagged', 'features.extracted', 'x.acme.note']) {
    const valid: Json = {
      'transcript.said': { ...said('').data, words: [{ text: 'w' }], lang: 'en', segment_id: 's' },
      'crisis.flagged': { note: 'n', segment_id: 's' },
      'features.extracted': {
        raw_features_ref: { artifact_id: 'a', sha256: 'a'.repeat(64), format: 'npy', dims: [1] },
        extractor: 'e',
      },
      'x.acme.note': { text: 't' },
    }
    const whole = { ...said(''), type, data: valid[type] }
    const places = (value: Json, under: string[] = []): string[][] =>
      Object.entries(value).flatMap(([name, inner]) =>
        typeof inner === 'string' ? [[...under, name]] : typeof inner === 'object' ? places(inner, [...under, name]) : [],
      )
    for (const place of places(whole)) {
      const body = (value: string) => {
        const copy: Json = structuredClone(whole)
        place.slice(0, -1).reduce((inner, step) => inner[step], copy)[place.at(-1) as string] = value
        return copy
      }
      fields.push({ at: '/api/v1/sessions/{session_id}/records', name: place.join('.'), body })
    }
  }

  /** How many texts were looked at that came back as they were sent. */
  async function isKept({
    at,
    name,
    text,
    asked,
    reply,
  }: {
    at: string
    name: string
    text: string
    asked: Json
    reply: Reply
  }): Promise<number> {
    if (at.endsWith('/records') && name.startsWith('data.')) {
      expect(reply.body).toMatchObject(asked.data)
      return 1
    }
    if (!at.endsWith('sessions.start')) return 0
    expect(reply.body).toMatchObject(asked)
    const { attributes } = (await running.admin.get(`/api/v1/sessions/${reply.body.session_id}`)).body
    if (kindOf[name]) expect(attributes[name]).toBe(text)
    return 1
  }

  it('in any field of any command is kept as it is or refused, and breaks nothing', async () => {
    expect(fields.length).toBeGreaterThan(40)
    const counts: number[] = []
    for (const [k, { at, name, body }] of fields.entries()) {
      const one = async (text: string, i: number) => {
        const asked = body(text, i)
        const reply = await send(JSON.stringify(asked), 'application/json', at.replace('{session_id}', session_id))
        expect([at, name, text, reply.status < 500]).toEqual([at, name, text, true])
        if (reply.status >= 400) expect(reply.body.reason).toMatch(/^[a-z-]+$/)
        else counts.push(await isKept({ at, name, text, asked, reply }))
      }
      // Each text goes to a third of the fields, each field gets a third of the texts.
      await Promise.all(HOSTILE.filter((_, i) => (i + k) % 3 === 0).map(one))
      session_id = (await running.admin.start({ kind: 'therapy' })).body.session_id
    }
    expect(counts.reduce((sum, one) => sum + one, 0)).toBeGreaterThan(200)
  }, 60_000)

  it('breaks no line of a log or of what is told, no terminal and no stream', async () => {
    for (const text of HOSTILE.filter((text) => !text.startsWith('data:'))) await running.admin.append(session_id, said(text))
    running.sessile.log.settle()
    const { session_number: _, ...shown } = (await running.admin.get(`/api/v1/sessions/${session_id}`)).body
    expect(shown.transcript.map(({ text }: Json) => text)).toEqual(
      expect.arrayContaining(HOSTILE.filter((text) => !text.startsWith('data:'))),
    )
    const bytes = readFileSync(sessionFile(running.home, session_id))
    const lines = bytes.toString().trimEnd().split('\n')
    expect(bytes.filter((byte) => byte < 0x20 && byte !== 0x0a)).toHaveLength(0)
    for (const line of lines) expect(JSON.parse(line).record_id).toBeDefined()
    const { out } = await cli(running.home, ['cat', session_id, '--says'])
    expect(out.trimEnd().split('\n')).toHaveLength(lines.length)
    // biome-ignore lint/suspicious/noControlCharactersInRegex: it is control characters that must not be there
    expect(out).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/)
    const response = await running.admin.raw('GET', `${path()}?follow=1`)
    const events = await readUntil(response, 'event: caught-up')
    const records = events.split('\n\n').filter((event) => event.includes('event: record'))
    expect(records).toHaveLength(lines.length)
    for (const event of records) expect(event).toMatch(/^id: \d+\nevent: record\ndata: [^\r\n]*$/)
    expect(events).not.toMatch(/^event: fake/m)
    for (const line of told) {
      expect(line.trimEnd()).not.toMatch(/[\r\n]/)
      expect(JSON.parse(line)).not.toHaveProperty('user_id')
    }
    expect(told.join('')).not.toContain('device-7')
  }, 30_000)

  it.each(HOSTILE.filter((text) => /^[\x20-\x7e]+$/.test(text)))('as an id leads nowhere: %j', async (id) => {
    const hard = encodeURIComponent(id).replaceAll('.', '%2e')
    for (const written of [encodeURIComponent(id), hard]) {
      for (const at of [
        `/api/v1/sessions/${written}`,
        `/api/v1/sessions/${written}/records`,
        `/api/v1/users/${written}/sessions`,
      ]) {
        const came = await wire(`GET ${at} HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`)
        const [status] = statuses(came)
        // It may be somebody's id: then it is theirs alone that is told.
        if (status === 200)
          expect((came.match(/"user_id":"[^"]*"/g) ?? []).filter((found) => found !== `"user_id":"${id}"`)).toEqual([])
        else expect(reasons(came)[0]).toMatch(/^(invalid|session-not-found|no-such-route)$/)
      }
    }
  })

  it('as an id with a byte in it that ends a path is refused', async () => {
    for (const id of ['%00', 'ada%00', 'ada%2f..%2fbob', '..%2f..%2flogs', '%2e%2e', '%c0%ae', '%ff', '%', '%zz', 'ada%0d%0aX:y']) {
      const came = await wire(`GET /api/v1/users/${id}/sessions HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`)
      expect([id, reasons(came)[0]]).toEqual([id, expect.stringMatching(/^(invalid|no-such-route)$/)])
    }
  })
})

async function readUntil(response: Response, end: string): Promise<string> {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  const decoder = new TextDecoder()
  let text = ''
  while (!text.includes(end)) text += decoder.decode((await reader.read()).value, { stream: true })
  await reader.cancel()
  return text
}

describe('a request that is not what it seems', () => {
  const body = () => JSON.stringify(said('x'))
  const post = (headers: string, sent: string | Buffer = body(), length = `Content-Length: ${Buffer.byteLength(sent)}\r\n`) =>
    wire(`POST ${path()} HTTP/1.1\r\n${KEY}Connection: close\r\n${headers}${length}\r\n`, sent)
  const JSON_TYPE = 'Content-Type: application/json\r\n'

  it.each([
    ['gzip', (text: string) => gzipSync(text)],
    ['br', (text: string) => text],
    ['deflate', (text: string) => text],
    ['identity', (text: string) => text],
    ['', (text: string) => text],
  ])('in the encoding %j is refused with 415', async (encoding, made) => {
    const before = logBytes(running)
    const came = await post(`${JSON_TYPE}Content-Encoding: ${encoding}\r\n`, made(body()))
    expect([statuses(came), reasons(came)]).toEqual([[415], ['unsupported-media-type']])
    expect(logBytes(running)).toBe(before)
  })

  it.each([
    '',
    'Content-Type: \r\n',
    'Content-Type: text/plain\r\n',
    'Content-Type: application/jsonp\r\n',
    'Content-Type: application/json, text/plain\r\n',
    'Content-Type: application/x-www-form-urlencoded\r\n',
    'Content-Type: multipart/form-data; boundary=x\r\n',
    'Content-Type: application/json; charset=utf-16\r\n',
    'Content-Type: application/json; charset=latin1\r\n',
  ])('of the type %j is refused with 415', async (header) => {
    const came = await post(header)
    expect([statuses(came), reasons(came)]).toEqual([[415], ['unsupported-media-type']])
  })

  it.each(['application/json; charset=utf-8', 'Application/JSON;charset="UTF-8"', 'application/json ; x=y'])(
    'of the type %j is not',
    async (type) => {
      expect(statuses(await post(`Content-Type: ${type}\r\n`))).toEqual([201])
    },
  )

  it.each([
    ['two types', 'Content-Type: application/json\r\nContent-Type: application/x-ndjson\r\n'],
    ['two keys', `${JSON_TYPE}Authorization: Bearer another\r\n`],
    ['two hosts', `${JSON_TYPE}Host: another\r\n`],
    ['two names', `${JSON_TYPE}Idempotency-Key: a\r\nIdempotency-Key: b\r\n`],
  ])('because it has %s is refused', async (_, headers) => {
    const before = logBytes(running)
    const came = await post(headers)
    expect([statuses(came), reasons(came)]).toEqual([[400], ['invalid']])
    expect(logBytes(running)).toBe(before)
  })

  it.each([
    ['a length and chunks', `${JSON_TYPE}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n`, '5\r\n'],
    ['two lengths', `${JSON_TYPE}Content-Length: 2\r\nContent-Length: 20\r\n`, '{}'],
    ['a length that is none', `${JSON_TYPE}Content-Length: +2\r\n`, '{}'],
    ['a length below zero', `${JSON_TYPE}Content-Length: -2\r\n`, '{}'],
    ['a header that goes on in the next line', `${JSON_TYPE}X: a\r\n b\rc\r\nContent-Length: 2\r\n`, '{}'],
    ['a header with a blank before its colon', `Content-Type : application/json\r\nContent-Length: 2\r\n`, '{}'],
    ['chunks that are not the last coding', `${JSON_TYPE}Transfer-Encoding: chunked, gzip\r\n`, '0\r\n\r\n'],
    ['a chunk of no size', `${JSON_TYPE}Transfer-Encoding: chunked\r\n`, 'zz\r\n{}\r\n0\r\n\r\n'],
    ['a null byte', `${JSON_TYPE}X: a\u0000b\r\nContent-Length: 2\r\n`, '{}'],
  ])('because it has %s is refused once, and nothing behind it is taken for another', async (_, headers, sent) => {
    const before = logBytes(running)
    const hidden = `POST /session_manager/sessions.start HTTP/1.1\r\n${KEY}${JSON_TYPE}Content-Length: 44\r\n\r\n{"user_id":"eve-hidden","performer_id":"d"}`
    const came = await wire(`POST ${path()} HTTP/1.1\r\n${KEY}${headers}\r\n${sent}`, hidden)
    expect(statuses(came)).toEqual([400])
    expect(came).toContain('application/problem+json')
    expect(logBytes(running)).toBe(before)
  })

  it('because it names two codings is refused with 415', async () => {
    const came = await post(`${JSON_TYPE}Transfer-Encoding: gzip, chunked\r\n`, `2\r\n{}\r\n0\r\n\r\n`, '')
    expect([statuses(came), reasons(came)]).toEqual([[415], ['unsupported-media-type']])
  })

  it('keeps what stands in the body of a GET from being taken for a request', async () => {
    const hidden = 'GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n'
    const came = await wireUntil(/ready/, `GET /readyz HTTP/1.1\r\n${KEY}Content-Length: ${hidden.length}\r\n\r\n${hidden}`)
    expect(statuses(came)).toEqual([200])
    expect(came).not.toContain('"alive"')
  })

  it.each(['GET', 'PUT', 'DELETE', 'PATCH', 'OPTIONS', 'TRACE', 'PROPFIND'])(
    'by the method %s is told which there are',
    async (method) => {
      const came = await wire(
        `${method} /session_manager/sessions.start HTTP/1.1\r\n${KEY}Connection: close\r\nX-HTTP-Method-Override: POST\r\n\r\n`,
      )
      expect([statuses(came), reasons(came)]).toEqual([[405], ['method-not-allowed']])
      expect(came).toMatch(/^allow: POST\r$/im)
      expect(came).not.toContain(ADMIN)
    },
  )

  it.each([
    ['NONSENSE', 'NONSENSE / HTTP/1.1\r\n\r\n', 400, 'not-http'],
    ['no words at all', '\u0000\u0001\u0002\r\n\r\n', 400, 'not-http'],
    ['TLS', Buffer.from('16030100c2010000be0303', 'hex'), 400, 'not-http'],
    ['a bad host', 'GET /healthz HTTP/1.1\r\nHost: a b\r\nConnection: close\r\n\r\n', 400, 'not-http'],
    ['no host', 'GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n', 400, 'not-http'],
    ['a backslash', `GET /api\\v1\\sessions HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`, 400, 'not-http'],
    ['an address with dots', `GET /api/v1/keys/../sessions HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`, 404, 'no-such-route'],
    [
      'an address with dots in disguise',
      `GET /api/v1/keys/%2e%2E/sessions HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`,
      404,
      'no-such-route',
    ],
    ['another address', `GET /api/v1//sessions HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`, 404, 'no-such-route'],
    [
      'a whole address of another host',
      `GET http://elsewhere/api/v1/nothing HTTP/1.1\r\n${KEY}Connection: close\r\n\r\n`,
      404,
      'no-such-route',
    ],
  ])('such as %s is a problem', async (_, sent, status, reason) => {
    const came = await wire(sent)
    expect([statuses(came), reasons(came)]).toEqual([[status], [reason]])
    expect(came).toMatch(/^content-type: application\/problem\+json\r$/im)
  })

  it('for the head of a stream leaves none open', async () => {
    const begun = new Set<unknown>()
    const [begin, end] = [setInterval, clearInterval]
    // The heart of every open stream beats; that of one which is let go is stopped.
    const beating = vi.spyOn(globalThis, 'setInterval').mockImplementation(((...given: Parameters<typeof begin>) => {
      const beat = begin(...given)
      begun.add(beat)
      return beat
    }) as typeof begin)
    const stopping = vi.spyOn(globalThis, 'clearInterval').mockImplementation((beat) => {
      begun.delete(beat)
      end(beat)
    })
    const followed = await running.admin.raw('GET', `${path()}?follow=1`)
    expect(begun.size).toBeGreaterThan(0)
    await followed.body?.cancel()
    await expect.poll(() => begun.size).toBe(0)
    const response = await running.admin.raw('HEAD', `${path()}?follow=1`)
    expect([response.status, response.headers.get('content-type'), await response.text()]).toEqual([200, 'text/event-stream', ''])
    expect(begun.size).toBe(0)
    beating.mockRestore()
    stopping.mockRestore()
  })

  it('with a wrong key gets the same answer whatever is wrong with it', async () => {
    const device = await running.admin.device()
    await running.admin.post(`/api/v1/keys/${device.key_id}/revoke`, {})
    const right = device.key as string
    const wrongs = [
      '',
      'x',
      right,
      right.slice(0, -1),
      `${right}x`,
      `${right.slice(0, -1)}${right.endsWith('A') ? 'B' : 'A'}`,
      `sessile_${'A'.repeat(43)}`,
      'x'.repeat(3000),
      `${ADMIN.slice(0, -1)}x`,
    ]
    const answers = await Promise.all(
      wrongs.map(async (key) => {
        const response = await new Client(running.url, key).raw('GET', '/api/v1/sessions')
        const { request_id: _, ...problem } = (await response.json()) as Json
        return JSON.stringify([
          response.status,
          problem,
          response.headers.get('content-length'),
          response.headers.get('www-authenticate'),
        ])
      }),
    )
    expect(new Set(answers).size).toBe(1)
    expect(answers[0]).toContain('unauthenticated')
  })
})

describe('after all of that', () => {
  it('the log is whole, and the views are those of the log', async () => {
    running.sessile.log.settle()
    expect((await cli(running.home, ['verify'])).code).toBe(0)
    expect((await cli(running.home, ['rebuild', '--check'])).code).toBe(0)
  })
})
