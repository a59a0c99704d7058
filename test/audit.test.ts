// Law 10's other half: what is read and what is refused is in the trail, before anybody is told; a patient can see who
// looked, and an admin can search.

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { system } from '../src/core/sessile.ts'
import { features } from '../src/features/index.ts'
import { projectionOf } from '../src/log/shelf.ts'
import { settingsOf } from './config.ts'
import { runOnFailingDisk } from './failing.ts'
import {
  type Client,
  cli,
  clockAt,
  type Json,
  logBytes,
  makeHome,
  type Reply,
  type Running,
  refused,
  run,
  said,
  trailOf,
} from './harness.ts'

const DAY = '2031-05-02'

const listOfKeys = features.queries.find(({ at }) => at === 'GET /api/v1/keys') as (typeof features.queries)[number]

/** What the trail tells of one request. */
const toldOf = (running: Running, request_id: string | null) =>
  trailOf(running).filter(({ data }) => data.request_id === request_id)

/** Ada and Bob, each with a session and an account, and Thea, who is assigned to Ada. */
async function clinic(clock = clockAt(`${DAY}T09:00:00Z`)) {
  const running = await run(undefined, {}, clock)
  const { admin } = running
  const ada = await admin.account({ role: 'patient', account_id: 'ada' })
  const bob = await admin.account({ role: 'patient', account_id: 'bob' })
  const thea = await admin.account({ role: 'therapist', account_id: 'thea' })
  await admin.post('/api/v1/assignments', { therapist_id: 'thea', user_id: 'ada', relationship_type: 'primary' })
  const { session_id } = (await admin.start()).body
  const other = (await admin.start({ user_id: 'bob' })).body.session_id as string
  await admin.append(session_id, said('a secret'))
  return { running, clock, ada, bob, thea, session_id: session_id as string, other }
}

const looks = ({ body }: Reply) => body.looks.map(({ account_id, did, session_number }: Json) => [account_id, did, session_number])

describe('the trail', () => {
  it('tells of each read who read what, whose it was, and by which proof, and nothing of what was read', async () => {
    const { running, thea, session_id } = await clinic()
    const reply = await thea.get(`/api/v1/sessions/${session_id}`, { 'x-request-id': 'one-look' })
    expect(reply.status).toBe(200)
    expect(toldOf(running, 'one-look')).toEqual([
      expect.objectContaining({
        type: 'audit.read',
        source: 'audit',
        user_id: 'ada',
        performer_id: 'thea',
        timestamp: `${DAY}T09:00:00.000Z`,
        data: {
          route: 'GET /api/v1/sessions/{session_id}',
          role: 'therapist',
          proved_by: expect.stringMatching(/^sign_/),
          users: ['ada'],
          request_id: 'one-look',
          address: expect.stringMatching(/127\.0\.0\.1/),
          session_id,
        },
      }),
    ])
    expect(JSON.stringify(trailOf(running))).not.toContain('a secret')
  })

  it('names those whom a list showed, and not those whom it could have shown', async () => {
    const { running, thea, session_id } = await clinic()
    await running.admin.end({ session_id })
    await thea.post('/api/v1/emergency-access', { user_id: 'bob', reason: 'He calls and cannot be understood' })
    for (const [path, users] of [
      ['/api/v1/sessions', ['bob', 'ada']],
      ['/api/v1/sessions?status=closed', ['ada']],
      ['/api/v1/sessions?kind=video', []],
      ['/api/v1/assignments', ['ada']],
      ['/api/v1/emergency-access', ['bob']],
      ['/api/v1/accounts?role=patient', ['ada', 'bob']],
      ['/api/v1/keys', []],
    ] as const) {
      const { headers } = await running.admin.get(path)
      const [told] = toldOf(running, headers.get('x-request-id'))
      expect([path, [...told.data.users].sort()]).toEqual([path, [...users].sort()])
      expect(told.user_id).toBe(users.length === 1 ? users[0] : 'admin')
    }
  })

  it('tells of refusals whose data was asked for, and of strangers where they are', async () => {
    const { running, bob, session_id, other } = await clinic()
    const device = await running.admin.device({ users: ['ada'] })
    const known = { performer_id: 'bob', role: 'patient' }
    const stranger = { performer_id: 'anonymous', role: 'nobody' }
    for (const [ask, reason, who, users] of [
      [() => bob.get('/api/v1/users/ada/sessions'), 'forbidden', known, ['ada']],
      [() => bob.get(`/api/v1/sessions/${session_id}`), 'forbidden', known, ['ada']],
      [
        () => bob.post('/api/v1/emergency-access', { user_id: 'ada', reason: 'I should like to know' }),
        'forbidden',
        known,
        ['ada'],
      ],
      [() => bob.get('/api/v1/sessions/sess_none'), 'session-not-found', known, []],
      [() => bob.get('/api/v1/sessions?limit=x'), 'invalid', known, []],
      [
        () => device.end({ session_id: other }),
        'session-user-mismatch',
        { performer_id: 'device-7', role: 'device' },
        ['ada', 'bob'],
      ],
      [() => running.anyone.get('/api/v1/sessions'), 'unauthenticated', stranger, []],
      [
        () => running.anyone.post('/api/v1/sign-in', { name: bob.name, password: 'not the one it is' }),
        'sign-in-failed',
        stranger,
        ['bob'],
      ],
      [
        () => running.anyone.post('/api/v1/sign-in', { name: 'nobody@sessile.example', password: 'whatever it is' }),
        'sign-in-failed',
        stranger,
        [],
      ],
      [() => running.anyone.post('/api/v1/refresh', { refresh_token: 'x' }), 'refresh-failed', stranger, []],
    ] as const) {
      const { body } = await ask()
      const [told, ...more] = toldOf(running, body.request_id)
      expect({ ...told, reason: told.data.reason, role: told.data.role }).toMatchObject({ type: 'audit.refused', reason, ...who })
      expect([reason, told.data.users, told.data.address, more]).toEqual([
        reason,
        [...users],
        expect.stringMatching(/127\.0\.0\.1/),
        [],
      ])
    }
  })

  it('tells what was really refused where that is concealed', async () => {
    const running = await run(undefined, { settings: settingsOf({ conceal: true }) })
    const bob = await running.admin.account({ role: 'patient', account_id: 'bob' })
    const { session_id } = (await running.admin.start()).body
    const replies = [await bob.get(`/api/v1/sessions/${session_id}`), await bob.get('/api/v1/sessions/sess_none')]
    expect(replies.map(({ status, body }) => [status, body.reason])).toEqual(replies.map(() => [404, 'session-not-found']))
    const told = replies.flatMap(({ body }) => toldOf(running, body.request_id))
    expect(told.map(({ data }) => [data.reason, data.users])).toEqual([
      ['forbidden', ['ada']],
      ['session-not-found', []],
    ])
  })

  it('tells of each line of a stream that is refused, and of none that is recorded', async () => {
    const { running, session_id } = await clinic()
    const lines = [said('one'), { ...said('x'), type: 'none' }, said('two'), said('x', { user_id: 'bob' })]
    const response = await running.admin.raw('POST', `/api/v1/sessions/${session_id}/records`, {
      headers: { 'content-type': 'application/x-ndjson' },
      body: lines.map((line) => `${JSON.stringify(line)}\n`).join(''),
    })
    expect((await response.text()).trimEnd().split('\n')).toHaveLength(4)
    const told = toldOf(running, response.headers.get('x-request-id'))
    expect(told.map(({ data }) => [data.reason, data.users])).toEqual([
      ['unknown-type', ['ada']],
      ['session-user-mismatch', ['bob', 'ada']],
    ])
  })

  it('names everybody of whom a request was, once, in as many records as that takes', async () => {
    const { running, session_id } = await clinic()
    const twice = await running.admin.append(session_id, [said('x', { user_id: 'bob' }), said('y', { user_id: 'bob' })])
    expect(toldOf(running, twice.body.request_id).map(({ data }) => data.users)).toEqual([['bob', 'ada']])
    const many = Array.from({ length: 1000 }, (_, i) => said('x', { user_id: `user-${i}` }))
    const before = logBytes(running)
    const { status, body } = await running.admin.append(session_id, many)
    expect([status, body.reason]).toEqual([403, 'session-user-mismatch'])
    expect(logBytes(running)).toBe(before)
    const told = toldOf(running, body.request_id)
    expect(told.map(({ data }) => [data.reason, data.users.length])).toEqual([
      ['session-user-mismatch', 1000],
      ['session-user-mismatch', 1],
    ])
    expect(told[1].user_id).toBe('ada')
  })

  it('tells nothing twice: what does not fit was not read', async () => {
    const { running, session_id } = await clinic()
    const headers = { 'last-event-id': 'the last one' }
    const path = `/api/v1/sessions/${session_id}/records?follow=1`
    const { request_id } = await refused(running, () => running.admin.get(path, headers), 422, 'invalid')
    expect(toldOf(running, request_id).map(({ type }) => type)).toEqual(['audit.refused'])
  })

  it('has a log for each day, and takes the next part of the day where one is damaged', async () => {
    const { running, clock, session_id } = await clinic(clockAt(`${DAY}T23:59:58Z`))
    const look = async ({ admin }: Running) => expect((await admin.get(`/api/v1/sessions/${session_id}`)).status).toBe(200)
    await look(running)
    clock.pass(3)
    for (let i = 0; i < 3; i++) await look(running)
    await running.stop()
    const folder = join(running.home, 'logs', 'audit')
    const file = join(folder, '2031-05-03.jsonl')
    const bytes = readFileSync(file)
    const second = bytes.indexOf(10) + 1
    bytes[second] = (bytes[second] as number) ^ 1
    writeFileSync(file, bytes)
    rmSync(projectionOf(running.home))
    const again = await running.restart()
    await look(again)
    await again.stop()
    expect(readdirSync(folder).sort()).toEqual(['2031-05-02.jsonl', '2031-05-03.2.jsonl', '2031-05-03.jsonl'])
    expect(readFileSync(file)).toEqual(bytes)
    const { code, out } = await cli(running.home, ['verify'])
    expect(code).not.toBe(0)
    expect(out.split('\n').filter((line) => line.includes('audit/') && !line.includes('2031-05-03.jsonl:2'))).toEqual([])
    const day = await cli(running.home, ['cat', '--audit', '2031-05-03', '--says'])
    expect(day.out.match(/admin was answered GET \/api\/v1\/sessions\/\{session_id\}, of ada\./g)).toHaveLength(3)
    expect(await cli(running.home, ['cat', '--audit', '2031-05-04'])).toMatchObject({ code: 1, out: '' })
    // What stands before the damage counts, and so does what came after it.
    const third = await running.restart()
    const { entries } = (await third.admin.get(`/api/v1/audit?route=${encodeURIComponent('GET /api/v1/sessions/{session_id}')}`))
      .body
    expect(entries.map(({ at }: Json) => at.slice(0, 10))).toEqual(['2031-05-03', '2031-05-03', DAY])
  })

  it('is rebuilt, verified, backed up and restored like every other log', async () => {
    const { running, thea, session_id } = await clinic()
    await thea.get(`/api/v1/sessions/${session_id}`)
    const before = (await running.admin.get('/api/v1/users/ada/access')).body
    await running.stop()
    expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
    const [copy, restored] = [makeHome(), makeHome()]
    expect(await cli(running.home, ['backup', copy])).toMatchObject({ code: 0 })
    expect(await cli(running.home, ['restore', copy, '--to', restored])).toMatchObject({ code: 0 })
    const other = await run(restored, {}, clockAt(`${DAY}T10:00:00Z`))
    const after = (await other.admin.get('/api/v1/users/ada/access')).body
    expect(after.looks.slice(1)).toEqual(before.looks)
  })
})

describe('an answer', () => {
  it.each(['ENOSPC', 'EIO'])('is given to nobody where the trail cannot be written: %s', async (code) => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    disk.fail(code)
    const status = code === 'ENOSPC' ? 507 : 503
    const path = `/api/v1/sessions/${session_id}`
    for (const ask of [
      () => running.admin.get(path),
      () => running.admin.get(`${path}/records?follow=1`),
      () => running.admin.get(`${path}/records`, { accept: 'application/x-ndjson' }),
      () => running.admin.get('/api/v1/sessions/sess_none'),
      () => running.anyone.get(path),
    ])
      await refused(running, ask, status, 'not-recorded')
    disk.mend()
    expect((await running.admin.get(path)).status).toBe(200)
    expect(trailOf(running)).toHaveLength(1)
  })

  it('waits for the sync of the trail, a stream before its first byte', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    await running.admin.get('/api/v1/sessions')
    const release = disk.holdSync()
    let told = 0
    const paths = ['', '/records', '/timeline', '/records?follow=1']
    const asked = paths.map(async (path) => {
      const end = new AbortController()
      const init = { signal: end.signal, headers: { accept: 'application/x-ndjson' } }
      const { status } = await running.admin.raw('GET', `/api/v1/sessions/${session_id}${path}`, init)
      told++
      end.abort()
      return status
    })
    await disk.syncAsked
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(told).toBe(0)
    release()
    expect(await Promise.all(asked)).toEqual(asked.map(() => 200))
    expect(trailOf(running)).toHaveLength(5)
  })

  it('shares one sync with those of many others', async () => {
    const { running, disk } = await runOnFailingDisk()
    const before = disk.syncs
    // While one sync takes its time, all the others come together for the next.
    const release = disk.holdSync()
    const asked = Array.from({ length: 500 }, () => running.sessile.ask(listOfKeys, { input: {}, caller: system }))
    await disk.syncAsked
    // Till no more of them are written.
    for (let written = -1; written < running.sessile.log.lsn; ) {
      written = running.sessile.log.lsn
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    release()
    await Promise.all(asked)
    expect(trailOf(running)).toHaveLength(500)
    expect(disk.syncs - before).toBeLessThan(10)
  })
})

describe('GET /api/v1/users/{user_id}/access', () => {
  it('tells a patient who looked, what they did in plain words, and when, newest first', async () => {
    const { running, clock, ada, bob, thea, session_id } = await clinic()
    await thea.get(`/api/v1/sessions/${session_id}`)
    await bob.get('/api/v1/users/ada/sessions')
    clock.pass(60)
    await running.admin.get('/api/v1/sessions')
    await running.admin.get('/api/v1/users/bob/sessions')
    const first = await ada.get('/api/v1/users/ada/access')
    expect(first.body).toEqual({
      looks: [
        {
          at: `${DAY}T09:01:00.000Z`,
          account_id: 'admin',
          role: 'admin',
          did: 'seen a list of sessions',
          session_id: null,
          session_number: null,
          emergency: false,
        },
        {
          at: `${DAY}T09:00:00.000Z`,
          account_id: 'thea',
          role: 'therapist',
          did: 'read a session with its transcript',
          session_id,
          session_number: 1,
          emergency: false,
        },
      ],
      next_cursor: null,
      has_more: false,
    })
    // Looking it up is told, too; to whoever looks next.
    expect(looks(await ada.get('/api/v1/users/ada/access'))[0]).toEqual(['ada', 'looked up who had seen this data', null])
  })

  it('marks what was seen by emergency access, and names no session of others', async () => {
    const { running, ada, bob, thea, session_id } = await clinic()
    const { assignments } = (await running.admin.get('/api/v1/assignments')).body
    await running.admin.post(`/api/v1/assignments/${assignments[0].assignment_id}/end`, {})
    await thea.post('/api/v1/emergency-access', { user_id: 'ada', reason: 'She calls and cannot be understood' })
    await thea.get(`/api/v1/sessions/${session_id}`)
    await running.admin.post('/session_manager/sessions.validate', { user_id: 'bob', session_id })
    const [seen] = (await ada.get('/api/v1/users/ada/access')).body.looks
    expect(seen).toMatchObject({ account_id: 'thea', emergency: true, session_number: 1 })
    const [asked] = (await bob.get('/api/v1/users/bob/access')).body.looks
    expect(asked).toMatchObject({
      did: 'asked whether a session is active',
      session_id: null,
      session_number: null,
      emergency: false,
    })
  })

  it('tells nobody of an emergency that others had', async () => {
    const { running, clock, ada, bob, thea } = await clinic()
    clock.pass(1)
    await thea.post('/api/v1/emergency-access', { user_id: 'bob', reason: 'He calls and cannot be understood' })
    const { headers } = await thea.get('/api/v1/sessions')
    expect(headers.get('x-emergency-access')).toMatch(/^bob;/)
    const first = async (client: Client, user: string) => (await client.get(`/api/v1/users/${user}/access`)).body.looks[0]
    expect(await first(ada, 'ada')).toMatchObject({ account_id: 'thea', did: 'seen a list of sessions', emergency: false })
    expect(await first(bob, 'bob')).toMatchObject({ account_id: 'thea', did: 'seen a list of sessions', emergency: true })
    const [entry] = (await running.admin.get('/api/v1/audit?account=thea')).body.entries
    expect(entry).toMatchObject({ users: ['bob', 'ada'], emergency: true })
    // Nor does it read otherwise when she takes care of others.
    clock.pass(1)
    const [{ assignment_id }] = (await running.admin.get('/api/v1/assignments')).body.assignments
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    await running.admin.post('/api/v1/assignments', { therapist_id: 'thea', user_id: 'bob', relationship_type: 'primary' })
    const byThea = async (client: Client, user: string) =>
      (await client.get(`/api/v1/users/${user}/access`)).body.looks.filter(({ did }: Json) => did === 'seen a list of sessions')
    expect(await byThea(ada, 'ada')).toMatchObject([{ account_id: 'thea', emergency: false }])
    expect(await byThea(bob, 'bob')).toMatchObject([{ account_id: 'thea', emergency: true }])
  })

  it('takes no cursor of what others’ data was looked at', async () => {
    const { running, ada, bob, thea, session_id } = await clinic()
    for (let i = 0; i < 2; i++) await thea.get(`/api/v1/sessions/${session_id}`)
    const { next_cursor } = (await ada.get('/api/v1/users/ada/access?limit=1')).body
    expect((await ada.get(`/api/v1/users/ada/access?cursor=${next_cursor}`)).body.looks).toHaveLength(1)
    await refused(running, () => bob.get(`/api/v1/users/bob/access?cursor=${next_cursor}`), 422, 'bad-cursor')
  })

  it('is for the user, those in whose care they are, and the admin', async () => {
    const { running, bob, thea } = await clinic()
    const device = await running.admin.device({ users: ['ada'] })
    for (const one of [thea, running.admin]) expect((await one.get('/api/v1/users/ada/access')).status).toBe(200)
    for (const one of [bob, device]) await refused(running, () => one.get('/api/v1/users/ada/access'), 403, 'forbidden')
    await refused(running, () => thea.get('/api/v1/users/bob/access'), 403, 'forbidden')
    await refused(running, () => running.anyone.get('/api/v1/users/ada/access'), 401, 'unauthenticated')
    await refused(running, () => running.admin.get('/api/v1/users/ada/access?cursor=x'), 422, 'bad-cursor')
  })

  it('pages through every look once, whatever is looked at meanwhile', async () => {
    const { ada, thea, session_id } = await clinic()
    for (let i = 0; i < 7; i++) await thea.get(`/api/v1/sessions/${session_id}`)
    let [path, seen] = ['/api/v1/users/ada/access?limit=3', 0]
    for (;;) {
      const { body } = await ada.get(path)
      seen += body.looks.filter(({ account_id }: Json) => account_id === 'thea').length
      expect(body.has_more).toBe(body.next_cursor !== null)
      if (!body.has_more) break
      expect(body.looks).toHaveLength(3)
      path = `/api/v1/users/ada/access?limit=3&cursor=${body.next_cursor}`
    }
    expect(seen).toBe(7)
  })
})

describe('GET /api/v1/audit', () => {
  it('finds what was asked, by whom, of whom, how it ended, when, and by the id of the request', async () => {
    const { running, clock, bob, thea, session_id } = await clinic()
    await thea.get(`/api/v1/sessions/${session_id}`, { 'x-request-id': 'by-thea' })
    clock.pass(600)
    await bob.get('/api/v1/users/ada/sessions', { 'x-request-id': 'by-bob' })
    await running.anyone.get('/api/v1/keys', { 'x-request-id': 'by-nobody' })
    const found = async (query: string) => {
      const { status, body } = await running.admin.get(`/api/v1/audit?${query}`)
      expect(status).toBe(200)
      return body.entries.map(({ request_id }: Json) => request_id).filter((id: string) => id.startsWith('by-'))
    }
    expect(await found('')).toEqual(['by-nobody', 'by-bob', 'by-thea'])
    expect(await found('account=thea')).toEqual(['by-thea'])
    expect(await found('account=anonymous')).toEqual(['by-nobody'])
    expect(await found('user=ada')).toEqual(['by-bob', 'by-thea'])
    expect(await found('user=ada&account=bob')).toEqual(['by-bob'])
    expect(await found('outcome=refused')).toEqual(['by-nobody', 'by-bob'])
    expect(await found('outcome=read&user=ada')).toEqual(['by-thea'])
    expect(await found('route=GET%20/api/v1/keys')).toEqual(['by-nobody'])
    expect(await found('request_id=by-bob')).toEqual(['by-bob'])
    expect(await found(`from=${DAY}T09:05:00Z`)).toEqual(['by-nobody', 'by-bob'])
    expect(await found(`to=${DAY}T09:05:00Z`)).toEqual(['by-thea'])
    expect(await found(`user=ada&to=${DAY}T09:05:00Z`)).toEqual(['by-thea'])
    expect(await found(`account=bob&to=${DAY}T09:05:00Z`)).toEqual([])
    const { entries } = (await running.admin.get('/api/v1/audit?request_id=by-bob')).body
    expect(entries).toEqual([
      {
        at: `${DAY}T09:10:00.000Z`,
        account_id: 'bob',
        role: 'patient',
        proved_by: expect.stringMatching(/^sign_/),
        route: 'GET /api/v1/users/{user_id}/sessions',
        users: ['ada'],
        session_id: null,
        emergency: false,
        outcome: 'refused',
        reason: 'forbidden',
        request_id: 'by-bob',
        address: expect.stringMatching(/127\.0\.0\.1/),
      },
    ])
  })

  it('tells whoever was searched for that somebody did', async () => {
    const { running, ada, bob } = await clinic()
    await running.admin.get('/api/v1/audit?user=ada')
    expect(looks(await ada.get('/api/v1/users/ada/access'))[0]).toEqual(['admin', 'searched the audit trail', null])
    expect(looks(await bob.get('/api/v1/users/bob/access'))).toEqual([])
  })

  it('tells each entry once and in order, however many there are, and however many of one moment', async () => {
    const { running } = await clinic()
    await Promise.all(Array.from({ length: 450 }, () => running.sessile.ask(listOfKeys, { input: {}, caller: system })))
    const recorded = trailOf(running).map(({ data }) => data.request_id)
    for (const filter of ['', 'account=system&', 'route=GET%20/api/v1/keys&']) {
      const told: string[] = []
      for (let cursor: string | null = ''; cursor !== null; ) {
        const { body } = await running.admin.get(`/api/v1/audit?${filter}limit=200${cursor && `&cursor=${cursor}`}`)
        told.push(
          ...body.entries.filter(({ account_id }: Json) => account_id === 'system').map(({ request_id }: Json) => request_id),
        )
        cursor = body.next_cursor
      }
      expect(told).toEqual(recorded.reverse())
      recorded.reverse()
    }
  })

  it('goes through a long trail piece by piece, and finds what is rare in it', async () => {
    const { running, thea, session_id } = await clinic()
    await thea.get(`/api/v1/sessions/${session_id}`, { 'x-request-id': 'the-rare-one' })
    for (let i = 0; i < 6; i++)
      await Promise.all(Array.from({ length: 1000 }, () => running.sessile.ask(listOfKeys, { input: {}, caller: system })))
    const path = '/api/v1/audit?request_id=the-rare-one'
    const first = await running.admin.get(path)
    expect(first.body).toMatchObject({ entries: [], has_more: true })
    const second = await running.admin.get(`${path}&cursor=${first.body.next_cursor}`)
    expect(second.body).toMatchObject({ entries: [{ request_id: 'the-rare-one' }], next_cursor: null, has_more: false })
    expect((await running.admin.get(`${path}&account=thea`)).body.entries).toHaveLength(1)
  })

  it('is for admins, and refuses what it does not know', async () => {
    const { running, ada, thea } = await clinic()
    for (const one of [ada, thea]) await refused(running, () => one.get('/api/v1/audit'), 403, 'forbidden')
    for (const query of ['outcome=none', 'from=then', 'limit=201', 'colour=red'])
      await refused(running, () => running.admin.get(`/api/v1/audit?${query}`), 422, 'invalid')
    await refused(running, () => running.admin.get('/api/v1/audit?cursor=AAAA'), 422, 'bad-cursor')
  })
})

describe('every route of the contract', () => {
  const questions = new Set(features.queries.map(({ at }) => at))
  const routes = [...questions, ...features.commands.flatMap(({ at }) => at ?? [])]

  /** Each route, about ada and about nobody, with what fits where anything does and with what fits nowhere. */
  function* requests(ours: Record<string, string>) {
    for (const route of routes) {
      const [method, template] = route.split(' ') as [string, string]
      const paths = [ours, {} as Record<string, string>].map((ids) =>
        template.replace(/\{(\w+)\}/g, (_, name: string) => ids[name] ?? 'none'),
      )
      const bodies = method === 'GET' ? [undefined] : [ours, { colour: 'red' }]
      for (const path of paths) for (const body of bodies) yield { route, method, path, body }
    }
  }

  /** What the trail must tell of an answer. */
  function due(route: string, { status, body }: Reply) {
    if (status >= 400) return [['audit.refused', route, body.reason]]
    return questions.has(route) ? [['audit.read', route, undefined]] : []
  }

  it('leaves exactly one record that names the request where it is answered or refused, and none beside what it records', async () => {
    const { running, ada, bob, thea, session_id } = await clinic()
    const device = await running.admin.device({ users: ['ada'] })
    const callers: Client[] = [running.admin, ada, bob, thea, device, running.anyone]
    const seen = new Set<string>()
    let made = 0
    for (const { route, method, path, body } of requests({ session_id, user_id: 'ada' })) {
      for (const caller of callers) {
        const request_id = `r-${++made}`
        const reply = await caller.send(method, path, body, { 'x-request-id': request_id })
        const told = toldOf(running, request_id).map(({ type, data }) => [type, data.route, data.reason])
        expect([request_id, route, reply.status, told]).toEqual([
          request_id,
          route,
          expect.not.toBeOneOf([500, 503, 507]),
          due(route, reply),
        ])
        for (const [type] of told) seen.add(`${type} ${route}`)
      }
    }
    const all = [...routes.map((route) => `audit.refused ${route}`), ...[...questions].map((route) => `audit.read ${route}`)]
    expect([...seen].sort()).toEqual(all.sort())
  }, 300_000)

  it('says in plain words what was done, of every question', () => {
    for (const { at, did } of features.queries) expect([at, did]).toEqual([at, expect.stringMatching(/^[a-z][a-z’ ,]+[a-z]$/)])
  })
})
