// Load: many at once, slow ones, ones that vanish, ones that do not read, and more than can be recorded. The same with the
// numbers of a bad day is in load.long.ts.

import { execFileSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import type { Refusal } from '../src/core/errors.ts'
import { atRoute } from '../src/core/feature.ts'
import { system } from '../src/core/sessile.ts'
import { openDatabase } from '../src/core/tables.ts'
import { turn } from '../src/core/turn.ts'
import { features } from '../src/features/index.ts'
import { projectionOf } from '../src/log/shelf.ts'
import {
  askOnce,
  descriptorsOf,
  everything,
  Follower,
  followers,
  head,
  KeptOpen,
  loadOf,
  long,
  memoryOf,
  numbers,
  socketTo,
  until,
  vanish,
  vanishings,
  wait,
} from './crowd.ts'
import { runOnFailingDisk } from './failing.ts'
import { cli, later, makeHome, run, said, serveApart, withFiles } from './harness.ts'

const NOTHING = { held_bytes: 0, waiting: 0, followers: 0, watchers: 0 }

describe('a follower who does not read', () => {
  it('is cut off, is told where to go on, and misses nothing; others are not delayed', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const [slow, quick] = (await followers(2, running.url, session_id)) as [Follower, Follower]
    slow.stopReading()
    let seq = 1
    // More than the buffers between the two take, and than it may be behind.
    for (let i = 0; i < 20; i++) {
      const { body } = await running.admin.append(session_id, [long(400_000), long(400_000)])
      seq = body[1].seq
      await until(
        'the quick one waits',
        () => quick.ids.at(-1),
        (last) => last === seq,
      )
    }
    await until(
      'the slow one is kept',
      () => running.sessile.recorder.watchers.count,
      (count) => count === 1,
    )
    slow.readOn()
    await until('the slow one was not sent away', () => slow.closed, Boolean)
    const last = slow.ids.at(-1) as number
    expect(slow.told.at(-1)).toEqual({ event: 'problem', data: { reason: 'too-slow', after: last } })
    expect(slow.ids).toEqual(numbers(1, last))
    expect(last).toBeLessThan(seq)
    const resumed = await Follower.of(running.url, session_id, { after: last })
    await until('the slow one does not catch up', () => resumed.caughtUp, Boolean)
    expect(resumed.ids).toEqual(numbers(last + 1, seq))
    expect(quick.ids).toEqual(numbers(1, seq))
    for (const one of [resumed, quick]) one.leave()
    // A page of it is bounded in bytes, and an export that nobody takes is not kept for ever.
    const { records, next_after } = (await running.admin.get(`/api/v1/sessions/${session_id}/records?limit=10000`)).body
    expect(next_after).toBe(records.at(-1).seq)
    expect(JSON.stringify(records).length).toBeLessThan(5 * 1024 * 1024)
    expect(await everything(running, session_id)).toHaveLength(seq)
    await running.stop()
    const again = await run(running.home, { patience: 1000 })
    const idle = await socketTo(again.url)
    idle.pause()
    const exports = head('GET', `/api/v1/sessions/${session_id}/records`, { Accept: 'application/x-ndjson' })
    idle.write(exports.repeat(3))
    await wait(2500)
    let came = 0
    idle.on('data', (data) => {
      came += data.length
    })
    idle.resume()
    await until('it is kept', () => idle.closed, Boolean)
    expect(came).toBeGreaterThan(0)
    expect(came).toBeLessThan(2 * 16_000_000)
  })
})

describe('followers in their hundreds', () => {
  it('get every record once and in order', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const all = await followers(300, running.url, session_id)
    for (let i = 0; i < 20; i++) await running.admin.append(session_id, [said('one'), said('two')])
    await until(
      'some have not heard',
      () => all.filter(({ ids }) => ids.at(-1) !== 41).length,
      (left) => left === 0,
    )
    for (const one of all) expect(one.ids).toEqual(numbers(1, 41))
    for (const one of all) one.vanish()
    await until(
      'some are kept',
      () => running.sessile.recorder.watchers.count,
      (count) => count === 0,
    )
  })
})

describe('callers who vanish', () => {
  it('leave nothing behind, and what they had half sent is whole or absent', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const { session_id } = (await apart.admin.start()).body
    await apart.admin.append(session_id, [long(400_000), long(400_000), long(400_000)])
    const clear = () =>
      until(
        'something is left',
        () => loadOf(home, apart.url),
        (load) => sameAs(load, NOTHING),
      )
    await clear()
    const before = descriptorsOf(apart)
    for (const [where, pieces] of Object.entries(vanishings)) {
      await vanish(apart.url, (i) => pieces(session_id, `${where} ${i}`), 8)
    }
    expect(await clear()).toEqual(NOTHING)
    // Connections of the caller who asks are kept for a moment.
    await until(
      'descriptors are left',
      () => descriptorsOf(apart),
      (count) => count <= before + 2,
    )
    const texts = (await everything(apart, session_id)).map(({ data }) => data.text as string)
    for (const where of ['in an array', 'before its answer']) {
      for (let i = 0; i < 8; i++) expect(texts.filter((text) => text?.startsWith(`${where} ${i}/`)).length % 3).toBe(0)
    }
    expect(texts.filter((text) => /^in an object|line that looks|line of a stream \d+\/1/.test(text))).toEqual([])
    expect(new Set(texts.filter((text) => text?.includes('/'))).size).toBe(texts.filter((text) => text?.includes('/')).length)
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    // A caller who is gone is no mistake of ours, and nothing is said of it but what is said of all.
    const strange = (line: string) => line !== '' && !/^Sessile (serves|is stopping)|^\{"level":[34]0/.test(line)
    expect(apart.err().split('\n').filter(strange)).toEqual([])
    expect(apart.out()).toBe('')
  })
})

const sameAs = (one: object, other: object) => JSON.stringify(one) === JSON.stringify(other)

describe('views', () => {
  it('are committed soon after a row has changed, and seldom where none has, or of the trail alone', async () => {
    const running = await run()
    const db = openDatabase(projectionOf(running.home), { readonly: true })
    later(() => void db.close())
    const asked = (sql: string) => () => db.prepare(sql).pluck().get()
    const [come, flagged] = [asked("SELECT value FROM meta WHERE key = 'lsn'"), asked('SELECT max(crisis_detected) FROM sessions')]
    const { session_id } = (await running.admin.start()).body
    await expect.poll(flagged).toBe(0)
    /** Does this over and over for a while; how many commits were seen is one of each so many milliseconds, at most. */
    const seldom = async (ms: number, act: () => Promise<unknown>) => {
      const seen = new Set<unknown>()
      const began = performance.now()
      const passed = () => performance.now() - began
      while (passed() < 1000) {
        await act()
        seen.add(come())
      }
      expect(seen.size).toBeLessThanOrEqual(2 + passed() / ms)
    }
    await seldom(1000, () => running.admin.append(session_id, said('nothing of this is in a row')))
    // Rows of the trail alone, which whoever asks for it sees at once all the same.
    await seldom(400, () => running.admin.get(`/api/v1/sessions/${session_id}`))
    // Nobody asks for anything, and yet it is there.
    await running.admin.append(session_id, { ...said('x'), type: 'crisis.flagged', source: 'classifier', data: {} })
    await expect.poll(flagged).toBe(1)
    await running.admin.append(session_id, said('the last'))
    await expect.poll(come, { timeout: 5000 }).toBe(String(running.sessile.log.lsn))
  })
})

describe('more than can be recorded', () => {
  it('is refused while the disk takes its time, not queued for ever; what was acknowledged is there once', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    const append = atRoute(features.commands, 'POST /api/v1/sessions/{session_id}/records')
    const release = disk.holdSync()
    const outcomes: Promise<string>[] = []
    const ask = (text: string) =>
      running.sessile.perform(append, { body: said(text), path: { session_id }, caller: system }).then(
        () => text,
        ({ reason }: Refusal) => reason,
      )
    try {
      for (let i = 0; i < 17_000; i++) {
        outcomes.push(ask(`n${i}`))
        // Others have their turn, and the recorder decides and writes what it can.
        if (i % 50 === 0) await turn()
      }
      expect(running.sessile.recorder.waiting).toBe(16_384)
      const refused = await running.admin.append(session_id, said('late'))
      expect(refused).toMatchObject({ status: 503, body: { reason: 'overloaded' } })
      expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
    } finally {
      release()
    }
    const texts = await Promise.all(outcomes)
    const recorded = texts.filter((text) => text !== 'overloaded')
    expect(recorded.length).toBe(16_384)
    expect((await everything(running, session_id)).slice(1).map(({ data }) => data.text)).toEqual(recorded)
    expect((await running.admin.append(session_id, said('later'))).status).toBe(201)
  })

  it('is refused where it would not fit into memory, while those who ask for little are served', async () => {
    const home = makeHome()
    const apart = await serveApart(home, { NODE_OPTIONS: '--max-old-space-size=128' })
    const { session_id } = (await apart.admin.start()).body
    const size = 4_000_000
    const about = { 'Content-Type': 'application/json', 'Content-Length': size }
    const slow = await Promise.all(Array.from({ length: 16 }, () => socketTo(apart.url)))
    let answers = ''
    for (const socket of slow) {
      socket.on('data', (data) => {
        answers += data
      })
      socket.write(head('POST', `/api/v1/sessions/${session_id}/records`, about) + ' '.repeat(size - 1))
    }
    await until(
      'nobody was refused',
      () => answers,
      (text) => text.split('"reason":"overloaded"').length > 10,
    )
    expect(answers.split(/retry-after: [1-9]/i).length).toBeGreaterThan(10)
    expect((await loadOf(home, apart.url)).held_bytes).toBeLessThan(20 * 1024 * 1024)
    expect((await apart.admin.append(session_id, said('water'))).status).toBe(201)
    for (const socket of slow) socket.destroy()
    await until(
      'something is held',
      () => loadOf(home, apart.url),
      (load) => sameAs(load, NOTHING),
    )
    const flood = Array.from({ length: 1000 }, (_, i) => long(3500, { source: `s${i}` }))
    expect((await apart.admin.append(session_id, flood)).status).toBe(201)
    expect(memoryOf(apart).most).toBeLessThan(700)
  })

  it('connects is told so, while those who were there are served', async () => {
    const home = makeHome()
    const apart = await serveApart(home, {}, [], withFiles(256))
    const first = await KeptOpen.to(apart.url)
    const start = { performer_id: 'device-7', kind: 'therapy' }
    const started = await first.ask('POST', '/session_manager/sessions.start', { user_id: 'ada', ...start })
    expect(started?.status).toBe(201)
    const crowd = await Promise.all(Array.from({ length: 300 }, () => KeptOpen.to(apart.url)))
    const answers = await Promise.all(
      crowd.map((one, i) => one.ask('POST', '/session_manager/sessions.start', { user_id: `u${i}`, ...start })),
    )
    const told = answers.filter((answer) => answer?.status === 503)
    expect(told.length).toBeGreaterThan(0)
    for (const answer of told) {
      expect(answer?.body.reason).toBe('overloaded')
      expect(answer?.headers).toMatch(/retry-after: [1-9]/i)
    }
    const made = answers.flatMap((answer) => (answer?.status === 201 ? [answer.body.session_id as string] : []))
    expect(made.length).toBeGreaterThan(0)
    expect((await first.ask('GET', `/api/v1/sessions/${started?.body.session_id}/records`))?.status).toBe(200)
    for (const one of crowd) one.close()
    // Those who have left are gone a moment later.
    const read = (session_id: string) =>
      askOnce(apart.url, 'GET', `/api/v1/sessions/${session_id}/records`).then(
        ({ status }) => status,
        () => 0,
      )
    for (const session_id of made)
      await until(
        'nobody is let in',
        () => read(session_id),
        (status) => status === 200,
      )
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
  })
})

describe('no descriptor left', () => {
  it('is refused plainly, loses nothing, and passes', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const made: string[] = []
    for (let i = 0; i < 3; i++) made.push((await apart.admin.start({ user_id: `u${i}` })).body.session_id)
    const limit = (files: number) => execFileSync('prlimit', ['--pid', String(apart.child.pid), `--nofile=${files}:20000`])
    await loadOf(home, apart.url)
    const keep = await KeptOpen.to(apart.url)
    await keep.ask('GET', '/healthz')
    limit(3)
    const read = await keep.ask('GET', `/api/v1/sessions/${made[0]}/records`)
    expect(read).toMatchObject({ status: 503, body: { reason: 'overloaded' } })
    expect(read?.headers).toMatch(/retry-after: [1-9]/i)
    // What is written goes to files that are open; what needs one waits for it.
    const started = await keep.ask('POST', '/session_manager/sessions.start', { user_id: 'new', performer_id: 'device-7' })
    expect(started?.status).toBe(201)
    await wait(700)
    expect((await keep.ask('GET', '/healthz'))?.status).toBe(200)
    limit(1024)
    await until(
      'it does not pass',
      () => keep.ask('GET', `/api/v1/sessions/${made[0]}/records`),
      (answer) => answer?.status === 200,
    )
    expect((await keep.ask('GET', `/api/v1/sessions/${started?.body.session_id}/records`))?.body.records).toHaveLength(1)
    keep.close()
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
  })
})

describe('the contract', () => {
  it('tells of Retry-After wherever an answer has it', async () => {
    const { anyone } = await run()
    const { paths, components } = (await anyone.get('/openapi.json')).body
    for (const [status, reason] of [
      [503, 'overloaded'],
      [507, 'not-recorded'],
      [408, 'body-too-slow'],
    ] as const) {
      const answer = paths['/session_manager/sessions.start'].post.responses[status]
      expect(answer.headers['Retry-After']).toEqual({ $ref: '#/components/headers/Retry-After' })
      expect(answer.description).toContain(reason)
    }
    expect(components.headers['Retry-After'].schema.type).toBe('integer')
    expect(paths['/session_manager/sessions.start'].post.responses[409].headers).not.toHaveProperty('Retry-After')
    expect(paths['/api/v1/sessions'].get.responses[503].description).toContain('overloaded')
  })
})
