// Callers who stand in each other's way: many streams at once, answers that wait behind others on one connection, pages that
// nobody takes, bodies that come with a question, verbs that nobody answers.

import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { journalOf } from '../src/log/shelf.ts'
import { ADMIN, cli, type Json, later, makeHome, run, said, serveApart, withFiles } from './harness.ts'

/** A bare connection; what is sent on it, and what has come. */
async function wire(
  url: string,
): Promise<{ send: (text: string) => void; came: () => string; over: () => boolean; leave: () => void }> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  let [came, over] = ['', false]
  socket.on('data', (data) => {
    came += data
  })
  socket.on('close', () => {
    over = true
  })
  socket.on('error', () => {})
  later(() => void socket.destroy())
  await new Promise((resolve) => socket.once('connect', resolve))
  return { send: (text) => void socket.write(text), came: () => came, over: () => over, leave: () => void socket.destroy() }
}

const asks = (path: string, more = '') => `GET ${path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer ${ADMIN}\r\n${more}\r\n`

describe('streams of records', () => {
  it('are all answered, however many there are at a time', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const line = `${JSON.stringify(said('x'))}\n`
    const head = `POST /api/v1/sessions/${session_id}/records HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer ${ADMIN}\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n`
    const wires = await Promise.all(Array.from({ length: 700 }, () => wire(running.url)))
    for (const { send } of wires) send(`${head}${line.length.toString(16)}\r\n${line}\r\n`)
    await expect.poll(() => wires.filter(({ came }) => came().includes('"seq":')).length, { timeout: 30_000 }).toBe(700)
    for (const { leave } of wires) leave()
  })
})

describe('answers that wait behind others on their connection', () => {
  it('leave nothing behind when it goes', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const { session_id } = (await apart.admin.start()).body
    for (let i = 0; i < 4; i++)
      await apart.admin.append(
        session_id,
        Array.from({ length: 20 }, () => said('x '.repeat(2000))),
      )
    const { token } = JSON.parse(readFileSync(join(journalOf(home), 'holder.json'), 'utf8'))
    const load = async () => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const answer = await fetch(`${apart.url}/operator/load`, { method: 'POST', headers, body: '{}' })
      const { held_bytes, followers } = (await answer.json()) as Json
      return { held_bytes, followers }
    }
    const path = `/api/v1/sessions/${session_id}/records`
    for (let i = 0; i < 3; i++) {
      const { send, came, leave } = await wire(apart.url)
      send(asks(`${path}?follow=1`) + asks(`${path}?limit=10000`) + asks(`${path}?follow=1`))
      await expect.poll(came).toContain('caught-up')
      leave()
    }
    await expect.poll(load).toEqual({ held_bytes: 0, followers: 0 })
  })
})

describe('pages that nobody takes', () => {
  it('are refused before they take all memory', async () => {
    const apart = await serveApart(makeHome(), { NODE_OPTIONS: '--max-old-space-size=128' })
    const { session_id } = (await apart.admin.start()).body
    for (let i = 0; i < 10; i++)
      await apart.admin.append(
        session_id,
        Array.from({ length: 8 }, () => said('x '.repeat(25_000))),
      )
    const wires = await Promise.all(Array.from({ length: 120 }, () => wire(apart.url)))
    for (const { send } of wires) send(asks(`/api/v1/sessions/${session_id}/records?limit=10000`))
    await expect.poll(() => wires.some(({ came }) => came().includes('overloaded')), { timeout: 20_000 }).toBe(true)
    for (const { leave } of wires) leave()
    await expect.poll(async () => (await apart.admin.append(session_id, said('after'))).status, { timeout: 20_000 }).toBe(201)
  })
})

describe('a body that comes with a question', () => {
  it('is read by nobody: the connection ends with the answer', async () => {
    const running = await run()
    const { send, came, over } = await wire(running.url)
    send(asks('/healthz', 'Content-Length: 1000000\r\n'))
    await expect.poll(came).toContain('200 OK')
    expect(came()).toMatch(/^connection: close\r$/im)
    await expect.poll(over).toBe(true)
  })
})

describe('a verb whose connection is cut off', () => {
  it('does not end as if it had done its work', async () => {
    const home = makeHome()
    const apart = await serveApart(home, {}, [], withFiles(256))
    const idle = await Promise.all(Array.from({ length: 250 }, () => wire(apart.url).catch(() => undefined)))
    const { code, out, err } = await cli(home, ['keys', 'list'], { SESSILE_PATIENCE_SECONDS: '2' })
    expect(code === 0 ? out : err).not.toBe('')
    for (const one of idle) one?.leave()
  })
})
