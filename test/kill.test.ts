// kill -9, again and again, under load. The ledger of what was acknowledged lives outside the process that is killed; after
// each start everything in it must be there, whole, and every log must verify.
//
//   SESSILE_TEST_KILLS=100 npx vitest run test/kill.test.ts     for longer

import { describe, expect, it } from 'vitest'
import { type Apart, type Client, cli, type Json, makeHome, said, serveApart } from './harness.ts'

const KILLS = Number(process.env.SESSILE_TEST_KILLS ?? 6)
const CALLERS = 12

interface Ledger {
  /** Acknowledged records by id, with what was sent. */
  records: Map<string, { session_id: string; text: string | undefined }>
  ended: Set<string>
  named: Map<string, { path: string; body: unknown; answer: Json }>
}

/** One caller: sessions from start to end, until the connection breaks. */
async function call(client: Client, user_id: string, ledger: Ledger, sequence: { n: number }): Promise<void> {
  try {
    for (;;) {
      const key = `k${sequence.n++}`
      const start = { user_id, performer_id: 'device-7', kind: 'therapy' }
      const started = await client.post('/session_manager/sessions.start', start, { 'idempotency-key': key })
      if (started.status !== 201) throw new Error(`start answered ${started.status}`)
      const { session_id } = started.body
      ledger.records.set(started.body.record_id, { session_id, text: undefined })
      ledger.named.set(key, { path: '/session_manager/sessions.start', body: start, answer: started.body })
      for (let i = 0; i < 4; i++) {
        const texts = Array.from({ length: i + 1 }, () => `text ${sequence.n++}`)
        const appended = await client.append(
          session_id,
          texts.map((text) => said(text, { user_id })),
        )
        if (appended.status !== 201) throw new Error(`append answered ${appended.status}`)
        for (const { record_id, text } of appended.body) ledger.records.set(record_id, { session_id, text })
      }
      if ((await client.end({ user_id, session_id })).status === 200) ledger.ended.add(session_id)
    }
  } catch (error) {
    // The connection breaks when the process dies; anything else is a finding.
    if (!(error instanceof TypeError) && !/JSON|answered 503/.test(String(error))) throw error
  }
}

async function audit(apart: Apart, ledger: Ledger): Promise<void> {
  const logs = new Map<string, Json[]>()
  for (const [record_id, { session_id, text }] of ledger.records) {
    if (!logs.has(session_id))
      logs.set(session_id, (await apart.admin.get(`/api/v1/sessions/${session_id}/records?limit=10000`)).body.records)
    const found = logs.get(session_id)?.filter((record) => record.record_id === record_id) ?? []
    expect(found).toHaveLength(1)
    expect(found[0].data.text).toBe(text)
  }
  for (const [session_id, records] of logs) {
    expect(records.map(({ seq }) => seq)).toEqual(records.map((_, i) => i + 1))
    // Arrays of one to four were sent: an array is whole, or it is not there.
    const said = records.filter(({ type }) => type === 'transcript.said').length
    expect([0, 1, 3, 6, 10]).toContain(said)
    if (ledger.ended.has(session_id)) expect(records.at(-1).type).toBe('session.ended')
  }
  for (const [key, { path, body, answer }] of [...ledger.named].slice(-20)) {
    expect((await apart.admin.post(path, body, { 'idempotency-key': key })).body).toEqual(answer)
  }
}

describe('kill -9', () => {
  it(
    `loses nothing that was acknowledged, ${KILLS} times in a row`,
    async () => {
      const home = makeHome()
      const ledger: Ledger = { records: new Map(), ended: new Set(), named: new Map() }
      const sequence = { n: 0 }
      for (let kill = 0; kill < KILLS; kill++) {
        const apart = await serveApart(home)
        await audit(apart, ledger)
        const before = ledger.records.size
        const calls = Array.from({ length: CALLERS }, (_, i) => call(apart.admin, `user-${i}`, ledger, sequence))
        // However busy the machine is: somebody has been answered, and is at work.
        while (ledger.records.size === before) await new Promise((resolve) => setTimeout(resolve, 10))
        await new Promise((resolve) => setTimeout(resolve, 100 + ((kill * 137) % 400)))
        apart.child.kill('SIGKILL')
        await apart.ended
        await Promise.all(calls)
      }
      const last = await serveApart(home)
      await audit(last, ledger)
      last.child.kill('SIGTERM')
      expect(await last.ended).toBe(0)
      expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
      expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    },
    60_000 + KILLS * 10_000,
  )
})
