// Time: a clock that is set back or forward, while it is used and between two lives, a day that begins, a machine that slept,
// a clock that is absurd. What was recorded later is never earlier, ids and numbers go on, and limits stay limits.

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { findingsIn } from './damaging.ts'
import { type Client, clockAt, filesUnder, type Json, linesIn, makeHome, type Running, run, said } from './harness.ts'

const HOUR = 3600
const YEAR = 365 * 24 * HOUR

const session = async (running: Running, id: string) => (await running.admin.get(`/api/v1/sessions/${id}`)).body
const started = async ({ admin }: { admin: Client }, more: object = {}) => {
  const { status, body } = await admin.start(more)
  expect(status).toBe(201)
  return body.session_id as string
}

/** Lets time pass and the system look at what is due, so many minutes at a time. */
async function minutes(
  { running, clock, step = 5 }: { running: Running; clock: ReturnType<typeof clockAt>; step?: number },
  many: number,
  each = async () => {},
): Promise<void> {
  for (let passed = 0; passed < many; passed += step) {
    clock.pass(60 * step)
    await each()
    await running.sessile.doChores()
  }
}

describe('a clock that is set', () => {
  it('never makes a record seem earlier than one before it, and lets ids, numbers, retries and lists go on', async () => {
    const clock = clockAt('2031-05-02T09:00:00.005Z')
    let running = await run(undefined, {}, clock)
    const made: Json[] = []
    const ids: string[] = []
    const retries: { key: string; answer: Json }[] = []
    const work = async () => {
      const key = `start-${ids.length}`
      const { body } = await running.admin.start({ kind: 'therapy' }, { 'idempotency-key': key })
      retries.push({ key, answer: body })
      ids.push(body.session_id)
      made.push(body)
      clock.pass(2)
      made.push((await running.admin.append(body.session_id, said('one'))).body)
      for (const { key, answer } of [...retries.slice(0, 1), ...retries.slice(-2)])
        expect((await running.admin.start({ kind: 'therapy' }, { 'idempotency-key': key })).body).toEqual(answer)
    }
    const again = async ({ views = true } = {}) => {
      await running.stop()
      if (!views) rmSync(join(running.home, 'projections'), { recursive: true })
      running = await run(running.home, {}, clock)
    }
    await work()
    for (const step of [-2 * HOUR, YEAR, -YEAR, -HOUR, 24 * HOUR, -1]) {
      clock.move(step)
      await work()
      await again()
      await work()
      clock.move(-60)
      await again({ views: false })
      await work()
    }
    expect(made.map(({ timestamp }) => timestamp)).toEqual(made.map(({ timestamp }) => timestamp).sort())
    // Two seconds passed between the two records of each session: they are not of one moment, wherever the clock stood.
    for (let i = 0; i < made.length; i += 2) {
      const passed = Date.parse(made[i + 1].timestamp) - Date.parse(made[i].timestamp)
      expect(passed).toBeGreaterThanOrEqual(1900)
      expect(passed).toBeLessThanOrEqual(2000)
    }
    expect(ids).toEqual([...ids].sort())
    expect(new Set(ids).size).toBe(ids.length)
    expect(made.filter((_, i) => i % 2 === 0).map(({ session_number }) => session_number)).toEqual(ids.map((_, i) => i + 1))
    const { sessions } = (await running.admin.get('/api/v1/sessions?limit=200')).body
    expect(sessions.map(({ session_id }: Json) => session_id)).toEqual([...ids].reverse())
    running.sessile.log.settle()
    const records = filesUnder(join(running.home, 'logs', 'users')).flatMap((file) =>
      linesIn(join(running.home, 'logs', 'users', file)),
    )
    expect(new Set(records.map(({ record_id }) => record_id)).size).toBe(records.length)
    expect(findingsIn(running.home).findings).toEqual([])
  })

  it('back by two hours closes nothing that goes on, and does not keep open what is idle', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const running = await run(undefined, {}, clock)
    const [idle, busy] = [await started(running), await started(running, { user_id: 'bob' })]
    clock.pass(60)
    clock.move(-2 * HOUR)
    await running.sessile.doChores()
    expect((await session(running, idle)).status).toBe('active')
    const speak = async () =>
      void expect((await running.admin.append(busy, said('still here', { user_id: 'bob' }))).status).toBe(201)
    await minutes({ running, clock }, 25, speak)
    expect((await session(running, idle)).status).toBe('active')
    await minutes({ running, clock }, 10, speak)
    expect(await session(running, idle)).toMatchObject({ status: 'closed', end_reason: 'idle-timeout' })
    await minutes({ running, clock, step: 25 }, 175, speak)
    expect((await session(running, busy)).status).toBe('active')
    const { body } = await running.admin.end({ user_id: 'bob', session_id: busy })
    const { duration_seconds } = await session(running, busy)
    const passed = 60 + 210 * 60
    expect(body.type).toBe('session.ended')
    expect(duration_seconds).toBeGreaterThan(0.94 * passed)
    expect(duration_seconds).toBeLessThanOrEqual(passed)
  })

  it('forward by a year closes what has been idle for so long, and what begins afterwards has all of its time', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const running = await run(undefined, {}, clock)
    const [before, job] = [await started(running), await started(running, { kind: 'workflow' })]
    clock.move(YEAR)
    await running.sessile.doChores()
    for (const id of [before, job])
      expect(await session(running, id)).toMatchObject({ status: 'closed', end_reason: 'longest-length' })
    const after = await started(running)
    await minutes({ running, clock }, 25)
    expect((await session(running, after)).status).toBe('active')
    await minutes({ running, clock }, 5)
    expect(await session(running, after)).toMatchObject({ status: 'closed', end_reason: 'idle-timeout', duration_seconds: 1800 })
  })

  it('forward and back again leaves no session open for a year, not even the one that never falls idle', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    let running = await run(undefined, {}, clock)
    clock.move(YEAR)
    const [idle, busy] = [await started(running), await started(running, { user_id: 'bob' })]
    clock.move(-YEAR)
    const speak = async () => void (await running.admin.append(busy, said('still here', { user_id: 'bob' })))
    await minutes({ running, clock, step: 20 }, 40, speak)
    expect(await session(running, idle)).toMatchObject({ status: 'closed', end_reason: 'idle-timeout' })
    // Of a life before this one nobody knows how long it was: limits go on from where they had come.
    running = await running.restart()
    await minutes({ running, clock, step: 25 }, 23 * 60, speak)
    expect((await session(running, busy)).status).toBe('active')
    await minutes({ running, clock, step: 25 }, 150, speak)
    expect(await session(running, busy)).toMatchObject({ status: 'closed', end_reason: 'longest-length' })
  })

  it('back while nobody was running does not keep open what is idle', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const first = await run(undefined, {}, clock)
    const id = await started(first)
    await first.stop()
    clock.move(-2 * HOUR)
    const running = await run(first.home, {}, clock)
    await minutes({ running, clock }, 25)
    expect((await session(running, id)).status).toBe('active')
    await minutes({ running, clock }, 10)
    expect(await session(running, id)).toMatchObject({ status: 'closed', end_reason: 'idle-timeout' })
  })

  it('that goes on while the machine sleeps closes what was idle, as soon as it wakes', async () => {
    const clock = clockAt('2031-05-02T22:00:00Z')
    const running = await run(undefined, {}, clock)
    const id = await started(running)
    clock.move(8 * HOUR)
    await running.sessile.doChores()
    expect(await session(running, id)).toMatchObject({
      status: 'closed',
      end_reason: 'idle-timeout',
      ended_at: '2031-05-03T06:00:00.000Z',
    })
  })
})

describe('a new day', () => {
  it('begins in the middle of a session, also a year’s last and a leap year’s: it is one session, and of the day on which it began', async () => {
    for (const [eve, day] of [
      ['2031-12-31', '2032-01-01'],
      ['2032-02-28', '2032-02-29'],
    ] as const) {
      const clock = clockAt(`${eve}T23:59:59.500Z`)
      const running = await run(makeHome(), {}, clock)
      const id = await started(running)
      clock.pass(1)
      expect((await running.admin.append(id, said('late'))).body.timestamp).toBe(`${day}T00:00:00.500Z`)
      await running.admin.end({ session_id: id })
      expect(await session(running, id)).toMatchObject({ duration_seconds: 1 })
      const count = async (query: string) => (await running.admin.get(`/api/v1/sessions?${query}`)).body.sessions.length
      expect([await count(`from=${eve}&to=${day}`), await count(`from=${day}`)]).toEqual([1, 0])
    }
  })
})

describe('an absurd clock', () => {
  it.each([
    ['before 1970', -1000, /^1970-01-01T/],
    ['at 1970', 0, /^1970-01-01T/],
    ['at the end of the year 9999', Date.UTC(9999, 11, 31, 23, 59, 59), /^9999-12-31T/],
    ['beyond what a timestamp can name', Date.UTC(30_828, 8, 14), /^1970-01-01T/],
  ])('%s gives timestamps of the same length, and lines that verify', async (_, at, expected) => {
    const clock = clockAt('1970-01-01T00:00:00Z')
    clock.move(at / 1000)
    const running = await run(undefined, {}, clock)
    const id = await started(running)
    for (let i = 0; i < 3; i++) {
      clock.pass(1)
      const { status, body } = await running.admin.append(id, said('one'))
      expect(status).toBe(201)
      expect(body.timestamp).toMatch(expected)
      expect(body.timestamp).toHaveLength(24)
    }
    await running.sessile.doChores()
    expect((await session(running, id)).transcript).toHaveLength(3)
    const again = await running.restart()
    expect((await session(again, id)).transcript).toHaveLength(3)
    expect((await again.admin.append(id, said('two'))).status).toBe(201)
    again.sessile.log.settle()
    expect(findingsIn(again.home).findings).toEqual([])
  })
})
