// Senders that are slow, on purpose or not: none holds a connection for longer than there is patience, and a stream of
// records that pauses is left in peace.

import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import { logBytes, type Running, run, said } from './harness.ts'

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
    setTimeout(() => reject(new Error('the connection was never closed')), 10_000).unref()
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

  it('of a body that never comes is refused, too', async () => {
    const running = await run(undefined, { patience: PATIENCE })
    expect(await drip(running, [headers(running.admin.key, 100)])).toContain('"reason":"body-too-slow"')
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
})
