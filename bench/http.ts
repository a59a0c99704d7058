// How fast is a durable record over HTTP? Against the same HTTP library doing nothing but echoing the body, and bare
// node:http doing that. A record comes in a request of its own, or sixty-four in one, or as a line of a stream. The callers are another process: keep-alive connections, each asking again when it was answered.

import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'
import { serve } from '../src/app.ts'
import { fed } from './children.ts'
import { type Contender, compare, type Row, scratch } from './measure.ts'
import { configOf, requestsTo, type Session } from './sessile.ts'

const KEY = 'an-admin-key-for-the-benchmark-of-32-letters'
const SESSIONS = 200

interface Asked {
  port: number
  connections: number
  seconds: number
  requests: { path: string; body: string }[]
  key: string
}

/** Asks from a process of its own; returns answers per second. */
const ask = async (asked: Asked) => Number(await fed('./callers.mjs', asked))

/** How many lines of one stream are under way, and of all together: as many as the recorder takes on, which lets streams wait when it has half of that. */
const MOST_OF_STREAM = 256
const MOST_OF_ALL = 16_384

/** Sends lines in one long request on each connection; returns lines answered per second. */
const stream = async (asked: Asked) => {
  const window = Math.min(MOST_OF_STREAM, MOST_OF_ALL / asked.connections)
  return Number(await fed('./streams.mjs', { ...asked, window }))
}

const post = async (url: string, body: unknown) => {
  const headers = { authorization: `Bearer ${KEY}`, 'content-type': 'application/json' }
  return (await (await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })).json()) as Record<string, string>
}

async function sessileOver(folder: string) {
  const serving = await serve({ config: { ...configOf(join(folder, 'sessile')), adminKey: KEY } })
  const { secret } = await post(`${serving.url}/api/v1/keys`, { account_id: 'device-7', users: 'all' })
  const sessions = await Promise.all(
    Array.from({ length: SESSIONS }, async (_, i): Promise<Session> => {
      const user_id = `u${i}`
      const { session_id } = await post(`${serving.url}/session_manager/sessions.start`, { user_id, performer_id: 'd' })
      return { user_id, session_id: session_id as string }
    }),
  )
  return { serving, sessions, key: secret as string, port: Number(new URL(serving.url).port) }
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
  const { serving, sessions, key, port } = await sessileOver(path)
  const [hono, bare] = [await honoEcho(), await bareEcho()]
  const rows: Row[] = []
  for (const connections of [1, 64, 256]) {
    const load = { connections, seconds, key }
    const [one, many] = [requestsTo(sessions), requestsTo(sessions, 64)]
    const contenders: Contender[] = [
      { name: 'Hono echo', round: () => ask({ ...load, port: hono.port, requests: one }) },
      { name: 'node:http echo', round: () => ask({ ...load, port: bare.port, requests: one }) },
      { name: 'Sessile, a record a request', round: () => ask({ ...load, port, requests: one }) },
      { name: 'Sessile, 64 records a request', round: async () => 64 * (await ask({ ...load, port, requests: many })) },
      { name: 'Sessile, a stream of NDJSON', round: () => stream({ ...load, port, requests: one }) },
    ]
    rows.push(
      ...(await compare(
        `append over HTTP, ${connections} ${connections === 1 ? 'connection' : 'connections'}`,
        'records/s',
        contenders,
        {
          rounds,
          yardstick: 'Hono echo',
          warm: connections > 1,
        },
      )),
    )
  }
  hono.close()
  bare.close()
  await serving.stop()
  remove()
  return rows
}
