import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Browser } from './browser.ts'
import { settingsOf } from './config.ts'
import { type Client, linesIn, PASSWORD, type Running, refused, run, type SignedIn } from './harness.ts'

const signIn = ({ anyone }: Running, name: string, password = PASSWORD) => anyone.post('/api/v1/sign-in', { name, password })
const OTHER = 'another that nobody guesses'

describe('POST /api/v1/sign-in', () => {
  it('tells one answer for a wrong password, an unknown name, a deactivated account and one without a password', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const bob = await running.admin.account({ account_id: 'bob' })
    await running.admin.post('/api/v1/accounts/bob/deactivate', {})
    await running.admin.post('/api/v1/accounts', { name: 'invited@sessile.example', role: 'patient' })
    const bodies = []
    for (const [name, password] of [
      [ada.name, 'a wrong password'],
      ['nobody@sessile.example', PASSWORD],
      [bob.name, PASSWORD],
      ['invited@sessile.example', PASSWORD],
    ] as const) {
      const { request_id: _, ...body } = await refused(running, () => signIn(running, name, password), 401, 'sign-in-failed')
      bodies.push(body)
    }
    for (const body of bodies) expect(body).toEqual(bodies[0])
    expect((await signIn(running, ada.name)).status).toBe(201)
  })

  it('hashes for an unknown name, a deactivated account and one without a password as for any other, and not for too many at once', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const bob = await running.admin.account({ account_id: 'bob' })
    await running.admin.post('/api/v1/accounts/bob/deactivate', {})
    await running.admin.post('/api/v1/accounts', { name: 'invited@sessile.example', role: 'patient' })
    for (const name of [ada.name, 'nobody@sessile.example', bob.name, 'invited@sessile.example']) {
      const replies = await Promise.all(Array.from({ length: 200 }, () => signIn(running, name, 'a wrong password')))
      // Where nothing were hashed, nobody would have to wait, let alone come again.
      const reasons = new Set(replies.map(({ body }) => body.reason))
      expect([name, ...reasons].sort()).toEqual([name, 'overloaded', 'sign-in-failed'].sort())
    }
    expect((await signIn(running, ada.name)).status).toBe(201)
  })

  it('refuses what does not fit with 422', async () => {
    const running = await run()
    const post = (body: object) => () => running.anyone.post('/api/v1/sign-in', body)
    await refused(running, post({ name: 'ada@sessile.example' }), 422, 'invalid')
    await refused(running, post({ name: 'a name', password: PASSWORD }), 422, 'invalid')
    await refused(running, post({ name: 'ada@sessile.example', password: PASSWORD, as: 'else' }), 422, 'invalid')
  })

  it('refuses every password where passwords are off', async () => {
    const running = await run(undefined, { settings: settingsOf({ passwords: false }) })
    await refused(running, () => signIn(running, 'ada@sessile.example'), 409, 'passwords-off')
  })
})

describe('POST /api/v1/account/password', () => {
  const change = (who: Client, password: string, new_password: string) =>
    who.post('/api/v1/account/password', { password, new_password })

  it('changes it, and ends every other sign-in', async () => {
    const running = await run()
    const here = await running.admin.account({ account_id: 'ada' })
    const there = await running.anyone.signIn(here.name)
    expect((await change(here, PASSWORD, OTHER)).status).toBe(200)
    expect((await here.get('/api/v1/account')).status).toBe(200)
    await refused(running, () => there.get('/api/v1/account'), 401, 'unauthenticated')
    const { refresh_token } = there
    await refused(running, () => running.anyone.post('/api/v1/refresh', { refresh_token }), 401, 'refresh-failed')
    await refused(running, () => signIn(running, here.name), 401, 'sign-in-failed')
    expect((await signIn(running, here.name, OTHER)).status).toBe(201)
  })

  it('refuses without the present one, and to those who have none', async () => {
    const running = await run()
    const ada = await running.admin.account()
    await refused(running, () => change(ada, 'not the one that it is', OTHER), 403, 'password-wrong')
    await refused(running, () => change(running.admin, PASSWORD, OTHER), 403, 'not-signed-in')
    const device = await running.admin.device()
    await refused(running, () => change(device, PASSWORD, OTHER), 403, 'forbidden')
  })

  it('lets one of two that come at once win', async () => {
    const running = await run()
    const ada = await running.admin.account()
    const replies = await Promise.all([change(ada, PASSWORD, OTHER), change(ada, PASSWORD, `${OTHER} either`)])
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 403])
  })

  it.each([
    ['elevenchars', 422, 'invalid'],
    ['x'.repeat(129), 422, 'invalid'],
    ['123456789123456789', 422, 'password-weak'],
    ['QwertyUiop123', 422, 'password-weak'],
    ['abababababab', 422, 'password-weak'],
    ['my name is ADA-1 you know', 422, 'password-weak'],
    // Twelve letters for the eye, and eleven when each is written in one way.
    ['e\u0301leven char', 422, 'password-weak'],
  ])('refuses %s', async (password, status, reason) => {
    const running = await run()
    const ada = await running.admin.account({ name: 'ada-1@sessile.example' })
    await refused(running, () => change(ada, PASSWORD, password), status, reason)
  })

  it('takes whatever else is long enough, and knows it again however it is written', async () => {
    const running = await run()
    const ada = await running.admin.account()
    expect((await change(ada, PASSWORD, 'caf\u00e9 und ein Stück Kuchen 🍰')).status).toBe(200)
    expect((await signIn(running, ada.name, 'cafe\u0301 und ein Stück Kuchen 🍰')).status).toBe(201)
  })
})

describe('POST /api/v1/sign-out', () => {
  it('ends this sign-in, or all of them', async () => {
    const running = await run()
    const first = await running.admin.account()
    const [second, third] = [await running.anyone.signIn(first.name), await running.anyone.signIn(first.name)]
    expect((await first.post('/api/v1/sign-out', {})).status).toBe(200)
    await refused(running, () => first.get('/api/v1/account'), 401, 'unauthenticated')
    expect((await second.get('/api/v1/account')).body.signins).toHaveLength(2)
    expect((await second.post('/api/v1/sign-out', { everywhere: true })).status).toBe(200)
    for (const one of [second, third]) {
      await refused(running, () => one.get('/api/v1/account'), 401, 'unauthenticated')
      const { refresh_token } = one
      await refused(running, () => running.anyone.post('/api/v1/refresh', { refresh_token }), 401, 'refresh-failed')
    }
    await refused(running, () => running.admin.post('/api/v1/sign-out', {}), 403, 'not-signed-in')
  })

  it('ends one on another device by its id, and nobody else’s', async () => {
    const running = await run()
    const ada = await running.admin.account()
    const phone = await running.anyone.signIn(ada.name, PASSWORD, { device: 'the phone' })
    const bob = await running.admin.account()
    const { body } = await ada.get('/api/v1/account')
    expect(body).toMatchObject({ role: 'patient', second_factor: false, name: ada.name })
    expect(body.signins).toMatchObject([
      { signin_id: phone.signin_id, device: 'the phone', asking: false },
      { signin_id: ada.signin_id, device: null, asking: true },
    ])
    const end = (who: SignedIn) => () => who.post(`/api/v1/account/signins/${phone.signin_id}/end`, {})
    await refused(running, end(bob), 404, 'signin-not-found')
    expect((await end(ada)()).status).toBe(200)
    await refused(running, end(ada), 404, 'signin-not-found')
    await refused(running, () => phone.get('/api/v1/account'), 401, 'unauthenticated')
  })
})

describe('POST /api/v1/sign-up', () => {
  const signUp = ({ anyone }: Running, name: string, password = PASSWORD) => anyone.post('/api/v1/sign-up', { name, password })

  it('is off unless the deployment says otherwise', async () => {
    const running = await run()
    await refused(running, () => signUp(running, 'ada@sessile.example'), 403, 'sign-up-off')
  })

  it('makes a patient, and tells the same of a name that is taken', async () => {
    const running = await run(undefined, { settings: settingsOf({ signUp: true }) })
    const first = await signUp(running, 'ada@sessile.example')
    expect(first).toMatchObject({ status: 200, body: { taken: true } })
    const ada = await running.anyone.signIn('ada@sessile.example')
    expect((await ada.get('/api/v1/account')).body).toMatchObject({ role: 'patient', account_id: expect.stringMatching(/^acc_/) })
    const second = await signUp(running, 'ADA@sessile.example', OTHER)
    expect([second.status, second.body]).toEqual([first.status, first.body])
    await refused(running, () => signIn(running, ada.name, OTHER), 401, 'sign-in-failed')
    running.sessile.log.settle()
    expect(linesIn(join(running.home, `logs/accounts/${ada.account_id}.jsonl`)).at(-1)).toMatchObject({
      type: 'account.sought',
      performer_id: 'anonymous',
    })
    await refused(running, () => signUp(running, 'bob@sessile.example', 'bob@sessile.example'), 422, 'password-weak')
  })
})

describe('a browser', () => {
  const ours = (running: Running) => new Browser(running.url)
  const enter = (browser: Browser, name: string) => browser.post('/api/v1/sign-in', { name, password: PASSWORD, as: 'cookies' })

  it('carries tokens that no script sees, is refreshed by them, and lets go of them at the end', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const browser = ours(running)
    const { status, body } = await enter(browser, ada.name)
    expect(status).toBe(201)
    expect(Object.keys(body).sort()).toEqual(['access_expires_in', 'account_id', 'expires_at', 'signin_id'])
    expect(browser.told.map((line) => line.replace(/=ey[\w.-]+/, '=TOKEN'))).toEqual([
      'sessile-access=TOKEN; Path=/; Max-Age=1800; HttpOnly; SameSite=Strict',
      'sessile-refresh=TOKEN; Path=/api/v1/refresh; Max-Age=604800; HttpOnly; SameSite=Strict',
    ])
    expect((await browser.get('/api/v1/account')).status).toBe(200)
    expect((await browser.start({ performer_id: 'ada' })).status).toBe(201)
    const before = browser.cookies.get('sessile-refresh')?.value
    const refreshed = await browser.post('/api/v1/refresh', {})
    expect([refreshed.status, refreshed.body.refresh_token]).toEqual([200, undefined])
    expect(browser.cookies.get('sessile-refresh')?.value).not.toBe(before)
    expect((await browser.post('/api/v1/sign-out', {})).status).toBe(200)
    expect([...browser.cookies.keys()]).toEqual([])
    await refused(running, () => browser.get('/api/v1/account'), 401, 'unauthenticated')
  })

  it('is given them over TLS alone, and bound to this host, where Sessile is reached from elsewhere', async () => {
    const running = await run(undefined, { reached: { url: 'https://sessile.example', secure: true, origins: [] } })
    const ada = await running.admin.account()
    const browser = ours(running)
    browser.from = { origin: 'https://sessile.example', 'sec-fetch-site': 'same-origin' }
    await enter(browser, ada.name)
    expect(browser.told.map((line) => line.replace(/=ey[\w.-]+/, '=TOKEN'))).toEqual([
      '__Host-sessile-access=TOKEN; Path=/; Max-Age=1800; HttpOnly; SameSite=Strict; Secure',
      '__Secure-sessile-refresh=TOKEN; Path=/api/v1/refresh; Max-Age=604800; HttpOnly; SameSite=Strict; Secure',
    ])
    expect((await browser.get('/api/v1/account')).status).toBe(200)
    // The address by which the request came is not the name by which browsers know it.
    const local = { origin: running.url, 'sec-fetch-site': 'same-origin' }
    await refused(running, () => browser.as(local, (one) => one.post('/api/v1/sign-out', {})), 403, 'cross-site')
  })

  const elsewhere: [string, (url: string) => Record<string, string>][] = [
    ['from another site', () => ({ origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' })],
    ['from another site, in an old browser', () => ({ origin: 'https://evil.example' })],
    ['from another port of this host', () => ({ origin: 'http://127.0.0.1:1', 'sec-fetch-site': 'same-site' })],
    ['from nowhere that it would name', () => ({ origin: 'null', 'sec-fetch-site': 'cross-site' })],
    ['with an origin that is ours and a site that is not', (url) => ({ origin: url, 'sec-fetch-site': 'cross-site' })],
    ['that says of its site alone that it is another', () => ({ 'sec-fetch-site': 'same-site' })],
    ['with nothing that tells where it comes from', () => ({})],
  ]

  it.each(elsewhere)('changes nothing by a request %s', async (_, from) => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const browser = ours(running)
    await enter(browser, ada.name)
    await browser.post('/api/v1/refresh', {})
    for (const ask of [
      (one: Browser) => one.start({ performer_id: 'ada' }),
      (one: Browser) => one.post('/api/v1/sign-out', {}),
      (one: Browser) => one.post('/api/v1/refresh', {}),
    ])
      await refused(running, () => browser.as(from(running.url), ask), 403, 'cross-site')
    expect((await browser.post('/api/v1/sign-out', {})).status).toBe(200)
  })

  it('signs nobody in from another site: the account would be that of whoever made the page', async () => {
    const running = await run()
    const ada = await running.admin.account()
    const browser = ours(running)
    const from = { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' }
    await refused(running, () => browser.as(from, (one) => enter(one, ada.name)), 403, 'cross-site')
  })

  it('may post without a header of its own, as a beacon does, where it says that it comes from here', async () => {
    const running = await run()
    const ada = await running.admin.account({ account_id: 'ada' })
    const browser = ours(running)
    await enter(browser, ada.name)
    const beacon = { origin: running.url }
    expect((await browser.as(beacon, (one) => one.start({ performer_id: 'ada' }))).status).toBe(201)
  })

  it('carries one sign-in at a time: the one before ends with the next, whoever’s it was', async () => {
    const running = await run()
    const [ada, bob] = [await running.admin.account(), await running.admin.account()]
    const browser = ours(running)
    await enter(browser, ada.name)
    const before = browser.cookies.get('sessile-access')?.value
    await enter(browser, bob.name)
    expect((await browser.get('/api/v1/account')).body.account_id).toBe(bob.account_id)
    const old = () => running.anyone.get('/api/v1/account', { cookie: `sessile-access=${before}` })
    await refused(running, old, 401, 'unauthenticated')
    expect((await ada.get('/api/v1/account')).body.signins).toHaveLength(1)
  })

  it('is refused with two cookies of one name, and with one that was tampered with', async () => {
    const running = await run()
    const ada = await running.admin.account()
    const browser = ours(running)
    await enter(browser, ada.name)
    const token = browser.cookies.get('sessile-access')?.value as string
    const asks = (cookie: string) => () => running.anyone.get('/api/v1/account', { cookie })
    expect((await asks(`other=1; sessile-access=${token}`)()).status).toBe(200)
    await refused(running, asks(`sessile-access=${token}; sessile-access=x`), 422, 'invalid')
    await refused(running, asks(`sessile-access=${token.slice(0, -2)}`), 401, 'unauthenticated')
    await refused(running, asks(`sessile-access=${ada.refresh_token}`), 401, 'unauthenticated')
    // A key is no cookie: it would be carried for every site.
    await refused(running, asks(`sessile-access=${running.admin.key}`), 401, 'unauthenticated')
  })

  it('is believed by its header where it sends one as well', async () => {
    const running = await run()
    const [ada, bob] = [await running.admin.account(), await running.admin.account()]
    const cookie = `sessile-access=${ada.key}`
    expect((await bob.get('/api/v1/account', { cookie })).body.account_id).toBe(bob.account_id)
  })
})
