// What every answer says beside what it answers: what a browser may do with it, to which trace it belongs, and which other
// origins' pages may read it.

import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { readConfig } from '../src/config.ts'
import { type Client, cli, makeHome, type Running, run, serveApart } from './harness.ts'

const EVERYWHERE = {
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}
const DATA = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

/** What is answered to these bytes, as the lines of a head and a body. */
async function overTheWire({ url }: { url: string }, bytes: string) {
  const { port } = new URL(url)
  const socket = connect(Number(port), '127.0.0.1')
  socket.write(bytes)
  const whole = await text(socket)
  const [head = '', body = ''] = whole.split('\r\n\r\n')
  const [first = '', ...lines] = head.split('\r\n')
  const headers = new Headers(lines.map((line) => line.split(/: (.*)/, 2) as [string, string]))
  return { status: Number(first.split(' ')[1]), headers, body }
}

const expectAll = (headers: Headers, policy = DATA) => {
  expect(Object.fromEntries(headers)).toMatchObject({ ...EVERYWHERE, 'content-security-policy': policy })
  expect(headers.get('x-request-id')).toMatch(/^[\w.-]{1,64}$/)
}

describe('the headers of every answer', () => {
  const asks: [string, (client: Client, id: string) => Promise<Response>][] = [
    ['a success', (client) => client.raw('GET', '/api/v1/sessions')],
    [
      'what was made',
      (client) => client.raw('POST', '/session_manager/sessions.start', json({ user_id: 'bob', performer_id: 'd' })),
    ],
    ['a refusal of a body', (client) => client.raw('POST', '/session_manager/sessions.start', json({}))],
    ['who is not known', ({ url }) => fetch(`${url}/api/v1/sessions`)],
    ['an address without anything', (client) => client.raw('GET', '/nowhere')],
    ['a method that is not taken', (client) => client.raw('DELETE', '/api/v1/sessions')],
    ['dots in an address', (client) => client.raw('GET', '/api/%2e%2e/v1')],
    ['a head alone', (client) => client.raw('HEAD', '/api/v1/sessions')],
    ['a stream of lines', (client, id) => client.raw('GET', `/api/v1/sessions/${id}/records`, accepting('application/x-ndjson'))],
    ['a stream that follows', (client, id) => client.raw('GET', `/api/v1/sessions/${id}/records?follow=1`)],
    ['records one by one', (client, id) => client.raw('POST', `/api/v1/sessions/${id}/records`, lines('{}'))],
    ['the contract', ({ url }) => fetch(`${url}/openapi.json`)],
    ['the state', ({ url }) => fetch(`${url}/readyz`)],
    ['an unknown route of the operator', (client) => client.raw('POST', '/operator/load', json({}))],
  ]
  it.each(asks)('are on %s', async (_, ask) => {
    const { admin } = await run()
    const { session_id } = (await admin.start()).body
    const answer = await ask(admin, session_id)
    expectAll(answer.headers)
    expect(answer.headers.has('strict-transport-security')).toBe(false)
    expect(answer.headers.has('access-control-allow-origin')).toBe(false)
    await answer.body?.cancel()
  })

  it.each([
    ['what is not HTTP', 'HELO\r\n\r\n', 400],
    ['headers that are too large', `GET / HTTP/1.1\r\nhost: a\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`, 431],
    ['a host that makes no address', 'GET / HTTP/1.1\r\nhost: a b\r\nconnection: close\r\n\r\n', 400],
    ['an expectation', 'GET /healthz HTTP/1.1\r\nhost: a\r\nexpect: everything\r\nconnection: close\r\n\r\n', 200],
    ['a wish to speak something else', 'GET /healthz HTTP/1.1\r\nhost: a\r\nupgrade: x\r\nconnection: upgrade, close\r\n\r\n', 200],
  ])('are on the answer to %s', async (_, bytes, status) => {
    const answer = await overTheWire(await run(), bytes)
    expect(answer.status).toBe(status)
    expectAll(answer.headers)
    if (status >= 400) expect(JSON.parse(answer.body).request_id).toBe(answer.headers.get('x-request-id'))
  })

  it('let the documentation run the script and wear the style that stand in it, and nothing else', async () => {
    const { url } = await run()
    const answer = await fetch(`${url}/docs`)
    const page = await answer.text()
    const digestsOf = async (tag: string) => {
      const inside = [...page.matchAll(new RegExp(`<${tag}[^>]*>([^]*?)</${tag}>`, 'g'))].map(([, text]) => text ?? '')
      const digests = await Promise.all(inside.map((text) => crypto.subtle.digest('SHA-256', new TextEncoder().encode(text))))
      return digests.map((digest) => `'sha256-${Buffer.from(digest).toString('base64')}'`)
    }
    const [[script, ...scripts], [style, ...styles]] = [await digestsOf('script'), await digestsOf('style')]
    expect([...scripts, ...styles]).toEqual([])
    expectAll(answer.headers, `${DATA}; connect-src 'self'; script-src ${script}; style-src ${style}`)
    expect(page).not.toMatch(/\son\w+=|\sstyle=|javascript:/i)
  })

  it('ask for TLS where the world is asked in, and not on this machine', async () => {
    const transport = async (reached: object) => {
      const { url } = await run(makeHome(), { reached: { url: undefined, secure: false, origins: [], ...reached } })
      return (await fetch(`${url}/healthz`)).headers.get('strict-transport-security')
    }
    expect(await transport({ secure: true })).toBe('max-age=31536000; includeSubDomains')
    expect(await transport({ secure: false })).toBe(null)
  })
})

describe('SESSILE_HOST and SESSILE_PUBLIC_URL', () => {
  it.each([
    [{}, false],
    [{ SESSILE_HOST: '::1' }, false],
    [{ SESSILE_HOST: 'localhost' }, false],
    [{ SESSILE_HOST: '0.0.0.0' }, true],
    [{ SESSILE_HOST: '::' }, true],
    [{ SESSILE_HOST: '127.example.org' }, true],
    [{ SESSILE_PUBLIC_URL: 'https://sessile.example.org' }, true],
    [{ SESSILE_HOST: '0.0.0.0', SESSILE_PUBLIC_URL: 'http://127.0.0.1:8787' }, false],
  ])('%o: over TLS: %s', (env, secure) => {
    expect(readConfig(env).reached.secure).toBe(secure)
  })

  it.each(['http://sessile.example.org', 'sessile.example.org', 'https://a.example/b', 'https://me@a.example', 'ftp://127.0.0.1'])(
    'are refused where they name %s',
    async (url) => {
      const { code, err } = await cli(makeHome(), ['info'], { SESSILE_PUBLIC_URL: url })
      expect([code, err]).toEqual([2, expect.stringContaining('SESSILE_PUBLIC_URL')])
    },
  )

  it('warn whoever serves to others without TLS', async () => {
    const warned = async (env: Record<string, string>) => {
      const apart = await serveApart(makeHome(), { SESSILE_HOST: '0.0.0.0', ...env })
      apart.child.kill('SIGTERM')
      await apart.ended
      return /plain HTTP/.test(apart.err())
    }
    expect(await warned({})).toBe(true)
    expect(await warned({ SESSILE_PUBLIC_URL: 'https://sessile.example.org' })).toBe(false)
    expect(await warned({ SESSILE_HOST: '127.0.0.1' })).toBe(false)
  })
})

describe('traceparent', () => {
  const TRACE = '4bf92f3577b34da6a3ce929d0e0e4736'
  it('names the trace in the line of the request, where it is well-formed', async () => {
    const apart = await serveApart(makeHome())
    const given = [
      `00-${TRACE}-00f067aa0ba902b7-01`,
      `cc-${TRACE}-00f067aa0ba902b7-01-and-more`,
      `00-${TRACE}-00f067aa0ba902b7-01-and-more`,
      `ff-${TRACE}-00f067aa0ba902b7-01`,
      `00-${TRACE.toUpperCase()}-00f067aa0ba902b7-01`,
      `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
      `00-${TRACE}-${'0'.repeat(16)}-01`,
      `00-${TRACE}-00f067aa0ba902b7`,
      `00-${TRACE}-00f067aa0ba902b7-01, 00-${TRACE}-00f067aa0ba902b7-01`,
      'lucy',
    ]
    for (const traceparent of given) {
      expect((await fetch(`${apart.url}/healthz`, { headers: { traceparent } })).status).toBe(200)
    }
    apart.child.kill('SIGTERM')
    await apart.ended
    const lines = apart
      .err()
      .split('\n')
      .filter((line) => line.includes('"msg":"request"'))
    expect(lines.map((line) => JSON.parse(line).trace_id)).toEqual([TRACE, TRACE, ...Array(8).fill(undefined)])
    // Not a word that the digits of an id could spell.
    expect(apart.err()).not.toContain('lucy')
  })
})

describe('SESSILE_ORIGINS', () => {
  const OURS = 'https://console.example.org'
  const preflight = { 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' }
  const listed = (): Promise<Running> =>
    run(makeHome(), { reached: readConfig({ SESSILE_ORIGINS: `${OURS}, http://127.0.0.1:5173/` }).reached })

  it.each([OURS, 'http://127.0.0.1:5173'])('lets a page of %s ask, and read the answer', async (origin) => {
    const { admin, url } = await listed()
    const asked = await fetch(`${url}/session_manager/sessions.start`, { method: 'OPTIONS', headers: { origin, ...preflight } })
    expect(asked.status).toBe(200)
    expect(Object.fromEntries(asked.headers)).toMatchObject({
      'access-control-allow-origin': origin,
      'access-control-allow-credentials': 'true',
      'access-control-allow-methods': 'POST',
      'access-control-allow-headers': expect.stringMatching(/Authorization.*Idempotency-Key/),
      'access-control-max-age': '600',
      vary: 'Origin',
    })
    for (const answer of [await admin.start({}, { origin }), await admin.get('/nowhere', { origin })]) {
      expect(Object.fromEntries(answer.headers)).toMatchObject({
        'access-control-allow-origin': origin,
        'access-control-allow-credentials': 'true',
        'access-control-expose-headers': expect.stringContaining('X-Request-ID'),
        vary: 'Origin',
      })
    }
  })

  it.each(['https://other.example.org', `${OURS}.evil.example`, `${OURS}:8443`, 'http://console.example.org', 'null', `${OURS}/`])(
    'tells a page of %s nothing',
    async (origin) => {
      const { admin, url } = await listed()
      const asked = await fetch(`${url}/session_manager/sessions.start`, { method: 'OPTIONS', headers: { origin, ...preflight } })
      const answer = await admin.get('/api/v1/sessions', { origin })
      expect([asked.status, answer.status]).toEqual([405, 200])
      for (const { headers } of [asked, answer]) {
        expect([...headers.keys()].filter((name) => name.startsWith('access-control-'))).toEqual([])
        expect(headers.get('vary')).toBe('Origin')
      }
    },
  )

  it('is empty at first: no page of another origin is told anything', async () => {
    const { url } = await run()
    const asked = await fetch(`${url}/session_manager/sessions.start`, {
      method: 'OPTIONS',
      headers: { origin: OURS, ...preflight },
    })
    expect(asked.status).toBe(405)
    expect([...asked.headers.keys()].filter((name) => name.startsWith('access-control-') || name === 'vary')).toEqual([])
  })

  it.each(['*', 'null', 'https://*.example.org', 'http://console.example.org', 'console.example.org', `${OURS}/app`])(
    'is refused where it names %s',
    async (origin) => {
      const { code, err } = await cli(makeHome(), ['info'], { SESSILE_ORIGINS: origin })
      expect([code, err]).toEqual([2, expect.stringContaining('SESSILE_ORIGINS')])
    },
  )
})

const json = (body: unknown) => ({ body: JSON.stringify(body), headers: { 'content-type': 'application/json' } })
const lines = (body: string) => ({ body, headers: { 'content-type': 'application/x-ndjson' } })
const accepting = (accept: string) => ({ headers: { accept } })
