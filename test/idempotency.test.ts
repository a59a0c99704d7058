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
