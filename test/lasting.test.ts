// Answers that last: long ones, which are never held whole, and streams. Each is broken off, or ended with a word, where it
// cannot be gone on with, or where its reader may read no more.

import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { describe, expect, it, vi } from 'vitest'
import { bounds } from '../src/core/bounds.ts'
import { sessionLog } from '../src/core/log.ts'
import { Slice } from '../src/core/query.ts'
import type { Sessile } from '../src/core/sessile.ts'
import { sliceAsLines } from '../src/http/slice.ts'
import { Chance } from './chance.ts'
import { Follower, head, loadOf, long, memoryOf, socketTo, until, wait } from './crowd.ts'
import { flipped } from './damaging.ts'
import {
  type Client,
  type Json,
  later,
  linesIn,
  logBytes,
  makeHome,
  type Running,
  run,
  said,
  serveApart,
  sessionFile,
} from './harness.ts'

const SEED = Number(process.env.SESSILE_TEST_SEED ?? 1)
const NDJSON = { accept: 'application/x-ndjson' }

async function begun(running: { admin: Client }): Promise<{ session_id: string; path: string; records: string }> {
  const { session_id } = (await running.admin.start()).body
  return { session_id, path: `/api/v1/sessions/${session_id}`, records: `/api/v1/sessions/${session_id}/records` }
}

const segment = (text: string, segment_id?: string) =>
  said(text, { data: { ...said(text).data, ...(segment_id === undefined ? {} : { segment_id }) } })

/** What a transcript is: the last record of each segment, in the place of its first. */
function transcriptOf(records: Json[]): Json[] {
  const lines = new Map<string, Json>()
  for (const { type, record_id, data } of records) {
    if (type !== 'transcript.said') continue
    lines.set(data.segment_id ?? record_id, { timestamp: data.at, speaker: data.speaker, text: data.text })
  }
  return [...lines.values()]
}

describe(`GET /api/v1/sessions/{session_id} (seed ${SEED})`, () => {
  it('tells the last record of each segment in the place of its first, however few segments are held at a time', async () => {
    const { keysAtOnce } = bounds
    later(() => void Object.assign(bounds, { keysAtOnce }))
    const chance = new Chance(SEED)
    const running = await run()
    for (let round = 0; round < 10; round++) {
      const { session_id, path } = await begun(running)
      const segments = 1 + chance.below(12)
      // A short log is kept while it is looked through, a long one is read again.
      const length = round % 2 === 0 ? 1 : 1500
      const some = Array.from({ length: chance.below(40) }, (_, i) =>
        chance.oneIn(5)
          ? said('', { type: 'x.acme.note', data: { segment_id: 's1' } })
          : segment(`${round}.${i} „é“`.repeat(length), chance.oneIn(4) ? undefined : `s${chance.below(segments)}`),
      )
      if (some.length > 0) await running.admin.append(session_id, some)
      const transcript = transcriptOf((await running.admin.get(`${path}/records`)).body.records)
      await running.admin.end({ session_id })
      for (const keysAtOnce of [1, 2, 3, 5, 100]) {
        Object.assign(bounds, { keysAtOnce })
        const text = await (await running.admin.raw('GET', path)).text()
        const { transcript: _, ...about } = JSON.parse(text)
        expect(text).toBe(JSON.stringify({ ...about, transcript }))
      }
    }
  })

  it('is told in little memory, however long the transcript', async () => {
    const apart = await serveApart(makeHome(), { NODE_OPTIONS: '--max-old-space-size=64' })
    const { session_id, path } = await begun(apart)
    const text = 'some words '.repeat(8000)
    for (let i = 0; i < 10; i++)
      await apart.admin.append(
        session_id,
        Array.from({ length: 40 }, (_, n) => segment(text, n === 0 ? 'first' : `${i}.${n}`)),
      )
    const before = memoryOf(apart).most
    const { transcript } = (await apart.admin.get(path)).body
    expect(transcript).toHaveLength(10 * 39 + 1)
    expect(new Set(transcript.map((one: Json) => one.text))).toEqual(new Set([text]))
    expect(memoryOf(apart).most).toBeLessThan(before + 50)
  })

  it('is let go where its reader leaves, and cut off where it reads nothing', async () => {
    const home = makeHome()
    const apart = await serveApart(home, { SESSILE_PATIENCE_SECONDS: '1' })
    const { session_id, path } = await begun(apart)
    for (let i = 0; i < 20; i++)
      await apart.admin.append(
        session_id,
        Array.from({ length: 20 }, () => segment('some words '.repeat(4000))),
      )
    const idle = await Promise.all(Array.from({ length: 3 }, () => stalled(apart.url, head('GET', path))))
    await until(
      'nothing is held',
      () => loadOf(home, apart.url),
      ({ held_bytes }) => held_bytes > 0,
    )
    idle[0]?.destroy()
    await until(
      'something is held',
      () => loadOf(home, apart.url),
      ({ held_bytes }) => held_bytes === 0,
    )
    for (const socket of idle) socket.resume()
    await until('somebody is kept', () => idle.every(({ closed }) => closed), Boolean)
  })
})

/** Asks, and reads nothing of the answer. */
async function stalled(url: string, asked: string): Promise<Socket> {
  const socket = await socketTo(url)
  socket.pause()
  socket.write(asked)
  return socket
}

describe('answers that nobody takes', () => {
  it('are counted, and refused where there are too many, also short ones that wait behind others on their connection', async () => {
    const home = makeHome()
    const apart = await serveApart(home, { NODE_OPTIONS: '--max-old-space-size=128' })
    const { session_id, records } = await begun(apart)
    await apart.admin.append(session_id, said('some words '.repeat(5400)))
    const asked = 1000
    const socket = await stalled(apart.url, head('GET', records).repeat(asked))
    // Where nothing more can be held, the owner can still look.
    const { held_bytes } = await until(
      'nothing is held',
      () => loadOf(home, apart.url),
      // Hardly one more fits; others are still coming, and are refused.
      (load) => load.held_bytes > 16_700_000,
    )
    // A sixteenth of the heap, which newer Nodes make larger: half of what was asked for.
    expect(held_bytes).toBeLessThan(30 * 1024 * 1024)
    await wait(500)
    let came = ''
    socket.setEncoding('latin1').on('data', (data) => {
      came += data
    })
    socket.resume()
    const count = (status: number) => came.split(`HTTP/1.1 ${status}`).length - 1
    await until(
      'some are not answered',
      () => count(200) + count(503),
      (answered) => answered === asked,
    )
    expect(count(200)).toBeGreaterThan(0)
    expect(count(503)).toBeGreaterThan(0)
    expect(came.split('"reason":"overloaded"').length - 1).toBe(count(503))
    await until(
      'something is held',
      () => loadOf(home, apart.url),
      (load) => load.held_bytes === 0,
    )
    socket.destroy()
  })
})

describe('whoever asks for what comes after so much', () => {
  it.each(['/records', '/timeline', ''])('keeps nobody else waiting (%s)', async (part) => {
    const running = await run()
    const { session_id, path } = await begun(running)
    for (let i = 0; i < 15; i++)
      await running.admin.append(
        session_id,
        Array.from({ length: 1000 }, () => said('x'.repeat(200))),
      )
    const order: string[] = []
    const far = part === '' ? '' : '?after=15000'
    await Promise.all([
      running.admin.get(`${path}${part}${far}`).then(() => order.push('far')),
      wait(5).then(async () => {
        for (let i = 0; i < 3; i++) await running.anyone.get('/healthz').then(() => order.push('others'))
      }),
    ])
    expect(order.at(-1)).toBe('far')
  })
})

describe('GET /api/v1/keys', () => {
  it('lists every key once, newest first, however many there are', async () => {
    const { admin } = await run()
    const made: string[] = []
    for (let i = 0; i < 50; i++) made.unshift((await admin.device({ users: [`u${i}`] })).key_id)
    const { keys } = (await admin.get('/api/v1/keys')).body
    expect(keys.slice(0, 50).map(({ key_id }: Json) => key_id)).toEqual(made)
    expect(keys).toHaveLength(51)
  })
})

describe('GET /api/v1/sessions/{session_id}/records as NDJSON', () => {
  it('gives as many lines as are asked for, and all where no number is', async () => {
    const { admin, home, sessile } = await run()
    const { session_id, records } = await begun({ admin })
    for (let i = 0; i < 3; i++)
      await admin.append(
        session_id,
        Array.from({ length: 500 }, () => said('line')),
      )
    sessile.log.settle()
    const all = linesIn(sessionFile(home, session_id))
    const get = async (query: string) => {
      const text = await (await admin.raw('GET', records + query, { headers: NDJSON })).text()
      return text === ''
        ? []
        : text
            .trimEnd()
            .split('\n')
            .map((line) => JSON.parse(line))
    }
    expect(await get('')).toEqual(all)
    expect(await get('?limit=1')).toEqual(all.slice(0, 1))
    expect(await get('?limit=700&after=300')).toEqual(all.slice(300, 1000))
    expect(await get('?limit=10000')).toEqual(all)
    expect(await get('?after=1501&limit=5')).toEqual([])
  })

  it('rests for a moment with every piece while somebody waits to be recorded, and never where nobody does', async () => {
    const { admin, sessile } = await run()
    const { session_id } = await begun({ admin })
    for (let i = 0; i < 4; i++)
      await admin.append(
        session_id,
        Array.from({ length: 500 }, () => said('line')),
      )
    const { size } = sessile.recorder.endOf(sessionLog('ada', session_id)) as { size: number }
    const slice = new Slice(sessionLog('ada', session_id), 'whole', { after: 0, limit: undefined, follow: false })
    const restsWhere = async (busy: boolean): Promise<number> => {
      const rests = vi.spyOn(globalThis, 'setTimeout')
      const read = { recorder: { busy }, lines: (of: Slice) => sessile.lines(of) } as Sessile
      const flow = sliceAsLines(read, slice)
      for (let next = await flow.next(); !next.done; next = await flow.next());
      const count = rests.mock.calls.filter(([, ms]) => ms === 1).length
      rests.mockRestore()
      return count
    }
    expect(await restsWhere(false)).toBe(0)
    expect(await restsWhere(true)).toBeGreaterThan(size / (40 * 1024))
  })
})

/** Somebody who may read what is said with ada; how that ends, and what they are told then. */
interface Reader {
  key: string
  ends: () => Promise<unknown>
}

const readers: [how: string, reason: string, come: (running: Running) => Promise<Reader>][] = [
  [
    'its key is revoked',
    'unauthenticated',
    async ({ admin }) => {
      const { key, key_id } = await admin.device({ account_id: 'ward', role: 'admin' })
      return { key: key as string, ends: () => admin.post(`/api/v1/keys/${key_id}/revoke`, {}) }
    },
  ],
  [
    'its therapist is no longer assigned',
    'forbidden',
    async ({ admin }) => {
      const { key, account_id } = await admin.account({ role: 'therapist' })
      const assigned = { therapist_id: account_id, user_id: 'ada', relationship_type: 'primary' }
      const { assignment_id } = (await admin.post('/api/v1/assignments', assigned)).body
      return { key: key as string, ends: () => admin.post(`/api/v1/assignments/${assignment_id}/end`, {}) }
    },
  ],
  [
    'its account is deactivated',
    'unauthenticated',
    async ({ admin }) => {
      const { key, account_id } = await admin.account({ role: 'therapist' })
      await admin.post('/api/v1/assignments', { therapist_id: account_id, user_id: 'ada', relationship_type: 'primary' })
      return { key: key as string, ends: () => admin.post(`/api/v1/accounts/${account_id}/deactivate`, {}) }
    },
  ],
]
const [[, , byKey]] = readers as [(typeof readers)[number]]

describe('GET /api/v1/sessions/{session_id}/records?follow=1', () => {
  it.each(readers)('ends when %s, before any record that comes after, and says why', async (_, reason, come) => {
    const running = await run()
    const { session_id } = await begun(running)
    const reader = await come(running)
    const [revoked, kept] = [
      await Follower.of(running.url, session_id, { key: reader.key }),
      await Follower.of(running.url, session_id),
    ] as const
    await until('they have not caught up', () => revoked.caughtUp && kept.caughtUp, Boolean)
    await running.admin.append(session_id, said('before'))
    await until('they hear nothing', () => [revoked, kept].every(({ ids }) => ids.length === 2), Boolean)
    expect(await reader.ends()).toMatchObject({ status: 200 })
    await running.admin.append(session_id, said('after'))
    await until('it goes on', () => revoked.closed, Boolean)
    await until('the other one hears nothing', () => kept.ids.length === 3, Boolean)
    expect(revoked.ids).toEqual([1, 2])
    expect(revoked.told.at(-1)).toEqual({ event: 'problem', data: { reason } })
    await running.admin.append(session_id, said('later'))
    await until('the other one does not go on', () => kept.ids.length === 4, Boolean)
    kept.leave()
    await until(
      'something is left',
      () => running.sessile.recorder.watchers.count,
      (count) => count === 0,
    )
  })

  it('gives no record after the revocation was acknowledged, under load', async () => {
    const running = await run()
    const { session_id } = await begun(running)
    for (let round = 0; round < 5; round++) {
      const reader = await byKey(running)
      const follower = await Follower.of(running.url, session_id, reader)
      await until('it has not caught up', () => follower.caughtUp, Boolean)
      let stop = false
      const pouring = (async () => {
        while (!stop) await running.admin.append(session_id, said('x'))
      })()
      await until('it hears nothing', () => follower.ids.length > 3 + round, Boolean)
      await reader.ends()
      const first = (await running.admin.append(session_id, said('after'))).body.seq
      stop = true
      await pouring
      await until('it goes on', () => follower.closed, Boolean)
      expect(follower.ids.at(-1)).toBeLessThan(first)
      expect(follower.told.at(-1)).toEqual({ event: 'problem', data: { reason: 'unauthenticated' } })
    }
  })

  /** One who has caught up by a key, and the next sign of life, which comes when it is told to. */
  async function caughtUp() {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    later(() => void vi.useRealTimers())
    const running = await run()
    const { session_id } = await begun(running)
    const reader = await byKey(running)
    const follower = await Follower.of(running.url, session_id, reader)
    await until('it has not caught up', () => follower.caughtUp, Boolean)
    return { running, session_id, reader, follower, signOfLife: () => vi.advanceTimersByTime(15_000) }
  }

  it('ends when its key is revoked and nothing is recorded, at the next sign of life', async () => {
    const { reader, follower, signOfLife } = await caughtUp()
    await reader.ends()
    signOfLife()
    await until('it goes on', () => follower.closed, Boolean)
    expect(follower.told.at(-1)).toEqual({ event: 'problem', data: { reason: 'unauthenticated' } })
  })

  it('is cut off then where its reader has yet to take what it was sent before', async () => {
    const { running, session_id, reader, follower, signOfLife } = await caughtUp()
    follower.stopReading()
    for (let i = 0; i < 9; i++) await running.admin.append(session_id, [long(400_000), long(400_000)])
    await reader.ends()
    const { watchers } = running.sessile.recorder
    expect(watchers.count).toBe(1)
    signOfLife()
    await until(
      'it is kept',
      () => watchers.count,
      (count) => count === 0,
    )
    follower.readOn()
    await until('it goes on', () => follower.closed, Boolean)
    expect(follower.ids.at(-1)).toBeLessThan(19)
  })
})

describe('a long answer whose reader may read no more', () => {
  it.each([
    ['as lines', '/records', NDJSON],
    ['as a transcript', '', {}],
  ])('breaks off (%s)', async (_, part, headers) => {
    const running = await run()
    const { session_id, path } = await begun(running)
    for (let i = 0; i < 60; i++)
      await running.admin.append(
        session_id,
        Array.from({ length: 10 }, () => segment('some words '.repeat(4000))),
      )
    const reader = await byKey(running)
    const socket = await stalled(running.url, head('GET', path + part, { Authorization: `Bearer ${reader.key}`, ...headers }))
    await wait(300)
    await reader.ends()
    let came = 0
    socket.on('data', (data) => {
      came += data.length
    })
    socket.resume()
    await until('it goes on', () => socket.closed, Boolean)
    expect(came).toBeGreaterThan(0)
    expect(came).toBeLessThan(20_000_000)
  })
})

describe('a stream of records', () => {
  it('is refused line by line from the moment its key is revoked', async () => {
    const running = await run()
    const { session_id, records } = await begun(running)
    const device = await running.admin.device()
    let go = () => {}
    const goes = new Promise<void>((resolve) => {
      go = resolve
    })
    const line = (text: string) => new TextEncoder().encode(`${JSON.stringify(said(text))}\n`)
    const lines = new ReadableStream<Uint8Array>({
      async start(controller) {
        controller.enqueue(line('one'))
        await goes
        controller.enqueue(line('two'))
        controller.close()
      },
    })
    const headers = { 'content-type': 'application/x-ndjson' }
    const response = await device.raw('POST', records, { body: lines, duplex: 'half', headers })
    const reader = (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader()
    expect(JSON.parse((await reader.read()).value as string)).toMatchObject({ seq: 2, text: 'one' })
    await running.admin.post(`/api/v1/keys/${device.key_id}/revoke`, {})
    const before = logBytes(running)
    go()
    expect(JSON.parse((await reader.read()).value as string)).toMatchObject({ status: 401, reason: 'unauthenticated' })
    expect((await reader.read()).done).toBe(true)
    expect(logBytes(running)).toBe(before)
    expect((await running.admin.get(`/api/v1/sessions/${session_id}/records`)).body.records).toHaveLength(2)
  })
})

/** A session of which the last line is damaged where it lies; what was whole comes before it. */
async function harmed(running: Running | (Awaited<ReturnType<typeof serveApart>> & { home: string })) {
  const at = await begun(running)
  for (let i = 0; i < 4; i++) await running.admin.append(at.session_id, said('long '.repeat(10_000)))
  const file = sessionFile(running.home, at.session_id)
  await until(
    'it is not in its file',
    () => (existsSync(file) ? linesIn(file).length : 0),
    (lines) => lines === 5,
  )
  const whole = readFileSync(file)
  return { ...at, harm: () => writeFileSync(file, flipped(whole, 8 * (whole.length - 20_000))) }
}

describe('an answer that breaks off', () => {
  it('is noted as broken with its request and its route, and nothing else is said of it', async () => {
    const home = makeHome()
    const apart = { ...(await serveApart(home)), home }
    const { session_id, records, harm } = await harmed(apart)
    harm()
    const lines = await apart.admin.raw('GET', records, { headers: { ...NDJSON, 'x-request-id': 'lines-1' } })
    expect(lines.status).toBe(200)
    await expect(lines.text()).rejects.toThrow()
    const following = await apart.admin.raw('GET', `${records}?follow=1`, { headers: { 'x-request-id': 'follow-1' } })
    expect(await following.text()).toContain('{"reason":"log-damaged"}')
    expect(await apart.admin.get(`/api/v1/sessions/${session_id}`)).toMatchObject({ status: 503, body: { reason: 'log-damaged' } })
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    const told = apart.err().trimEnd().split('\n')
    expect(told.filter((line) => !/^\{|^Sessile (serves|is stopping)/.test(line))).toEqual([])
    const notes = told.filter((line) => line.includes('"broken"')).map((line) => JSON.parse(line))
    expect(notes).toMatchObject(
      ['lines-1', 'follow-1'].map((request_id) => ({
        level: 50,
        request_id,
        route: '/api/v1/sessions/{session_id}/records',
        reason: 'log-damaged',
      })),
    )
    expect(apart.out()).toBe('')
  })
})
