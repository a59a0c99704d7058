import { hash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Running, refused, run, said } from './harness.ts'

const named = { 'idempotency-key': 'call-42' }

describe('Idempotency-Key', () => {
  it('gives a retry the first answer and records nothing new', async () => {
    const running = await run()
    const first = await running.admin.start({}, named)
    const again = await running.admin.start({}, named)
    expect(again).toMatchObject({ status: 201, body: first.body })
    expect((await running.admin.get('/api/v1/sessions')).body.sessions).toHaveLength(1)
  })

  it('gives a hundred concurrent requests of one name one answer', async () => {
    const running = await run()
    const replies = await Promise.all(Array.from({ length: 100 }, () => running.admin.start({}, named)))
    expect(new Set(replies.map(({ body }) => body.record_id)).size).toBe(1)
    expect(replies.every(({ status }) => status === 201)).toBe(true)
  })

  it('refuses the same name for another body, or another route', async () => {
    const running = await run()
    const { body } = await running.admin.start({}, named)
    await refused(running, () => running.admin.start({ session_notes: 'other' }, named), 422, 'idempotency-key-reused')
    await refused(running, () => running.admin.end({ session_id: body.session_id }, named), 422, 'idempotency-key-reused')
    await refused(running, () => running.admin.append(body.session_id, said('x'), named), 422, 'idempotency-key-reused')
  })

  it('keeps the names of different callers apart', async () => {
    const running = await run()
    const device = await running.admin.device({ users: 'all' })
    const first = await running.admin.start({ kind: 'therapy' }, named)
    const second = await device.start({ kind: 'therapy' }, named)
    expect(second.body.session_id).not.toBe(first.body.session_id)
  })

  it('gives an array of records the same answer again', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    await running.admin.append(body.session_id, said('before'))
    const first = await running.admin.append(body.session_id, [said('one'), said('two')], named)
    await running.admin.append(body.session_id, said('after'))
    await running.admin.end({ session_id: body.session_id })
    expect(await running.admin.append(body.session_id, [said('one'), said('two')], named)).toMatchObject({
      status: 201,
      body: first.body,
    })
  })

  it('shares one command_id among the records of one command, and has none where there is no name', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    await running.admin.append(body.session_id, [said('one'), said('two')], named)
    const { body: log } = await running.admin.get(`/api/v1/sessions/${body.session_id}/records`)
    const ids = log.records.map(({ command_id }: { command_id?: string }) => command_id)
    expect(ids[0]).toBeUndefined()
    expect(ids[1]).toMatch(/^[\w-]{22}\.[\w-]{22}$/)
    expect(ids[2]).toBe(ids[1])
  })

  it.each([
    ['an object', (record: object) => record],
    ['an array', (record: object) => [record, { ...record, data: { text: 'two' } }]],
  ])('knows records appended as %s by the digest of their JSON, and tells them from any other', async (_, bodyOf) => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const data = { '"quoted"\n': 'é,"data":{', b: [null, 1e21, { '': '' }], a: 2, 1: true }
    const record = { type: 'x.maker.any', source: 'any-1.2_3', user_id: 'ada', performer_id: 'device.7-_', data }
    const body = bodyOf(record)
    expect((await running.admin.append(session_id, body, named)).status).toBe(201)
    const records = (await running.admin.get(`/api/v1/sessions/${session_id}/records`)).body.records.slice(1)
    expect(records[0].data).toEqual(data)
    const asked = JSON.stringify({ session_id, many: Array.isArray(body), records: [body].flat() })
    const digest = hash('sha256', `POST /api/v1/sessions/{session_id}/records\n${asked}`, 'base64url')
    for (const { command_id } of records) expect(command_id.slice(23)).toBe(digest.slice(0, 22))
    const others = { type: 'x.maker.other', source: 'another', data: { ...data, a: 3 }, user_id: 'bob', performer_id: 'other' }
    for (const [field, value] of Object.entries(others)) {
      const other = bodyOf({ ...record, [field]: value })
      await refused(running, () => running.admin.append(session_id, other, named), 422, 'idempotency-key-reused')
    }
    const whole = Array.isArray(body) ? body.slice(0, 1) : [body]
    await refused(running, () => running.admin.append(session_id, whole, named), 422, 'idempotency-key-reused')
  })

  it.each([
    ['a restart', (running: Running) => running.restart()],
    [
      'a rebuild',
      async (running: Running) => {
        await running.stop()
        rmSync(join(running.home, 'projections'), { recursive: true })
        return run(running.home)
      },
    ],
  ])('is known again after %s', async (_, again) => {
    const running = await run()
    const first = await running.admin.start({}, named)
    const second = await again(running)
    expect(await second.admin.start({}, named)).toMatchObject({ status: 201, body: first.body })
    await refused(second, () => second.admin.start({ kind: 'therapy' }, named), 422, 'idempotency-key-reused')
  })

  it('does not remember a refusal: what was refused may succeed later under the same name', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    await refused(running, () => running.admin.start({}, named), 409, 'session-already-active')
    await running.admin.end({ session_id: body.session_id })
    expect((await running.admin.start({}, named)).status).toBe(201)
  })

  it('refuses a name that is none', async () => {
    const running = await run()
    for (const key of ['a b', 'x'.repeat(256)])
      await refused(running, () => running.admin.start({}, { 'idempotency-key': key }), 400, 'invalid')
  })

  it('shows a new key’s secret in the first answer only', async () => {
    const running = await run()
    const make = () => running.admin.post('/api/v1/keys', { account_id: 'd1', users: ['ada'] }, named)
    const [first, again] = [await make(), await make()]
    expect(first.body.secret).toMatch(/^sessile_/)
    const { secret: _, ...rest } = first.body
    expect(again).toMatchObject({ status: 201, body: rest })
    expect(again.body.secret).toBeUndefined()
  })
})
