// Named requests beyond what is kept at hand: a retry is known again however many names there are, whichever way they came
// into the table, and a name that was never given is never taken for a known one.

import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Names } from '../src/core/names.ts'
import { Tables } from '../src/core/tables.ts'
import { crashedCopy, makeHome, run, said } from './harness.ts'

const key = (i: number) => Buffer.from(`name ${i} `.repeat(3)).toString('base64url').slice(-22)

describe('named requests', () => {
  it('are found again after thousands of others, after a restart, after a crash, and after a rebuild', async () => {
    let running = await run()
    const { session_id } = (await running.admin.start()).body
    const lines = Array.from({ length: 6000 }, (_, i) => JSON.stringify(said(`line ${i}`)))
    const stream = async () => {
      const response = await running.admin.raw('POST', `/api/v1/sessions/${session_id}/records`, {
        body: lines.join('\n'),
        headers: { 'content-type': 'application/x-ndjson', 'idempotency-key': 'all' },
      })
      return (await response.text()).trimEnd().split('\n')
    }
    const first = await stream()
    expect(JSON.parse(first.at(-1) as string).seq).toBe(6001)
    expect(await stream()).toEqual(first)
    const crashed = crashedCopy(running.home)
    running = await running.restart()
    expect(await stream()).toEqual(first)
    await running.stop()
    rmSync(join(running.home, 'projections'), { recursive: true })
    running = await run(running.home)
    expect(await stream()).toEqual(first)
    await running.stop()
    running = await run(crashed)
    expect(await stream()).toEqual(first)
  }, 120_000)

  it('are certain to be new only when every name of the table was learned', () => {
    const tables = new Tables(join(makeHome(), 'names.db'))
    tables.db.exec(
      'CREATE TABLE commands (key TEXT, log TEXT, body TEXT, offset INTEGER, count INTEGER, PRIMARY KEY (key, log)) STRICT, WITHOUT ROWID',
    )
    const before = new Names()
    for (let i = 0; i < 12_000; i++) before.remember(`${key(i)}.body`, 'log', i)
    before.flush(tables)
    const after = new Names()
    for (let step = 0; step < 3; step++) {
      expect(after.isNew(key(999_999))).toBe(false)
      after.learn(tables)
    }
    after.learn(tables)
    expect(after.isNew(key(999_999))).toBe(true)
    for (let i = 0; i < 12_000; i++) expect(after.isNew(key(i))).toBe(false)
  })

  it('that were taken back leave nothing, and those before them stay', () => {
    const names = new Names()
    names.remember(`${key(1)}.a`, 'log', 0)
    const to = names.savepoint
    names.remember(`${key(1)}.a`, 'log', 10)
    names.remember(`${key(2)}.b`, 'log', 20)
    names.undo(to)
    expect(names.find(key(1))).toEqual([{ log: 'log', body: 'a', offset: 0, count: 1 }])
    expect(names.find(key(2))).toEqual([])
    expect(names.size).toBe(1)
  })
})
