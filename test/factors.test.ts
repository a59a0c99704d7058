import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { TOTP } from 'otpauth'
import { describe, expect, it } from 'vitest'
import { clockAt, PASSWORD, type Reply, type Running, refused, run, type SignedIn } from './harness.ts'

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
