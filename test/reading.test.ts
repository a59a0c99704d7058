import { readFileSync, writeFileSync } from 'node:fs'
import { describe, expect, it, vi } from 'vitest'
import { Borrowed, CHUNK, Lines, type Shelf } from '../src/core/log.ts'
import { type Client, clockAt, type Json, later, refused, run, said, sessionFile } from './harness.ts'

const ids = (body: Json) => body.sessions.map(({ session_id }: { session_id: string }) => session_id)

async function several() {
  const clock = clockAt('2031-05-02T09:00:00Z')
  const running = await run(undefined, {}, clock)
  const made: string[] = []
  for (const [user_id, kind] of [
    ['ada', 'capture'],
    ['bob', 'voice'],
    ['ada', 'video'],
    ['ada', 'therapy'],
    ['bob', 'capture'],
  ] as const) {
    made.unshift((await running.admin.start({ user_id, kind })).body.session_id)
    clock.move(60)
  }
  await running.admin.end({ session_id: made[4] })
  return { running, made, clock }
}

describe('GET /api/v1/sessions', () => {
  it('lists newest first, with every field', async () => {
    const { running, made } = await several()
    const { body } = await running.admin.get('/api/v1/sessions')
    expect(ids(body)).toEqual(made)
    expect(body.sessions[4]).toEqual({
      session_id: made[4],
      user_id: 'ada',
      session_number: 1,
      kind: 'capture',
      mode: null,
      counselor_category: null,
      status: 'closed',
      started_at: '2031-05-02T09:00:00.000Z',
      ended_at: '2031-05-02T09:05:00.000Z',
      duration_seconds: 300,
      crisis_detected: false,
      disconnected: false,
    })
  })

  it.each([
    ['mode=voice', [3]],
    ['mode=video', [2]],
    ['kind=capture', [0, 4]],
    ['status=closed', [4]],
    ['status=active&kind=capture', [0]],
    ['from=2031-05-02T09:03:00Z', [0, 1]],
    ['to=2031-05-02T09:03:00Z', [2, 3, 4]],
    ['from=2031-05-02T11:02:00%2B02:00&to=2031-05-02T09:04:00Z', [1, 2]],
    ['from=2031-05-03', []],
    ['limit=2', [0, 1]],
    ['limit=2&offset=3', [3, 4]],
  ])('filters by %s', async (filter, expected) => {
    const { running, made } = await several()
    const { body } = await running.admin.get(`/api/v1/sessions?${filter}`)
    expect(ids(body)).toEqual(expected.map((i) => made[i]))
  })

  it('pages by cursor through every session once, whatever begins meanwhile', async () => {
    const { running, made } = await several()
    const seen: string[] = []
    let cursor = ''
    do {
      const { body } = await running.admin.get(`/api/v1/sessions?limit=2${cursor}`)
      seen.push(...ids(body))
      expect(body.has_more).toBe(body.next_cursor !== null)
      await running.admin.start({ kind: 'workflow' })
      cursor = body.next_cursor === null ? '' : `&cursor=${body.next_cursor}`
    } while (cursor !== '')
    expect(seen).toEqual(made)
  })

  it.each([
    'limit=0',
    'limit=201',
    'limit=x',
    'offset=-1',
    'mode=radio',
    'kind=x',
    'status=open',
    'from=yesterday',
    'colour=red',
    'limit=1&limit=2',
  ])('refuses %s', async (filter) => {
    const running = await run()
    await refused(running, () => running.admin.get(`/api/v1/sessions?${filter}`), 422, 'invalid')
  })

  it('refuses a cursor that no page gave', async () => {
    const running = await run()
    await refused(running, () => running.admin.get('/api/v1/sessions?cursor=AAAA'), 422, 'bad-cursor')
  })
})

describe('GET /api/v1/users/{user_id}/sessions', () => {
  it('lists the sessions of one user', async () => {
    const { running, made } = await several()
    expect(ids((await running.admin.get('/api/v1/users/bob/sessions')).body)).toEqual([made[0], made[3]])
    expect(ids((await running.admin.get('/api/v1/users/bob/sessions?status=active&limit=1')).body)).toEqual([made[0]])
    expect(ids((await running.admin.get('/api/v1/users/nobody/sessions')).body)).toEqual([])
    await refused(running, () => running.admin.get('/api/v1/users/%2e%2e%2f/sessions'), 422, 'invalid')
  })
})

describe('GET /api/v1/sessions/{session_id}', () => {
  it('tells all of a session and its transcript; a final replaces its interims', async () => {
    const { admin } = await run()
    const { body } = await admin.start({ kind: 'voice', counselor_category: 'grief' })
    const segment = (text: string, segment_id: string) => ({ ...said(text), data: { ...said(text).data, segment_id } })
    await admin.append(body.session_id, [segment('I fee', 's1'), segment('Go on', 's2'), segment('I feel better', 's1')])
    await admin.append(body.session_id, { ...said(''), type: 'crisis.flagged', source: 'classifier', data: {} })
    await admin.end({ session_id: body.session_id, reason: 'disconnected' })
    const { body: detail } = await admin.get(`/api/v1/sessions/${body.session_id}`)
    expect(detail).toMatchObject({
      counselor_category: 'grief',
      mode: 'voice',
      crisis_detected: true,
      disconnected: true,
      end_reason: 'disconnected',
    })
    expect(detail.transcript).toEqual([
      { timestamp: '2031-05-02T09:30:00Z', speaker: 'user', text: 'I feel better' },
      { timestamp: '2031-05-02T09:30:00Z', speaker: 'user', text: 'Go on' },
    ])
  })

  it('refuses a session that does not exist', async () => {
    const running = await run()
    for (const path of ['', '/records', '/timeline']) {
      await refused(
        running,
        () => running.admin.get(`/api/v1/sessions/sess_01ARZ3NDEKTSV4RRFFQ69G5FAV${path}`),
        404,
        'session-not-found',
      )
    }
  })
})

describe('GET /api/v1/sessions/{session_id}/records', () => {
  it('gives JSON in pages', async () => {
    const { admin } = await run()
    const { body } = await admin.start()
    await admin.append(
      body.session_id,
      ['a', 'b', 'c'].map((text) => said(text)),
    )
    const page = (await admin.get(`/api/v1/sessions/${body.session_id}/records?limit=3`)).body
    expect(page.records.map(({ seq }: Json) => seq)).toEqual([1, 2, 3])
    const rest = (await admin.get(`/api/v1/sessions/${body.session_id}/records?after=${page.next_after}`)).body
    expect(rest).toMatchObject({ records: [{ seq: 4, data: { text: 'c' } }], next_after: null })
  })

  it('gives NDJSON: the log’s own bytes', async () => {
    const { admin, home, sessile } = await run()
    const { body } = await admin.start()
    for (let i = 0; i < 20; i++)
      await admin.append(
        body.session_id,
        Array.from({ length: 50 }, (_, n) => said(`line ${i} ${n} ✓`)),
      )
    const get = async (path: string) =>
      Buffer.from(await (await admin.raw('GET', path, { headers: { accept: 'application/x-ndjson' } })).arrayBuffer())
    const all = await get(`/api/v1/sessions/${body.session_id}/records`)
    sessile.log.settle()
    const file = readFileSync(sessionFile(home, body.session_id))
    expect(all.equals(file)).toBe(true)
    const lines = file.toString().trimEnd().split('\n')
    const tail = await get(`/api/v1/sessions/${body.session_id}/records?after=1000`)
    expect(tail.toString()).toBe(`${lines.at(-1)}\n`)
    const some = await get(`/api/v1/sessions/${body.session_id}/records?after=10&limit=900`)
    expect(some.toString()).toBe(`${lines.slice(10, 910).join('\n')}\n`)
    const { records, next_after } = (await admin.get(`/api/v1/sessions/${body.session_id}/records`)).body
    expect([records.length, next_after]).toEqual([1000, 1000])
  })
})

/** The events of a stream, as they come. */
async function follow(client: Client, session_id: string, { after, lastEventId }: { after?: number; lastEventId?: string } = {}) {
  const stop = new AbortController()
  later(() => stop.abort())
  const query = after === undefined ? '' : `&after=${after}`
  const response = await client.raw('GET', `/api/v1/sessions/${session_id}/records?follow=1${query}`, {
    signal: stop.signal,
    headers: lastEventId === undefined ? {} : { 'last-event-id': lastEventId },
  })
  expect(response.headers.get('content-type')).toBe('text/event-stream')
  const reader = (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader()
  let text = ''
  const next = async (): Promise<{ id: string | undefined; event: string; data: Json } | undefined> => {
    for (;;) {
      const end = text.indexOf('\n\n')
      if (end >= 0) {
        const block = text.slice(0, end)
        text = text.slice(end + 2)
        if (block.startsWith(':')) continue
        const field = (name: string) =>
          block
            .split('\n')
            .find((line) => line.startsWith(`${name}: `))
            ?.slice(name.length + 2)
        return { id: field('id'), event: field('event') ?? '', data: JSON.parse(field('data') ?? 'null') }
      }
      const { value, done } = await reader.read().catch(() => ({ value: undefined, done: true }))
      if (done) return undefined
      text += value
    }
  }
  return { next, stop: () => stop.abort() }
}

describe('GET /api/v1/sessions/{session_id}/records?follow=1', () => {
  it('gives what there is, says that it has caught up, and goes on', async () => {
    const { admin } = await run()
    const { body } = await admin.start()
    await admin.append(body.session_id, said('one'))
    const stream = await follow(admin, body.session_id)
    expect(await stream.next()).toMatchObject({ id: '1', event: 'record', data: { type: 'session.started' } })
    expect(await stream.next()).toMatchObject({ id: '2', event: 'record', data: { data: { text: 'one' } } })
    expect(await stream.next()).toEqual({ id: undefined, event: 'caught-up', data: { seq: 2 } })
    await admin.append(body.session_id, said('two'))
    expect(await stream.next()).toMatchObject({ id: '3', event: 'record', data: { data: { text: 'two' } } })
  })

  it.each([{ after: 3 }, { lastEventId: '3' }])('ends at once for one who has more than there is (%j)', async (from) => {
    const { admin } = await run()
    const { body } = await admin.start()
    await admin.append(body.session_id, said('one'))
    const stream = await follow(admin, body.session_id, from)
    expect(await stream.next()).toEqual({ id: undefined, event: 'problem', data: { reason: 'beyond-the-end', seq: 2 } })
    expect(await stream.next()).toBeUndefined()
  })

  it('misses and doubles no record across reconnects and a restart, under load', async () => {
    let running = await run()
    const { body } = await running.admin.start()
    const total = 400
    let sent = 0
    const pour = async (until: number) => {
      while (sent < until) {
        sent += 5
        await running.admin.append(
          body.session_id,
          Array.from({ length: 5 }, () => said(`n`)),
        )
      }
    }
    const seen: number[] = []
    let last: string | undefined
    const read = async (count: number) => {
      const stream = await follow(running.admin, body.session_id, last === undefined ? {} : { lastEventId: last })
      for (let i = 0; i < count; ) {
        const event = await stream.next()
        if (!event) break
        if (event.event !== 'record') continue
        seen.push(Number(event.id))
        last = event.id
        i++
      }
      stream.stop()
    }
    const pouring = pour(total / 2)
    await read(60)
    await read(60)
    await pouring
    running = await running.restart()
    const second = pour(total)
    await read(100)
    await read(total + 1 - seen.length)
    await second
    expect(seen).toEqual(Array.from({ length: total + 1 }, (_, i) => i + 1))
  })

  it('says now and then that it is still there', async () => {
    vi.useFakeTimers({ toFake: ['setInterval'] })
    later(() => void vi.useRealTimers())
    const { admin } = await run()
    const { body } = await admin.start()
    const response = await admin.raw('GET', `/api/v1/sessions/${body.session_id}/records?follow=1`)
    const reader = (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    while (!text.includes('caught-up')) text += (await reader.read()).value
    vi.advanceTimersByTime(15_000)
    expect((await reader.read()).value).toBe(': still here\n\n')
    await reader.cancel()
  })

  it('begins after the seq that is asked for', async () => {
    const { admin } = await run()
    const { body } = await admin.start()
    await admin.append(body.session_id, [said('one'), said('two')])
    const stream = await follow(admin, body.session_id, { after: 2 })
    expect((await stream.next())?.id).toBe('3')
    expect((await stream.next())?.event).toBe('caught-up')
  })
})

describe('GET /api/v1/sessions/{session_id}/timeline', () => {
  it('tells what happened, in order, with the time since the start and a sentence', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const { admin } = await run(undefined, {}, clock)
    const { body } = await admin.start()
    clock.move(1.5)
    await admin.append(body.session_id, said('water, please'))
    clock.move(1)
    await admin.end({ session_id: body.session_id })
    const { body: timeline } = await admin.get(`/api/v1/sessions/${body.session_id}/timeline`)
    expect(timeline.entries.map(({ offset_ms, says }: Json) => [offset_ms, says])).toEqual([
      [0, 'Session 1 (a device recording a user) was started by device-7.'],
      [1500, 'user said: water, please'],
      [2500, 'The session was ended by device-7 (completed).'],
    ])
    const page = (await admin.get(`/api/v1/sessions/${body.session_id}/timeline?limit=2`)).body
    expect(page).toMatchObject({ entries: [{ seq: 1 }, { seq: 2 }], next_after: 2 })
  })
})

describe('the contract', () => {
  it('is OpenAPI 3.1 and names every refusal with its reason', async () => {
    const { anyone } = await run()
    const { body } = await anyone.get('/openapi.json')
    expect(body.openapi).toBe('3.1.0')
    const reasons = (path: string, method: string, status: number) =>
      body.paths[path][method].responses[status].content['application/problem+json'].schema.allOf[1].properties.reason.enum
    expect(reasons('/session_manager/sessions.start', 'post', 409)).toContain('session-already-active')
    expect(reasons('/session_manager/sessions.start', 'post', 400)).toEqual(
      expect.arrayContaining(['invalid', 'performer-required']),
    )
    expect(reasons('/session_manager/sessions.end', 'post', 409)).toContain('session-already-closed')
    expect(reasons('/session_manager/sessions.end', 'post', 403)).toContain('session-user-mismatch')
    expect(reasons('/api/v1/sessions/{session_id}/records', 'post', 400)).toContain('session-already-closed')
    expect(reasons('/session_manager/sessions.start', 'post', 503)).toContain('not-recorded')
    expect(reasons('/session_manager/sessions.start', 'post', 507)).toContain('not-recorded')
    expect(reasons('/session_manager/sessions.start', 'post', 422)).toContain('idempotency-key-reused')
    expect(reasons('/api/v1/sessions', 'get', 422)).toContain('bad-cursor')
  })

  it('can be read at /docs, from this address alone', async () => {
    const { anyone } = await run()
    const response = await anyone.raw('GET', '/docs')
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'")
    const page = await response.text()
    expect(page).not.toMatch(/(?:src|href)\s*=\s*["']?(?:https?:)?\/\//i)
    expect(page).toContain('/openapi.json')
  })

  it('gives every answer an X-Request-ID, the caller’s own where it is one', async () => {
    const { anyone } = await run()
    expect((await anyone.raw('GET', '/healthz', { headers: { 'x-request-id': 'mine-1' } })).headers.get('x-request-id')).toBe(
      'mine-1',
    )
    expect((await anyone.raw('GET', '/healthz', { headers: { 'x-request-id': 'not mine' } })).headers.get('x-request-id')).toMatch(
      /^[0-9a-f-]{36}$/,
    )
    const { body, headers } = await anyone.get('/nowhere')
    expect(body).toMatchObject({ status: 404, reason: 'no-such-route', request_id: headers.get('x-request-id') })
  })
})

describe('readings of several logs at a time', () => {
  it('are each told their own log, though they give each other a turn after every line', async () => {
    const running = await run()
    const made = await Promise.all(
      Array.from({ length: 8 }, async (_, n) => {
        const { session_id } = (await running.admin.start({ user_id: `u${n}` })).body
        const texts = Array.from({ length: 30 }, (_, i) => `${n}: ${'x'.repeat(n)} ${i}`)
        const lines = texts.map((text) => said(text, { user_id: `u${n}` }))
        await running.admin.append(session_id, lines)
        return { session_id, texts }
      }),
    )
    await running.sessile.recorder.settle()
    let now = performance.now()
    later(() => void vi.restoreAllMocks())
    vi.spyOn(performance, 'now').mockImplementation(() => (now += 2))
    const told = await Promise.all(
      made.map(async ({ session_id }) => {
        const [detail, timeline] = await Promise.all(
          ['', '/timeline'].map((part) => running.admin.get(`/api/v1/sessions/${session_id}${part}`)),
        )
        return {
          detail: (detail as { body: Json }).body.transcript.map(({ text }: Json) => text),
          timeline: (timeline as { body: Json }).body.entries.slice(1).map(({ says }: Json) => says),
        }
      }),
    )
    expect(told).toEqual(made.map(({ texts }) => ({ detail: texts, timeline: texts.map((text) => `user said: ${text}`) })))
  })

  it('give back the room that they borrow, also of a log that is damaged, or longer than that, or not read to its end', async () => {
    const running = await run()
    const ask = async (session_id: string, status: number) => {
      for (let times = 0; times < 5; times++)
        for (const part of ['', '/timeline', '/timeline?limit=1'])
          expect(await running.admin.get(`/api/v1/sessions/${session_id}${part}`)).toMatchObject({ status })
    }
    const [long, damaged] = [
      (await running.admin.start({ user_id: 'ada' })).body,
      (await running.admin.start({ user_id: 'bob' })).body,
    ]
    for (let i = 0; i < 4; i++)
      expect(await running.admin.append(long.session_id, said('x '.repeat(25_000)))).toMatchObject({ status: 201 })
    await ask(long.session_id, 200)
    await running.sessile.recorder.settle()
    const file = sessionFile(running.home, damaged.session_id, 'bob')
    writeFileSync(file, readFileSync(file, 'utf8').replace('"kind":"capture"', '"kind":"capturf"'))
    await refused(running, () => running.admin.get(`/api/v1/sessions/${damaged.session_id}/timeline`), 503, 'log-damaged')
    await ask(damaged.session_id, 503)
    const borrowed = new Borrowed()
    expect(borrowed.room).toBeDefined()
    borrowed.giveBack()
  })

  it('have a room no more when they have given it back: what is read further on lies elsewhere', () => {
    const lineOf = (user: string, i: number) => `${user} ${i} ${'.'.repeat(1000)}`
    const many = (user: string) => Array.from({ length: 300 }, (_, i) => lineOf(user, i))
    const logs = new Map(['ada', 'bob'].map((user) => [user, Buffer.from(`${many(user).join('\n')}\n`)]))
    const shelf: Shelf = {
      names: () => logs.keys(),
      read: (log, offset, length, room) => {
        const bytes = (logs.get(log) as Buffer).subarray(offset, offset + length)
        if (!room || room.length < bytes.length) return Buffer.from(bytes)
        bytes.copy(room)
        return room.subarray(0, bytes.length)
      },
    }
    const lent = new Borrowed()
    const lines = new Lines(shelf, 'ada', 0, undefined, lent.room)
    for (let i = 0; lines.end < CHUNK; i++) {
      expect(lines.advance()).toBe(true)
      if (i === 0) lent.giveBack()
    }
    const again = new Borrowed()
    expect(new Lines(shelf, 'bob', (logs.get('bob')?.length as number) - 2000, undefined, again.room).advance()).toBe(true)
    const seen = [lines.bytes.toString()]
    while (lines.advance()) seen.push(lines.bytes.toString())
    expect(seen).toEqual(many('ada').slice(-seen.length))
    expect(seen.length).toBeGreaterThan(30)
    again.giveBack()
  })
})
