// Who cares for whom: assignments and emergency access, and what a therapist reaches because of them.

import { describe, expect, it, vi } from 'vitest'
import { settingsOf } from './config.ts'
import {
  Client,
  clockAt,
  type Json,
  later,
  linesIn,
  logBytes,
  type Reply,
  type Running,
  refused,
  run,
  type SignedIn,
  said,
  sendingLines,
  trailOf,
} from './harness.ts'

const assign = { therapist_id: 'thea', user_id: 'ada', relationship_type: 'primary' }
const why = 'She calls from the station and is not to be understood'

/** A therapist who can sign in, and a session of ada. */
async function clinic(clock = clockAt('2031-05-02T09:00:00Z')) {
  const running = await run(undefined, {}, clock)
  const thea = await running.admin.account({ role: 'therapist', account_id: 'thea' })
  const { session_id } = (await running.admin.start()).body
  await running.admin.append(session_id, said('hello'))
  return { running, clock, thea, session_id }
}

const assigned = async ({ admin }: Running, more: object = {}): Promise<string> => {
  const { status, body } = await admin.post('/api/v1/assignments', { ...assign, ...more })
  expect(status).toBe(201)
  return body.assignment_id
}

const ids = ({ body }: Reply, list = 'assignments', id = 'assignment_id') => body[list].map((one: Json) => one[id])

/** Every way in which a therapist comes near a user’s data. */
const ways = (thea: SignedIn, session_id: string, user_id = 'ada'): [string, () => Promise<Reply>][] => [
  ['the sessions of the user', () => thea.get(`/api/v1/users/${user_id}/sessions`)],
  ['the session', () => thea.get(`/api/v1/sessions/${session_id}`)],
  ['its records', () => thea.get(`/api/v1/sessions/${session_id}/records`)],
  ['its timeline', () => thea.get(`/api/v1/sessions/${session_id}/timeline`)],
  ['a record of one’s own', () => thea.append(session_id, said('noted', { user_id, performer_id: 'thea' }))],
  ['another session', () => thea.start({ user_id, performer_id: 'thea', kind: 'workflow' })],
]

describe('an assignment', () => {
  it('puts a user within reach of the therapist from the next request on, and out of it when it ends', async () => {
    const { running, thea, session_id } = await clinic()
    const outOfReach = async () => {
      for (const [, ask] of ways(thea, session_id)) await refused(running, ask, 403, 'forbidden')
      expect(ids(await thea.get('/api/v1/sessions'), 'sessions', 'session_id')).toEqual([])
    }
    await outOfReach()
    const assignment_id = await assigned(running)
    for (const [way, ask] of ways(thea, session_id))
      expect([way, (await ask()).status]).toEqual([way, expect.toBeOneOf([200, 201])])
    expect(ids(await thea.get('/api/v1/sessions'), 'sessions', 'session_id')).toContain(session_id)
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    await outOfReach()
  })

  it('holds after a restart, and in a rebuild', async () => {
    const { running, thea } = await clinic()
    await assigned(running)
    await running.admin.post(`/api/v1/assignments/${await assigned(running, { user_id: 'bob' })}/end`, {})
    const { admin, url } = await running.restart()
    const again = new Client(url, thea.key)
    expect((await again.get('/api/v1/users/ada/sessions')).status).toBe(200)
    expect((await again.get('/api/v1/users/bob/sessions')).status).toBe(403)
    expect(ids(await admin.get('/api/v1/assignments?status=active'))).toHaveLength(1)
  })

  it('reaches nothing where the account is no therapist’s any more', async () => {
    const { running, thea, session_id } = await clinic()
    await assigned(running)
    await running.admin.post('/api/v1/accounts/thea/role', { role: 'researcher' })
    for (const [, ask] of ways(thea, session_id)) await refused(running, ask, 403, 'forbidden')
  })
})

describe('POST /api/v1/assignments', () => {
  it('is recorded in the log of the therapist, with who assigned them', async () => {
    const { running } = await clinic()
    const { status, body } = await running.admin.post('/api/v1/assignments', assign)
    expect({ status, body }).toEqual({
      status: 201,
      body: { ...assign, assignment_id: expect.stringMatching(/^asg_/), begun_at: '2031-05-02T09:00:00.000Z' },
    })
    const ended = await running.admin.post(`/api/v1/assignments/${body.assignment_id}/end`, {})
    expect(ended.body).toEqual({
      assignment_id: body.assignment_id,
      therapist_id: 'thea',
      user_id: 'ada',
      ended_at: '2031-05-02T09:00:00.000Z',
    })
    running.sessile.log.settle()
    const lines = linesIn(`${running.home}/logs/accounts/thea.jsonl`).filter(({ source }) => source === 'assignments')
    expect(lines.map(({ type, user_id, performer_id, data }) => [type, user_id, performer_id, data.user_id])).toEqual([
      ['assignment.begun', 'thea', 'admin', 'ada'],
      ['assignment.ended', 'thea', 'admin', 'ada'],
    ])
  })

  it('refuses a second one of the same pair while the first is active, and takes it afterwards', async () => {
    const { running } = await clinic()
    const assignment_id = await assigned(running)
    const told = await refused(running, () => running.admin.post('/api/v1/assignments', assign), 409, 'already-assigned')
    expect(told.assignment_id).toBe(assignment_id)
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    await assigned(running)
  })

  it('refuses whoever is not a therapist, and one who may not sign in', async () => {
    const { running } = await clinic()
    await running.admin.account({ role: 'patient', account_id: 'pat' })
    await running.admin.post('/api/v1/accounts/thea/deactivate', {})
    for (const therapist_id of ['pat', 'nobody', 'thea'])
      await refused(running, () => running.admin.post('/api/v1/assignments', { ...assign, therapist_id }), 409, 'not-a-therapist')
  })

  it.each([
    {},
    { ...assign, relationship_type: '' },
    { ...assign, relationship_type: 'x'.repeat(65) },
    { ...assign, therapist_id: '../thea' },
    { ...assign, status: 'active' },
  ])('refuses %j', async (body) => {
    const running = await run()
    await refused(running, () => running.admin.post('/api/v1/assignments', body), 422, 'invalid')
  })
})

describe('POST /api/v1/assignments/{assignment_id}/end', () => {
  it('refuses one that is not there, and one that has ended', async () => {
    const { running } = await clinic()
    const end = (id: string) => () => running.admin.post(`/api/v1/assignments/${id}/end`, {})
    await refused(running, end('asg_nobody'), 404, 'assignment-not-found')
    const assignment_id = await assigned(running)
    await end(assignment_id)()
    await refused(running, end(assignment_id), 409, 'assignment-already-ended')
  })
})

describe('GET /api/v1/assignments', () => {
  async function three() {
    const { running, clock, thea } = await clinic()
    const theo = await running.admin.account({ role: 'therapist', account_id: 'theo' })
    const ada = await running.admin.account({ account_id: 'ada' })
    const made: string[] = []
    for (const more of [{}, { therapist_id: 'theo' }, { user_id: 'bob' }]) {
      made.unshift(await assigned(running, more))
      clock.move(60)
    }
    await running.admin.post(`/api/v1/assignments/${made[2]}/end`, {})
    return { running, thea, theo, ada, made }
  }

  it('tells an admin of all, newest first, by therapist, user and state, page by page', async () => {
    const { running, made } = await three()
    const listed = async (query: string) => ids(await running.admin.get(`/api/v1/assignments?${query}`))
    expect(await listed('')).toEqual(made)
    expect(await listed('therapist_id=thea')).toEqual([made[0], made[2]])
    expect(await listed('user_id=ada')).toEqual([made[1], made[2]])
    expect(await listed('status=ended')).toEqual([made[2]])
    expect(await listed('status=active&user_id=ada')).toEqual([made[1]])
    const { body } = await running.admin.get('/api/v1/assignments?limit=2')
    expect(body.has_more).toBe(true)
    expect(await listed(`cursor=${body.next_cursor}`)).toEqual([made[2]])
    expect((await running.admin.get('/api/v1/assignments?status=ended')).body.assignments).toEqual([
      {
        ...assign,
        assignment_id: made[2],
        status: 'ended',
        begun_at: '2031-05-02T09:00:00.000Z',
        begun_by: 'admin',
        ended_at: '2031-05-02T09:03:00.000Z',
        ended_by: 'admin',
      },
    ])
  })

  it('tells a therapist of their own, a patient of those who care for them, and neither of any other', async () => {
    const { thea, theo, ada, made } = await three()
    expect(ids(await thea.get('/api/v1/assignments'))).toEqual([made[0], made[2]])
    expect(ids(await theo.get('/api/v1/assignments'))).toEqual([made[1]])
    expect(ids(await ada.get('/api/v1/assignments'))).toEqual([made[1], made[2]])
    expect(ids(await theo.get('/api/v1/assignments?therapist_id=thea'))).toEqual([])
    expect(ids(await ada.get('/api/v1/assignments?user_id=bob'))).toEqual([])
  })

  it('refuses a cursor that no page gave, and whoever is concerned by none', async () => {
    const running = await run()
    await refused(running, () => running.admin.get('/api/v1/assignments?cursor=AAAA'), 422, 'bad-cursor')
    const device = await running.admin.device()
    await refused(running, () => device.get('/api/v1/assignments'), 403, 'forbidden')
  })
})

describe('POST /api/v1/emergency-access', () => {
  const take = (thea: SignedIn, user_id = 'ada') => thea.post('/api/v1/emergency-access', { user_id, reason: why })

  it('puts a user within reach for an hour by the clock of the server', async () => {
    const { running, clock, thea, session_id } = await clinic()
    const { status, body } = await take(thea)
    const opened_at = '2031-05-02T09:00:00.000Z'
    const until = '2031-05-02T10:00:00.000Z'
    const told = { access_id: expect.stringMatching(/^emg_/), therapist_id: 'thea', user_id: 'ada', reason: why, opened_at, until }
    expect({ status, body }).toEqual({ status: 201, body: told })
    clock.move(60)
    for (const [way, ask] of ways(thea, session_id))
      expect([way, (await ask()).status]).toEqual([way, expect.toBeOneOf([200, 201])])
    clock.move(59 * 60 - 1)
    const late = await running.anyone.signIn(thea.name)
    expect((await late.get(`/api/v1/sessions/${session_id}`)).status).toBe(200)
    clock.move(1)
    for (const [, ask] of ways(late, session_id)) await refused(running, ask, 403, 'forbidden')
    expect((await running.admin.get('/api/v1/emergency-access')).body.accesses).toMatchObject([{ state: 'over' }])
  })

  it('is recorded in the log of the therapist', async () => {
    const { running, thea } = await clinic()
    await take(thea)
    running.sessile.log.settle()
    const [line] = linesIn(`${running.home}/logs/accounts/thea.jsonl`).filter(({ source }) => source === 'emergency')
    expect(line).toMatchObject({
      type: 'emergency.opened',
      user_id: 'thea',
      performer_id: 'thea',
      data: { user_id: 'ada', reason: why },
    })
  })

  it('answers alike for a user who is not there', async () => {
    const { thea } = await clinic()
    const [there, absent] = [await take(thea), await take(thea, 'eve')]
    expect([absent.status, Object.keys(absent.body)]).toEqual([there.status, Object.keys(there.body)])
    expect((await thea.get('/api/v1/users/eve/sessions')).body).toEqual({ sessions: [], next_cursor: null, has_more: false })
  })

  it('is for therapists alone', async () => {
    const running = await run()
    const body = { user_id: 'ada', reason: why }
    for (const role of ['patient', 'researcher', 'analyst', 'admin']) {
      const other = await running.admin.account({ role })
      await refused(running, () => other.post('/api/v1/emergency-access', body), 403, 'forbidden')
    }
    const device = await running.admin.device()
    await refused(running, () => device.post('/api/v1/emergency-access', body), 403, 'forbidden')
  })

  it.each([
    {},
    { user_id: 'ada' },
    { user_id: 'ada', reason: 'too short' },
    { user_id: 'ada', reason: ' '.repeat(40) },
    { user_id: 'ada', reason: 'x'.repeat(501) },
    { user_id: 'ada', reason: why, until: '2032-01-01T00:00:00Z' },
  ])('refuses %j', async (body) => {
    const { running, thea } = await clinic()
    await refused(running, () => thea.post('/api/v1/emergency-access', body), 422, 'invalid')
  })
})

describe('X-Emergency-Access', () => {
  const banner = ({ headers }: Reply) => headers.get('x-emergency-access')
  const UNTIL = 'ada; until=2031-05-02T10:00:00.000Z'

  it('stands on each answer that rested on emergency access, and on no other', async () => {
    const { running, thea, session_id } = await clinic()
    await assigned(running, { user_id: 'bob' })
    const bobs = (await running.admin.start({ user_id: 'bob' })).body.session_id
    expect(banner(await thea.get('/api/v1/sessions'))).toBeNull()
    const taken = await thea.post('/api/v1/emergency-access', { user_id: 'ada', reason: why })
    expect(banner(taken)).toBeNull()
    for (const [way, ask] of ways(thea, session_id)) expect([way, banner(await ask())]).toEqual([way, UNTIL])
    expect(banner(await thea.get('/api/v1/sessions'))).toBe(UNTIL)
    const followed = await thea.raw('GET', `/api/v1/sessions/${session_id}/records?follow=1`)
    expect(followed.headers.get('x-emergency-access')).toBe(UNTIL)
    await followed.body?.cancel()
    for (const [way, ask] of ways(thea, bobs, 'bob')) expect([way, banner(await ask())]).toEqual([way, null])
    for (const path of ['/api/v1/sessions?from=2032-01-01', '/api/v1/account', '/api/v1/users/eve/sessions'])
      expect(banner(await thea.get(path))).toBeNull()
    expect(banner(await running.admin.get(`/api/v1/sessions/${session_id}`))).toBeNull()
  })

  it('stands on a stream of records before its first line is known', async () => {
    const { running, thea, session_id } = await clinic()
    await assigned(running, { user_id: 'bob' })
    const streamed = async () => {
      const { answered, send, end } = sendingLines(thea, session_id)
      await send(said('noted', { performer_id: 'thea' }))
      await end()
      return (await answered).headers.get('x-emergency-access')
    }
    expect(await streamed()).toBeNull()
    await thea.post('/api/v1/emergency-access', { user_id: 'ada', reason: why })
    expect(await streamed()).toBe(UNTIL)
  })

  it('does not stand where the user has been assigned meanwhile', async () => {
    const { running, thea, session_id } = await clinic()
    await thea.post('/api/v1/emergency-access', { user_id: 'ada', reason: why })
    const assignment_id = await assigned(running)
    expect(banner(await thea.get(`/api/v1/sessions/${session_id}`))).toBeNull()
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    expect(banner(await thea.get(`/api/v1/sessions/${session_id}`))).toBe(UNTIL)
  })

  it('names everybody whom a list showed because of it', async () => {
    const { running, clock, thea } = await clinic()
    await running.admin.start({ user_id: 'bob' })
    await thea.post('/api/v1/emergency-access', { user_id: 'ada', reason: why })
    clock.move(60)
    await thea.post('/api/v1/emergency-access', { user_id: 'bob', reason: why })
    const named = banner(await thea.get('/api/v1/sessions'))
      ?.split(', ')
      .sort()
    expect(named).toEqual([UNTIL, 'bob; until=2031-05-02T10:01:00.000Z'])
  })
})

describe('a stream that somebody follows', () => {
  /** Follows until it has caught up; what comes when the stream looks again whether they still may. */
  async function following(client: Client, session_id: string) {
    const response = await client.raw('GET', `/api/v1/sessions/${session_id}/records?follow=1`)
    const reader = (response.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader()
    let text = ''
    while (!text.includes('caught-up')) text += (await reader.read()).value
    return async () => {
      vi.advanceTimersByTime(15_000)
      return (await reader.read()).value
    }
  }
  const withdrawn = (reason: string) => `event: problem\ndata: {"reason":"${reason}"}\n\n`
  const timed = () => {
    vi.useFakeTimers({ toFake: ['setInterval'] })
    later(() => void vi.useRealTimers())
  }

  it.each([
    ['the assignment ends', 'forbidden', ({ admin }: Running, id: string) => admin.post(`/api/v1/assignments/${id}/end`, {})],
    ['the account is deactivated', 'unauthenticated', ({ admin }: Running) => admin.post('/api/v1/accounts/thea/deactivate', {})],
    ['they sign out', 'unauthenticated', (_: Running, __: string, thea: Client) => thea.post('/api/v1/sign-out', {})],
    [
      'the account has another role',
      'forbidden',
      ({ admin }: Running) => admin.post('/api/v1/accounts/thea/role', { role: 'analyst' }),
    ],
  ])('ends, and says why, when %s', async (_, reason, withdraw) => {
    timed()
    const { running, thea, session_id } = await clinic()
    const assignment_id = await assigned(running)
    const next = await following(thea, session_id)
    expect(await next()).toBe(': still here\n\n')
    await withdraw(running, assignment_id, thea)
    expect(await next()).toBe(withdrawn(reason))
  })

  it('ends when the emergency is over, and tells no more of why where that is concealed', async () => {
    timed()
    const clock = clockAt('2031-05-02T09:00:00Z')
    const running = await run(undefined, { settings: settingsOf({ conceal: true }) }, clock)
    const { name } = await running.admin.account({ role: 'therapist', account_id: 'thea' })
    const { session_id } = (await running.admin.start({ kind: 'workflow' })).body
    await (await running.anyone.signIn(name)).post('/api/v1/emergency-access', { user_id: 'ada', reason: why })
    clock.move(59 * 60)
    const next = await following(await running.anyone.signIn(name), session_id)
    expect(await next()).toBe(': still here\n\n')
    clock.move(60)
    expect(await next()).toBe(withdrawn('session-not-found'))
  })

  it('ends where emergency access takes the place of an assignment: that must be asked for as such', async () => {
    timed()
    const { running, thea, session_id } = await clinic()
    const assignment_id = await assigned(running)
    await thea.post('/api/v1/emergency-access', { user_id: 'ada', reason: why })
    const next = await following(thea, session_id)
    expect(await next()).toBe(': still here\n\n')
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    expect(await next()).toBe(withdrawn('forbidden'))
    const again = await following(thea, session_id)
    expect(await again()).toBe(': still here\n\n')
    await assigned(running)
    expect(await again()).toBe(': still here\n\n')
  })

  it('ends for whoever sees less of it than before', async () => {
    timed()
    const { running, session_id } = await clinic()
    const ada = await running.admin.account({ role: 'admin', account_id: 'ada' })
    const next = await following(ada, session_id)
    await running.admin.post('/api/v1/accounts/ada/role', { role: 'patient' })
    expect(await next()).toBe(withdrawn('forbidden'))
  })
})

describe('a stream of records that somebody sends', () => {
  const noted = said('noted', { performer_id: 'thea' })

  it.each([
    ['the account is deactivated', ({ admin }: Running) => admin.post('/api/v1/accounts/thea/deactivate', {})],
    ['they sign out', (_: Running, thea: Client) => thea.post('/api/v1/sign-out', {})],
  ])('ends with the next line, and says why, when %s', async (_, withdraw) => {
    const { running, thea, session_id } = await clinic()
    await assigned(running)
    const { send, over } = sendingLines(thea, session_id, { 'x-request-id': 'the-stream' })
    expect(await send(noted)).toMatchObject([{ performer_id: 'thea' }])
    await withdraw(running, thea)
    const before = logBytes(running)
    expect(await send(noted, noted, noted)).toMatchObject([{ status: 401, reason: 'unauthenticated' }])
    expect(await over()).toBe(true)
    expect(logBytes(running)).toBe(before)
    const told = trailOf(running).filter(({ data }) => data.request_id === 'the-stream')
    expect(told.map(({ performer_id, data }) => [performer_id, data.reason])).toEqual([['thea', 'unauthenticated']])
  })

  it('takes no line more for a user of whom they no longer take care', async () => {
    const { running, thea, session_id } = await clinic()
    const assignment_id = await assigned(running)
    const { send, end } = sendingLines(thea, session_id)
    expect(await send(noted)).toMatchObject([{ performer_id: 'thea' }])
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    const before = logBytes(running)
    expect(await send(noted, noted)).toMatchObject(Array(2).fill({ status: 403, reason: 'forbidden' }))
    expect(logBytes(running)).toBe(before)
    await assigned(running)
    expect(await send(noted)).toMatchObject([{ performer_id: 'thea' }])
    expect(await end()).toBe(true)
  })
})

describe('GET /api/v1/emergency-access', () => {
  it('tells the admin of every one, newest first, with its reason and whether it is open', async () => {
    const { running, clock, thea } = await clinic()
    for (const user_id of ['ada', 'bob']) {
      const therapist = await running.anyone.signIn(thea.name)
      await therapist.post('/api/v1/emergency-access', { user_id, reason: why })
      clock.move(45 * 60)
    }
    const listed = async (query = '') =>
      (await running.admin.get(`/api/v1/emergency-access${query}`)).body.accesses.map((one: Json) => [
        one.user_id,
        one.state,
        one.reason,
      ])
    expect(await listed()).toEqual([
      ['bob', 'open', why],
      ['ada', 'over', why],
    ])
    expect(await listed('?user_id=ada')).toEqual([['ada', 'over', why]])
    expect(await listed('?therapist_id=nobody')).toEqual([])
    const { body } = await running.admin.get('/api/v1/emergency-access?limit=1')
    expect(await listed(`?cursor=${body.next_cursor}`)).toEqual([['ada', 'over', why]])
  })

  it('is for the admin alone, and refuses a cursor that no page gave', async () => {
    const { running, thea } = await clinic()
    await refused(running, () => thea.get('/api/v1/emergency-access'), 403, 'forbidden')
    await refused(running, () => running.admin.get('/api/v1/emergency-access?cursor=AAAA'), 422, 'bad-cursor')
  })
})
