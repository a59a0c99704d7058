// What happens while something else is under way: retries, readers and crashes between the steps of a checkpoint or a
// rebuild, and things in the way of one user's files.

import { cpSync, mkdirSync, readFileSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import type { Refusal } from '../src/core/errors.ts'
import { fill, reopen } from '../src/core/fold.ts'
import type { Query } from '../src/core/query.ts'
import { Replacement } from '../src/core/replacement.ts'
import { system } from '../src/core/sessile.ts'
import { Tables } from '../src/core/tables.ts'
import { markOf, Views } from '../src/core/views.ts'
import { features } from '../src/features/index.ts'
import { FileShelf, freshOf, projectionOf } from '../src/log/shelf.ts'
import { runOnFailingDisk } from './failing.ts'
import { cli, crashedCopy, type Json, makeHome, type Running, run, said, sessionFile } from './harness.ts'

afterEach(() => {
  vi.restoreAllMocks()
})

const named = { 'idempotency-key': 'K' }
const two = [said('one'), said('two')]

async function sameRows(running: Running): Promise<void> {
  await running.stop()
  expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
}

describe('a named request', () => {
  it('is answered once after a crash anywhere in a checkpoint', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const first = await running.admin.append(session_id, two, named)
    // So many logs have grown that their ends take the checkpoint several steps.
    for (let i = 0; i < 1200; i += 100) {
      await Promise.all(Array.from({ length: 100 }, (_, j) => running.admin.start({ user_id: `u${i + j}` })))
    }
    const homes: string[] = []
    const lsn = running.sessile.log.lsn
    let over = false
    const checkpoint = running.sessile.recorder.checkpoint().then(() => {
      over = true
    })
    while (!over && homes.length < 3) {
      await running.admin.append(session_id, said('x'))
      await running.sessile.recorder.settled()
      const tables = new Tables(projectionOf(running.home), { readonly: true })
      const names = tables.sql('SELECT count(*) FROM commands').pluck().get() as number
      // At any moment, and whenever names are in their table and the mark does not say so yet.
      if (markOf(tables).trailing < lsn && (homes.length === 0 || names > 0)) homes.push(crashedCopy(running.home))
      tables.close()
    }
    await checkpoint
    for (const home of homes) {
      const again = await run(home)
      expect((await again.admin.append(session_id, two, named)).body).toEqual(first.body)
      await again.sessile.recorder.checkpoint()
      const restarted = await again.restart()
      expect((await restarted.admin.append(session_id, two, named)).body).toEqual(first.body)
      await sameRows(restarted)
    }
    expect(homes.length).toBeGreaterThan(0)
  }, 120_000)

  it('is answered once after a rebuild that saw only its first record', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const { recorder, log } = running.sessile
    const { rebuild } = await recorder.beside.begins()
    await recorder.beside.goesOn(rebuild)
    const first = await running.admin.append(session_id, two, named)
    log.settle()
    // What another process may see of one write of several pages: its first part.
    const seen = makeHome()
    cpSync(join(running.home, 'logs'), join(seen, 'logs'), { recursive: true })
    const bytes = readFileSync(sessionFile(seen, session_id))
    truncateSync(sessionFile(seen, session_id), bytes.lastIndexOf(10, bytes.length - 2) + 1)
    const fresh = freshOf(projectionOf(running.home))
    const views = Views.create(fresh, features)
    const filling = fill(views, { events: features.events, shelf: new FileShelf(seen) })
    while (!filling.next().done);
    views.finish({ journal: log.journal, lsn: log.lsn, timestamp: 0 })
    const successor = new Replacement(reopen(fresh, features), features, log)
    await recorder.beside.ends(rebuild, successor)
    await successor.close()
    expect((await running.admin.append(session_id, two, named)).body).toEqual(first.body)
    await sameRows(running)
  })

  it('is refused, and not recorded again, where what it recorded can no longer be read', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start({ kind: 'therapy' }, named)).body
    await running.stop()
    const file = sessionFile(running.home, session_id)
    writeFileSync(file, readFileSync(file, 'utf8').replace('{"record_id":', '<"record_id":'))
    const again = await run(running.home)
    expect(await again.admin.start({ kind: 'therapy' }, named)).toMatchObject({ status: 503, body: { reason: 'log-damaged' } })
    expect((await again.admin.get('/api/v1/sessions')).body.sessions).toHaveLength(1)
  })
})

describe('readers', () => {
  it('behind one for whom a commit failed see what was acknowledged, or are refused', async () => {
    const { admin, sessile } = await run()
    const list = features.queries.find(({ at }) => at === 'GET /api/v1/sessions') as Query
    const ask = () =>
      sessile.ask(list, { input: { limit: 200 }, caller: system }).then(
        (page) => (page as Json).sessions.length,
        (error: Refusal) => error.reason,
      )
    await Promise.all(Array.from({ length: 30 }, (_, i) => admin.start({ user_id: `u${i}` })))
    const real = Tables.prototype.sql
    let armed = true
    vi.spyOn(Tables.prototype, 'sql').mockImplementation(function (this: Tables, text: string) {
      if (!armed || text !== 'COMMIT') return real.call(this, text)
      armed = false
      throw Object.assign(new Error('full, says the test'), { code: 'SQLITE_FULL' })
    })
    const late = admin.start({ user_id: 'late' })
    await new Promise((resolve) => setTimeout(resolve, 5))
    const asked = await Promise.all([ask(), ask(), ask()])
    await late
    expect(armed).toBe(false)
    for (const seen of asked) expect(seen).toBeOneOf([30, 31, 'not-recorded', 'rebuilding'])
  })
})

describe('something in the way of one user’s files', () => {
  it.each<[string, (path: string) => void]>([
    ['a link that leads to itself', (path) => symlinkSync('bob', path)],
    ['a file', (path) => writeFileSync(path, '')],
  ])('(%s) costs the others nothing', async (_, make) => {
    const { running, fatal } = await runOnFailingDisk()
    await running.admin.start()
    mkdirSync(join(running.home, 'logs', 'users'), { recursive: true })
    make(join(running.home, 'logs', 'users', 'bob'))
    const replies = await Promise.all(['bob', 'eve', 'bob'].map((user_id) => running.admin.start({ user_id })))
    expect(replies.map(({ status }) => status).filter((status) => status !== 201 && status !== 503)).toEqual([])
    expect((await running.admin.start({ user_id: 'bob', kind: 'therapy' })).status).toBe(503)
    expect((await running.admin.start({ user_id: 'mina' })).status).toBe(201)
    expect(fatal).toEqual([])
    const { sessions } = (await running.admin.get('/api/v1/sessions')).body
    expect(sessions.map(({ user_id }: Json) => user_id)).not.toContain('bob')
  })
})
