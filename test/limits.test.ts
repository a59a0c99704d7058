// How often one may ask: by the key, by the address where nobody has proved who asks, and how a caller is told.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { BadConfig, type Config, readConfig } from '../src/config.ts'
import { bounds } from '../src/core/bounds.ts'
import { Client, clockAt, later, makeHome, refused, run } from './harness.ts'

/** Sessile with these settings, as a deployment writes them, and a clock that stands. */
async function limited(env: Record<string, string>) {
  const clock = clockAt('2031-05-02T09:30:00Z')
  const { limits, proxies } = readConfig(env)
  const running = await run(makeHome(), { limits, proxies }, clock)
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

  it('knows so many and no more: a crowd shares what is left, and whoever was known stays known', async () => {
    const { knownCallers, sharedQuotas } = bounds
    later(() => void Object.assign(bounds, { knownCallers, sharedQuotas }))
    Object.assign(bounds, { knownCallers: 40, sharedQuotas: 3 })
    const { anyone, clock } = await limited({ SESSILE_LIMIT_REQUESTS: '1', SESSILE_TRUSTED_PROXIES: '127.0.0.1' })
    const ask = async (i: number) => (await anyone.get('/nowhere', by(`203.0.113.${i}`))).status
    const crowd = async (from: number, to: number) => {
      const statuses: number[] = []
      for (let i = from; i < to; i++) statuses.push(await ask(i))
      return statuses.filter((status) => status === 404).length
    }
    clock.pass(30)
    expect(await crowd(0, 40)).toBe(40)
    expect(await crowd(40, 140)).toBe(3)
    expect(await crowd(0, 40)).toBe(0)
    // Who was there in the last minute is known in the next.
    clock.pass(31)
    expect(await crowd(0, 40)).toBe(0)
    clock.pass(61)
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
