import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Client, linesIn, PASSWORD, refused, run } from './harness.ts'

describe('accounts', () => {
  it('are invited, set a password by a link that works once, and sign in', async () => {
    const running = await run()
    const invited = await running.admin.post('/api/v1/accounts', {
      name: 'Ada@Sessile.Example',
      role: 'patient',
      account_id: 'ada',
    })
    expect(invited).toMatchObject({ status: 201, body: { account_id: 'ada', token: expect.stringMatching(/^invite_[\w-]{43}$/) } })
    const { token } = invited.body
    const accept = () => running.anyone.post('/api/v1/invitations/accept', { token, password: PASSWORD })
    expect(await accept()).toMatchObject({ status: 200, body: { account_id: 'ada' } })
    await refused(running, accept, 404, 'invitation-not-found')
    const ada = await running.anyone.signIn('ADA@sessile.example')
    expect((await ada.get('/api/v1/users/ada/sessions')).status).toBe(200)
    await refused(running, () => ada.get('/api/v1/users/bob/sessions'), 403, 'forbidden')
  })

  it('are records, and hold no secret', async () => {
    const running = await run()
    const ada = await running.admin.account({ role: 'therapist', account_id: 'ada' })
    running.sessile.log.settle()
    const file = join(running.home, 'logs', 'accounts', 'ada.jsonl')
    expect(linesIn(file).map(({ type, performer_id }) => `${type} by ${performer_id}`)).toEqual([
      'account.created by admin',
      'account.invited by admin',
      'account.accepted by ada',
      'password.set by ada',
      'signin.began by ada',
    ])
    const text = readFileSync(file, 'utf8')
    for (const secret of [PASSWORD, ada.key as string, ada.refresh_token]) expect(text).not.toContain(secret)
  })

  it('are refused at once when they are deactivated, and so are their keys', async () => {
    const running = await run()
    const eve = await running.admin.account({ role: 'admin', account_id: 'eve' })
    const { body } = await running.admin.post('/api/v1/keys', { account_id: 'eve', role: 'admin' })
    const byKey = new Client(running.url, body.secret)
    for (const one of [eve, byKey]) expect((await one.get('/api/v1/sessions')).status).toBe(200)
    expect((await running.admin.post('/api/v1/accounts/eve/deactivate', {})).status).toBe(200)
    for (const one of [eve, byKey]) await refused(running, () => one.get('/api/v1/sessions'), 401, 'unauthenticated')
    const signIn = () => running.anyone.post('/api/v1/sign-in', { name: eve.name, password: PASSWORD })
    await refused(running, signIn, 401, 'sign-in-failed')
    const { refresh_token } = eve
    await refused(running, () => running.anyone.post('/api/v1/refresh', { refresh_token }), 401, 'refresh-failed')
  })
})
