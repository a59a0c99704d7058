import { createHmac } from 'node:crypto'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Browser } from './browser.ts'
import { settingsOf } from './config.ts'
import { type Json, later, linesIn, type Reply, type Running, refused, run } from './harness.ts'
import { type IdentityProvider, identityProvider, type Person, type Twist } from './provider.ts'

const ada: Person = { sub: 'subject-1', email: 'Ada@sessile.example', email_verified: true }

async function begun(passwords = true): Promise<{ running: Running; provider: IdentityProvider; browser: Browser }> {
  const provider = await identityProvider()
  const running = await run(undefined, { settings: settingsOf({ passwords, identity: provider.identity }) })
  await running.admin.post('/api/v1/accounts', { name: 'ada@sessile.example', role: 'therapist', account_id: 'ada' })
  return { running, provider, browser: new Browser(running.url) }
}

/** Goes to the provider, as this person, and comes back with what it said. */
async function there(browser: Browser, provider: IdentityProvider, person = ada): Promise<{ code: string; state: string }> {
  const { status, body } = await browser.post('/api/v1/identity/begin', {})
  expect(status).toBe(200)
  return provider.visit(body.url, person)
}

const finish = (browser: Browser, back: object): Promise<Reply> =>
  browser.post('/api/v1/identity/finish', { as: 'cookies', ...back })

describe('an outside identity', () => {
  it('opens the account that was invited under its address, and from then on is known by its subject', async () => {
    const { running, provider, browser } = await begun(false)
    expect(await finish(browser, await there(browser, provider))).toMatchObject({ status: 201, body: { account_id: 'ada' } })
    expect((await browser.get('/api/v1/account')).body).toMatchObject({ account_id: 'ada', role: 'therapist' })
    expect([...browser.cookies.keys()].sort()).toEqual(['sessile-access', 'sessile-refresh'])
    running.sessile.log.settle()
    const log = linesIn(join(running.home, 'logs/accounts/ada.jsonl'))
    expect(log.map(({ type, data }) => [type, data.by ?? data.subject]).slice(2)).toEqual([
      ['signin.began', 'identity'],
      ['identity.linked', 'subject-1'],
      ['account.accepted', undefined],
    ])
    // The address may change, and belong to somebody else one day.
    const later = new Browser(running.url)
    const renamed = { sub: 'subject-1', email: 'ada.married@sessile.example', email_verified: true }
    expect((await finish(later, await there(later, provider, renamed))).status).toBe(201)
    const heir = new Browser(running.url)
    const back = await there(heir, provider, { ...ada, sub: 'subject-2' })
    await refused(running, () => finish(heir, back), 403, 'identity-unknown')
  })

  it('gives tokens where no browser is to carry them, and is refreshed like any sign-in', async () => {
    const { running, provider, browser } = await begun()
    const { body } = await finish(browser, { ...(await there(browser, provider)), as: 'tokens', device: 'the ward' })
    const { status } = await running.anyone.post('/api/v1/refresh', { refresh_token: body.refresh_token })
    expect(status).toBe(200)
  })

  it('opens nothing without an invitation, for an address that the provider does not vouch for, or one that is deactivated', async () => {
    const { running, provider, browser } = await begun()
    for (const person of [
      { ...ada, email: 'eve@sessile.example' },
      { ...ada, email_verified: false },
      { sub: 'subject-1' },
      { ...ada, email_verified: 'true' as unknown as boolean },
    ]) {
      const back = await there(browser, provider, person)
      await refused(running, () => finish(browser, back), 403, 'identity-unknown')
    }
    expect((await finish(browser, await there(browser, provider))).status).toBe(201)
    await running.admin.post('/api/v1/accounts/ada/deactivate', {})
    await refused(running, () => browser.get('/api/v1/account'), 401, 'unauthenticated')
    const back = await there(browser, provider)
    await refused(running, () => finish(browser, back), 403, 'identity-unknown')
  })

  it('takes no address for another that only looks like it when it is written small', async () => {
    const { running, provider, browser } = await begun()
    await running.admin.post('/api/v1/accounts', { name: 'kim@sessile.example', role: 'patient', account_id: 'kim' })
    const kelvin = { sub: 'subject-k', email: '\u212aim@sessile.example', email_verified: true }
    const back = await there(browser, provider, kelvin)
    await refused(running, () => finish(browser, back), 403, 'identity-unknown')
    const kim = { ...kelvin, email: 'Kim@sessile.example' }
    expect((await finish(browser, await there(browser, provider, kim))).body.account_id).toBe('kim')
  })

  it('takes no account that already has a password, unless an admin invites it anew', async () => {
    const { running, provider, browser } = await begun()
    await running.admin.account({ name: 'bob@sessile.example', account_id: 'bob' })
    const bob = { sub: 'subject-b', email: 'bob@sessile.example', email_verified: true }
    const back = await there(browser, provider, bob)
    await refused(running, () => finish(browser, back), 403, 'identity-unknown')
    await running.admin.post('/api/v1/accounts/bob/invite', {})
    expect((await finish(browser, await there(browser, provider, bob))).status).toBe(201)
  })

  const twists: [string, Twist][] = [
    ['signed by a key that it has not published', { foreignKey: true }],
    ['signed by a key of another name', { header: { kid: 'another' } }],
    ['for another client', { claims: { aud: 'another' } }],
    ['for several, of which another asked', { claims: { aud: ['sessile', 'another'], azp: 'another' } }],
    ['for several, and not a word of which asked', { claims: { aud: ['sessile', 'another'] } }],
    ['from another issuer', { claims: { iss: 'https://elsewhere.example' } }],
    ['with the answer to another question', { claims: { nonce: 'another' } }],
    ['with no answer to ours', { claims: { nonce: undefined } }],
    ['that has run out', { seconds: -600 }],
    ['that never runs out', { claims: { exp: undefined } }],
    ['about nobody', { claims: { sub: undefined } }],
    ['without a signature', { raw: (token) => `${part({ alg: 'none' })}.${token.split('.')[1]}.` }],
    ['signed with the secret of the client', { raw: signedByClient }],
    ['that is no token', { raw: () => 'nothing' }],
  ]

  it.each(twists)('opens nothing by a token %s', async (_, twist) => {
    const { running, provider, browser } = await begun()
    provider.twist = twist
    const back = await there(browser, provider)
    await refused(running, () => finish(browser, back), 401, 'identity-failed')
    expect(provider.exchanges).toBe(1)
    provider.twist = {}
    expect((await finish(browser, await there(browser, provider))).status).toBe(201)
  })

  it('takes a code for the browser alone that asked for it, once, and within ten minutes', async () => {
    const { running, provider, browser } = await begun()
    const back = await there(browser, provider)
    const thief = new Browser(running.url)
    await refused(running, () => finish(thief, back), 401, 'identity-failed')
    // Another's way to the provider does not help: what a browser was sent away with is its own.
    await there(thief, provider)
    await refused(running, () => finish(thief, back), 401, 'identity-failed')
    await refused(running, () => finish(browser, { ...back, state: 'another' }), 401, 'identity-failed')
    expect(provider.exchanges).toBe(0)
    const kept = browser.cookies.get('sessile-identity')
    expect((await finish(browser, back)).status).toBe(201)
    expect(browser.cookies.get('sessile-identity')).toBeUndefined()
    if (kept) browser.cookies.set('sessile-identity', kept)
    await refused(running, () => finish(browser, back), 401, 'identity-failed')
  })

  it('sends the browser away with a challenge that only this browser can meet', async () => {
    const { provider, browser } = await begun()
    const asked = [await browser.post('/api/v1/identity/begin', {}), await browser.post('/api/v1/identity/begin', {})].map(
      ({ body }) => Object.fromEntries(new URL(body.url).searchParams) as Record<string, Json>,
    )
    expect(asked[0]).toEqual({
      response_type: 'code',
      client_id: 'sessile',
      redirect_uri: provider.identity.redirect,
      scope: 'openid email',
      state: expect.stringMatching(/^[\w-]{43}$/),
      nonce: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge: expect.stringMatching(/^[\w-]{43}$/),
      code_challenge_method: 'S256',
    })
    for (const name of ['state', 'nonce', 'code_challenge']) expect(asked[0]?.[name]).not.toBe(asked[1]?.[name])
    expect(browser.told[0]).toMatch(/^sessile-identity=[\w-]+; Path=\/api\/v1\/identity; Max-Age=600; HttpOnly; SameSite=Strict$/)
  })

  it('is refused where no provider is set up, and where it cannot be reached', async () => {
    const plain = await run()
    await refused(plain, () => plain.anyone.post('/api/v1/identity/begin', {}), 409, 'identity-off')
    await refused(plain, () => plain.anyone.post('/api/v1/identity/finish', { code: 'x', state: 'x' }), 409, 'identity-off')
    const identity = {
      issuer: 'http://127.0.0.1:9',
      clientId: 'sessile',
      clientSecret: undefined,
      redirect: 'http://127.0.0.1/welcome',
    }
    const running = await run(undefined, { settings: settingsOf({ identity }) })
    await refused(running, () => running.anyone.post('/api/v1/identity/begin', {}), 503, 'identity-unavailable')
  })
})

describe('an identity provider', () => {
  const elsewhere = 'https://elsewhere.example'
  it.each([
    ['that is somebody else by its own account', { issuer: elsewhere }, {}],
    ['that sends us somewhere else', {}, { location: `${elsewhere}/.well-known/openid-configuration` }],
  ])('%s is not asked', async (_, told, headers) => {
    const server = createServer((_, reply) => {
      const { port } = server.address() as { port: number }
      const mine = `http://127.0.0.1:${port}`
      const about = {
        issuer: mine,
        authorization_endpoint: `${mine}/a`,
        token_endpoint: `${mine}/t`,
        jwks_uri: `${mine}/k`,
        ...told,
      }
      reply.writeHead('location' in headers ? 302 : 200, headers).end(JSON.stringify(about))
    })
    later(() => void server.close())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const issuer = `http://127.0.0.1:${(server.address() as { port: number }).port}`
    const identity = { issuer, clientId: 'sessile', clientSecret: undefined, redirect: 'http://127.0.0.1/welcome' }
    const running = await run(undefined, { settings: settingsOf({ identity }) })
    await refused(running, () => running.anyone.post('/api/v1/identity/begin', {}), 503, 'identity-unavailable')
  })
})

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')

function signedByClient(token: string): string {
  const body = `${part({ alg: 'HS256', typ: 'JWT' })}.${token.split('.')[1]}`
  return `${body}.${createHmac('sha256', 'the secret of this client').update(body).digest('base64url')}`
}
