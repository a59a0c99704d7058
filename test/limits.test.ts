// How often one may ask: by the key, by the address where nobody has proved who asks, and how a caller is told.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { BadConfig, type Config, readConfig } from '../src/config.ts'
import { bounds } from '../src/core/bounds.ts'
import {
  Client,
  clockAt,
  later,
  makeHome,
  PASSWORD,
  type Reply,
  type Running,
  refused,
  run,
  said,
  sendingLines,
  trailOf,
} from './harness.ts'

/** Sessile with these settings, as a deployment writes them, and a clock that stands. */
async function limited(env: Record<string, string>) {
  const clock = clockAt('2031-05-02T09:30:00Z')
  const { limits, proxies, settings } = readConfig(env)
  const running = await run(makeHome(), { limits, proxies, settings }, clock)
  return { ...running, clock }
}

const statusesOf = async (times: number, ask: () => Promise<{ status: number }>) => {
  const statuses: number[] = []
  for (let i = 0; i < times; i++) statuses.push((await ask()).status)
  return statuses
}

const told = ({ headers }: { headers: Headers }) => [
  headers.get('ratelimit'),
  headers.get('ratelimit-policy'),
  headers.get('retry-after'),
]

const by = (address: string) => ({ 'x-forwarded-for': address })

describe('the limit of a key', () => {
  it('is refused beyond its quota, told when to come again, and taken again as time passes', async () => {
    const { clock, ...running } = await limited({ SESSILE_LIMIT_KEYS: '3' })
    const { admin } = running
    const first = await admin.start()
    expect([first.status, ...told(first)]).toEqual([201, '"keys";r=2;t=20', '"keys";q=3;w=60', null])
    clock.pass(5)
    expect(told(await admin.get('/api/v1/sessions'))).toEqual(['"keys";r=1;t=15', '"keys";q=3;w=60', null])
    expect(told(await admin.get('/api/v1/sessions'))).toEqual(['"keys";r=0;t=15', '"keys";q=3;w=60', null])

    const problem = await refused(running, () => admin.start({ user_id: 'bob' }), 429, 'too-many-requests')
    expect(problem).toMatchObject({ title: 'Too many requests', retry_after: 15, request_id: expect.any(String) })
    const again = await admin.get('/api/v1/sessions')
    expect([again.status, ...told(again)]).toEqual([429, '"keys";r=0;t=15', '"keys";q=3;w=60', '15'])
    clock.pass(14)
    expect((await admin.get('/api/v1/sessions')).status).toBe(429)
    clock.pass(1)
    expect(told(await admin.get('/api/v1/sessions'))).toEqual(['"keys";r=0;t=20', '"keys";q=3;w=60', null])
    // What is not asked for is not saved up beyond the quota.
    clock.pass(3600)
    expect(await statusesOf(5, () => admin.get('/api/v1/sessions'))).toEqual([200, 200, 200, 429, 429])
  })

  it('is its own, whatever other keys ask for', async () => {
    const { admin, url } = await limited({ SESSILE_LIMIT_KEYS: '3' })
    const [one, other] = [await admin.device(), await admin.device()]
    expect(await statusesOf(4, () => one.get('/api/v1/keys'))).toEqual([403, 403, 403, 429])
    expect((await other.start()).status).toBe(201)
    expect((await new Client(url, 'sessile_unknown').get('/api/v1/keys')).status).toBe(401)
  })

  it('is none unless one is set', async () => {
    const { admin } = await limited({})
    const answers = await Promise.all(Array.from({ length: 150 }, () => admin.get('/api/v1/keys')))
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200]))
    expect(told(answers[0] as (typeof answers)[0])).toEqual([null, null, null])
  })

  it('follows a quota that does not divide a minute, to the last request', async () => {
    const { admin, clock } = await limited({ SESSILE_LIMIT_KEYS: '7' })
    for (let minute = 0; minute < 50; minute++) {
      expect(await statusesOf(8, () => admin.get('/api/v1/keys'))).toEqual([...Array(7).fill(200), 429])
      clock.pass(60)
    }
  })
})

describe('the limit of an address', () => {
  it('counts whoever proves nothing, whatever they ask for, and lets who proves something by', async () => {
    const { admin, anyone, url, clock } = await limited({ SESSILE_LIMIT_REQUESTS: '6' })
    const wrong = new Client(url, `sessile_${'A'.repeat(43)}`)
    expect(told(await anyone.get('/api/v1/sessions'))).toEqual(['"requests";r=5;t=10', '"requests";q=6;w=60', null])
    expect((await wrong.start()).status).toBe(401)
    expect((await anyone.get('/nowhere')).status).toBe(404)
    expect((await anyone.raw('DELETE', '/api/v1/sessions')).status).toBe(405)
    expect((await anyone.raw('GET', '/docs')).status).toBe(200)
    expect((await anyone.raw('GET', '/openapi.json')).status).toBe(200)
    for (const path of ['/nowhere', '/openapi.json', '/api/v1/sessions'])
      expect(await anyone.get(path)).toMatchObject({ status: 429, body: { reason: 'too-many-requests' } })
    expect((await wrong.start()).status).toBe(429)
    expect((await admin.start()).status).toBe(201)
    expect(await statusesOf(9, () => anyone.get('/healthz'))).toEqual(Array(9).fill(200))
    clock.pass(10)
    expect((await anyone.get('/api/v1/sessions')).status).toBe(401)
  })

  it('counts what is no request to begin with, so that nobody fills the trail with it', async () => {
    const running = await limited({ SESSILE_LIMIT_REQUESTS: '3' })
    const long = () => running.anyone.get(`/api/v1/sessions?${'x'.repeat(5000)}`)
    const statuses = await statusesOf(6, long)
    expect(statuses).toEqual([414, 414, 414, 429, 429, 429])
    const reasons = trailOf(running).map(({ data }) => data.reason)
    expect(reasons).toEqual(['target-too-long', 'target-too-long', 'target-too-long', 'too-many-requests'])
  })

  it('counts whoever refreshes a sign-in, which is no attempt at a name', async () => {
    const { anyone } = await limited({ SESSILE_LIMIT_REQUESTS: '3' })
    const refresh = () => anyone.post('/api/v1/refresh', { refresh_token: 'not a token' })
    expect(await statusesOf(4, refresh)).toEqual([401, 401, 401, 429])
  })

  it('takes no word of anybody for where they are', async () => {
    const { anyone } = await limited({ SESSILE_LIMIT_REQUESTS: '2' })
    const statuses: number[] = []
    for (const address of ['10.1.1.1', '10.1.1.2', '10.1.1.3']) statuses.push((await anyone.get('/nowhere', by(address))).status)
    expect(statuses).toEqual([404, 404, 429])
  })

  it('takes a trusted proxy’s word, and nobody’s whom that one does not know', async () => {
    const { anyone } = await limited({ SESSILE_LIMIT_REQUESTS: '1', SESSILE_TRUSTED_PROXIES: '127.0.0.1, 10.0.0.0/8,fd00::/16' })
    const ask = async (way: string) => (await anyone.get('/nowhere', by(way))).status
    expect(await ask('203.0.113.7')).toBe(404)
    expect(await ask('203.0.113.7')).toBe(429)
    expect(await ask('203.0.113.8')).toBe(404)
    // Through a proxy of ours, and one behind it; whatever is said before is the caller's own invention.
    expect(await ask('203.0.113.7, 10.9.9.9')).toBe(429)
    expect(await ask('198.51.100.1, 203.0.113.7, 10.9.9.9, fd00::1')).toBe(429)
    expect(await ask('198.51.100.1, 203.0.113.9, 10.9.9.9')).toBe(404)
    expect(await ask('203.0.113.9')).toBe(429)
    // A proxy that says nothing that is an address speaks for itself.
    expect(await ask('unknown')).toBe(404)
    expect(await ask('203.0.113.10, ::ffff:999.1.1.1')).toBe(429)
  })

  it('counts the neighbours of one network as one where each of them has more addresses than anyone could count', async () => {
    const { anyone } = await limited({ SESSILE_LIMIT_REQUESTS: '1', SESSILE_TRUSTED_PROXIES: '127.0.0.1' })
    const ask = async (way: string) => (await anyone.get('/nowhere', by(way))).status
    expect(await ask('2001:db8:1:2::1')).toBe(404)
    expect(await ask('2001:0DB8:0001:0002:ffff::9')).toBe(429)
    expect(await ask('2001:db8:1:3::1')).toBe(404)
    expect(await ask('2001:db8::2:0:0:1')).toBe(404)
    expect(await ask('2001:db8::3:0:0:1')).toBe(429)
    expect(await ask('::ffff:203.0.113.7')).toBe(404)
    expect(await ask('203.0.113.7')).toBe(429)
    expect(await ask('::1')).toBe(404)
  })

  it('is told of in the trail once a minute, however often it is met', async () => {
    const { admin, anyone, clock } = await limited({ SESSILE_LIMIT_REQUESTS: '1' })
    const noted = async () => {
      const { entries } = (await admin.get('/api/v1/audit?account=anonymous')).body
      return entries.map(({ reason, address }: Record<string, string>) => [reason, address])
    }
    expect(await statusesOf(5, () => anyone.get('/api/v1/sessions'))).toEqual([401, 429, 429, 429, 429])
    const once = [
      ['too-many-requests', '127.0.0.1'],
      ['unauthenticated', '127.0.0.1'],
    ]
    expect(await noted()).toEqual(once)
    clock.pass(120)
    expect(await statusesOf(3, () => anyone.get('/api/v1/sessions'))).toEqual([401, 429, 429])
    expect(await noted()).toEqual([...once, ...once])
  })

  it('knows so many and no more: a crowd shares what is left, and whoever was known stays known', async () => {
    const { knownCallers, sharedQuotas } = bounds
    later(() => void Object.assign(bounds, { knownCallers, sharedQuotas }))
    Object.assign(bounds, { knownCallers: 40, sharedQuotas: 3 })
    const { anyone, clock } = await limited({ SESSILE_LIMIT_REQUESTS: '2', SESSILE_TRUSTED_PROXIES: '127.0.0.1' })
    const ask = async (i: number) => (await anyone.get('/nowhere', by(`203.0.113.${i}`))).status
    const crowd = async (from: number, to: number) => {
      const statuses: number[] = []
      for (let i = from; i < to; i++) statuses.push(await ask(i))
      return statuses.filter((status) => status === 404).length
    }
    clock.pass(50)
    expect(await crowd(0, 40)).toBe(40)
    expect(await crowd(40, 140)).toBe(3 * 2)
    expect(await crowd(0, 40)).toBe(40)
    expect(await crowd(0, 40)).toBe(0)
    // Who was there in one minute is known in the next.
    clock.pass(11)
    expect(await crowd(0, 40)).toBe(0)
    clock.pass(120)
    expect(await crowd(100, 140)).toBe(40)
  })
})

describe('SESSILE_LIMIT_REQUESTS, SESSILE_LIMIT_SIGN_IN, SESSILE_LIMIT_KEYS and SESSILE_TRUSTED_PROXIES', () => {
  it('are a hundred and five a minute, any number, and nobody, unless they are set', () => {
    expect(readConfig({})).toMatchObject({ limits: { requests: 100, signIn: 5, keys: 0 }, proxies: [] } satisfies Partial<Config>)
  })

  it.each([
    { SESSILE_LIMIT_REQUESTS: '-1' },
    { SESSILE_LIMIT_SIGN_IN: '1.5' },
    { SESSILE_LIMIT_KEYS: 'many' },
    { SESSILE_TRUSTED_PROXIES: 'proxy.example.org' },
    { SESSILE_TRUSTED_PROXIES: '10.0.0.0/33' },
    { SESSILE_TRUSTED_PROXIES: '10.0.0.0/8/8' },
    { SESSILE_TRUSTED_PROXIES: '127.0.0.1,*' },
  ])('are refused as %o', (env) => {
    expect(() => readConfig(env as NodeJS.ProcessEnv)).toThrow(BadConfig)
  })
})

describe('the owner of the files', () => {
  it('is not counted', async () => {
    const running = await limited({ SESSILE_LIMIT_KEYS: '1', SESSILE_LIMIT_REQUESTS: '1' })
    const { token } = JSON.parse(readFileSync(join(running.home, 'logs', '.journal', 'holder.json'), 'utf8'))
    const operator = new Client(running.url, token)
    expect(await statusesOf(5, () => operator.post('/operator/load', {}))).toEqual(Array(5).fill(200))
  })
})

describe('attempts to sign in', () => {
  const WRONG = 'a password that somebody guesses'
  const env = { SESSILE_TRUSTED_PROXIES: '127.0.0.1' }
  const trying = ({ anyone }: Running, name: string, address: string, password = WRONG) =>
    anyone.post('/api/v1/sign-in', { name, password }, by(address))
  const tried = async (running: Running, times: number, name: string, address: (i: number) => string, password = WRONG) => {
    const statuses: number[] = []
    for (let i = 0; i < times; i++) statuses.push((await trying(running, name, address(i), password)).status)
    return statuses
  }
  const here = () => '203.0.113.1'
  const everywhere = (i: number) => `198.51.100.${i}`

  it('are five a minute at an address, whatever names are tried, and no word of what is left of another’s', async () => {
    const { clock, ...running } = await limited(env)
    const replies = []
    for (let i = 0; i < 5; i++) replies.push(await trying(running, `somebody-${i}`, here()))
    expect(replies.map(({ status }) => status)).toEqual(Array(5).fill(401))
    expect(told(replies[0] as Reply)).toEqual(['"sign-in";r=4;t=12', '"sign-in";q=5;w=60', null])
    const problem = await refused(running, () => trying(running, 'one-more', here()), 429, 'too-many-requests')
    expect(problem.retry_after).toBe(15)
    expect((await trying(running, 'somebody-1', '203.0.113.2')).status).toBe(401)
    clock.pass(12)
  })

  it('are five a minute at a name, wherever they are made, whether or not there is anybody of that name', async () => {
    const running = await limited(env)
    const ada = await running.admin.account({ name: 'ada@sessile.example' })
    running.clock.pass(3600)
    let places = 0
    for (const name of [ada.name, 'nobody@sessile.example']) {
      const replies: Reply[] = []
      for (let i = 0; i < 6; i++) replies.push(await trying(running, name, everywhere(places++)))
      expect(replies.map(({ status }) => status)).toEqual([...Array(5).fill(401), 429])
      // How often others have tried a name is told to nobody who may still try it.
      expect(told(replies[4] as Reply)).toEqual(['"sign-in";r=4;t=12', '"sign-in";q=5;w=60', null])
      expect(told(replies[5] as Reply)).toEqual(['"sign-in";r=0;t=15', '"sign-in";q=5;w=60', '15'])
    }
    expect((await trying(running, 'ADA@Sessile.example', everywhere(places))).status).toBe(429)
  })

  it('must wait longer each time they fail, up to a quarter of an hour, and no longer when they have succeeded', async () => {
    const { clock, ...running } = await limited(env)
    const { name } = await running.admin.account()
    clock.pass(60)
    expect(await tried(running, 5, name, everywhere)).toEqual(Array(5).fill(401))
    const waits: number[] = []
    for (let i = 5; i < 14; i++) {
      const { status, body } = await trying(running, name, everywhere(i))
      expect(status).toBe(429)
      waits.push(body.retry_after)
      clock.pass(body.retry_after)
      expect((await trying(running, name, everywhere(i + 100))).status).toBe(401)
    }
    expect(waits).toEqual([15, 30, 60, 120, 240, 480, 900, 900, 900])
    clock.pass(900)
    expect((await trying(running, name, '192.0.2.1', PASSWORD)).status).toBe(201)
    expect(await tried(running, 4, name, everywhere)).toEqual(Array(4).fill(401))
  }, 30_000)

  it('are forgotten when nobody has tried for an hour', async () => {
    const { clock, ...running } = await limited(env)
    expect(await tried(running, 6, 'lucy', everywhere)).toEqual([...Array(5).fill(401), 429])
    clock.pass(3600)
    expect(await tried(running, 6, 'lucy', everywhere)).toEqual([...Array(5).fill(401), 429])
  })

  it('by others keep nobody out where they have signed in before', async () => {
    const { clock, ...running } = await limited(env)
    const { name } = await running.admin.account()
    expect((await trying(running, name, here(), PASSWORD)).status).toBe(201)
    clock.pass(60)
    expect(await tried(running, 6, name, everywhere, PASSWORD.toUpperCase())).toEqual([...Array(5).fill(401), 429])
    expect((await trying(running, name, '192.0.2.1', PASSWORD)).status).toBe(429)
    expect((await trying(running, name, here(), PASSWORD)).status).toBe(201)
    // Nor are they of use to whoever guesses there.
    expect(await tried(running, 6, name, here)).toEqual([401, 401, 401, 401, 429, 429])
  })

  it('that succeed cost an address nothing: many people may live behind it', async () => {
    const running = await limited(env)
    const names: string[] = []
    for (let i = 0; i < 7; i++) names.push((await running.admin.account()).name)
    for (const name of names) expect((await trying(running, name, here(), PASSWORD)).status).toBe(201)
    // And yet one account does not sign in on and on.
    expect(await tried(running, 6, names[0] as string, here, PASSWORD)).toEqual([...Array(5).fill(201), 429])
  }, 30_000)

  it('that come all at once are as few as those that come one by one', async () => {
    const running = await limited(env)
    const { name } = await running.admin.account()
    running.clock.pass(60)
    const all = await Promise.all(Array.from({ length: 20 }, (_, i) => trying(running, name, everywhere(i))))
    expect(all.filter(({ status }) => status === 401)).toHaveLength(5)
    expect(all.filter(({ status }) => status === 429)).toHaveLength(15)
  })

  it('are counted also where a password is changed, an invitation taken, or an account made', async () => {
    const running = await limited(env)
    const ada = await running.admin.account()
    const stolen = () =>
      ada.post('/api/v1/account/password', { password: WRONG, new_password: 'a new one of fifteen letters' }, by(here()))
    expect(await statusesOf(6, stolen)).toEqual([...Array(5).fill(403), 429])
    const bob = await running.admin.account()
    expect((await bob.post('/api/v1/account/totp', { password: PASSWORD }, by('203.0.113.4'))).status).toBe(201)
    const code = () => bob.post('/api/v1/account/totp/confirm', { code: '000000' }, by('203.0.113.4'))
    expect(await statusesOf(6, code)).toEqual([...Array(5).fill(403), 429])
    const guess = (i: number) =>
      running.anyone.post('/api/v1/invitations/accept', { token: `guess-${i}`, password: PASSWORD }, by('203.0.113.2'))
    let i = 0
    expect(await statusesOf(6, () => guess(i++))).toEqual([...Array(5).fill(404), 429])
    const made = () => running.anyone.post('/api/v1/sign-up', { name: 'lucy', password: PASSWORD }, by('203.0.113.3'))
    expect(await statusesOf(6, made)).toEqual([...Array(5).fill(403), 429])
  })

  it('are not forgiven to whoever makes an account under the name, or makes one after another', async () => {
    const { clock, ...running } = await limited({ ...env, SESSILE_SIGN_UP: 'on' })
    const ada = await running.admin.account()
    clock.pass(3600)
    const signUp = (name: string, address: string) =>
      running.anyone.post('/api/v1/sign-up', { name, password: PASSWORD }, by(address))
    const statuses: number[] = []
    for (let i = 0; i < 6; i++) {
      // From anywhere, and where one has just signed up, which anybody may.
      statuses.push((await signUp(ada.name, everywhere(i))).status)
      statuses.push((await trying(running, ada.name, everywhere(i))).status)
    }
    expect(statuses).toEqual([200, 401, 200, 401, 200, ...Array(7).fill(429)])
    for (let i = 0; i < 6; i++) {
      clock.pass(60)
      await signUp(ada.name, everywhere(i))
      await trying(running, ada.name, everywhere(i))
    }
    const problem = await refused(running, () => trying(running, ada.name, '192.0.2.1'), 429, 'too-many-requests')
    expect(problem.retry_after).toBeGreaterThan(60)
    let i = 0
    expect(await statusesOf(6, () => signUp(`somebody-${i++}`, here()))).toEqual([...Array(5).fill(200), 429])
  }, 30_000)

  it('by the name of an account are not forgiven to whoever signs in under a name that reads like its id', async () => {
    const { clock, ...running } = await limited(env)
    const ada = await running.admin.account({ account_id: 'ada' })
    const other = await running.admin.account({ name: 'ada' })
    const stolen = () =>
      ada.post('/api/v1/account/password', { password: WRONG, new_password: 'a new one of fifteen letters' }, by(here()))
    clock.pass(60)
    const statuses: number[] = []
    for (let i = 0; i < 7; i++) {
      statuses.push((await stolen()).status)
      clock.pass(14)
      await trying(running, other.name, here(), PASSWORD)
    }
    expect(statuses).toEqual([...Array(5).fill(403), 429, 403])
  }, 30_000)

  it('that are no attempts count like others: a body that does not fit', async () => {
    const running = await limited(env)
    expect(await statusesOf(6, () => running.anyone.post('/api/v1/sign-in', {}, by(here())))).toEqual([...Array(5).fill(422), 429])
  })
})

describe('the limit of an account', () => {
  it('is one for all its sign-ins, and its own', async () => {
    const running = await limited({ SESSILE_LIMIT_REQUESTS: '4', SESSILE_TRUSTED_PROXIES: '127.0.0.1' })
    const [ada, bob] = [await running.admin.account(), await running.admin.account()]
    running.clock.pass(60)
    const again = await running.anyone.signIn(ada.name)
    const asks = [ada, again, ada, again, again, ada]
    const statuses: number[] = []
    for (const [i, one] of asks.entries()) statuses.push((await one.get('/api/v1/account', by(everywhereElse(i)))).status)
    expect(statuses).toEqual([200, 200, 200, 200, 429, 429])
    const reply = await bob.get('/api/v1/account')
    expect([reply.status, ...told(reply)]).toEqual([200, '"requests";r=3;t=15', '"requests";q=4;w=60', null])
  })
})

const everywhereElse = (i: number) => `192.0.2.${i}`

describe('a stream of records', () => {
  it('ends where as many of its lines are refused as requests may be made, and of what is recorded nothing counts', async () => {
    const running = await limited({ SESSILE_LIMIT_REQUESTS: '9' })
    const { session_id } = (await running.admin.start({ kind: 'workflow' })).body
    const ada = await running.admin.account({ account_id: 'ada' })
    running.clock.pass(60)
    const mine = said('hello', { performer_id: 'ada' })
    const { send, over } = sendingLines(ada, session_id)
    for (let i = 0; i < 12; i++) expect(await send(mine)).toMatchObject([{ type: 'transcript.said' }])
    const noted = () => trailOf(running).filter(({ performer_id }) => performer_id === 'ada')
    const lines = await send(...Array(300).fill({ ...mine, type: 'nonsense' }))
    expect(lines.map(({ reason }) => reason)).toEqual([...Array(8).fill('unknown-type'), ...Array(292).fill('too-many-requests')])
    expect(noted().map(({ data }) => data.reason)).toEqual([...Array(8).fill('unknown-type'), 'too-many-requests'])
    expect(await over()).toBe(true)
  })
})
