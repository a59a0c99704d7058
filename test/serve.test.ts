// Serving: what a first start tells, who is kept out, and how it ends. Each of these is a process of its own, as it is for
// whoever runs it.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { Agent, type ClientRequest, type IncomingMessage, type RequestOptions, request } from 'node:http'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import {
  ADMIN,
  Client,
  cli,
  copyHome,
  filesUnder,
  later,
  linesIn,
  logBytes,
  makeHome,
  said,
  serveApart,
  sessionFile,
  trailOf,
} from './harness.ts'

/** Without a key of the operator's own, whatever the tests' environment says. */
const noKey = { SESSILE_ADMIN_KEY: undefined } as unknown as Record<string, string>

const journal = (home: string) => join(home, 'logs', '.journal')
const segments = (home: string) =>
  readdirSync(journal(home))
    .filter((name) => name.endsWith('.wal'))
    .map((name) => statSync(join(journal(home), name)).size)

/** Runs a line as a shell would that it was pasted into. */
async function paste(line: string): Promise<string> {
  const child = spawn('sh', ['-c', line], { stdio: ['ignore', 'pipe', 'inherit'] })
  const [out] = await Promise.all([text(child.stdout), once(child, 'close')])
  return out
}

async function end(apart: Awaited<ReturnType<typeof serveApart>>): Promise<number | string | null> {
  apart.child.kill('SIGTERM')
  return apart.ended
}

/** A start of a session whose body is still to come: the server has it in hand, and waits. */
async function posting(url: string, length: number, options: RequestOptions): Promise<ClientRequest> {
  const headers = { authorization: `Bearer ${ADMIN}`, 'content-type': 'application/json', 'content-length': length }
  const posted = request(`${url}/session_manager/sessions.start`, {
    ...options,
    method: 'POST',
    headers: { ...headers, expect: '100-continue' },
  })
  posted.flushHeaders()
  await once(posted, 'continue')
  return posted
}

describe('a first start', () => {
  it('tells an admin key once, with a line that starts a session as it is pasted', async () => {
    const home = makeHome()
    const first = await serveApart(home, noKey)
    await expect.poll(() => first.out()).toContain('curl')
    const [key = '', ...others] = [...new Set(first.out().match(/sessile_[\w-]+/g))]
    expect(key).toMatch(/^sessile_[\w-]{43}$/)
    expect(others).toEqual([])
    const line =
      first
        .out()
        .split('\n')
        .find((line) => line.includes('curl ')) ?? ''
    expect(JSON.parse(await paste(line))).toMatchObject({ type: 'session.started', user_id: 'ada', session_number: 1 })
    expect(await end(first)).toBe(0)
    expect(first.err()).not.toContain(key)
    for (const file of filesUnder(home)) expect(readFileSync(join(home, file), 'latin1')).not.toContain(key)

    const second = await serveApart(home, noKey)
    expect((await new Client(second.url, key).get('/api/v1/sessions')).body.sessions).toHaveLength(1)
    expect(await end(second)).toBe(0)
    expect(second.out()).toBe('')
  })

  it('takes the admin key that the operator chose, records it once and tells none', async () => {
    const home = makeHome()
    for (let start = 0; start < 2; start++) {
      const apart = await serveApart(home)
      const { body } = await apart.admin.get('/api/v1/keys')
      expect(body.keys).toMatchObject([{ account_id: 'admin', role: 'admin', name: 'preset', users: 'all' }])
      expect(await end(apart)).toBe(0)
      expect(apart.out()).toBe('')
      expect(apart.err()).not.toContain(ADMIN)
    }
  })

  it('makes what only its owner can read', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const { body } = await apart.admin.start()
    expect(await end(apart)).toBe(0)
    expect(existsSync(sessionFile(home, body.session_id))).toBe(true)
    for (const file of filesUnder(home)) expect([file, statSync(join(home, file)).mode & 0o077]).toEqual([file, 0])
    expect(statSync(join(home, 'logs')).mode & 0o077).toBe(0)
  })

  it.each([
    [
      'an admin key of less than 32 characters',
      { SESSILE_ADMIN_KEY: 'only-thirty-one-characters-long' },
      /SESSILE_ADMIN_KEY must have 32 characters or more/,
    ],
    ['a port that is no number', { SESSILE_PORT: 'http' }, /SESSILE_PORT must be a port number, not http/],
    ['a port beyond the last', { SESSILE_PORT: '65536' }, /SESSILE_PORT must be a port number, not 65536/],
    ['half a port', { SESSILE_PORT: '80.5' }, /SESSILE_PORT must be a port number, not 80.5/],
    ['an unknown log level', { SESSILE_LOG_LEVEL: 'loud' }, /SESSILE_LOG_LEVEL must be one of/],
    ['an idle time for an unknown kind', { SESSILE_IDLE_SECONDS: 'seance=5' }, /SESSILE_IDLE_SECONDS must be seconds/],
  ])('is refused with %s, and makes nothing', async (_, env: Record<string, string>, sentence) => {
    const home = makeHome()
    const { code, out, err } = await cli(home, ['serve'], { SESSILE_PORT: '0', ...env })
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(sentence)
    expect(err.trim().split('\n')).toHaveLength(1)
    expect(err).not.toContain(env.SESSILE_ADMIN_KEY ?? 'no key was given')
    expect(readdirSync(home)).toEqual([])
  })

  it('is refused at an address that another program has, in one sentence', async () => {
    const other = createServer().listen(0, '127.0.0.1')
    await once(other, 'listening')
    const { port } = other.address() as { port: number }
    const home = makeHome()
    const { code, out, err } = await cli(home, ['serve'], { SESSILE_PORT: String(port) })
    other.close()
    expect({ code, out }).toEqual({ code: 2, out: '' })
    expect(err).toMatch(new RegExp(`^sessile: Sessile cannot listen on 127.0.0.1:${port}: .*EADDRINUSE.*\\.\\n$`))
    expect(await end(await serveApart(home))).toBe(0)
  })
})

describe('a second process on the same data', () => {
  it('is refused, names the first and changes nothing', async () => {
    const home = makeHome()
    const first = await serveApart(home)
    const { body } = await first.admin.start()
    await first.admin.get('/api/v1/sessions')
    // Lines get to their files a little after the answer.
    const copied = () => trailOf({ home }).length === 1 && linesIn(sessionFile(home, body.session_id)).length === 1
    await expect.poll(() => existsSync(sessionFile(home, body.session_id)) && copied()).toBe(true)
    const note = () => readFileSync(join(journal(home), 'holder.json'), 'utf8')
    const before = { files: filesUnder(home), logs: logBytes({ home }), note: note() }
    const { code, out, err } = await cli(home, ['serve'], { SESSILE_PORT: '0' })
    expect({ code, out }).toEqual({ code: 4, out: '' })
    expect(err).toMatch(/^sessile: The data in .* is held by process \d+, running since \S+Z on http:\S+\.\n$/)
    expect(err).toContain(`process ${first.child.pid},`)
    expect(err).toContain(` on ${first.url}.`)
    expect({ files: filesUnder(home), logs: logBytes({ home }), note: note() }).toEqual(before)
    expect((await first.admin.start({ user_id: 'bob' })).status).toBe(201)
  })

  it('begins as soon as the first was killed, and finds what it had acknowledged', async () => {
    const home = makeHome()
    const first = await serveApart(home)
    const { body } = await first.admin.start()
    await first.admin.append(body.session_id, [said('one'), said('two')])
    first.child.kill('SIGKILL')
    expect(await first.ended).toBe('SIGKILL')
    const second = await serveApart(home)
    const { body: detail } = await second.admin.get(`/api/v1/sessions/${body.session_id}`)
    expect(detail.transcript.map((line: { text: string }) => line.text)).toEqual(['one', 'two'])
    expect(await end(second)).toBe(0)
    expect((await cli(home, ['verify'])).code).toBe(0)
  })

  it('finds a copy of the data free, whatever the note in it says', async () => {
    const home = makeHome()
    const first = await serveApart(home)
    await first.admin.start()
    const copy = makeHome()
    copyHome(home, copy)
    const second = await serveApart(copy)
    expect((await second.admin.get('/api/v1/sessions')).body.sessions).toHaveLength(1)
  })
})

describe('SIGTERM', () => {
  it('lets no one in, answers what is under way, ends streams, and leaves an empty journal', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const { body: started } = await apart.admin.start()
    const stream = await apart.admin.raw('GET', `/api/v1/sessions/${started.session_id}/records?follow=1`)
    const reader = (stream.body as ReadableStream<Uint8Array>).pipeThrough(new TextDecoderStream()).getReader()
    let seen = ''
    while (!seen.includes('caught-up')) seen += (await reader.read()).value
    const body = JSON.stringify({ user_id: 'bob', performer_id: 'device-7' })
    const slow = await posting(apart.url, body.length, { agent: false })
    slow.write(body.slice(0, 10))

    apart.child.kill('SIGTERM')
    for (let read = await reader.read(); !read.done; read = await reader.read()) seen += read.value
    expect(seen.match(/^event: \S+/gm)).toEqual(['event: record', 'event: caught-up'])
    await expect(fetch(`${apart.url}/healthz`)).rejects.toThrow('fetch failed')
    expect(apart.child.exitCode).toBe(null)

    slow.end(body.slice(10))
    const [answer] = (await once(slow, 'response')) as [IncomingMessage]
    expect(answer.statusCode).toBe(201)
    const { session_id } = JSON.parse(await text(answer))
    expect(await apart.ended).toBe(0)
    expect(segments(home)).toEqual([80])
    expect(existsSync(join(journal(home), 'holder.json'))).toBe(false)
    expect(readdirSync(join(home, 'projections'))).toEqual(['sessile.db'])
    expect(linesIn(sessionFile(home, session_id, 'bob'))).toMatchObject([{ type: 'session.started', user_id: 'bob' }])

    const next = await serveApart(home)
    expect((await next.admin.get('/api/v1/sessions?status=active')).body.sessions).toHaveLength(2)
    expect((await next.admin.end({ session_id: started.session_id })).status).toBe(200)
  })

  it('does as well what SIGINT asks for', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    apart.child.kill('SIGINT')
    expect(await apart.ended).toBe(0)
    expect(segments(home)).toEqual([80])
  })

  // Fails as long as only connections that were idle before the stop are closed: the others keep it up for five seconds.
  it('does not wait for a caller who keeps a connection open after the last answer', async () => {
    const apart = await serveApart(makeHome())
    const body = JSON.stringify({ user_id: 'bob', performer_id: 'device-7' })
    const agent = new Agent({ keepAlive: true })
    later(() => agent.destroy())
    const slow = await posting(apart.url, body.length, { agent })
    apart.child.kill('SIGTERM')
    await expect.poll(() => apart.err()).toContain('is stopping')
    slow.end(body)
    const [answer] = (await once(slow, 'response')) as [IncomingMessage]
    expect(answer.statusCode).toBe(201)
    await text(answer)
    expect(await Promise.race([apart.ended, new Promise((resolve) => setTimeout(resolve, 2500, 'still there'))])).toBe(0)
  })
})

describe('what a running server tells', () => {
  it('says to anyone that it is alive and ready', async () => {
    const { url } = await serveApart(makeHome())
    const anyone = new Client(url, undefined)
    expect(await anyone.get('/healthz')).toMatchObject({ status: 200, body: { status: 'alive' } })
    expect(await anyone.get('/readyz')).toMatchObject({ status: 200, body: { status: 'ready' } })
    expect(await anyone.get('/api/v1/sessions')).toMatchObject({ status: 401, body: { reason: 'unauthenticated' } })
  })

  it('logs each request as a line of JSON with its id and its route, and nobody in it', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const device = await apart.admin.device({ users: ['wilhelmina'] })
    const named = { 'x-request-id': 'asked-by-the-test', 'idempotency-key': 'retry-of-wilhelmina' }
    const { body, headers } = await device.start({ user_id: 'wilhelmina', performer_id: 'jonathan' }, named)
    expect(headers.get('x-request-id')).toBe('asked-by-the-test')
    await device.append(body.session_id, said('the letters are under the floor', { user_id: 'wilhelmina' }))
    const refused = await device.append(body.session_id, said('nobody may', { user_id: 'lucy' }))
    expect(refused.status).toBe(403)
    await device.get('/api/v1/users/wilhelmina/sessions?limit=wilhelmina')
    await device.get('/no/such/page/of/wilhelmina')
    await device.raw('POST', '/session_manager/sessions.start', { body: '{"user_id":"wilhelmina"' })
    await device.raw('GET', `/api/v1/sessions/${body.session_id}/records`, { headers: { 'x-request-id': 'wilhelmina\tand more' } })
    await fetch(`${apart.url}/api/v1/users/wilhelmina/sessions`)
    expect(await end(apart)).toBe(0)

    const told = apart.err().trimEnd().split('\n')
    const lines = told.filter((line) => line.startsWith('{')).map((line) => JSON.parse(line))
    expect(told.filter((line) => !line.startsWith('{'))).toEqual([
      expect.stringMatching(/^Sessile serves /),
      expect.stringMatching(/^Sessile is stopping/),
    ])
    const requests = lines.filter(({ msg }) => msg === 'request')
    expect(requests).toHaveLength(9)
    for (const line of requests) {
      expect(line).toMatchObject({ time: expect.stringMatching(/Z$/), method: expect.any(String), status: expect.any(Number) })
      expect(line.request_id).toMatch(/^[\w.-]{1,64}$/)
    }
    expect(requests[1]).toMatchObject({ request_id: 'asked-by-the-test', route: '/session_manager/sessions.start', status: 201 })
    expect(requests[3]).toMatchObject({ route: '/api/v1/sessions/{session_id}/records', status: 403, reason: refused.body.reason })
    expect(requests[3].request_id).toBe(refused.body.request_id)
    const private_ = ['wilhelmina', 'jonathan', 'lucy', 'letters', 'nobody may', body.session_id, device.key ?? '', ADMIN]
    for (const word of private_) expect(told.slice(1).join('\n')).not.toContain(word)
  })

  it('is silent where it is told to be', async () => {
    const apart = await serveApart(makeHome(), { SESSILE_LOG_LEVEL: 'silent' })
    await apart.admin.start()
    expect(await end(apart)).toBe(0)
    expect(apart.err()).not.toContain('{')
  })

  it('goes on, and can be stopped, when nobody reads what it says any more', async () => {
    const apart = await serveApart(makeHome())
    apart.child.stdout?.destroy()
    apart.child.stderr?.destroy()
    for (let i = 0; i < 60; i++) expect((await apart.admin.start({ user_id: `u${i}` })).status).toBe(201)
    expect(await end(apart)).toBe(0)
  })
})
