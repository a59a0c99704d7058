// The laws that everything else rests on, each seen from outside. Laws 10 and 11 have tests of their own where they are
// built; law 12 is in records.test.ts, law 8's other half in boundaries.test.ts.

import { chmodSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openDatabase } from '../src/core/tables.ts'
import { Held } from '../src/log/lock.ts'
import { journalOf, projectionOf } from '../src/log/shelf.ts'
import { openLog } from '../src/open.ts'
import { runOnFailingDisk } from './failing.ts'
import {
  cli,
  clockAt,
  configOf,
  filesUnder,
  linesIn,
  logBytes,
  makeHome,
  refused,
  run,
  said,
  serveApart,
  sessionFile,
} from './harness.ts'

describe('law 1: one writer', () => {
  it('opens files under logs/ for writing nowhere but in the recorder’s room', () => {
    const root = new URL('../src/', import.meta.url).pathname
    const writers = filesUnder(root)
      .filter((file) => file.endsWith('.ts'))
      .filter((file) =>
        /\b(openSync|writeSync|writeFileSync|appendFileSync|createWriteStream|ftruncateSync|truncateSync)\b/.test(
          readFileSync(join(root, file), 'utf8'),
        ),
      )
    // disk.ts is that room's only door; place.ts syncs projections, print.ts writes schemas, logger.ts to stderr, secrets.ts
    // under secrets/; the others read.
    const readers = ['log/anyway.ts']
    expect(writers.sort()).toEqual(['cli/print.ts', 'core/place.ts', 'log/disk.ts', 'logger.ts', 'secrets.ts', ...readers].sort())
    for (const file of [...readers, 'core/place.ts', 'secrets.ts']) {
      const opens = readFileSync(join(root, file), 'utf8')
        .split('\n')
        .filter((line) => line.includes('openSync('))
      expect(opens.length).toBeGreaterThan(0)
      for (const line of opens) expect(line).toContain(", 'r')")
    }
  })
})

describe('law 2: append-only', () => {
  it('never changes a byte that was written', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    let before = readFileSync(sessionFile(running.home, session_id))
    for (const step of [
      () => running.admin.append(session_id, said('one')),
      () => running.admin.append(session_id, [said('two'), said('three')]),
      () => running.admin.append(session_id, said('x', { user_id: 'bob' })),
      () => running.sessile.recorder.checkpoint(),
      () => running.admin.end({ session_id }),
      () => running.restart(),
    ]) {
      await step()
      running.sessile.log.settle()
      const after = readFileSync(sessionFile(running.home, session_id))
      expect(after.subarray(0, before.length)).toEqual(before)
      before = after
    }
    expect(before.toString().trimEnd().split('\n')).toHaveLength(5)
  })
})

describe('law 3: nothing invalid is recorded', () => {
  it('lets no line into a log that its published schema does not take', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const nonsense = [
      {},
      { text: 7 },
      { ...said('x').data, confidence: 2 },
      { ...said('x').data, words: [{}] },
      { ...said('x').data, at: '2031-13-01T00:00:00Z' },
    ]
    for (const data of nonsense)
      await refused(running, () => running.admin.append(session_id, { ...said('x'), data }), 400, 'invalid')
    await running.admin.append(session_id, said('fits'))
    running.sessile.log.settle()
    expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
  })
})

describe('law 4: acknowledged means durable', () => {
  it('answers nobody before the sync, and nobody can read it before either', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    const release = disk.holdSync()
    let answered = 0
    const asked = [running.admin.append(session_id, said('one')), running.admin.append(session_id, said('two'))].map((reply) =>
      reply.finally(() => answered++),
    )
    await disk.syncAsked
    const reading = running.admin.get(`/api/v1/sessions/${session_id}`).finally(() => answered++)
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(answered).toBe(0)
    release()
    expect((await Promise.all(asked)).map(({ status }) => status)).toEqual([201, 201])
    expect((await reading).status).toBe(200)
  })
})

describe('law 5: state follows the log', () => {
  it('changes nothing where the disk refuses the write, tells the caller, and goes on when there is room', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    disk.fail('ENOSPC')
    const before = logBytes(running)
    const replies = await Promise.all([
      running.admin.start({ user_id: 'bob' }),
      running.admin.append(session_id, said('lost')),
      running.admin.end({ session_id }),
    ])
    expect(replies.map(({ status, body }) => [status, body.reason])).toEqual(Array.from({ length: 3 }, () => [507, 'not-recorded']))
    expect(logBytes(running)).toBe(before)
    disk.mend()
    expect((await running.admin.get(`/api/v1/sessions/${session_id}`)).body).toMatchObject({ status: 'active', transcript: [] })
    expect((await running.admin.get('/api/v1/users/bob/sessions')).body.sessions).toEqual([])
    expect((await running.admin.start({ user_id: 'bob' })).body.session_number).toBe(1)
    expect((await running.admin.append(session_id, said('kept'))).body.seq).toBe(2)
    await running.stop()
    expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
  })

  it('answers 503 where the write failed for another reason', async () => {
    const { running, disk } = await runOnFailingDisk()
    running.sessile.log.settle()
    disk.fail('EIO')
    await refused(running, () => running.admin.start(), 503, 'not-recorded')
    disk.mend()
    expect((await running.admin.start()).status).toBe(201)
  })

  it('acknowledges nothing more after a failed sync, and never syncs again', async () => {
    const { running, disk, fatal } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    disk.failSync()
    // It was written, and may be there after the next start: `not-recorded` would promise too much.
    expect(await running.admin.append(session_id, said('who knows'))).toMatchObject({
      status: 503,
      body: { reason: 'outcome-unknown' },
    })
    expect(fatal).toHaveLength(1)
    const syncs = disk.syncs
    disk.mend()
    expect(await running.admin.append(session_id, said('no more'))).toMatchObject({ status: 503 })
    expect((await running.anyone.get('/readyz')).status).toBe(503)
    expect(disk.syncs).toBe(syncs)
  })
})

describe('law 6: the server’s clock rules', () => {
  it('gives UTC with milliseconds, and never a time before the last, though the clock steps back and across a restart', async () => {
    const clock = clockAt('2031-05-02T09:00:00.005Z')
    let running = await run(undefined, {}, clock)
    const { session_id } = (await running.admin.start()).body
    clock.move(10)
    await running.admin.append(session_id, said('one'))
    clock.move(-7200)
    await running.admin.append(session_id, said('two'))
    running = await running.restart()
    await running.admin.append(session_id, said('three'))
    rmSync(join(running.home, 'projections'), { recursive: true, force: true })
    running = await running.restart()
    await running.admin.append(session_id, said('four'))
    clock.move(7201)
    await running.admin.append(session_id, said('five'))
    running.sessile.log.settle()
    const late = '2031-05-02T09:00:10.005Z'
    expect(linesIn(sessionFile(running.home, session_id)).map(({ timestamp }) => timestamp)).toEqual([
      '2031-05-02T09:00:00.005Z',
      late,
      late,
      late,
      late,
      '2031-05-02T09:00:11.005Z',
    ])
  })
})

describe('law 7: everything read is derived', () => {
  it('gives the same rows after the projections were deleted, and rebuilding twice changes nothing', async () => {
    const running = await run()
    const device = await running.admin.device({ users: ['ada'] })
    for (const kind of ['capture', 'voice', 'therapy', 'workflow']) {
      const { session_id } = (await device.start({ kind }, { 'idempotency-key': kind })).body
      await device.append(session_id, [said('one'), { ...said(''), type: 'crisis.flagged', source: 'classifier', data: {} }], {
        'idempotency-key': `${kind}-r`,
      })
      if (kind !== 'voice') await device.end({ session_id })
    }
    await running.stop()
    const rows = () => {
      const db = openDatabase(projectionOf(running.home), { readonly: true })
      const all = Object.fromEntries(
        ['sessions', 'keys', 'logs', 'commands'].map((table) => [table, db.prepare(`SELECT * FROM ${table} ORDER BY 1, 2`).all()]),
      )
      all.runs = db.prepare("SELECT value FROM meta WHERE key = 'runs'").pluck().all()
      db.close()
      return all
    }
    const lived = rows()
    expect(lived.sessions).toHaveLength(4)
    expect(lived.runs).toEqual(['[{"run":1,"names":8}]'])
    rmSync(join(running.home, 'projections'), { recursive: true })
    expect(await cli(running.home, ['rebuild'])).toMatchObject({ code: 0 })
    expect(rows()).toEqual(lived)
    expect(await cli(running.home, ['rebuild'])).toMatchObject({ code: 0 })
    expect(rows()).toEqual(lived)
  })
})

describe('law 8: one active session per user', () => {
  it('is guarded by the database, too, whatever the code before it believes', async () => {
    const running = await run()
    await running.admin.start()
    await running.stop()
    const db = openDatabase(projectionOf(running.home))
    const again = () =>
      db.exec(
        "INSERT INTO sessions SELECT 'sess_other', user_id, 2, kind, exclusive, status, started_at, started_by, ended_at, ended_by, end_reason, duration_seconds, crisis_detected, is_training_data, training_intent_label, session_notes, counselor_category, room_name, language, session_date, site_name, site_description, project_key, llm_provider_choice FROM sessions",
      )
    expect(again).toThrow(/UNIQUE constraint failed: sessions.user_id, sessions.kind/)
    db.close()
  })

  it('survives a restart and a rebuild', async () => {
    let running = await run()
    await running.admin.start()
    running = await running.restart()
    await refused(running, () => running.admin.start(), 409, 'session-already-active')
    await running.stop()
    rmSync(join(running.home, 'projections'), { recursive: true })
    running = await run(running.home)
    await refused(running, () => running.admin.start(), 409, 'session-already-active')
  })
})

describe('law 9: every record says whose it is and who did it', () => {
  it('holds for every line of every log', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('one'))
    await running.admin.end({ session_id })
    await running.admin.device({ users: ['ada'] })
    running.sessile.log.settle()
    const logs = join(running.home, 'logs')
    const files = filesUnder(logs).filter((file) => file.endsWith('.jsonl'))
    expect(files).toHaveLength(3)
    const ids = new Set<string>()
    for (const file of files) {
      for (const line of linesIn(join(logs, file))) {
        for (const field of ['user_id', 'performer_id', 'source', 'record_id', 'timestamp']) expect(line[field]).toMatch(/./)
        expect(line.session_id).toBe(file.startsWith('users/') ? session_id : undefined)
        ids.add(line.record_id)
      }
    }
    expect(ids.size).toBe(5)
  })
})

describe('law 13: one recorder per data directory', () => {
  it('refuses a second one and names the first, in this process or in another', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    expect(() => openLog({ config: configOf(home) })).toThrow(Held)
    const before = logBytes({ home })
    const second = await cli(home, ['serve'], { SESSILE_PORT: '0' })
    expect(second.code).toBe(4)
    expect(second.err).toContain(`process ${apart.child.pid}`)
    expect(second.err).toContain(apart.url)
    expect(logBytes({ home })).toBe(before)
  })

  it('holds while the first is stopped in its tracks, and ends with it', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    apart.child.kill('SIGSTOP')
    expect((await cli(home, ['serve'], { SESSILE_PORT: '0' })).code).toBe(4)
    apart.child.kill('SIGKILL')
    await apart.ended
    const next = await serveApart(home)
    expect((await next.admin.start()).status).toBe(201)
  })
})

describe('what Sessile makes', () => {
  it('is for its owner alone', async () => {
    const home = makeHome()
    chmodSync(home, 0o755)
    const apart = await serveApart(home)
    await apart.admin.start()
    await apart.admin.get('/api/v1/sessions')
    for (const file of [
      ...filesUnder(join(home, 'logs')).map((name) => join(home, 'logs', name)),
      ...readdirSync(join(home, 'secrets')).map((name) => join(home, 'secrets', name)),
      ...readdirSync(join(home, 'projections')).map((name) => join(home, 'projections', name)),
    ]) {
      expect([file, statSync(file).mode & 0o077]).toEqual([file, 0])
    }
    for (const folder of [journalOf(home), join(home, 'secrets')]) expect(statSync(folder).mode & 0o077).toBe(0)
  })
})
