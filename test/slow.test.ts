// Senders that are slow, on purpose or not: none holds a connection for longer than there is patience, and a stream of
// records that pauses is left in peace.

import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { logBytes, type Running, run, said, trailOf } from './harness.ts'

const PATIENCE = 700
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** What comes back on a connection over which these pieces are sent, a quarter of a second apart, until it is closed. */
function drip({ url }: Running, pieces: string[]): Promise<string> {
  const { port } = new URL(url)
  return new Promise((resolve, reject) => {
    let came = ''
    const socket = connect(Number(port), '127.0.0.1', async () => {
      for (const piece of pieces) {
        if (socket.destroyed) return
        socket.write(piece)
        await wait(250)
      }
    })
    socket.on('data', (data) => {
      came += data
    })
    // Writing on after the other side has closed is what a slow sender does.
    socket.on('error', () => {})
    socket.on('close', () => resolve(came))
    setTimeout(() => reject(new Error('the connection was never closed')), 30_000).unref()
  })
}

const headers = (key: string | undefined, length: number) =>
  `POST /session_manager/sessions.start HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`

describe('a slow sender', () => {
  it('of headers is cut off', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    const letters = [...'POST /session_manager/sessions.start HTTP/1.1\r\nHost: example\r\nX-Slow: yes, very\r\n']
    expect(await drip(running, letters)).toMatch(/^HTTP\/1\.1 408 /)
  })

  it('of a body is refused, however steadily it drips, and nothing is recorded', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    const body = JSON.stringify({ user_id: 'ada', performer_id: 'device-7', session_notes: 'x'.repeat(100) })
    const before = logBytes(running)
    const came = await drip(running, [headers(running.admin.key, body.length), ...body])
    expect(came).toMatch(/^HTTP\/1\.1 408 /)
    expect(came).toContain('"reason":"body-too-slow"')
    expect(came).toMatch(/connection: close/i)
    expect(logBytes(running)).toBe(before)
    expect((await running.admin.start()).status).toBe(201)
  })

  it('of a body is refused no later where nothing had come for a while', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    await wait(6 * PATIENCE)
    const body = JSON.stringify({ user_id: 'ada', performer_id: 'device-7' })
    const pieces = Array.from({ length: 14 }, (_, i) => body.slice(4 * i, i === 13 ? undefined : 4 * (i + 1)))
    expect(await drip(running, [headers(running.admin.key, body.length), ...pieces])).toMatch(/^HTTP\/1\.1 408 /)
  })

  it('of a body that never comes is refused, too', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    expect(await drip(running, [headers(running.admin.key, 100)])).toContain('"reason":"body-too-slow"')
  })

  it('of which there are many delays nobody else', async () => {
    const running = await run(undefined, { patience: 3 * PATIENCE })
    const body = JSON.stringify({ user_id: 'ada', performer_id: 'device-7', session_notes: 'x'.repeat(100) })
    const before = logBytes(running)
    const slow = Array.from({ length: 100 }, (_, i) =>
      drip(
        running,
        i % 2 === 0 ? [headers(running.admin.key, body.length), ...body] : [...'POST / HTTP/1.1\r\nHost: example\r\nX-Slow: yes'],
      ),
    )
    await wait(PATIENCE)
    expect(logBytes(running)).toBe(before)
    const starts = Array.from({ length: 100 }, (_, i) => running.admin.start({ user_id: `u${i}` }))
    expect((await Promise.all(starts)).filter(({ status }) => status !== 201)).toEqual([])
    for (const came of await Promise.all(slow)) expect(came).toMatch(/^HTTP\/1\.1 408 /)
    expect((await running.admin.get('/api/v1/sessions?limit=200')).body.sessions).toHaveLength(100)
  })

  it('is not blamed where we ourselves were too busy to read what had come', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    const body = JSON.stringify({ user_id: 'ada', performer_id: 'device-7' })
    const { port } = new URL(running.url)
    const socket = connect(Number(port), '127.0.0.1')
    let came = ''
    socket.on('data', (data) => {
      came += data
    })
    socket.write(headers(running.admin.key, body.length) + body.slice(0, 5))
    await wait(100)
    socket.write(body.slice(5))
    // Sender and receiver are one process here, which does nothing else for a while.
    const until = performance.now() + 2 * PATIENCE
    while (performance.now() < until);
    while (came === '') await wait(50)
    expect(came).toMatch(/^HTTP\/1\.1 201 /)
    socket.destroy()
  })

  it('who is gone without a word is found out: the system asks for them', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const port = Number(new URL(running.url).port)
    const socket = connect(port, '127.0.0.1')
    socket.write(
      `POST /api/v1/sessions/${session_id}/records HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${running.admin.key}\r\n` +
        'Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n',
    )
    await wait(200)
    const hex = (number: number) => `0100007F:${number.toString(16).toUpperCase().padStart(4, '0')}`
    const ours = `${hex(port)} ${hex(socket.localPort as number)} 01 `
    const line = readFileSync('/proc/net/tcp', 'utf8')
      .split('\n')
      .find((text) => text.includes(ours))
    // The fourth number after the addresses and the state: which timer runs; 02 is the one that asks.
    expect(line).toMatch(/ 01 \w+:\w+ 02:/)
    socket.destroy()
  })

  it('of a stream of records may pause for as long as it likes', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    const { session_id } = (await running.admin.start()).body
    const lines = new ReadableStream<Uint8Array>({
      async start(controller) {
        for (const text of ['one', 'two']) {
          controller.enqueue(new TextEncoder().encode(`${JSON.stringify(said(text))}\n`))
          await wait(3 * PATIENCE)
        }
        controller.close()
      },
    })
    const response = await running.admin.raw('POST', `/api/v1/sessions/${session_id}/records`, {
      body: lines,
      duplex: 'half',
      headers: { 'content-type': 'application/x-ndjson' },
    })
    const answers = (await response.text()).trimEnd().split('\n')
    expect(answers.map((line) => JSON.parse(line).seq)).toEqual([2, 3])
  })

  it('of a body asks for nothing any more that they lost meanwhile', async () => {
    const running = await run()
    const eve = await running.admin.account({ role: 'admin', account_id: 'eve' })
    const thea = await running.admin.account({ role: 'therapist', account_id: 'thea' })
    const { body: assigned } = await running.admin.post('/api/v1/assignments', {
      therapist_id: 'thea',
      user_id: 'ada',
      relationship_type: 'primary',
    })
    const key = JSON.stringify({ account_id: 'device-9', role: 'admin' })
    const start = JSON.stringify({ user_id: 'ada', performer_id: 'thea' })
    const asked = [
      drip(running, pieces('/api/v1/keys', eve.key, key)),
      drip(running, pieces('/session_manager/sessions.start', thea.key, start)),
    ]
    await wait(100)
    expect((await running.admin.post('/api/v1/accounts/eve/deactivate', {})).status).toBe(200)
    expect((await running.admin.post(`/api/v1/assignments/${assigned.assignment_id}/end`, {})).status).toBe(200)
    const before = logBytes(running)
    const came = await Promise.all(asked)
    expect(came.map((text) => text.slice(9, 12))).toEqual(['401', '403'])
    expect(logBytes(running)).toBe(before)
    const told = trailOf(running).map(({ performer_id, data }) => [performer_id, data.reason])
    expect(told.slice(-2).sort()).toEqual([
      ['eve', 'unauthenticated'],
      ['thea', 'forbidden'],
    ])
  })
})

/** A request whose body comes in two pieces. */
const pieces = (path: string, key: string | undefined, body: string) => [
  `POST ${path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body.slice(0, 5)}`,
  '',
  body.slice(5),
]
