import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Client, clockAt, linesIn, PASSWORD, refused, run } from './harness.ts'

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

  it('are refused under an id or a name that is taken, or that nobody may have', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const invite = (body: object) => () =>
      running.admin.post('/api/v1/accounts', { name: 'new@sessile.example', role: 'patient', ...body })
    await refused(running, invite({ account_id: 'ada' }), 409, 'account-exists')
    await refused(running, invite({ name: ada.name.toUpperCase() }), 409, 'name-taken')
    for (const account_id of ['admin', 'system', 'operator', 'anonymous'])
      await refused(running, invite({ account_id }), 422, 'reserved-account')
    for (const body of [
      { name: 'a b' },
      { name: 'é@sessile.example' },
      { role: 'device' },
      { role: 'nobody' },
      { account_id: '../x' },
    ])
      await refused(running, invite(body), 422, 'invalid')
    const therapist = await running.admin.account({ role: 'therapist' })
    await refused(running, () => therapist.post('/api/v1/accounts', { name: 'x@y.example', role: 'admin' }), 403, 'forbidden')
  })

  it('take an invitation for three days, and the latest alone', async () => {
    const clock = clockAt('2031-05-02T12:00:00Z')
    const running = await run(undefined, {}, clock)
    const { body: first } = await running.admin.post('/api/v1/accounts', {
      name: 'ada@sessile.example',
      role: 'patient',
      account_id: 'ada',
    })
    expect(first.expires_at).toBe('2031-05-05T12:00:00.000Z')
    const { body: second } = await running.admin.post('/api/v1/accounts/ada/invite', {})
    const accept =
      (token: string, password = PASSWORD) =>
      () =>
        running.anyone.post('/api/v1/invitations/accept', { token, password })
    await refused(running, accept(first.token), 404, 'invitation-not-found')
    await refused(running, accept(second.token, 'ada@sessile.example'), 422, 'password-weak')
    clock.move(3 * 24 * 3600)
    await refused(running, accept(second.token), 404, 'invitation-not-found')
    const { body: third } = await running.admin.post('/api/v1/accounts/ada/invite', {})
    const replies = await Promise.all([accept(third.token)(), accept(third.token, `${PASSWORD} twice`)()])
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 404])
  })

  it('close a link that nobody took when their password is changed', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const { body } = await running.admin.post('/api/v1/accounts/ada/invite', {})
    const change = { password: PASSWORD, new_password: 'what was forgotten came back' }
    expect((await ada.post('/api/v1/account/password', change)).status).toBe(200)
    const accept = () => running.anyone.post('/api/v1/invitations/accept', { token: body.token, password: PASSWORD })
    await refused(running, accept, 404, 'invitation-not-found')
    expect((await running.anyone.signIn(ada.name, change.new_password)).account_id).toBe('ada')
  })

  it('lose their sign-ins and their old password where a new link is taken', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const { body } = await running.admin.post('/api/v1/accounts/ada/invite', {})
    expect((await ada.get('/api/v1/account')).status).toBe(200)
    await running.anyone.post('/api/v1/invitations/accept', { token: body.token, password: 'what was forgotten is new' })
    await refused(running, () => ada.get('/api/v1/account'), 401, 'unauthenticated')
    await refused(
      running,
      () => running.anyone.post('/api/v1/sign-in', { name: ada.name, password: PASSWORD }),
      401,
      'sign-in-failed',
    )
    expect((await running.anyone.signIn(ada.name, 'what was forgotten is new')).account_id).toBe('ada')
  })

  it('are deactivated and reactivated once each, and come back without what they were signed in by', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const ask =
      (what: string, account_id = 'ada') =>
      () =>
        running.admin.post(`/api/v1/accounts/${account_id}/${what}`, {})
    const { body } = await ask('invite')()
    await refused(running, ask('reactivate'), 409, 'account-active')
    expect((await ask('deactivate')()).status).toBe(200)
    await refused(running, ask('deactivate'), 409, 'account-deactivated')
    await refused(running, ask('invite'), 409, 'account-deactivated')
    const accept = () => running.anyone.post('/api/v1/invitations/accept', { token: body.token, password: PASSWORD })
    await refused(running, accept, 404, 'invitation-not-found')
    expect((await ask('reactivate')()).status).toBe(200)
    await refused(running, () => ada.get('/api/v1/account'), 401, 'unauthenticated')
    expect((await running.anyone.signIn(ada.name)).account_id).toBe('ada')
    for (const what of ['deactivate', 'reactivate', 'invite'])
      await refused(running, ask(what, 'nobody-there'), 404, 'account-not-found')
    const move = () => running.admin.post('/api/v1/accounts/nobody-there/role', { role: 'admin' })
    await refused(running, move, 404, 'account-not-found')
  })

  it('are listed by id, some at a time, without a word of their passwords', async () => {
    const running = await run()
    for (const account_id of ['carla', 'ada', 'bob'])
      await running.admin.post('/api/v1/accounts', {
        account_id,
        name: `${account_id}@sessile.example`,
        role: account_id === 'bob' ? 'analyst' : 'patient',
      })
    await running.admin.account({ account_id: 'dora', name: 'dora@sessile.example' })
    const list = async (query: string) => (await running.admin.get(`/api/v1/accounts${query}`)).body
    const ids = (body: { accounts: { account_id: string }[] }) => body.accounts.map(({ account_id }) => account_id)
    const first = await list('?limit=3')
    expect([ids(first), first.next_after]).toEqual([['ada', 'bob', 'carla'], 'carla'])
    expect(await list('?limit=3&after=carla')).toEqual({
      accounts: [
        {
          account_id: 'dora',
          name: 'dora@sessile.example',
          role: 'patient',
          has_password: true,
          invited_until: null,
          created_at: expect.any(String),
          deactivated_at: null,
        },
      ],
      next_after: null,
    })
    expect(ids(await list('?role=analyst'))).toEqual(['bob'])
    expect(ids(await list('?name=CARLA@sessile.example'))).toEqual(['carla'])
    await refused(running, () => running.admin.get('/api/v1/accounts?limit=201'), 422, 'invalid')
  })
})
