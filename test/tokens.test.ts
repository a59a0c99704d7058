// Tokens: every way in which one is not good, each refused alike, and what becomes of those that are used again.

import { createHmac, createPublicKey, randomUUID } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from 'jose'
import { describe, expect, it } from 'vitest'
import { Client, clockAt, linesIn, PASSWORD, type Running, refused, run, type SignedIn } from './harness.ts'

const NOON = '2031-05-02T12:00:00Z'

const part = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
const read = (token: string, which: 0 | 1) => JSON.parse(Buffer.from(token.split('.')[which] as string, 'base64url').toString())

/** The key that signs, as it lies among the secrets. */
function signingKey({ home }: Running): { kid: string; jwk: JWK } {
  const name = readdirSync(join(home, 'secrets')).find((file) => file.startsWith('signing-')) as string
  return JSON.parse(readFileSync(join(home, 'secrets', name), 'utf8'))
}

/** A token made of a good one, signed anew. */
async function resigned(
  running: Running,
  token: string,
  { claims = {}, header = {}, jwk }: { claims?: object; header?: object; jwk?: JWK },
): Promise<string> {
  const key = await importJWK(jwk ?? signingKey(running).jwk, 'ES256')
  return new SignJWT({ ...read(token, 1), ...claims })
    .setProtectedHeader({ ...read(token, 0), ...header })
    .sign(key, { crit: { more: true } })
}

const at = (seconds: number) => Math.floor(Date.parse(NOON) / 1000) + seconds

type Forge = (running: Running, who: SignedIn) => Promise<string>
const foreign = async () => exportJWK((await generateKeyPair('ES256', { extractable: true })).privateKey)
/** The public half, which everybody may know, taken for a shared secret. */
const byHmac: Forge = async (running, { key = '' }) => {
  const { jwk } = signingKey(running)
  const pem = createPublicKey({ key: jwk as never, format: 'jwk' }).export({ type: 'spki', format: 'pem' })
  const body = `${part({ ...read(key, 0), alg: 'HS256' })}.${key.split('.')[1]}`
  return `${body}.${createHmac('sha256', pem).update(body).digest('base64url')}`
}

const forged: Record<string, Forge> = {
  'no algorithm and no signature': async (_, { key = '' }) => `${part({ ...read(key, 0), alg: 'none' })}.${key.split('.')[1]}.`,
  'no algorithm and a signature': async (_, { key = '' }) =>
    `${part({ ...read(key, 0), alg: 'None' })}.${key.split('.').slice(1).join('.')}`,
  'a shared secret instead of a key': byHmac,
  'another algorithm': async (_, { key = '' }) => {
    const { privateKey } = await generateKeyPair('RS256')
    return new SignJWT(read(key, 1)).setProtectedHeader({ ...read(key, 0), alg: 'RS256' }).sign(privateKey)
  },
  'a foreign key': async (running, { key = '' }) => resigned(running, key, { jwk: await foreign() }),
  'a foreign key that it brings along': async (running, { key = '' }) => {
    const jwk = await foreign()
    const { d: _, ...open } = jwk
    return resigned(running, key, { jwk, header: { jwk: open } })
  },
  'a foreign key that it points at': async (running, { key = '' }) =>
    resigned(running, key, {
      jwk: await foreign(),
      header: { jku: 'https://elsewhere.example/keys', x5u: 'https://elsewhere.example' },
    }),
  'a key that nobody has': (running, { key = '' }) => resigned(running, key, { header: { kid: randomUUID() } }),
  'a key by a path': (running, { key = '' }) => resigned(running, key, { header: { kid: '../../secrets/signing' } }),
  'a key by the name of a property': (running, { key = '' }) => resigned(running, key, { header: { kid: '__proto__' } }),
  'no key': (running, { key = '' }) => resigned(running, key, { header: { kid: undefined } }),
  'a header that must be understood': (running, { key = '' }) => resigned(running, key, { header: { crit: ['more'], more: 1 } }),
  'another type': (running, { key = '' }) => resigned(running, key, { header: { typ: 'JWT' } }),
  'no type': (running, { key = '' }) => resigned(running, key, { header: { typ: undefined } }),
  'another issuer': (running, { key = '' }) => resigned(running, key, { claims: { iss: 'https://elsewhere.example' } }),
  'no issuer': (running, { key = '' }) => resigned(running, key, { claims: { iss: undefined } }),
  'another audience': (running, { key = '' }) => resigned(running, key, { claims: { aud: 'elsewhere' } }),
  'no audience': (running, { key = '' }) => resigned(running, key, { claims: { aud: undefined } }),
  'a time that is over': (running, { key = '' }) => resigned(running, key, { claims: { exp: at(0) } }),
  'no end': (running, { key = '' }) => resigned(running, key, { claims: { exp: undefined } }),
  'a time that is not yet': (running, { key = '' }) => resigned(running, key, { claims: { nbf: at(1) } }),
  'no sign-in': (running, { key = '' }) => resigned(running, key, { claims: { sid: undefined } }),
  'a sign-in that never was': (running, { key = '' }) =>
    resigned(running, key, { claims: { sid: 'sign_01ARZ3NDEKTSV4RRFFQ69G5FAV' } }),
  'the sign-in of somebody else': async (running, { key = '' }) => {
    const other = await running.admin.account({ role: 'admin' })
    return resigned(running, key, { claims: { sub: other.account_id } })
  },
  'another account, signed by nobody': async (_, { key = '' }) => {
    const [header, , signature] = key.split('.')
    return [header, part({ ...read(key, 1), sub: 'admin' }), signature].join('.')
  },
  'a letter changed in its signature': async (_, { key = '' }) => {
    const [header, body, signature = ''] = key.split('.')
    return [header, body, (signature.startsWith('A') ? 'B' : 'A') + signature.slice(1)].join('.')
  },
  'its signature cut off': async (_, { key = '' }) => key.slice(0, key.lastIndexOf('.') + 1),
  'a part too many': async (_, { key = '' }) => `${key}.x`,
  'a refresh token instead': async (_, { refresh_token }) => refresh_token,
}

describe('an access token', () => {
  it('opens what its account may, for half an hour', async () => {
    const clock = clockAt(NOON)
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account({ account_id: 'ada' })
    expect(read(ada.key as string, 0)).toEqual({ alg: 'ES256', kid: signingKey(running).kid, typ: 'at+jwt' })
    expect(read(ada.key as string, 1)).toMatchObject({ sub: 'ada', sid: ada.signin_id, aud: 'sessile', iat: at(0), exp: at(1800) })
    clock.move(1799)
    expect((await ada.get('/api/v1/account')).status).toBe(200)
    clock.move(1)
    await refused(running, () => ada.get('/api/v1/account'), 401, 'unauthenticated')
  })

  it.each(Object.entries(forged))('with %s opens nothing', async (_, forge) => {
    const running = await run(undefined, {}, clockAt(NOON))
    const ada = await running.admin.account({ role: 'admin', account_id: 'ada' })
    const other = new Client(running.url, await forge(running, ada))
    const reply = await refused(running, () => other.get('/api/v1/sessions'), 401, 'unauthenticated')
    // However it was wrong, the answer is that of no token at all.
    const none = await running.anyone.get('/api/v1/sessions')
    expect({ ...reply, request_id: '' }).toEqual({ ...none.body, request_id: '' })
    expect((await ada.get('/api/v1/sessions')).status).toBe(200)
  })

  it('that was signed anew without a change opens what the first did: so the others were refused for what they were', async () => {
    const running = await run(undefined, {}, clockAt(NOON))
    const ada = await running.admin.account({ role: 'admin' })
    const same = new Client(running.url, await resigned(running, ada.key as string, {}))
    expect((await same.get('/api/v1/sessions')).status).toBe(200)
  })

  it('follows the role that its account has at this moment', async () => {
    const running = await run()
    const ada = await running.admin.account({ role: 'admin', account_id: 'ada' })
    expect((await ada.get('/api/v1/keys')).status).toBe(200)
    await running.admin.post('/api/v1/accounts/ada/role', { role: 'patient' })
    await refused(running, () => ada.get('/api/v1/keys'), 403, 'forbidden')
  })
})

describe('POST /api/v1/refresh', () => {
  const refresh = ({ anyone }: Running, refresh_token: string) => anyone.post('/api/v1/refresh', { refresh_token })

  it('gives new tokens for one that is good, which is then good no more', async () => {
    const clock = clockAt(NOON)
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account({ account_id: 'ada' })
    clock.move(3600)
    const first = await refresh(running, ada.refresh_token)
    expect(first).toMatchObject({ status: 200, body: { account_id: 'ada', signin_id: ada.signin_id, access_expires_in: 1800 } })
    expect((await new Client(running.url, first.body.access_token).get('/api/v1/account')).status).toBe(200)
    clock.move(3600)
    expect((await refresh(running, first.body.refresh_token)).status).toBe(200)
  })

  it('ends the whole sign-in when an old token comes again, and says nothing else than that it is not good', async () => {
    const clock = clockAt(NOON)
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account({ account_id: 'ada' })
    const elsewhere = await running.anyone.signIn(ada.name)
    const { body } = await refresh(running, ada.refresh_token)
    clock.move(60)
    expect(await refresh(running, ada.refresh_token)).toMatchObject({ status: 401, body: { reason: 'refresh-failed' } })
    running.sessile.log.settle()
    expect(linesIn(join(running.home, 'logs/accounts/ada.jsonl')).at(-1)).toMatchObject({
      type: 'signin.ended',
      performer_id: 'system',
      data: { signin_id: ada.signin_id, why: 'token-reused' },
    })
    await refused(running, () => refresh(running, body.refresh_token), 401, 'refresh-failed')
    const latest = new Client(running.url, body.access_token)
    await refused(running, () => latest.get('/api/v1/account'), 401, 'unauthenticated')
    // Another sign-in of the same account is another family.
    expect((await elsewhere.get('/api/v1/account')).status).toBe(200)
  })

  it('lets one of many that come at once win, and the sign-in goes on', async () => {
    const running = await run()
    const ada = await running.admin.account()
    const replies = await Promise.all(Array.from({ length: 10 }, () => refresh(running, ada.refresh_token)))
    const won = replies.filter(({ status }) => status === 200)
    expect(won).toHaveLength(1)
    for (const reply of replies)
      if (reply !== won[0]) expect(reply).toMatchObject({ status: 409, body: { reason: 'refreshed-already' } })
    expect((await refresh(running, won[0]?.body.refresh_token)).status).toBe(200)
  })

  it('refuses the one before the last for a moment, and after that as one that was stolen', async () => {
    const clock = clockAt(NOON)
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account()
    await refresh(running, ada.refresh_token)
    clock.move(9)
    await refused(running, () => refresh(running, ada.refresh_token), 409, 'refreshed-already')
    clock.move(1)
    expect(await refresh(running, ada.refresh_token)).toMatchObject({ status: 401 })
    await refused(running, () => ada.get('/api/v1/account'), 401, 'unauthenticated')
  })

  it('refuses one that has run out after a week, and a sign-in that is a month old', async () => {
    const clock = clockAt(NOON)
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account()
    let token = ada.refresh_token
    for (let days = 0; days < 24; days += 6) {
      clock.move(6 * 24 * 3600)
      const { status, body } = await refresh(running, token)
      expect(status).toBe(200)
      token = body.refresh_token
    }
    const { body } = await refresh(running, token)
    expect(body.expires_at).toBe('2031-06-01T12:00:00.000Z')
    clock.move(6 * 24 * 3600)
    await refused(running, () => refresh(running, body.refresh_token), 401, 'refresh-failed')
    const idle = await running.anyone.signIn(ada.name)
    clock.move(7 * 24 * 3600)
    await refused(running, () => refresh(running, idle.refresh_token), 401, 'refresh-failed')
  })

  it('refuses an access token, a forged one and none', async () => {
    const running = await run(undefined, {}, clockAt(NOON))
    const ada = await running.admin.account()
    const changed = await resigned(running, ada.refresh_token, { jwk: await foreign() })
    for (const token of [ada.key as string, changed, 'none'])
      await refused(running, () => refresh(running, token), 401, 'refresh-failed')
    await refused(running, () => running.anyone.post('/api/v1/refresh', {}), 401, 'refresh-failed')
    expect((await refresh(running, ada.refresh_token)).status).toBe(200)
  })

  it('knows an old token again after a restart', async () => {
    const clock = clockAt(NOON)
    const running = await run(undefined, {}, clock)
    const ada = await running.admin.account()
    const { body } = await refresh(running, ada.refresh_token)
    const again = await running.restart()
    clock.move(60)
    expect((await refresh(again, ada.refresh_token)).status).toBe(401)
    await refused(again, () => refresh(again, body.refresh_token), 401, 'refresh-failed')
  })

  it('takes no name for the request, since not even a digest of the token is recorded', async () => {
    const running = await run()
    const { refresh_token } = await running.admin.account()
    const named = () => running.anyone.post('/api/v1/refresh', { refresh_token }, { 'idempotency-key': 'one' })
    await refused(running, named, 422, 'invalid')
    const signIn = () =>
      running.anyone.post('/api/v1/sign-in', { name: 'ada@sessile.example', password: PASSWORD }, { 'idempotency-key': 'one' })
    await refused(running, signIn, 422, 'invalid')
  })
})
