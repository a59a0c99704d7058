import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { ADMIN, Client, cli, linesIn, refused, run, said } from './harness.ts'

describe('keys', () => {
  it('are needed everywhere but at the health checks, the documentation, and where one signs in', async () => {
    const running = await run()
    const { body: contract } = await running.anyone.get('/openapi.json')
    const open: string[] = []
    for (const [path, operations] of Object.entries<Record<string, { security?: [] }>>(contract.paths)) {
      for (const [method, { security }] of Object.entries(operations)) {
        if (security?.length === 0) {
          open.push(path)
          continue
        }
        const at = path.replace(/\{\w+\}/g, 'x')
        await refused(
          running,
          () => running.anyone.send(method.toUpperCase(), at, method === 'post' ? {} : undefined),
          401,
          'unauthenticated',
        )
      }
    }
    expect(open).toEqual([
      '/api/v1/sign-up',
      '/api/v1/invitations/accept',
      '/api/v1/sign-in',
      '/api/v1/refresh',
      '/api/v1/identity/begin',
      '/api/v1/identity/finish',
    ])
    for (const path of ['/healthz', '/readyz', '/openapi.json', '/docs', '/welcome'])
      expect((await running.anyone.raw('GET', path)).status).toBe(200)
  })

  it.each(['', 'sessile_wrong', 'x'.repeat(5000)])('refuse the secret %.20s', async (secret) => {
    const running = await run()
    const guess = new Client(running.url, secret)
    const reply = await refused(running, () => guess.get('/api/v1/sessions'), 401, 'unauthenticated')
    expect(JSON.stringify(reply)).not.toContain('wrong')
  })

  it('stand alone in their header, so that nobody reads another there', async () => {
    const running = await run()
    const ask = (authorization: string) => () => running.anyone.get('/api/v1/keys', { authorization })
    expect((await ask(`bearer ${ADMIN}`)()).status).toBe(200)
    for (const wrong of [`Bearer ${ADMIN} ${ADMIN}`, `Bearer ${ADMIN} another`, `Bearer  ${ADMIN}`, `Basic ${ADMIN}`, ADMIN])
      await refused(running, ask(wrong), 401, 'unauthenticated')
  })

  it('reach the users in their scope, and nobody else', async () => {
    const running = await run()
    const device = await running.admin.device({ users: ['ada', 'bob'] })
    const own = await device.start()
    const foreign = await running.admin.start({ user_id: 'eve' })
    expect(own.status).toBe(201)
    const { session_id } = foreign.body
    await refused(running, () => device.start({ user_id: 'mallory' }), 403, 'forbidden')
    await refused(running, () => device.end({ user_id: 'eve', session_id }), 403, 'forbidden')
    await refused(running, () => device.append(session_id, said('x', { user_id: 'eve' })), 403, 'forbidden')
    await refused(running, () => device.append(own.body.session_id, [said('x'), said('y', { user_id: 'eve' })]), 403, 'forbidden')
    await refused(
      running,
      () => device.post('/session_manager/sessions.validate', { user_id: 'eve', session_id }),
      403,
      'forbidden',
    )
    for (const path of ['', '/records', '/records?follow=1', '/timeline']) {
      await refused(running, () => device.get(`/api/v1/sessions/${session_id}${path}`), 403, 'forbidden')
    }
    await refused(running, () => device.get('/api/v1/users/eve/sessions'), 403, 'forbidden')
    expect((await device.post('/session_manager/sessions.validate', { user_id: 'ada', session_id })).body.status).toBe('invalid')
  })

  it('of devices open nothing of the administration', async () => {
    const running = await run()
    const device = await running.admin.device({ users: 'all' })
    await refused(running, () => device.get('/api/v1/keys'), 403, 'forbidden')
    await refused(running, () => device.get('/api/v1/sessions'), 403, 'forbidden')
    await refused(running, () => device.post('/api/v1/keys', { account_id: 'x', users: 'all' }), 403, 'forbidden')
    await refused(running, () => device.post(`/api/v1/keys/${device.key_id}/revoke`, {}), 403, 'forbidden')
    for (const path of ['rebuild.goes-on', 'rebuild.ends']) {
      await refused(running, () => running.admin.post(`/operator/${path}`, {}), 403, 'forbidden')
      await refused(running, () => device.post(`/operator/${path}`, {}), 403, 'forbidden')
    }
  })

  it('are records, and their secrets are not in them', async () => {
    const { admin, sessile, home } = await run()
    const device = await admin.device({ users: ['ada'], name: 'tablet' })
    await admin.post(`/api/v1/keys/${device.key_id}/revoke`, {})
    sessile.log.settle()
    const file = join(home, 'logs', 'accounts', 'device-7.jsonl')
    expect(linesIn(file).map(({ type, user_id, performer_id, source }) => [type, user_id, performer_id, source])).toEqual([
      ['key.created', 'device-7', 'admin', 'keys'],
      ['key.revoked', 'device-7', 'admin', 'keys'],
    ])
    expect(readFileSync(file, 'utf8')).not.toContain(device.key)
    const { body } = await admin.get('/api/v1/keys')
    expect(body.keys[0]).toMatchObject({ key_id: device.key_id, name: 'tablet', users: ['ada'], revoked_at: expect.any(String) })
    expect(JSON.stringify(body)).not.toContain('sha256')
  })

  it('open nothing from the moment they are revoked, also after a restart', async () => {
    const running = await run()
    const device = await running.admin.device({ users: 'all' })
    expect((await device.start()).status).toBe(201)
    expect((await running.admin.post(`/api/v1/keys/${device.key_id}/revoke`, {})).status).toBe(200)
    await refused(running, () => device.get('/api/v1/sessions'), 401, 'unauthenticated')
    await refused(running, () => running.admin.post(`/api/v1/keys/${device.key_id}/revoke`, {}), 409, 'key-already-revoked')
    const again = await running.restart()
    const same = new Client(again.url, device.key)
    await refused(again, () => same.get('/api/v1/sessions'), 401, 'unauthenticated')
  })

  it('of an admin go with the role, and those of a device stay', async () => {
    const running = await run()
    const eve = await running.admin.account({ role: 'admin', account_id: 'eve' })
    const [admin, device] = [
      await eve.post('/api/v1/keys', { account_id: 'eve', role: 'admin' }),
      await eve.post('/api/v1/keys', { account_id: 'eve', users: ['ada'] }),
    ].map(({ body }) => new Client(running.url, body.secret)) as [Client, Client]
    expect((await admin.get('/api/v1/accounts')).status).toBe(200)
    expect((await running.admin.post('/api/v1/accounts/eve/role', { role: 'analyst' })).status).toBe(200)
    await refused(running, () => admin.get('/api/v1/accounts'), 401, 'unauthenticated')
    await refused(running, () => eve.get('/api/v1/accounts'), 403, 'forbidden')
    expect((await device.start()).status).toBe(201)
    expect((await running.admin.post('/api/v1/accounts/eve/role', { role: 'admin' })).status).toBe(200)
    const again = await running.restart()
    await refused(again, () => new Client(again.url, admin.key).get('/api/v1/accounts'), 401, 'unauthenticated')
  })

  it('of an admin reach all, and promise nothing less', async () => {
    const running = await run()
    const make = (users: unknown) => () => running.admin.post('/api/v1/keys', { account_id: 'eve', role: 'admin', users })
    await refused(running, make(['ada']), 422, 'scope-of-admin')
    expect(await make('all')()).toMatchObject({ status: 201, body: { users: 'all' } })
  })

  it('are made for no account that was deactivated', async () => {
    const running = await run()
    await running.admin.account({ role: 'admin', account_id: 'eve' })
    await running.admin.post('/api/v1/accounts/eve/deactivate', {})
    const make = (account_id: string) => () => running.admin.post('/api/v1/keys', { account_id, users: ['ada'] })
    await refused(running, make('eve'), 409, 'account-deactivated')
    expect((await make('device-9')()).status).toBe(201)
  })

  it('of an admin are made by a start where there never was one, and not where all were revoked', async () => {
    const running = await run(undefined, { adminKey: undefined })
    const admin = new Client(running.url, running.firstKey)
    const { key_id } = (await admin.get('/api/v1/keys')).body.keys[0]
    expect((await admin.post(`/api/v1/keys/${key_id}/revoke`, {})).status).toBe(200)
    const again = await running.restart()
    expect(again.firstKey).toBeUndefined()
    const made = await cli(again.home, ['keys', 'create', '--account', 'eve', '--role', 'admin'])
    expect((await new Client(again.url, made.out.trim()).get('/api/v1/keys')).body.keys).toHaveLength(2)
  })

  it('refuse what does not fit with 422, and a key that is not there with 404', async () => {
    const running = await run()
    await refused(running, () => running.admin.post('/api/v1/keys', { account_id: 'd' }), 422, 'scope-required')
    await refused(running, () => running.admin.post('/api/v1/keys', { account_id: '../d', users: 'all' }), 422, 'invalid')
    await refused(running, () => running.admin.post('/api/v1/keys', { account_id: 'd', users: [] }), 422, 'invalid')
    for (const account_id of ['operator', 'system']) {
      await refused(running, () => running.admin.post('/api/v1/keys', { account_id, users: 'all' }), 422, 'reserved-account')
    }
    await refused(running, () => running.admin.post('/api/v1/keys/key_nobody/revoke', {}), 404, 'key-not-found')
  })
})
