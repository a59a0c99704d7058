// Who cares for whom: assignments and emergency access, and what a therapist reaches because of them.

import { describe, expect, it } from 'vitest'
import { reachOf } from '../src/features/emergency.ts'
import { clockAt, linesIn, refused, run } from './harness.ts'

const assign = { therapist_id: 'thea', user_id: 'ada', relationship_type: 'primary' }

describe('POST /api/v1/assignments', () => {
  it('puts a user within reach of a therapist, until it ends', async () => {
    const running = await run()
    const reached = () => running.sessile.reading((read) => reachOf(read, 'thea', Date.now())).users
    expect(reached()).toEqual([])
    const { body } = await running.admin.post('/api/v1/assignments', assign)
    expect(reached()).toEqual(['ada'])
    expect((await running.admin.post(`/api/v1/assignments/${body.assignment_id}/end`, {})).status).toBe(200)
    expect(reached()).toEqual([])
  })

  it('is recorded in the log of the therapist, with who assigned them', async () => {
    const running = await run()
    const { status, body } = await running.admin.post('/api/v1/assignments', assign)
    expect({ status, body }).toEqual({
      status: 201,
      body: { ...assign, assignment_id: expect.stringMatching(/^asg_/), begun_at: expect.any(String) },
    })
    const ended = await running.admin.post(`/api/v1/assignments/${body.assignment_id}/end`, {})
    expect(ended.body).toEqual({
      assignment_id: body.assignment_id,
      therapist_id: 'thea',
      user_id: 'ada',
      ended_at: expect.any(String),
    })
    running.sessile.log.settle()
    const lines = linesIn(`${running.home}/logs/accounts/thea.jsonl`)
    expect(lines.map(({ type, user_id, performer_id, data }) => [type, user_id, performer_id, data.user_id])).toEqual([
      ['assignment.begun', 'thea', 'admin', 'ada'],
      ['assignment.ended', 'thea', 'admin', 'ada'],
    ])
  })

  it('refuses a second one of the same pair while the first is active, and takes it afterwards', async () => {
    const running = await run()
    const { body } = await running.admin.post('/api/v1/assignments', assign)
    const told = await refused(running, () => running.admin.post('/api/v1/assignments', assign), 409, 'already-assigned')
    expect(told.assignment_id).toBe(body.assignment_id)
    await running.admin.post(`/api/v1/assignments/${body.assignment_id}/end`, {})
    expect((await running.admin.post('/api/v1/assignments', assign)).status).toBe(201)
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
    const running = await run()
    const { body } = await running.admin.post('/api/v1/assignments', assign)
    const end = (id: string) => () => running.admin.post(`/api/v1/assignments/${id}/end`, {})
    await refused(running, end('asg_nobody'), 404, 'assignment-not-found')
    await end(body.assignment_id)()
    await refused(running, end(body.assignment_id), 409, 'assignment-already-ended')
  })
})

describe('GET /api/v1/assignments', () => {
  it('tells an admin of all, newest first, by therapist, user and state, page by page', async () => {
    const clock = clockAt('2031-05-02T09:00:00Z')
    const { admin } = await run(undefined, {}, clock)
    const made: string[] = []
    for (const [therapist_id, user_id] of [
      ['thea', 'ada'],
      ['theo', 'ada'],
      ['thea', 'bob'],
    ]) {
      made.unshift((await admin.post('/api/v1/assignments', { ...assign, therapist_id, user_id })).body.assignment_id)
      clock.move(60)
    }
    await admin.post(`/api/v1/assignments/${made[2]}/end`, {})
    const listed = async (query: string) =>
      (await admin.get(`/api/v1/assignments?${query}`)).body.assignments.map(
        ({ assignment_id }: { assignment_id: string }) => assignment_id,
      )
    expect(await listed('')).toEqual(made)
    expect(await listed('therapist_id=thea')).toEqual([made[0], made[2]])
    expect(await listed('user_id=ada')).toEqual([made[1], made[2]])
    expect(await listed('status=ended')).toEqual([made[2]])
    expect(await listed('status=active&user_id=ada')).toEqual([made[1]])
    const { body } = await admin.get('/api/v1/assignments?limit=2')
    expect(body.has_more).toBe(true)
    expect(await listed(`cursor=${body.next_cursor}`)).toEqual([made[2]])
    expect((await admin.get('/api/v1/assignments?status=ended')).body.assignments).toEqual([
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

  it('refuses a cursor that no page gave', async () => {
    const running = await run()
    await refused(running, () => running.admin.get('/api/v1/assignments?cursor=AAAA'), 422, 'bad-cursor')
  })
})
