// What is clinical is told to those alone who may read notes, in every way of reading a session: for anybody else it is as if
// it had never been written. Of what the product records, a crisis that was flagged is clinical.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Events } from '../src/core/event.ts'
import { features } from '../src/features/index.ts'
import { projectionOf } from '../src/log/shelf.ts'
import { erase } from './backups.ts'
import { Client, type Json, linesIn, type Running, run, type SignedIn, said, sessionFile } from './harness.ts'

const flagged = { ...said(''), type: 'crisis.flagged', source: 'classifier', data: { note: 'spoke of the bridge' } }

interface Scene {
  running: Running
  session_id: string
  ada: SignedIn
  thea: SignedIn
}

/** A session of ada with these records, of whom a therapist takes care. */
async function scene(records: object[]): Promise<Scene> {
  const running = await run()
  const { session_id } = (await running.admin.start()).body
  for (const record of records) await running.admin.append(session_id, record)
  const ada = await running.admin.account({ account_id: 'ada' })
  const thea = await running.admin.account({ role: 'therapist', account_id: 'thea' })
  await running.admin.post('/api/v1/assignments', { therapist_id: 'thea', user_id: 'ada', relationship_type: 'primary' })
  return { running, session_id, ada, thea }
}

const clinic = () => scene([said('one'), flagged, said('two'), flagged, flagged, said('three')])

const NDJSON = { accept: 'application/x-ndjson' }
const lines = async (client: Client, session_id: string, query = '') =>
  (await (await client.raw('GET', `/api/v1/sessions/${session_id}/records${query}`, { headers: NDJSON })).text())
    .trimEnd()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Json)

/** What a stream tells until it has caught up: the id, the name and the data of each event. */
async function followed(client: Client, session_id: string, query = '', headers: Record<string, string> = {}) {
  const response = await client.raw('GET', `/api/v1/sessions/${session_id}/records?follow=1${query}`, { headers })
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  let text = ''
  while (!text.includes('event: caught-up\ndata: {"seq":')) {
    const { value, done } = await reader.read()
    if (done) throw new Error(`the stream ended: ${text}`)
    text += Buffer.from(value).toString()
  }
  await reader.cancel()
  return text
    .trimEnd()
    .split('\n\n')
    .map((event) => Object.fromEntries(event.split('\n').map((line) => line.split(/: (.*)/s) as [string, string])))
}

const seqs = (records: Json[]) => records.map(({ seq }) => seq)
const types = (records: Json[]) => [...new Set(records.map(({ type }) => type))]

describe('a clinical record', () => {
  it('is told to the therapist and the admin with all the others, as it was recorded', async () => {
    const { running, session_id, thea } = await clinic()
    running.sessile.log.settle()
    const recorded = linesIn(sessionFile(running.home, session_id))
    for (const client of [thea, running.admin]) {
      const { body } = await client.get(`/api/v1/sessions/${session_id}/records`)
      expect(seqs(body.records)).toEqual([1, 2, 3, 4, 5, 6, 7])
      expect(await lines(client, session_id)).toEqual(recorded)
      expect((await followed(client, session_id)).map(({ id }) => id)).toEqual(['1', '2', '3', '4', '5', '6', '7', undefined])
      expect((await client.get(`/api/v1/sessions/${session_id}/timeline`)).body.entries).toHaveLength(7)
    }
  })

  it('is told to the patient in no way of reading', async () => {
    const { session_id, ada } = await clinic()
    const at = `/api/v1/sessions/${session_id}`
    const { records } = (await ada.get(`${at}/records`)).body
    const { entries } = (await ada.get(`${at}/timeline`)).body
    const streamed = await followed(ada, session_id)
    const told = [
      records,
      await lines(ada, session_id),
      entries,
      streamed.slice(0, -1).map(({ data }) => JSON.parse(data as string)),
    ]
    for (const one of told) {
      expect(seqs(one)).toEqual([1, 2, 3, 4])
      expect(types(one)).toEqual(['session.started', 'transcript.said'])
      expect(JSON.stringify(one)).not.toMatch(/bridge|crisis|classifier/)
    }
    expect(streamed.map(({ id, event }) => [id, event])).toEqual([
      ...['1', '2', '3', '4'].map((id) => [id, 'record']),
      [undefined, 'caught-up'],
    ])
    expect(streamed.at(-1)?.data).toBe('{"seq":4}')
  })

  it('leaves no trace in what is told of the others: every answer is the one that would be given if it were not there', async () => {
    const [one, other] = [await clinic(), await scene([said('one'), said('two'), said('three')])]
    const told = async ({ session_id, ada }: Scene) => {
      const at = `/api/v1/sessions/${session_id}`
      const answers = [
        ...(await Promise.all(
          [
            '/records',
            '/records?limit=2',
            '/records?after=2&limit=1',
            '/records?after=4',
            '/timeline?limit=2',
            '/timeline?after=3',
          ].map(async (path) => (await ada.raw('GET', at + path)).text()),
        )),
        await lines(ada, session_id),
        await lines(ada, session_id, '?after=2'),
        await followed(ada, session_id),
        await followed(ada, session_id, '&after=2'),
        await followed(ada, session_id, '', { 'last-event-id': '3' }),
      ]
      const given = /"(?:record_id|timestamp|started_at|at|offset_ms|session_id)\\?":(?:\\?"[^"\\]+\\?"|\d+)/g
      return JSON.stringify(answers).replaceAll(given, '')
    }
    const [without, withThem] = [await told(other), await told(one)]
    expect(withThem).toBe(without)
    expect(without).toContain('three')
  })

  it('reaches no patient who follows while it is recorded, and moves nothing of what comes after', async () => {
    const { running, session_id, ada } = await clinic()
    const response = await ada.raw('GET', `/api/v1/sessions/${session_id}/records?follow=1&after=4`)
    const reader = (response.body as ReadableStream<Uint8Array>).getReader()
    let text = ''
    const until = async (found: string) => {
      while (!text.includes(found)) text += Buffer.from((await reader.read()).value ?? []).toString()
    }
    await until('caught-up')
    await running.admin.append(session_id, flagged)
    await running.admin.append(session_id, said('four'))
    await until('four')
    await reader.cancel()
    expect(text.match(/^(?:id|event): .*$/gm)).toEqual(['event: caught-up', 'id: 5', 'event: record'])
    expect(text).not.toContain('bridge')
  })

  it('might be any whose type nobody knows any more: such a one is kept from the patient, too', async () => {
    const { running, session_id, ada, thea } = await clinic()
    await running.admin.append(session_id, { ...said(''), type: 'x.acme.note', source: 'acme', data: { n: 1 } })
    const told = async (url: string, { key }: Client) =>
      (await new Client(url, key).get(`/api/v1/sessions/${session_id}/records`)).body.records
    expect((await told(running.url, ada)).at(-1).type).toBe('x.acme.note')
    await running.stop()
    const events = new Events(features.events.all.filter(({ type }) => type !== 'x.open'))
    const { url } = await run(running.home, {}, undefined, { gathered: { ...features, events } })
    expect(await told(url, ada)).toHaveLength(4)
    expect(await told(url, thea)).toHaveLength(8)
  })

  it('might have been any that was erased: nothing of such a line is told to the patient', async () => {
    const { running, session_id, ada, thea } = await clinic()
    await running.stop()
    const file = sessionFile(running.home, session_id)
    writeFileSync(file, erase(readFileSync(file, 'utf8'), 2))
    rmSync(projectionOf(running.home))
    const { url } = await running.restart()
    const told = async ({ key }: Client) => {
      const client = new Client(url, key)
      const at = `/api/v1/sessions/${session_id}/records`
      return [(await client.get(at)).body.records, await lines(client, session_id), await followed(client, session_id)]
    }
    for (const one of await told(ada)) expect(JSON.stringify(one)).toMatch(/^(?!.*erased).*three/)
    for (const one of await told(thea)) expect(JSON.stringify(one)).toMatch(/erased_by.*three/)
  })

  it('does not show in the numbers of what a patient records', async () => {
    const { running, session_id, ada } = await clinic()
    const noted = said('noted', { performer_id: 'ada' })
    const one = await ada.append(session_id, noted, { 'idempotency-key': 'one' })
    expect(one.status).toBe(201)
    expect(await ada.append(session_id, noted, { 'idempotency-key': 'one' })).toMatchObject({ status: 201, body: one.body })
    const two = await ada.append(session_id, [noted, noted])
    const stream = { method: 'POST', body: JSON.stringify(noted), headers: { 'content-type': 'application/x-ndjson' } }
    const three = await (await ada.raw('POST', `/api/v1/sessions/${session_id}/records`, stream)).text()
    const end = await ada.end({ session_id, performer_id: 'ada' })
    expect(end.status).toBe(200)
    for (const told of [one.body, ...two.body, JSON.parse(three), end.body]) {
      expect(told).toMatchObject({ type: expect.any(String), record_id: expect.any(String) })
      expect(told).not.toHaveProperty('seq')
    }
    expect((await running.admin.start()).body.seq).toBe(1)
  })
})

describe('the lines of a log', () => {
  it('come to a patient without their seals, which would tell of a line that was left out, and otherwise as recorded', async () => {
    const { running, session_id, ada } = await scene([said('“one”\n\u2028 "seq":9 👩🏽‍🚀')])
    running.sessile.log.settle()
    const recorded = linesIn(sessionFile(running.home, session_id))
    expect(await lines(ada, session_id)).toEqual(recorded.map(({ salt: _, hash: __, ...rest }) => rest))
  })

  it('come to a patient without the name of their request, a digest of all that was recorded with them', async () => {
    const { running, session_id, ada, thea } = await scene([])
    const both = await running.admin.append(session_id, [said('one'), flagged], { 'idempotency-key': 'both' })
    expect(both.status).toBe(201)
    const streamed = async (client: Client) => (await followed(client, session_id)).map(({ data }) => data).join()
    const told = async (client: Client) => [
      JSON.stringify((await client.get(`/api/v1/sessions/${session_id}/records`)).body),
      JSON.stringify(await lines(client, session_id)),
      await streamed(client),
    ]
    for (const text of await told(thea)) expect(text.match(/"command_id"/g)).toHaveLength(2)
    for (const text of await told(ada)) {
      expect(text).toContain('"text":"one"')
      expect(text).not.toContain('command_id')
    }
    const quoting = said('"command_id":"a.b","data":', { performer_id: 'ada' })
    await ada.append(session_id, quoting, { 'idempotency-key': 'quoting' })
    expect((await lines(ada, session_id)).at(-1)).toMatchObject({ data: quoting.data })
  })

  it('are refused where the log is damaged, whoever reads it', async () => {
    const { running, session_id, ada } = await clinic()
    running.sessile.log.settle()
    const file = sessionFile(running.home, session_id)
    writeFileSync(file, readFileSync(file, 'utf8').replace('spoke of the bridge', 'spoke of the ridge!'))
    for (const headers of [{}, NDJSON]) {
      const { status, body } = await ada.get(`/api/v1/sessions/${session_id}/records`, headers)
      expect([status, body.reason]).toEqual([503, 'log-damaged'])
    }
  })
})
