import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { TOTP } from 'otpauth'
import { describe, expect, it } from 'vitest'
import { BadConfig, readConfig } from '../src/config.ts'
import type { SecondFactor, Settings } from '../src/core/settings.ts'
import { Browser } from './browser.ts'
import { settingsOf } from './config.ts'
import { Client, clockAt, PASSWORD, type Reply, type Running, refused, run, type SignedIn } from './harness.ts'
import { identityProvider } from './provider.ts'

/** Somebody with an app on the phone, whose clock may be off. */
interface Phone {
  who: SignedIn
  secret: string
  recovery: string[]
  code: (seconds?: number) => string
}

type Clock = ReturnType<typeof clockAt>

async function withPhone(running: Running, clock: Clock): Promise<Phone> {
  const who = await running.admin.account({ role: 'therapist', account_id: 'ada' })
  const { body } = await who.post('/api/v1/account/totp', { password: PASSWORD })
  const app = new TOTP({ secret: body.secret })
  const code = (seconds = 0) => app.generate({ timestamp: clock.now() + seconds * 1000 })
  const { status, body: told } = await who.post('/api/v1/account/totp/confirm', { code: code() })
  expect(status).toBe(200)
  clock.move(30)
  return { who, secret: body.secret, recovery: told.recovery_codes, code }
}

const signIn = ({ anyone }: Running, { who }: Phone, code?: string): Promise<Reply> =>
  anyone.post('/api/v1/sign-in', { name: who.name, password: PASSWORD, ...(code === undefined ? {} : { code }) })

async function begun(): Promise<{ running: Running; clock: Clock; phone: Phone }> {
  const clock = clockAt('2031-05-02T12:00:00Z')
  const running = await run(undefined, {}, clock)
  return { running, clock, phone: await withPhone(running, clock) }
}

describe('a second factor', () => {
  it('is asked for from when a code confirms it, and not before', async () => {
    const clock = clockAt('2031-05-02T12:00:00Z')
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account()
    await ada.post('/api/v1/account/totp', { password: PASSWORD })
    await running.anyone.signIn(ada.name)
    const { body } = await ada.post('/api/v1/account/totp', { password: PASSWORD })
    expect(body).toMatchObject({
      secret: expect.stringMatching(/^[A-Z2-7]{32}$/),
      uri: expect.stringMatching(/^otpauth:\/\/totp\//),
    })
    await refused(running, () => ada.post('/api/v1/account/totp/confirm', { code: 'not-the-code' }), 403, 'code-wrong')
    const code = new TOTP({ secret: body.secret }).generate({ timestamp: clock.now() })
    const confirmed = await ada.post('/api/v1/account/totp/confirm', { code })
    expect(new Set(confirmed.body.recovery_codes).size).toBe(10)
    // Each is 24 letters and digits of 32.
    for (const one of confirmed.body.recovery_codes) expect(one).toMatch(/^(?:[a-z2-7]{4}-){5}[a-z2-7]{4}$/)
    expect((await ada.get('/api/v1/account')).body.second_factor).toBe(true)
    const again = () => running.anyone.post('/api/v1/sign-in', { name: ada.name, password: PASSWORD })
    await refused(running, again, 401, 'second-factor-required')
    await refused(running, () => ada.post('/api/v1/account/totp', { password: PASSWORD }), 409, 'factor-exists')
    await refused(running, () => ada.post('/api/v1/account/totp/confirm', { code }), 404, 'factor-not-found')
  })

  it('is set up and taken away by whoever knows the password, and not by a session that was left open', async () => {
    const { running, phone } = await begun()
    const other = await running.admin.account()
    await refused(running, () => other.post('/api/v1/account/totp', {}), 403, 'password-wrong')
    await refused(running, () => other.post('/api/v1/account/totp', { password: 'another one' }), 403, 'password-wrong')
    await refused(running, () => running.admin.post('/api/v1/account/totp', { password: PASSWORD }), 403, 'not-signed-in')
    const remove = (body: object) => () => phone.who.post('/api/v1/account/totp/remove', body)
    await refused(running, remove({ code: phone.code() }), 403, 'password-wrong')
    await refused(running, remove({ password: PASSWORD, code: '000000' === phone.code() ? '000001' : '000000' }), 403, 'code-wrong')
    expect((await remove({ password: PASSWORD, code: phone.code() })()).status).toBe(200)
    expect((await signIn(running, phone)).status).toBe(201)
    await refused(running, remove({ password: PASSWORD, code: phone.code() }), 404, 'factor-not-found')
  })

  it('takes each code once, also of two that come at once, and none of an earlier time after a later one', async () => {
    const { running, clock, phone } = await begun()
    const code = phone.code()
    expect((await signIn(running, phone, code)).status).toBe(201)
    await refused(running, () => signIn(running, phone, code), 401, 'sign-in-failed')
    await refused(running, () => signIn(running, phone, phone.code(-30)), 401, 'sign-in-failed')
    clock.move(30)
    const replies = await Promise.all(Array.from({ length: 4 }, () => signIn(running, phone, phone.code())))
    expect(replies.map(({ status }) => status).sort()).toEqual([201, 401, 401, 401])
  })

  it('takes a code of half a minute earlier or later, and none beyond', async () => {
    const { running, clock, phone } = await begun()
    clock.move(300)
    for (const seconds of [-60, 60])
      await refused(running, () => signIn(running, phone, phone.code(seconds)), 401, 'sign-in-failed')
    expect((await signIn(running, phone, phone.code(-30))).status).toBe(201)
    clock.move(300)
    expect((await signIn(running, phone, phone.code(30))).status).toBe(201)
  })

  it('tells nothing of the code to whoever does not know the password', async () => {
    const { running, phone } = await begun()
    for (const code of [undefined, '000000', phone.code()]) {
      const ask = () => running.anyone.post('/api/v1/sign-in', { name: phone.who.name, password: 'a wrong one', code })
      await refused(running, ask, 401, 'sign-in-failed')
    }
    // A code that came with a wrong password was not taken by it.
    expect((await signIn(running, phone, phone.code())).status).toBe(201)
  })

  it('gives way to a recovery code, each of which works once, however it is written', async () => {
    const { running, phone } = await begun()
    const [first, second] = phone.recovery as [string, string]
    expect((await signIn(running, phone, first)).status).toBe(201)
    await refused(running, () => signIn(running, phone, first), 401, 'sign-in-failed')
    const written = second.toUpperCase().replaceAll('-', ' ')
    const replies = await Promise.all([signIn(running, phone, written), signIn(running, phone, second)])
    expect(replies.map(({ status }) => status).sort()).toEqual([201, 401])
    await refused(running, () => signIn(running, phone, 'aaaa-aaaa-aaaa-aaaa'), 401, 'sign-in-failed')
  })

  it('is taken away by an admin for somebody who lost everything', async () => {
    const { running, phone } = await begun()
    const other = await running.admin.account({ role: 'therapist' })
    await refused(running, () => other.post('/api/v1/accounts/ada/totp/remove', {}), 403, 'forbidden')
    expect((await running.admin.post('/api/v1/accounts/ada/totp/remove', {})).status).toBe(200)
    await refused(running, () => running.admin.post('/api/v1/accounts/ada/totp/remove', {}), 404, 'factor-not-found')
    expect((await signIn(running, phone)).status).toBe(201)
  })

  it('is asked for as well after an admin has invited its owner anew, who forgot the password', async () => {
    const { running, phone } = await begun()
    const { body } = await running.admin.post('/api/v1/accounts/ada/invite', {})
    const accept = { token: body.token, password: PASSWORD }
    expect((await running.anyone.post('/api/v1/invitations/accept', accept)).status).toBe(200)
    await refused(running, () => signIn(running, phone), 401, 'second-factor-required')
    expect((await signIn(running, phone, phone.code())).status).toBe(201)
  })

  it('holds after a restart, and stands in no log in a form that anybody could use', async () => {
    const { running, clock, phone } = await begun()
    running.sessile.log.settle()
    const log = readFileSync(join(running.home, 'logs/accounts/ada.jsonl'), 'utf8')
    for (const secret of [phone.secret, phone.recovery[0] as string, (phone.recovery[0] as string).replaceAll('-', '')])
      expect(log).not.toContain(secret)
    const again = await running.restart()
    clock.move(30)
    await refused(again, () => signIn(again, phone), 401, 'second-factor-required')
    expect((await signIn(again, phone, phone.code())).status).toBe(201)
  })
})

describe('a second factor that is demanded', () => {
  /** Of whom it is demanded; a therapist and a patient who signed in with a password alone. */
  async function demanding(secondFactor: SecondFactor, more: Partial<Settings> = {}) {
    const clock = clockAt('2031-05-02T12:00:00Z')
    const running = await run(undefined, { settings: settingsOf({ secondFactor, ...more }) }, clock)
    const thea = await running.admin.account({ role: 'therapist', account_id: 'thea' })
    const ada = await running.admin.account({ account_id: 'ada' })
    return { running, clock, thea, ada }
  }
  const setUp = async (who: SignedIn, clock: Clock) => {
    const { body } = await who.post('/api/v1/account/totp', { password: PASSWORD })
    const code = () => new TOTP({ secret: body.secret }).generate({ timestamp: clock.now() })
    expect((await who.post('/api/v1/account/totp/confirm', { code: code() })).status).toBe(200)
    clock.move(30)
    return code
  }

  it('of nobody keeps nobody from anything', async () => {
    const { thea, ada } = await demanding('off')
    expect((await thea.get('/api/v1/sessions')).status).toBe(200)
    expect((await ada.get('/api/v1/users/ada/sessions')).status).toBe(200)
  })

  it('of the staff lets them set one up and sign in with it, and nothing else; patients and keys as before', async () => {
    const { running, clock, thea, ada } = await demanding('staff')
    await refused(running, () => thea.get('/api/v1/sessions'), 403, 'second-factor-missing')
    await refused(running, () => thea.start({ user_id: 'ada', performer_id: 'thea' }), 403, 'second-factor-missing')
    const access = { user_id: 'ada', reason: 'nobody else is here tonight' }
    await refused(running, () => thea.post('/api/v1/emergency-access', access), 403, 'second-factor-missing')
    expect((await ada.get('/api/v1/users/ada/sessions')).status).toBe(200)
    expect((await (await running.admin.device({ users: ['ada'] })).start()).status).toBe(201)
    const boss = await running.admin.account({ role: 'admin' })
    await refused(running, () => boss.get('/api/v1/keys'), 403, 'second-factor-missing')
    await refused(running, () => boss.post('/api/v1/keys', { account_id: 'x', users: 'all' }), 403, 'second-factor-missing')
    expect((await thea.get('/api/v1/account')).body.second_factor).toBe(false)
    expect((await running.anyone.post('/api/v1/refresh', { refresh_token: thea.refresh_token })).status).toBe(200)
    const code = await setUp(thea, clock)
    const again = await running.anyone.signIn(thea.name, PASSWORD, { code: code() })
    expect((await again.get('/api/v1/sessions')).status).toBe(200)
    const { body } = await running.anyone.post('/api/v1/refresh', { refresh_token: again.refresh_token })
    expect((await new Client(running.url, body.access_token).get('/api/v1/sessions')).status).toBe(200)
    expect((await thea.post('/api/v1/sign-out', {})).status).toBe(200)
  })

  it('opens nothing to a sign-in that was there before: somebody else may know the password', async () => {
    const { running, clock, ada } = await demanding('all')
    const thief = await running.anyone.signIn(ada.name)
    await refused(running, () => ada.get('/api/v1/users/ada/sessions'), 403, 'second-factor-missing')
    const code = await setUp(ada, clock)
    for (const one of [ada, thief])
      await refused(running, () => one.get('/api/v1/users/ada/sessions'), 403, 'second-factor-missing')
    const again = await running.anyone.signIn(ada.name, PASSWORD, { code: code() })
    expect((await again.get('/api/v1/users/ada/sessions')).status).toBe(200)
    clock.move(30)
    const same = await running.restart()
    expect((await new Client(same.url, again.key).get('/api/v1/users/ada/sessions')).status).toBe(200)
    await refused(same, () => new Client(same.url, thief.key).get('/api/v1/users/ada/sessions'), 403, 'second-factor-missing')
  })

  it('is missing again from the moment it is taken away', async () => {
    const { running, clock, ada } = await demanding('all')
    const code = await setUp(ada, clock)
    const again = await running.anyone.signIn(ada.name, PASSWORD, { code: code() })
    expect((await again.get('/api/v1/users/ada/sessions')).status).toBe(200)
    expect((await running.admin.post('/api/v1/accounts/ada/totp/remove', {})).status).toBe(200)
    await refused(running, () => again.get('/api/v1/users/ada/sessions'), 403, 'second-factor-missing')
  })

  it('tells whoever lacks it nothing of what is there, whether or not that is concealed', async () => {
    for (const conceal of [false, true]) {
      const { running, ada } = await demanding('all', { conceal })
      const { session_id } = (await running.admin.start({ user_id: 'ada' })).body
      const ask = (id: string) => () => ada.get(`/api/v1/sessions/${id}`, { 'x-request-id': 'one' })
      const absent = 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
      const [there, nowhere] = [await ask(session_id)(), await ask(absent)()]
      expect(there.body).toMatchObject({ status: 403, reason: 'second-factor-missing' })
      expect(nowhere.body).toEqual(there.body)
    }
  })

  it('is left to the identity provider where one signs in through that', async () => {
    const provider = await identityProvider(() => Date.parse('2031-05-02T12:00:00Z'))
    const { running } = await demanding('all', { identity: provider.identity })
    await running.admin.post('/api/v1/accounts', { name: 'bob@sessile.example', role: 'therapist' })
    const browser = new Browser(running.url)
    const { body } = await browser.post('/api/v1/identity/begin', {})
    const back = provider.visit(body.url, { sub: 'subject-b', email: 'bob@sessile.example', email_verified: true })
    expect((await browser.post('/api/v1/identity/finish', { ...back, as: 'cookies' })).status).toBe(201)
    expect((await browser.get('/api/v1/sessions')).status).toBe(200)
  })

  it('is a setting: of nobody at first, of the staff, or of all', () => {
    const demandedOf = (text?: string) =>
      readConfig(text === undefined ? {} : { SESSILE_SECOND_FACTOR: text }).settings.secondFactor
    expect([demandedOf(), demandedOf(''), demandedOf('off'), demandedOf('staff'), demandedOf('all')]).toEqual([
      ...['off', 'off', 'off', 'staff', 'all'],
    ])
    expect(() => demandedOf('on')).toThrow(BadConfig)
  })
})
