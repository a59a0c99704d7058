// The secrets that lie in no log: who may read them, how they are changed, and that they turn up nowhere else.

import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodeJwt, importJWK, SignJWT } from 'jose'
import { TOTP } from 'otpauth'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'
import { Secrets } from '../src/secrets.ts'
import { settingsOf } from './config.ts'
import { ADMIN, Client, cli, clockAt, filesUnder, makeHome, PASSWORD, refused, run, type SignedIn, serveApart } from './harness.ts'

const WEEK = 7 * 24 * 3600

const filesOf = (home: string, use: 'signing' | 'sealing') =>
  readdirSync(join(home, 'secrets'))
    .filter((name) => name.startsWith(use))
    .sort()

const refresh = async (url: string, { refresh_token }: Pick<SignedIn, 'refresh_token'>) =>
  new Client(url, undefined).post('/api/v1/refresh', { refresh_token })

describe('the secrets', () => {
  it('are made at the first start, for their owner alone, and kept from then on', async () => {
    const running = await run()
    const folder = join(running.home, 'secrets')
    const names = readdirSync(folder)
    expect(names.map((name) => name.replace(/-[0-9A-Z]{26}\./, '-ID.')).sort()).toEqual(['sealing-ID.json', 'signing-ID.json'])
    expect(statSync(folder).mode & 0o777).toBe(0o700)
    for (const name of names) expect([name, statSync(join(folder, name)).mode & 0o777]).toEqual([name, 0o600])
    const ada = await running.admin.account()
    const again = await running.restart()
    expect(readdirSync(folder)).toEqual(names)
    expect((await new Client(again.url, ada.key).get('/api/v1/account')).status).toBe(200)
  })

  it('are not believed where others can read them', async () => {
    const home = makeHome()
    await (await run(home)).stop()
    const file = join(home, 'secrets', filesOf(home, 'signing')[0] as string)
    for (const path of [file, join(home, 'secrets')]) {
      const { mode } = statSync(path)
      chmodSync(path, mode | 0o040)
      await expect(run(home)).rejects.toThrow(`chmod go= ${path}`)
      expect(await cli(home, ['serve'], { SESSILE_PORT: '0' })).toMatchObject({
        code: 2,
        err: expect.stringContaining('chmod go='),
      })
      chmodSync(path, mode)
    }
    expect((await run(home)).url).toMatch(/^http/)
  })

  it('are told of without a word of what stands in them where they are damaged', async () => {
    const home = makeHome()
    await (await run(home)).stop()
    for (const use of ['signing', 'sealing'] as const) {
      const file = join(home, 'secrets', filesOf(home, use)[0] as string)
      const whole = readFileSync(file, 'utf8')
      const { d, k } = JSON.parse(whole).jwk
      const secret = (d ?? k) as string
      const damages = [
        whole.slice(0, -20),
        '',
        whole.replace(`"${secret}"`, secret),
        whole.replace(secret, secret.slice(1)),
        whole.replace('"kty":"', '"kty":"X'),
        '{}',
      ]
      for (const damaged of damages) {
        writeFileSync(file, damaged)
        const { code, out, err } = await cli(home, ['serve'], { SESSILE_PORT: '0' })
        expect([code, err.split('\n').at(-2)]).toEqual([2, expect.stringContaining(`${file} holds no whole key`)])
        for (const part of [secret.slice(0, 12), secret.slice(-12)]) expect(out + err).not.toContain(part)
      }
      writeFileSync(file, whole)
    }
    expect((await run(home)).url).toMatch(/^http/)
  })

  it('where they are lost, sign everybody out, and nobody in without a password', async () => {
    const clock = clockAt('2031-05-02T12:00:00Z')
    const running = await run(undefined, {}, clock)
    const [ada, bob] = [await running.admin.account(), await running.admin.account()]
    const { body } = await bob.post('/api/v1/account/totp', { password: PASSWORD })
    const code = () => new TOTP({ secret: body.secret }).generate({ timestamp: clock.now() })
    await bob.post('/api/v1/account/totp/confirm', { code: code() })
    await running.stop()
    rmSync(join(running.home, 'secrets'), { recursive: true })
    clock.move(60)
    const again = await run(running.home, {}, clock)
    const same = new Client(again.url, ada.key)
    await refused(again, () => same.get('/api/v1/account'), 401, 'unauthenticated')
    await refused(again, () => refresh(again.url, ada), 401, 'refresh-failed')
    expect((await again.anyone.signIn(ada.name)).account_id).toBe(ada.account_id)
    const signIn = () => again.anyone.post('/api/v1/sign-in', { name: bob.name, password: PASSWORD, code: code() })
    await refused(again, signIn, 401, 'sign-in-failed')
  })

  it('turn up in no log, no answer to info, no backup and no line of the request log', async () => {
    const lines: string[] = []
    const logger = pino({ level: 'trace' }, { write: (line: string) => void lines.push(line) })
    const home = makeHome()
    const running = await run(home, { settings: settingsOf({ signUp: true }) }, undefined, { logger })
    const ada = await running.admin.account({ account_id: 'ada' })
    const { body } = await ada.post('/api/v1/account/totp', { password: PASSWORD })
    await running.anyone.post('/api/v1/sign-in', { name: ada.name, password: 'a wrong password of hers' })
    await running.anyone.post('/api/v1/sign-up', { name: 'bob@sessile.example', password: 'hers or his, who knows' })
    await refresh(running.url, ada)
    const invited = await running.admin.post('/api/v1/accounts', { name: 'eve@sessile.example', role: 'patient' })
    running.sessile.log.settle()
    await running.stop()
    const backup = join(makeHome(), 'backup')
    expect((await cli(home, ['backup', backup])).code).toBe(0)
    const info = await cli(home, ['info', '--json'])
    const keys = filesUnder(join(home, 'secrets')).map((name) => JSON.parse(readFileSync(join(home, 'secrets', name), 'utf8')).jwk)
    const secrets = [
      ...[
        PASSWORD,
        'a wrong password of hers',
        'hers or his, who knows',
        ada.key,
        ada.refresh_token,
        body.secret,
        invited.body.token,
        ADMIN,
      ],
      ...keys.map(({ d, k }) => d ?? k),
    ] as string[]
    const everything = [
      ...['logs', 'projections'].flatMap((folder) => filesUnder(join(home, folder)).map((name) => join(home, folder, name))),
      ...filesUnder(backup).map((name) => join(backup, name)),
    ].map((file) => readFileSync(file).toString('latin1'))
    for (const secret of secrets)
      for (const text of [...everything, info.out, lines.join('')]) expect(text.includes(secret)).toBe(false)
    expect(existsSync(join(backup, 'secrets'))).toBe(false)
  })
})

describe('sessile secrets', () => {
  it('rotates while a recorder runs and while none does, and signs nobody out', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const ada = await apart.admin.account()
    const [before] = filesOf(home, 'signing')
    expect((await cli(home, ['secrets', 'rotate'])).out.split('\n')).toEqual([
      expect.stringMatching(/^[0-9A-Z]{26}\t\S+\tsigns$/),
      expect.stringMatching(/^[0-9A-Z]{26}\t\S+\tchecks until \S+Z$/),
      expect.stringMatching(/^[0-9A-Z]{26}\t\S+\tseals$/),
      expect.stringMatching(/^[0-9A-Z]{26}\t\S+\topens$/),
      '',
    ])
    expect((await ada.get('/api/v1/account')).status).toBe(200)
    const { status, body } = await refresh(apart.url, ada)
    expect(status).toBe(200)
    const kid = (token: string) => JSON.parse(Buffer.from(token.split('.')[0] as string, 'base64url').toString()).kid
    expect(before).toContain(kid(ada.key as string))
    expect(before).not.toContain(kid(body.access_token))
    apart.child.kill('SIGTERM')
    await apart.ended
    expect((await cli(home, ['secrets', 'rotate', '--json'])).out.trim().split('\n')).toHaveLength(6)
    const again = await serveApart(home)
    for (const token of [ada.key, body.access_token])
      expect((await new Client(again.url, token).get('/api/v1/account')).status).toBe(200)
    expect((await cli(home, ['secrets', 'list', '--json'])).out.trim().split('\n')).toHaveLength(6)
  })

  it('rotates twice at once, and knows all that it has made', async () => {
    const running = await run()
    const { vault, source } = running.sessile
    await Promise.all([vault.rotate(source.now()), vault.rotate(source.now())])
    const uses = (await vault.list(source.now())).map(({ use }) => use)
    expect(uses).toEqual(['signs', 'checks', 'checks', 'seals', 'opens', 'opens'])
    expect((await new Secrets(running.home, running.url).list(source.now())).map(({ use }) => use)).toEqual(uses)
  })

  it('leaves everything as it was where no new key can be kept', async () => {
    const running = await run()
    const ada = await running.admin.account()
    const { vault, source } = running.sessile
    renameSync(join(running.home, 'secrets'), join(running.home, 'elsewhere'))
    await expect(vault.rotate(source.now())).rejects.toThrow('could not be kept')
    expect((await running.anyone.signIn(ada.name)).account_id).toBe(ada.account_id)
    renameSync(join(running.home, 'elsewhere'), join(running.home, 'secrets'))
    expect((await ada.get('/api/v1/account')).status).toBe(200)
    expect((await vault.list(source.now())).map(({ use }) => use)).toEqual(['signs', 'seals'])
    expect((await vault.rotate(source.now())).map(({ use }) => use)).toEqual(['signs', 'checks', 'seals', 'opens'])
  })

  it('seals second factors anew from then on, and opens those that it sealed before', async () => {
    const clock = clockAt('2031-05-02T12:00:00Z')
    const running = await run(undefined, {}, clock)
    const phones: { name: string; code: () => string }[] = []
    for (let i = 0; i < 2; i++) {
      const who = await running.admin.account()
      const { body } = await who.post('/api/v1/account/totp', { password: PASSWORD })
      const code = () => new TOTP({ secret: body.secret }).generate({ timestamp: clock.now() })
      expect((await who.post('/api/v1/account/totp/confirm', { code: code() })).status).toBe(200)
      phones.push({ name: who.name, code })
      await running.sessile.vault.rotate(clock.now())
    }
    clock.move(60)
    const [first, second] = filesOf(running.home, 'sealing')
    const again = await running.restart()
    for (const { name, code } of phones) await again.anyone.signIn(name, PASSWORD, { code: code() })
    await again.stop()
    clock.move(60)
    // What the second key has sealed is not the first one's.
    rmSync(join(running.home, 'secrets', second as string))
    const without = await run(running.home, {}, clock)
    const signIn = (i: number) => without.anyone.post('/api/v1/sign-in', { ...phoneOf(i), password: PASSWORD })
    const phoneOf = (i: number) => ({ name: phones[i]?.name, code: phones[i]?.code() })
    expect((await signIn(0)).status).toBe(201)
    await refused(without, () => signIn(1), 401, 'sign-in-failed')
    expect(filesOf(running.home, 'sealing')).toContain(first)
  })

  it('forgets a key when all that it signed has run out', async () => {
    const clock = clockAt('2031-05-02T12:00:00Z')
    const running = await run(undefined, {}, clock)
    const { vault, source } = running.sessile
    const ada = await running.admin.account()
    const [first] = filesOf(running.home, 'signing')
    await vault.rotate(source.now())
    clock.move(WEEK - 1)
    expect(await vault.verify('refresh', ada.refresh_token, source.now())).toMatchObject({ account_id: ada.account_id })
    clock.move(1)
    expect(await vault.verify('refresh', ada.refresh_token, source.now())).toBeUndefined()
    clock.move(1)
    // Whoever has an old key cannot make new tokens with it, though its file is still there.
    const { kid, jwk } = JSON.parse(readFileSync(join(running.home, 'secrets', first as string), 'utf8'))
    const claims = { ...decodeJwt(ada.refresh_token), exp: source.now() / 1000 + 3600 }
    const made = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'ES256', kid, typ: 'rt+jwt' })
      .sign(await importJWK(jwk, 'ES256'))
    expect(await vault.verify('refresh', made, source.now() - 2000)).toMatchObject({ account_id: ada.account_id })
    const afresh = new Secrets(running.home, claims.iss as string)
    for (const one of [vault, afresh]) expect(await one.verify('refresh', made, source.now())).toBeUndefined()
    await vault.rotate(source.now())
    expect(filesOf(running.home, 'signing')).not.toContain(first)
    expect(filesOf(running.home, 'signing')).toHaveLength(2)
  })

  it('is for the owner of the files alone', async () => {
    const running = await run()
    for (const what of ['list', 'rotate'])
      await refused(running, () => running.admin.post(`/operator/secrets.${what}`, {}), 403, 'forbidden')
    expect(await cli(running.home, ['secrets', 'show'])).toMatchObject({ code: 2 })
    expect(await cli(makeHome(), ['secrets', 'list'])).toMatchObject({ code: 1, err: expect.stringContaining('There is no data') })
  })
})

describe('sessile accounts', () => {
  it('invites the first admin, whether or not a recorder runs', async () => {
    const home = makeHome()
    const alone = await cli(home, [
      'accounts',
      'invite',
      '--name',
      'root@sessile.example',
      '--role',
      'admin',
      '--account',
      'root-1',
    ])
    expect(alone).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^\/welcome#invite_[\w-]{43}&name=root%40sessile\.example\n$/),
    })
    const apart = await serveApart(home)
    const anyone = new Client(apart.url, undefined)
    const token = /invite_[\w-]+/.exec(alone.out)?.[0]
    expect((await anyone.post('/api/v1/invitations/accept', { token, password: PASSWORD })).status).toBe(200)
    const root = await anyone.signIn('root@sessile.example')
    expect((await root.get('/api/v1/accounts')).status).toBe(200)

    const beside = await cli(home, ['accounts', 'invite', '--name', 'ada@sessile.example', '--role', 'therapist', '--json'])
    const invited = JSON.parse(beside.out)
    expect(invited.link).toBe(`${apart.url}/welcome#${invited.token}&name=ada%40sessile.example`)
    expect((await cli(home, ['accounts', 'deactivate', 'root-1'])).code).toBe(0)
    expect((await root.get('/api/v1/accounts')).status).toBe(401)
    const listed = (await cli(home, ['accounts', 'list'])).out
    expect(listed).toMatch(/^acc_\w{26}\ttherapist\tinvited until \S+\tada@sessile\.example\nroot-1\tadmin\tdeactivated \S+\t/)
    expect((await cli(home, ['accounts', 'list', '--role', 'therapist', '--json'])).out.trim().split('\n')).toHaveLength(1)
    expect((await cli(home, ['accounts', 'reactivate', 'root-1'])).code).toBe(0)
    expect((await cli(home, ['accounts', 'invite', 'root-1'])).out).toMatch(/\/welcome#invite_.*&name=root%40sessile\.example$/m)
  })

  it('says what is missing in a call', async () => {
    const home = makeHome()
    for (const words of [['invite'], ['invite', '--name', 'ada@sessile.example'], ['deactivate'], ['remove', 'ada']])
      expect([words, (await cli(home, ['accounts', ...words])).code]).toEqual([words, 2])
    expect((await cli(home, ['accounts', 'list'])).code).toBe(1)
    expect(existsSync(join(home, 'logs'))).toBe(false)
  })
})

describe('a setting that is a secret', () => {
  it('is read from a file where one is named', async () => {
    const home = makeHome()
    const file = join(home, 'key')
    writeFileSync(file, `${ADMIN}\n`)
    const env = { SESSILE_ADMIN_KEY_FILE: file }
    expect(readConfig(env).adminKey).toBe(ADMIN)
    writeFileSync(file, 'the secret of the client\n')
    const oidc = {
      SESSILE_OIDC_ISSUER: 'https://id.example',
      SESSILE_OIDC_CLIENT_ID: 'sessile',
      SESSILE_OIDC_CLIENT_SECRET_FILE: file,
    }
    expect(readConfig(oidc).settings.identity).toEqual({
      issuer: 'https://id.example',
      clientId: 'sessile',
      clientSecret: 'the secret of the client',
      redirect: 'http://127.0.0.1:8787/welcome',
    })
  })

  it.each([
    [{ SESSILE_ADMIN_KEY: ADMIN, SESSILE_ADMIN_KEY_FILE: '/dev/null' }, /both set/],
    [{ SESSILE_ADMIN_KEY_FILE: '/no/such/file' }, /SESSILE_ADMIN_KEY_FILE cannot be read/],
    [{ SESSILE_ADMIN_KEY_FILE: '/dev/null' }, /32 characters or more/],
    [{ SESSILE_SIGN_UP: 'yes' }, /SESSILE_SIGN_UP must be on/],
    [{ SESSILE_PASSWORDS: 'off' }, /nobody could sign in/],
    [{ SESSILE_OIDC_ISSUER: 'http://id.example', SESSILE_OIDC_CLIENT_ID: 'x' }, /must be an https: address/],
    [{ SESSILE_OIDC_ISSUER: 'https://id.example' }, /SESSILE_OIDC_CLIENT_ID is missing/],
  ])('is refused where it cannot be: %o', (env, why) => {
    expect(() => readConfig(env)).toThrow(why)
  })
})
