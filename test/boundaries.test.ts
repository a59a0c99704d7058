import { describe, expect, it } from 'vitest'
import { kinds } from '../src/features/kinds.ts'
import { settingsOf } from './config.ts'
import { clockAt, linesIn, logBytes, refused, run, said, sessionFile } from './harness.ts'

describe('sessions.start', () => {
  it('answers the recorded event, flat', async () => {
    const sessile = await run()
    const { status, body } = await sessile.admin.start({ training_intent_label: 'yes' })
    expect(status).toBe(201)
    expect(body).toEqual({
      record_id: expect.stringMatching(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
      seq: 1,
      type: 'session.started',
      v: 1,
      source: 'session_manager',
      user_id: 'ada',
      session_id: expect.stringMatching(/^sess_[0-9A-HJKMNP-TV-Z]{26}$/),
      performer_id: 'device-7',
      timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
      kind: 'capture',
      session_number: 1,
      is_training_data: false,
      training_intent_label: 'yes',
    })
  })

  it('writes one line whose fields stand in the published order', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    sessile.sessile.log.settle()
    const [line] = linesIn(sessionFile(sessile.home, body.session_id))
    expect(Object.keys(line)).toEqual([
      'record_id',
      'seq',
      'type',
      'v',
      'source',
      'user_id',
      'session_id',
      'performer_id',
      'timestamp',
      'data',
      'salt',
      'hash',
    ])
    expect(line.record_id).toBe(body.record_id)
  })

  it('takes every kind with its own attributes', async () => {
    const sessile = await run()
    const given = {
      capture: { is_training_data: true, training_intent_label: 'drink', session_notes: 'tired' },
      voice: { counselor_category: 'grief', room_name: 'r1' },
      video: { counselor_category: 'sleep', room_name: 'r2' },
      therapy: { language: 'de', session_date: '2031-05-02' },
      workflow: { site_name: 's', site_description: 'd', project_key: 'P', llm_provider_choice: 'x' },
    }
    expect(Object.keys(given)).toEqual(Object.keys(kinds))
    for (const [kind, attributes] of Object.entries(given)) {
      const started = await sessile.admin.start({ kind, ...attributes })
      expect(started.status).toBe(201)
      expect(started.body).toMatchObject({ kind, ...attributes })
      const { body } = await sessile.admin.get(`/api/v1/sessions/${started.body.session_id}`)
      expect(body).toMatchObject({ kind, attributes })
      expect(body.mode).toBe(kind === 'voice' || kind === 'video' ? kind : null)
    }
  })

  it.each(Object.entries(kinds).map(([kind, { exclusive }]) => ({ kind, exclusive })))(
    'lets a second $kind session begin beside the first: $exclusive means no',
    async ({ kind, exclusive }) => {
      const sessile = await run()
      const first = await sessile.admin.start({ kind })
      if (!exclusive) {
        expect((await sessile.admin.start({ kind })).status).toBe(201)
        return
      }
      const problem = await refused(sessile, () => sessile.admin.start({ kind }), 409, 'session-already-active')
      expect(problem.session_id).toBe(first.body.session_id)
      expect((await sessile.admin.start({ kind, user_id: 'bob' })).status).toBe(201)
    },
  )

  it('numbers the sessions of a user across kinds, and never reuses a number', async () => {
    const sessile = await run()
    const numbers: number[] = []
    for (const kind of ['capture', 'therapy', 'therapy', 'voice']) {
      const { body } = await sessile.admin.start({ kind })
      numbers.push(body.session_number)
      if (kind === 'capture') await sessile.admin.end({ session_id: body.session_id })
    }
    numbers.push((await sessile.admin.start()).body.session_number)
    expect(numbers).toEqual([1, 2, 3, 4, 5])
    expect((await sessile.admin.start({ user_id: 'bob' })).body.session_number).toBe(1)
  })

  const bad: [string, object, string][] = [
    ['an unknown field', { colour: 'red' }, 'colour'],
    ['a wrong type', { is_training_data: 'yes' }, 'is_training_data'],
    ['a bad user id', { user_id: '../etc' }, 'user_id'],
    ['a user id that is too long', { user_id: 'a'.repeat(65) }, 'user_id'],
    ['no user id', { user_id: undefined }, 'user_id'],
    ['an unknown kind', { kind: 'seance' }, 'kind'],
    ['an attribute of another kind', { kind: 'voice', is_training_data: true }, 'is_training_data'],
    ['a timestamp of its own', { timestamp: '2031-05-02T09:30:00.000Z' }, 'timestamp'],
    ['a record id of its own', { record_id: '6a2f41a3-c54c-4f6b-8b0a-0d6f4e9f4a11' }, 'record_id'],
    ['a session id of its own', { session_id: 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV' }, 'session_id'],
    ['another source', { source: 'somebody' }, 'source'],
    ['a performer of the wrong type', { performer_id: 7 }, 'performer_id'],
    ['a performer with a slash', { performer_id: 'a/b' }, 'performer_id'],
    ['a day that no month has', { kind: 'therapy', session_date: '2031-02-31' }, 'session_date'],
    ['a date that is none', { kind: 'therapy', session_date: 'tomorrow' }, 'session_date'],
  ]
  it.each(bad)('refuses %s and says where', async (_, more, path) => {
    const sessile = await run()
    const problem = await refused(sessile, () => sessile.admin.start(more), 400, 'invalid')
    expect(problem.errors.map((error: { path: string }) => error.path)).toContain(path)
  })

  it.each([undefined, null, '', '   '])('refuses the performer %j', async (performer_id) => {
    const sessile = await run()
    await refused(sessile, () => sessile.admin.start({ performer_id }), 400, 'performer-required')
  })

  it('accepts its own source by name', async () => {
    const sessile = await run()
    expect((await sessile.admin.start({ source: 'session_manager' })).status).toBe(201)
  })

  it('gives one session to one of a hundred concurrent starts, and 409 to the others', async () => {
    const sessile = await run()
    const replies = await Promise.all(Array.from({ length: 100 }, () => sessile.admin.start()))
    expect(replies.filter(({ status }) => status === 201)).toHaveLength(1)
    expect(replies.filter(({ status, body }) => status === 409 && body.reason === 'session-already-active')).toHaveLength(99)
  })
})

describe('sessions.end', () => {
  it('answers the recorded event with the id that start issued', async () => {
    const sessile = await run()
    const { body: started } = await sessile.admin.start()
    const { status, body } = await sessile.admin.end({ session_id: started.session_id, reason: 'disconnected' })
    expect(status).toBe(200)
    expect(body).toMatchObject({ type: 'session.ended', session_id: started.session_id, seq: 2, reason: 'disconnected' })
    const { body: detail } = await sessile.admin.get(`/api/v1/sessions/${started.session_id}`)
    expect(detail).toMatchObject({ status: 'closed', ended_at: body.timestamp, disconnected: true })
  })

  it('refuses a session that does not exist', async () => {
    const sessile = await run()
    for (const session_id of ['sess_01ARZ3NDEKTSV4RRFFQ69G5FAV', 'whatever']) {
      await refused(sessile, () => sessile.admin.end({ session_id }), 404, 'session-not-found')
    }
  })

  it('refuses a session of another user', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start({ user_id: 'bob' })
    await refused(sessile, () => sessile.admin.end({ session_id: body.session_id }), 403, 'session-user-mismatch')
  })

  it('refuses a second end', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    await sessile.admin.end({ session_id: body.session_id })
    await refused(sessile, () => sessile.admin.end({ session_id: body.session_id }), 409, 'session-already-closed')
  })

  it.each([
    ['an unknown reason', { reason: 'bored' }],
    ['a reason that only the system gives', { reason: 'idle-timeout' }],
    ['a session id with a slash', { session_id: '../x' }],
    ['another source', { source: 'somebody' }],
  ])('refuses %s', async (_, more) => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    await refused(sessile, () => sessile.admin.end({ session_id: body.session_id, ...more }), 400, 'invalid')
  })

  it('refuses a missing performer', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    await refused(sessile, () => sessile.admin.end({ session_id: body.session_id, performer_id: ' ' }), 400, 'performer-required')
  })
})

describe('sessions.validate', () => {
  it('tells active, closed and invalid; foreign and unknown look alike', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    const ask = (user_id: string, session_id: string) =>
      sessile.admin.post('/session_manager/sessions.validate', { user_id, session_id })
    expect(await ask('ada', body.session_id)).toMatchObject({ status: 200, body: { status: 'active' } })
    const foreign = await ask('bob', body.session_id)
    const unknown = await ask('bob', 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV')
    expect(foreign.body).toEqual({ status: 'invalid' })
    expect(unknown.body).toEqual(foreign.body)
    await sessile.admin.end({ session_id: body.session_id })
    expect((await ask('ada', body.session_id)).body).toEqual({ status: 'closed' })
  })

  it('refuses what it does not know', async () => {
    const sessile = await run()
    await refused(sessile, () => sessile.admin.post('/session_manager/sessions.validate', { user_id: 'ada' }), 400, 'invalid')
    // What is asked stands in the body, and nowhere else.
    const { session_id } = (await sessile.admin.start()).body
    const inAddress = `/session_manager/sessions.validate?user_id=ada&session_id=${session_id}`
    for (const body of [null, {}]) await refused(sessile, () => sessile.admin.post(inAddress, body), 400, 'invalid')
  })
})

describe('the system', () => {
  it('closes a session after half an hour without a record, and records why', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const { admin, sessile, home } = await run(undefined, {}, clock)
    const { body } = await admin.start()
    clock.move(29 * 60)
    await admin.append(body.session_id, said('still here'))
    clock.move(29 * 60)
    await sessile.doChores()
    expect((await admin.get(`/api/v1/sessions/${body.session_id}`)).body.status).toBe('active')
    clock.move(60)
    await sessile.doChores()
    sessile.log.settle()
    const last = linesIn(sessionFile(home, body.session_id)).at(-1)
    expect(last).toMatchObject({
      type: 'session.ended',
      performer_id: 'system',
      session_id: body.session_id,
      timestamp: '2031-05-02T09:59:00.000Z',
      data: { reason: 'idle-timeout' },
    })
    expect(last.record_id).not.toBe(body.record_id)
    expect((await admin.start()).status).toBe(201)
  })

  it('closes a session after 24 hours, however busy it is; a workflow may be idle', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const { admin, sessile } = await run(undefined, { settings: settingsOf({ idle: { capture: 0 } }) }, clock)
    const capture = await admin.start()
    const workflow = await admin.start({ kind: 'workflow' })
    clock.move(24 * 3600 - 1)
    await sessile.doChores()
    for (const { body } of [capture, workflow])
      expect((await admin.get(`/api/v1/sessions/${body.session_id}`)).body.status).toBe('active')
    clock.move(1)
    await sessile.doChores()
    for (const { body } of [capture, workflow]) {
      expect((await admin.get(`/api/v1/sessions/${body.session_id}`)).body).toMatchObject({
        status: 'closed',
        end_reason: 'longest-length',
        ended_by: 'system',
        duration_seconds: 86_400,
      })
    }
  })

  it('closes what fell due while nobody was running before it lets anybody in', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const first = await run(undefined, {}, clock)
    await first.admin.start()
    await first.stop()
    clock.move(3600)
    const second = await run(first.home, {}, clock)
    expect((await second.admin.start()).status).toBe(201)
  })

  it('does nothing to sessions within their limits', async () => {
    const running = await run()
    await running.admin.start()
    const before = logBytes(running)
    await running.sessile.doChores()
    expect(logBytes(running)).toBe(before)
  })

  it('may be spoken for only by those who are allowed to', async () => {
    const sessile = await run()
    const plain = await sessile.admin.device({ users: ['ada'] })
    const trusted = await sessile.admin.device({ users: ['ada'], system: true })
    await refused(sessile, () => plain.start({ performer_id: 'system' }), 403, 'not-the-system')
    expect((await trusted.start({ performer_id: 'system' })).body.performer_id).toBe('system')
    const { body } = await sessile.admin.start({ performer_id: 'system', kind: 'therapy' })
    expect(body.performer_id).toBe('system')
    await refused(sessile, () => plain.append(body.session_id, said('x', { performer_id: 'system' })), 403, 'not-the-system')
  })
})
