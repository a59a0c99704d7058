// How fast is a durable record over HTTP? Against the same HTTP library doing nothing but echoing the body, and bare
// node:http doing that. The callers are another process: keep-alive connections, each asking again when it was answered.

import { spawn } from 'node:child_process'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'
import { serve } from '../src/app.ts'
import { type Contender, compare, type Row, scratch } from './measure.ts'
import { configOf, said } from './sessile.ts'

const KEY = 'an-admin-key-for-the-benchmark-of-32-letters'
const SESSIONS = 200

/** Asks over so many connections for so many seconds, from a process of its own; returns answers per second. */
export function ask(
  port: number,
  connections: number,
  seconds: number,
  requests: { path: string; body: string }[],
  key: string,
): Promise<number> {
  const child = spawn(process.execPath, [new URL('./callers.mjs', import.meta.url).pathname], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.end(JSON.stringify({ port, connections, seconds, requests, key }))
  let out = ''
  child.stdout.on('data', (data) => {
    out += data
  })
  return new Promise((resolve, reject) =>
    child.on('close', (code) => (code === 0 ? resolve(Number(out)) : reject(new Error(`the callers ended with ${code}`)))),
  )
}

const post = async (url: string, body: unknown) => {
  const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
  return (await (await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })).json()) as Record<string, string>
}

async function sessileOver(folder: string) {
  const serving = await serve({ config: { ...configOf(join(folder, 'sessile')), adminKey: KEY } })
  const { secret } = await post(`${serving.url}/api/v1/keys`, { account_id: 'device-7', users: 'all' })
  const ids = await Promise.all(
    Array.from({ length: SESSIONS }, async (_, i) => {
      const { session_id } = await post(`${serving.url}/session_manager/sessions.start`, { user_id: `u${i}`, performer_id: 'd' })
      return session_id as string
    }),
  )
  return { serving, ids, key: secret as string, port: Number(new URL(serving.url).port) }
}

const listening = (server: ReturnType<typeof createServer>) =>
  new Promise<number>((resolve) => server.listen(0, '127.0.0.1', () => resolve((server.address() as AddressInfo).port)))

async function honoEcho() {
  const app = new Hono()
  app.post('/*', async (c) => c.json((await c.req.json()) as object))
  const server = createAdaptorServer({ fetch: app.fetch }) as ReturnType<typeof createServer>
  return { port: await listening(server), close: () => void server.close() }
}

async function bareEcho() {
  const server = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => response.setHeader('content-type', 'application/json').end(Buffer.concat(chunks)))
  })
  return { port: await listening(server), close: () => void server.close() }
}

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const { serving, ids, key, port } = await sessileOver(path)
  const [hono, bare] = [await honoEcho(), await bareEcho()]
  const requestsOf = (records: number) =>
    ids.map((id, i) => ({
      path: `/api/v1/sessions/${id}/records`,
      body: JSON.stringify(records === 1 ? said(`u${i}`) : Array.from({ length: records }, () => said(`u${i}`))),
    }))
  const rows: Row[] = []
  for (const connections of [1, 64, 256]) {
    const one = requestsOf(1)
    const contenders: Contender[] = [
      { name: 'Hono echo', round: () => ask(hono.port, connections, seconds, one, key) },
      { name: 'node:http echo', round: () => ask(bare.port, connections, seconds, one, key) },
      { name: 'Sessile, a record a request', round: () => ask(port, connections, seconds, one, key) },
      {
        name: 'Sessile, 64 records a request',
        round: async () => 64 * (await ask(port, connections, seconds, requestsOf(64), key)),
      },
    ]
    rows.push(
      ...(await compare(`append over HTTP, ${connections} connections`, 'records/s', contenders, {
        rounds,
        yardstick: 'Hono echo',
      })),
    )
  }
  hono.close()
  bare.close()
  await serving.stop()
  remove()
  return rows
}
