// Named requests beyond what is kept at hand: a retry is known again however many names there are, whichever way they came
// into the table, and a name that was never given is never taken for a known one.

import { createHash } from 'node:crypto'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { CHUNK, type Shelf } from '../src/core/log.ts'
import { Names } from '../src/core/names.ts'
import { Runs } from '../src/core/runs.ts'
import { genesis, seal } from '../src/core/seal.ts'
import { ownTables, Tables } from '../src/core/tables.ts'
import { crashedCopy, makeHome, run, said } from './harness.ts'

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
    const tables = emptyTables()
    fillRun(new Names(tables), 0, 30_000)
    const after = new Names(tables)
    for (let step = 0; step < 4; step++) {
      expect(after.isNew(nameOf(999_999))).toBe(false)
      after.learn()
    }
    after.learn()
    expect(after.isNew(nameOf(999_999))).toBe(true)
    for (let i = 0; i < 30_000; i++) expect(after.isNew(nameOf(i))).toBe(false)
  })

  it('are found in every run, while runs are merged and after; what is no run any more is taken away', () => {
    const tables = emptyTables()
    const names = new Names(tables)
    const [runs, each] = [40, 300]
    for (let run = 0; run < runs; run++) fillRun(names, run * each, (run + 1) * each)
    const rowsOf = () => tables.sql('SELECT count(*) FROM commands').pluck().get() as number
    const seen = new Set<unknown>()
    for (let step = 0; step < 2000; step++) {
      const i = (step * 7919) % (runs * each)
      expect(names.find(nameOf(i), shelf())).toEqual([{ log: 'log', offset: i, body: 'body' }])
      names.tidy(100)
      seen.add(rowsOf())
    }
    expect(seen.size).toBeGreaterThan(10)
    expect(rowsOf()).toBe(2 * 75 + 8 * 5)
    expect(tables.sql('SELECT count(DISTINCT run) FROM commands').pluck().get()).toBe(10)
    expect([...new Runs(tables).names()].map(({ offset }) => offset).sort((a, b) => a - b)).toEqual(
      Array.from({ length: runs * each }, (_, i) => i),
    )
    for (let i = 0; i < runs * each; i += 97) expect(names.find(nameOf(i), shelf())).toHaveLength(1)
  })

  it('of a run that a crash cut off are taken away, and their key is free', () => {
    const tables = emptyTables()
    const names = new Names(tables)
    fillRun(names, 0, 100)
    for (let i = 100; i < 200; i++) names.remember(`${nameOf(i)}.body`, 'log', i)
    names.gather()
    expect(names.write(50)).toBe(false)
    const rowsOf = () => tables.sql('SELECT count(*) FROM commands').pluck().get()
    expect(rowsOf()).toBe(3)
    const after = new Names(tables)
    for (let step = 0; step < 10; step++) after.tidy(100)
    expect(rowsOf()).toBe(2)
    expect(after.find(nameOf(150), shelf())).toEqual([])
    expect(after.find(nameOf(50), shelf())).toHaveLength(1)
  })

  it('that share the bits of a key are told apart by what their logs say', () => {
    const tables = emptyTables()
    const names = new Names(tables)
    const [one, other] = [nameOf(1), `${nameOf(1).slice(0, 12)}another000`]
    names.remember(`${one}.body`, 'log', 1)
    names.gather()
    names.write(10)
    const read = shelf(() => one)
    expect(names.find(one, read)).toHaveLength(1)
    expect(names.find(other, read)).toEqual([])
  })

  it('that were taken back leave nothing, and those before them stay', () => {
    const names = new Names(emptyTables())
    names.remember(`${nameOf(1)}.a`, 'log', 0)
    const to = names.savepoint
    names.remember(`${nameOf(1)}.a`, 'log', 10)
    names.remember(`${nameOf(1)}.a`, 'other', 10)
    names.remember(`${nameOf(2)}.b`, 'log', 20)
    names.undo(to)
    expect(names.find(nameOf(1), shelf())).toEqual([{ log: 'log', offset: 0, body: 'a' }])
    expect(names.find(nameOf(2), shelf())).toEqual([])
    expect(names.size).toBe(1)
  })
})

const nameOf = (i: number) => createHash('sha256').update(`name ${i}`).digest('base64url').slice(0, 22)
const before = seal(genesis('log'), '{"data":{}')
/** Logs in which at every place stands the record of the request that has this name, after a line that is always the same. */
const shelf = (nameAt: (offset: number) => string = nameOf): Shelf => ({
  names: () => [],
  read: (log, offset, length) =>
    length < CHUNK
      ? before.line
      : seal(
          offset === 0 ? genesis(log) : before.hash,
          `{"record_id":"6a2f41a3-c54c-4f6b-8b0a-000000000001","seq":1,"type":"x.a.b","v":1,"source":"s","user_id":"u","performer_id":"p","timestamp":"2031-05-02T09:30:00.000Z","command_id":"${nameAt(offset)}.body","data":{}`,
        ).line,
})

function emptyTables(): Tables {
  const tables = new Tables(join(makeHome(), 'names.db'))
  tables.db.exec(ownTables)
  return tables
}

/** Names from one to the other, in a run of their own. */
function fillRun(names: Names, from: number, to: number): void {
  for (let i = from; i < to; i++) names.remember(`${nameOf(i)}.body`, 'log', i)
  names.gather()
  while (!names.write(77));
}
