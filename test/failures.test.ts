// Failures while running: of the views, of the disk, of single logs. What was acknowledged stays, what was refused
// leaves no trace, and one broken thing does not take the others with it.

import {
  existsSync,
  fstatSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { askHolder, holder } from '../src/cli/reach.ts'
import type { Grown } from '../src/core/beside.ts'
import { bounds } from '../src/core/bounds.ts'
import type { Command } from '../src/core/command.ts'
import { fill, reopen, takingTurns } from '../src/core/fold.ts'
import { type Line, SyncFailed } from '../src/core/log.ts'
import { Replacement } from '../src/core/replacement.ts'
import type { Sessile } from '../src/core/sessile.ts'
import { system } from '../src/core/sessile.ts'
import { openDatabase, Tables } from '../src/core/tables.ts'
import { Views } from '../src/core/views.ts'
import { features } from '../src/features/index.ts'
import { type Disk, realDisk } from '../src/log/disk.ts'
import type { Holder } from '../src/log/lock.ts'
import { freshOf, journalOf, projectionOf } from '../src/log/shelf.ts'
import { openLog, openRecorder } from '../src/open.ts'
import { segmentsOf } from './damaging.ts'
import { FailingDisk, runOnFailingDisk } from './failing.ts'
import {
  cli,
  configOf,
  crashedCopy,
  expectSound,
  type Json,
  later,
  linesIn,
  logBytes,
  makeHome,
  type Reply,
  type Running,
  refused,
  run,
  said,
  sessionFile,
} from './harness.ts'

const { endsInTurn } = bounds

afterEach(() => {
  vi.restoreAllMocks()
  bounds.endsInTurn = endsInTurn
})

/** The next statement that fits fails as SQLite would fail it: with its code, and with the transaction undone where it says so. */
function failNext(statement: RegExp, code: string, { undone = false, times = 1 } = {}) {
  const real = Tables.prototype.sql
  let armed = times
  vi.spyOn(Tables.prototype, 'sql').mockImplementation(function (this: Tables, text: string) {
    if (armed === 0 || !statement.test(text)) return real.call(this, text)
    armed--
    if (undone && this.db.inTransaction) this.db.exec('ROLLBACK')
    throw Object.assign(new Error(`${code}, says the test`), { code })
  })
}

async function eventually(ask: () => Promise<Reply>, status: number): Promise<Json> {
  for (let i = 0; i < 100; i++) {
    const reply = await ask()
    if (reply.status === status) return reply.body
    expect([503, 507]).toContain(reply.status)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('it did not come back')
}

const aside = (home: string) =>
  readdirSync(join(journalOf(home), 'quarantine'))
    .map((name) => readFileSync(join(journalOf(home), 'quarantine', name), 'utf8'))
    .join('')

async function sound(running: Running): Promise<void> {
  await running.stop()
  await expectSound(running.home)
}

describe('views that fail', () => {
  it('at their commit, with the transaction undone, lose nothing that was acknowledged', async () => {
    const running = await run()
    const users = Array.from({ length: 30 }, (_, i) => `u${i}`)
    const started = await Promise.all(users.map((user_id) => running.admin.start({ user_id })))
    failNext(/^COMMIT$/, 'SQLITE_FULL', { undone: true })
    // Two readers at once: the second must not commit what the first failed to.
    const readers = await Promise.all([running.admin.get('/api/v1/sessions'), running.admin.get('/api/v1/users/u0/sessions')])
    // Whoever finds that out waits until the views are back; whoever comes meanwhile is told to try again.
    const [first, second] = readers.map(({ status }) => status)
    expect(first).toBe(200)
    expect([200, 503]).toContain(second)
    await eventually(() => running.admin.get('/readyz'), 200)
    const { sessions } = (await running.admin.get('/api/v1/sessions?limit=200')).body
    expect(sessions.map(({ session_id }: Json) => session_id).sort()).toEqual(started.map(({ body }) => body.session_id).sort())
    await refused(running, () => running.admin.start({ user_id: 'u0' }), 409, 'session-already-active')
    expect((await running.admin.end({ user_id: 'u0', session_id: started[0]?.body.session_id })).body.seq).toBe(2)
    await sound(running)
  })

  it('while a batch is decided, leave nothing of it', async () => {
    const running = await run()
    await running.admin.start({ user_id: 'bob' })
    await new Promise((resolve) => setTimeout(resolve, 60))
    failNext(/^INSERT INTO sessions/, 'SQLITE_IOERR_READ')
    const before = logBytes(running)
    const replies = await Promise.all([running.admin.start(), running.admin.start({ user_id: 'eve' })])
    expect(replies.filter(({ status, body }) => status === 503 && body.reason === 'not-recorded').length).toBeGreaterThan(0)
    await eventually(() => running.admin.get('/readyz'), 200)
    const active = (await running.admin.get('/api/v1/sessions')).body.sessions.map(({ user_id }: Json) => user_id)
    expect(active.length).toBe(1 + replies.filter(({ status }) => status === 201).length)
    if (active.length === 1) expect(logBytes(running)).toBe(before)
    expect((await running.admin.start()).status).toBe(replies[0]?.status === 201 ? 409 : 201)
    await sound(running)
  })

  it('at a checkpoint, keep the journal until one succeeds', async () => {
    const running = await run()
    await running.admin.start()
    await running.admin.get('/api/v1/sessions')
    failNext(/^COMMIT$/, 'SQLITE_IOERR_FSYNC', { undone: true })
    const { ino } = statSync(projectionOf(running.home))
    await expect(running.sessile.recorder.checkpoint()).rejects.toThrow()
    expect(segmentsOf(running.home)).toHaveLength(2)
    await eventually(() => running.admin.get('/readyz'), 200)
    // The file whose sync failed is not synced again: nobody knows what of it is on the disk.
    expect(statSync(projectionOf(running.home)).ino).not.toBe(ino)
    await running.sessile.recorder.checkpoint()
    expect(segmentsOf(running.home)).toHaveLength(1)
    await sound(running)
  })

  it('on a full disk take the room kept for them; nothing is recorded, and so nobody is shown anything, until there is as much again', async () => {
    let full = false
    const disk: Disk = { ...realDisk, keepRoom: (path, bytes) => !full && realDisk.keepRoom?.(path, bytes) === true }
    const running = await run(undefined, {}, undefined, { disk })
    const room = join(journalOf(running.home), 'room')
    expect(statSync(room).size).toBeGreaterThan(1024 * 1024)
    await running.admin.start()
    full = true
    failNext(/^COMMIT$/, 'SQLITE_FULL', { undone: true, times: 2 })
    await refused(running, () => running.admin.get('/api/v1/sessions'), 507, 'not-recorded')
    expect(existsSync(room)).toBe(false)
    await refused(running, () => running.admin.start({ user_id: 'bob' }), 507, 'not-recorded')
    expect((await running.admin.get('/readyz')).status).toBe(200)
    full = false
    const read = await eventually(() => running.admin.get('/api/v1/sessions'), 200)
    expect(read.sessions).toHaveLength(1)
    await eventually(() => running.admin.start({ user_id: 'bob' }), 201)
    expect(existsSync(room)).toBe(true)
    await sound(running)
  })

  it('on a disk that stays full are tried again ever more seldom, and at once when there is room', async () => {
    let full = false
    const disk: Disk = { ...realDisk, keepRoom: (path, bytes) => !full && realDisk.keepRoom?.(path, bytes) === true }
    const config = configOf(makeHome())
    const log = openLog({ config, disk })
    const sessile = await openRecorder(log, { config })
    const start = (user_id: string) =>
      sessile.perform(features.commands.find(({ at }) => at?.endsWith('sessions.start')) as Command, {
        body: { user_id, performer_id: 'device-7' },
        caller: system,
      })
    await start('ada')
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
    const pass = async (seconds: number) => {
      for (let passed = 0; passed < seconds; passed += 0.25) {
        await vi.advanceTimersByTimeAsync(250)
        await sessile.recorder.between(() => {})
      }
    }
    try {
      full = true
      failNext(/^COMMIT$/, 'SQLITE_FULL', { undone: true, times: Number.POSITIVE_INFINITY })
      const opened = vi.spyOn(Views, 'open')
      await expect(sessile.recorder.settled()).rejects.toMatchObject({ reason: 'not-recorded' })
      await pass(3600)
      // Each time without the room that is kept for them, and with it.
      expect(opened.mock.calls.length).toBeGreaterThan(2 * 60)
      expect(opened.mock.calls.length).toBeLessThan(2 * 80)
      vi.restoreAllMocks()
      full = false
      await pass(1)
      await expect(start('bob')).resolves.toMatchObject({ session_number: 1 })
    } finally {
      vi.useRealTimers()
      await sessile.recorder.close()
    }
  })

  it('in the pages behind the keys or the sessions, are rebuilt at the start without being asked', async () => {
    const running = await run()
    for (let i = 0; i < 60; i++) await running.admin.start({ user_id: `u${i}`, session_notes: 'x'.repeat(500) })
    await running.stop()
    const file = projectionOf(running.home)
    const db = openDatabase(file, { readonly: true })
    const size = db.prepare('PRAGMA page_size').pluck().get() as number
    const roots = db
      .prepare("SELECT rootpage FROM sqlite_master WHERE tbl_name IN ('keys', 'sessions') AND rootpage > 0")
      .pluck()
      .all() as number[]
    db.close()
    const whole = readFileSync(file)
    for (const root of roots) {
      const harmed = Buffer.from(whole)
      harmed.fill(0x5a, (root - 1) * size, root * size)
      writeFileSync(file, harmed)
      const again = await run(running.home)
      await eventually(() => again.admin.get('/api/v1/sessions'), 200)
      expect((await eventually(() => again.admin.get('/api/v1/users/u7/sessions'), 200)).sessions).toHaveLength(1)
      await again.stop()
    }
    expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })
})

describe('views that are wrong about the end of a log', () => {
  it.each([-20, 20])('by %i bytes, never lead to a write over what is there', async (by) => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('one'))
    await running.stop()
    const db = openDatabase(projectionOf(running.home))
    db.prepare("UPDATE logs SET size = size + ? WHERE log LIKE '%sessions%'").run(by)
    db.close()
    const again = await run(running.home)
    const before = logBytes(again)
    expect(await again.admin.append(session_id, said('two'))).toMatchObject({ status: 503, body: { reason: 'not-recorded' } })
    await refused(again, () => again.admin.append(session_id, said('two')), 503, 'log-damaged')
    expect(logBytes(again)).toBe(before)
    expect((await again.admin.start({ user_id: 'bob' })).status).toBe(201)
  })
})

describe('one damaged log', () => {
  it('costs the others nothing when the views are rebuilt, and what stands before the damage can be read', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, [said('one'), said('two')])
    const other = (await running.admin.start({ user_id: 'bob' })).body
    await running.stop()
    const file = sessionFile(running.home, session_id)
    writeFileSync(
      file,
      readFileSync(file, 'utf8').replace(
        '"type":"transcript.said","v":1,"source":"transcriber","user_id":"ada"',
        '"type":"TRANSCRIPT.said","v":1,"source":"transcriber","user_id":"ada"',
      ),
    )
    rmSync(join(running.home, 'projections'), { recursive: true })
    const again = await run(running.home)
    const { sessions } = (await again.admin.get('/api/v1/sessions')).body
    expect(sessions.map((session: Json) => session.session_id).sort()).toEqual([session_id, other.session_id].sort())
    await refused(again, () => again.admin.get(`/api/v1/sessions/${session_id}`), 503, 'log-damaged')
    expect((await again.admin.append(session_id, said('three'))).status).toBe(503)
    expect((await again.admin.append(other.session_id, said('x', { user_id: 'bob' }))).status).toBe(201)
    expect(await cli(running.home, ['rebuild'])).toMatchObject({ code: 1, err: expect.stringContaining('cannot be folded') })
    await again.stop()
  })

  it('does not keep the service from stopping while somebody follows it', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('one'))
    running.sessile.log.settle()
    const file = sessionFile(running.home, session_id)
    writeFileSync(file, readFileSync(file, 'utf8').replace('{"record_id":', '<"record_id":'))
    const following = await running.admin.raw('GET', `/api/v1/sessions/${session_id}/records?follow=1`)
    expect(await following.text()).toContain('log-damaged')
    await running.stop()
    expect(segmentsOf(running.home)).toHaveLength(1)
  })

  it('that is a link to elsewhere is neither followed nor in the way', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.stop()
    const elsewhere = join(makeHome(), 'target')
    const file = sessionFile(running.home, session_id)
    writeFileSync(elsewhere, readFileSync(file))
    const before = readFileSync(elsewhere)
    rmSync(file)
    symlinkSync(elsewhere, file)
    let again = await run(running.home)
    expect((await again.admin.append(session_id, said('x'))).status).toBe(503)
    expect((await again.admin.start({ user_id: 'bob' })).status).toBe(201)
    await again.sessile.recorder.checkpoint()
    again = await again.restart()
    expect((await again.admin.start({ user_id: 'eve' })).status).toBe(201)
    expect(readFileSync(elsewhere)).toEqual(before)
  })
})

describe('a journal', () => {
  it('that was copied by a start is damaged by a flipped bit, and not torn', async () => {
    const first = await run()
    const { session_id } = (await first.admin.start()).body
    for (const text of ['one', 'two', 'three']) await first.admin.append(session_id, said(text))
    // As kill -9 would leave it: the lines are in the journal alone, and the next start copies them.
    const home = crashedCopy(first.home)
    const second = await run(home)
    const copied = crashedCopy(home)
    await second.stop()
    const segment = join(journalOf(copied), readdirSync(journalOf(copied)).find((name) => name.endsWith('.wal')) as string)
    const bytes = readFileSync(segment)
    bytes.write('THREE', bytes.indexOf('three'))
    writeFileSync(segment, bytes)
    await expect(run(copied)).rejects.toThrow(/damaged/)
  })

  it('whose new segment may or may not have its name ends the process: only a start can tell', async () => {
    const { running, disk, fatal } = await runOnFailingDisk()
    await running.admin.start()
    let before = true
    disk.syncFolderNow = (path) => {
      if (!before) throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' })
      before = false
      realDisk.syncFolderNow(path)
    }
    await expect(running.sessile.recorder.checkpoint()).rejects.toThrow(SyncFailed)
    expect(fatal).toHaveLength(1)
    expect((await running.admin.start({ user_id: 'bob' })).status).toBe(503)
  })

  it('whose folder cannot be opened for a moment goes on as it is, and a later checkpoint makes up for it', async () => {
    const { running, disk, fatal } = await runOnFailingDisk()
    await running.admin.start()
    disk.syncFolderNow = () => {
      throw Object.assign(new Error('EMFILE: too many open files'), { code: 'EMFILE' })
    }
    await expect(running.sessile.recorder.checkpoint()).rejects.toThrow('EMFILE')
    expect((await running.admin.start({ user_id: 'bob' })).status).toBe(201)
    disk.syncFolderNow = realDisk.syncFolderNow
    await running.sessile.recorder.checkpoint()
    expect(fatal).toEqual([])
    expect((await running.admin.start({ user_id: 'eve' })).status).toBe(201)
  })

  it('that another recorder has replaced acknowledges nothing more', async () => {
    const { running, fatal } = await runOnFailingDisk()
    await running.admin.start()
    for (const name of segmentsOf(running.home)) rmSync(join(journalOf(running.home), name))
    expect(await running.admin.start({ user_id: 'bob' })).toMatchObject({ status: 503, body: { reason: 'outcome-unknown' } })
    expect(fatal[0]?.message).toContain('another recorder')
  })

  it('is not asked which file it is while it is written: its next sync would take longer for that', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    const questions = [vi.spyOn(disk, 'identity'), vi.spyOn(disk, 'sizeAt'), vi.spyOn(disk, 'size')]
    expect((await running.admin.append(session_id, said('one'))).status).toBe(201)
    const asked: (string | number)[] = questions.flatMap(({ mock }) => mock.calls.flat())
    const journal = journalOf(running.home)
    const segments = segmentsOf(running.home).map((name) => statSync(join(journal, name)).ino)
    expect(segments).toHaveLength(1)
    expect(asked).toContain(join(journal, 'lock'))
    const ofSegments = asked.filter((file) => segments.includes((typeof file === 'number' ? fstatSync(file) : statSync(file)).ino))
    expect(ofSegments).toEqual([])
  })
})

describe('a file that cannot be written for a while', () => {
  it('keeps nobody waiting, is read from memory meanwhile, and is completed when it can be', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    const file = sessionFile(running.home, session_id)
    disk.refuse(statSync(file).ino, 'EIO')
    expect((await running.admin.append(session_id, said('waits'))).status).toBe(201)
    expect((await running.admin.start({ user_id: 'bob' })).status).toBe(201)
    expect((await running.admin.get(`/api/v1/sessions/${session_id}`)).body.transcript).toHaveLength(1)
    expect(linesIn(file)).toHaveLength(1)
    disk.mend()
    running.sessile.log.settle()
    expect(linesIn(file)).toHaveLength(2)
    await sound(running)
  })
})

describe('a file that the disk has lost for good', () => {
  /** What became of that one log, and of the others. */
  async function harmsNoOther(running: Running, session_id: string): Promise<void> {
    await refused(running, () => running.admin.append(session_id, said('x')), 503, 'log-damaged')
    await refused(running, () => running.admin.get(`/api/v1/sessions/${session_id}`), 503, 'log-damaged')
    const { body, status } = await running.admin.start({ user_id: 'eve' })
    expect(status).toBe(201)
    await running.sessile.recorder.checkpoint()
    expect(segmentsOf(running.home)).toHaveLength(1)
    expect(linesIn(sessionFile(running.home, body.session_id, 'eve'))).toHaveLength(1)
    expect((await running.admin.end({ user_id: 'eve', session_id: body.session_id })).status).toBe(200)
  }

  it('harms its own log alone: a checkpoint comes to its end, and what the file lacks is set aside', async () => {
    const { running, disk, fatal } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    const other = (await running.admin.start({ user_id: 'bob' })).body.session_id
    await running.sessile.recorder.checkpoint()
    disk.lose(sessionFile(running.home, session_id))
    expect((await running.admin.append(session_id, said('one'))).status).toBe(201)
    expect((await running.admin.append(other, said('two', { user_id: 'bob' }))).status).toBe(201)
    await running.sessile.recorder.checkpoint()
    expect(linesIn(sessionFile(running.home, other, 'bob'))).toHaveLength(2)
    expect(aside(running.home)).toContain('"text":"one"')
    await harmsNoOther(running, session_id)
    await running.stop()
    // Nor does it keep the next start from coming up, whose disk is no better.
    const again = await runOnFailingDisk(running.home, disk)
    await harmsNoOther(again.running, session_id)
    expect([...fatal, ...again.fatal]).toEqual([])
    await again.running.stop()
    expect(await cli(running.home, ['doctor'])).toMatchObject({
      code: 3,
      out: expect.stringContaining('could not be put into its file'),
    })
    const to = join(makeHome(), 'mended')
    expect((await cli(running.home, ['recover', '--to', to])).code).toBe(0)
    expect(linesIn(sessionFile(to, session_id))).toHaveLength(2)
  })

  it('after lines were copied to it that no sync had reached, has them all set aside before the journal goes', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('one'))
    running.sessile.log.settle()
    disk.lose(sessionFile(running.home, session_id))
    await running.sessile.recorder.checkpoint()
    expect(aside(running.home)).toBe(readFileSync(sessionFile(running.home, session_id), 'utf8'))
    await harmsNoOther(running, session_id)
  })

  it('is not lost where it is back before the checkpoint ends: the journal is kept, and the next one succeeds', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    disk.lose(sessionFile(running.home, session_id))
    disk.syncFolder = (path) => {
      disk.bringBack()
      return realDisk.syncFolder(path)
    }
    await expect(running.sessile.recorder.checkpoint()).rejects.toThrow('is back')
    expect(existsSync(join(journalOf(running.home), 'quarantine'))).toBe(false)
    await running.sessile.recorder.checkpoint()
    expect((await running.admin.append(session_id, said('one'))).status).toBe(201)
    await sound(running)
  })

  it('before its lines were copied from the journal, is found by the start, which comes up', async () => {
    const first = await run()
    const { session_id } = (await first.admin.start()).body
    await first.sessile.recorder.checkpoint()
    await first.admin.append(session_id, said('one'))
    const home = crashedCopy(first.home)
    const disk = new FailingDisk()
    disk.lose(sessionFile(home, session_id))
    for (const views of ['as they were', 'gone']) {
      if (views === 'gone') rmSync(join(home, 'projections'), { recursive: true })
      const { running } = await runOnFailingDisk(home, disk)
      expect([views, aside(home)]).toEqual([views, expect.stringContaining('"text":"one"')])
      await harmsNoOther(running, session_id)
      await running.stop()
    }
  })

  it('does not keep views from being made anew, nor a backup of the others from being made', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    await running.sessile.recorder.checkpoint()
    disk.lose(sessionFile(running.home, session_id))
    await running.admin.append(session_id, said('one'))
    expect((await cli(running.home, ['backup', join(makeHome(), 'backup')])).code).toBe(0)
    running.sessile.recorder.distrust(Object.assign(new Error('malformed'), { name: 'SqliteError', code: 'SQLITE_CORRUPT' }))
    await eventually(() => running.admin.get('/readyz'), 200)
    await harmsNoOther(running, session_id)
  })
})

describe('a start on a full disk', () => {
  it('takes the room that was kept: it comes up, and reads and records when there is as much again', async () => {
    const first = await run()
    const { session_id } = (await first.admin.start()).body
    await first.admin.append(session_id, said('one'))
    const home = crashedCopy(first.home)
    const room = join(journalOf(home), 'room')
    let full = true
    const disk = new FailingDisk()
    // What is kept is all there is.
    const onFullDisk: Disk = Object.assign(disk, {
      keepRoom: (path: string, bytes: number) => !full && realDisk.keepRoom?.(path, bytes) === true,
    })
    const write = disk.write.bind(disk)
    disk.write = (fd, bytes, position) => {
      if (full && existsSync(room)) throw Object.assign(new Error('ENOSPC: no space left'), { code: 'ENOSPC', syscall: 'write' })
      return write(fd, bytes, position)
    }
    const running = await run(home, {}, undefined, { disk: onFullDisk })
    expect(existsSync(room)).toBe(false)
    expect((await running.admin.get('/readyz')).status).toBe(200)
    await refused(running, () => running.admin.get(`/api/v1/sessions/${session_id}`), 507, 'not-recorded')
    await refused(running, () => running.admin.append(session_id, said('two')), 507, 'not-recorded')
    full = false
    await eventually(() => running.admin.append(session_id, said('two')), 201)
    expect((await running.admin.get(`/api/v1/sessions/${session_id}`)).body.transcript).toHaveLength(2)
    expect(existsSync(room)).toBe(true)
    await sound(running)
  })
})

describe('a log that is found damaged', () => {
  it('has what was copied to its file before synced before the journal goes', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    const { ino } = statSync(sessionFile(running.home, session_id))
    disk.refuse(ino, 'EACCES')
    await running.admin.append(session_id, said('one'))
    running.sessile.log.settle()
    expect(aside(running.home)).toContain('"text":"one"')
    const done: string[] = []
    disk.sync = async (fd) => {
      await realDisk.sync(fd)
      if (fstatSync(fd).ino === ino) done.push('synced')
    }
    disk.remove = (path) => {
      if (path.endsWith('.wal')) done.push('dropped')
      realDisk.remove(path)
    }
    await running.sessile.recorder.checkpoint()
    expect(done).toEqual(['synced', 'dropped'])
  })
})

describe('a checkpoint that takes its time', () => {
  /** One whose last step, which removes the journal before, is not known to be done until it is told to end. */
  async function underWay() {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    let [tell, end] = [() => {}, () => {}]
    const gone = new Promise<void>((resolve) => {
      tell = resolve
    })
    disk.removeLarge = (path) => {
      realDisk.remove(path)
      tell()
      return new Promise((resolve) => {
        end = resolve
      })
    }
    const checkpoint = running.sessile.recorder.checkpoint()
    await gone
    disk.removeLarge = realDisk.removeLarge
    return { running, disk, session_id, checkpoint, end: () => end() }
  }

  it('lets recording go on while the journal goes, which nobody reads any more; where it does not go, the next one removes it', async () => {
    const { running, disk, session_id, checkpoint, end } = await underWay()
    const { recorder } = running.sessile
    expect((await running.admin.append(session_id, said('meanwhile'))).status).toBe(201)
    expect(running.sessile.log.since(0)).toBeUndefined()
    end()
    await checkpoint
    disk.removeLarge = () => Promise.reject(Object.assign(new Error('EIO: i/o error'), { code: 'EIO' }))
    await expect(recorder.checkpoint()).rejects.toThrow('EIO')
    expect(segmentsOf(running.home)).toHaveLength(2)
    disk.removeLarge = realDisk.removeLarge
    await recorder.checkpoint()
    expect(segmentsOf(running.home)).toHaveLength(1)
  })

  it('is followed by another where the service stops meanwhile: nothing is left for the start to do', async () => {
    const { running, session_id, end } = await underWay()
    await running.admin.append(session_id, said('meanwhile'))
    const stopped = running.stop()
    end()
    await stopped
    const journals = segmentsOf(running.home).map((name) => readFileSync(join(journalOf(running.home), name), 'latin1'))
    expect(journals).toHaveLength(1)
    expect(journals[0]).not.toContain('meanwhile')
  })

  it('begins, where it is due, also while somebody always reads', async () => {
    const { segment } = bounds
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    bounds.segment = 64 * 1024
    let stop = false
    const again = async (ask: () => Promise<unknown>) => {
      while (!stop) await ask()
    }
    const all = Promise.all([
      again(() => running.admin.append(session_id, said('one more'))),
      ...Array.from({ length: 4 }, () => again(() => running.admin.get(`/api/v1/sessions?limit=1`))),
    ])
    try {
      await expect.poll(() => segmentsOf(running.home)[0], { timeout: 20_000 }).not.toMatch(/-000001\.wal$/)
    } finally {
      stop = true
      await all
      bounds.segment = segment
    }
  })

  it('holds up whoever would make the journal longer than a start should go through, and lets them go on when it ends', async () => {
    const { segment } = bounds
    const { running, session_id, end } = await underWay()
    const large = { ...said(''), type: 'x.maker.large', data: { what: 'many words, '.repeat(350) } }
    bounds.segment = 64 * 1024
    try {
      let answered = 0
      const caller = async () => {
        for (let i = 0; i < 20; i++) {
          expect((await running.admin.append(session_id, large)).status).toBe(201)
          answered++
        }
      }
      const callers = Array.from({ length: 5 }, caller)
      await expect.poll(() => answered).toBeGreaterThan(20)
      await new Promise((resolve) => setTimeout(resolve, 300))
      expect(answered).toBeLessThan(50)
      expect((await running.anyone.get('/healthz')).status).toBe(200)
      end()
      await Promise.all(callers)
    } finally {
      end()
      bounds.segment = segment
    }
  })
})

describe('views that many readers find damaged at a time', () => {
  it('are made anew once', async () => {
    const told: string[] = []
    const logger = { warn: (_: object, message: string) => void told.push(message), info: () => {}, error: () => {} }
    const running = await run(undefined, {}, undefined, { logger: logger as never })
    const { recorder } = running.sessile
    const damage = () => Object.assign(new Error('malformed'), { name: 'SqliteError', code: 'SQLITE_CORRUPT' })
    for (let i = 0; i < 6; i++) expect(recorder.distrust(damage())).toBe(true)
    await recorder.between(() => {})
    await eventually(() => running.admin.get('/readyz'), 200)
    await recorder.between(() => {})
    expect(told.filter((message) => message === 'the views are back')).toHaveLength(1)
  })
})

/** Ends a rebuild as the command line does, which has the new views in their file. */
const ends = (home: string, rebuild: string) => {
  const config = configOf(home)
  return askHolder(config, holder(config) as Holder, 'POST', '/operator/rebuild.ends', { rebuild })
}
const secondLine = (bytes: Buffer) => bytes.indexOf(10, bytes.indexOf(10) + 1) + 1

describe('rebuilds beside the living', () => {
  /** A rebuild that has filled its views, and may end. */
  async function filledBeside({ recorder, log, gathered }: Sessile): Promise<{ rebuild: string; file: string }> {
    const { rebuild } = await recorder.beside.begins()
    const file = freshOf(recorder.views.file)
    const views = Views.create(file, features)
    const { latest } = await takingTurns(fill(views, { events: gathered.events, shelf: log }))
    const { mark } = await recorder.beside.goesOn(rebuild)
    views.finish({ ...mark, timestamp: latest })
    return { rebuild, file }
  }

  it('each have a note of their own of what has grown; a check takes none away', async () => {
    const { sessile, admin, home } = await run()
    const { session_id } = (await admin.start()).body
    const log = `users/ada/sessions/${session_id}`
    const { rebuild } = await sessile.recorder.beside.begins()
    await admin.append(session_id, said('one'), { 'idempotency-key': 'one' })
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    expect((await sessile.recorder.beside.goesOn(rebuild)).grown).toEqual([log])
    expect((await sessile.recorder.beside.goesOn(rebuild)).grown).toEqual([])
    const second = await sessile.recorder.beside.begins()
    await expect(sessile.recorder.beside.goesOn(rebuild)).rejects.toMatchObject({ reason: 'no-rebuild' })
    const successor = { catchUp: vi.fn(), approach: vi.fn(), complete: vi.fn(), succeed: vi.fn() }
    await expect(sessile.recorder.beside.ends(rebuild, successor)).rejects.toMatchObject({ reason: 'no-rebuild' })
    for (const step of Object.values(successor)) expect(step).not.toHaveBeenCalled()
    expect((await sessile.recorder.beside.goesOn(second.rebuild)).grown).toEqual([])
  })

  describe.each([
    ['lost its end', (bytes: Buffer) => bytes.subarray(0, secondLine(bytes))],
    ['is damaged', (bytes: Buffer) => Buffer.from(bytes.toString('latin1').replace('"text":"two"', '"text":"2wo"'), 'latin1')],
  ] as const)('of a log that %s, and grew by plain lines since', (_, harm) => {
    it('find that, and say that it takes no more', async () => {
      const running = await run()
      const { sessile, admin, home } = running
      const { recorder, log, gathered } = sessile
      const { session_id } = (await admin.start()).body
      for (const text of ['one', 'two', 'three']) await admin.append(session_id, said(text), { 'idempotency-key': text })
      await recorder.settle()
      const file = sessionFile(home, session_id)
      writeFileSync(file, harm(readFileSync(file)))
      const { rebuild } = await recorder.beside.begins()
      const views = Views.create(freshOf(recorder.views.file), features)
      const { latest } = await takingTurns(fill(views, { events: gathered.events, shelf: log }))
      expect((await admin.append(session_id, said('plain'))).status).toBe(201)
      const { mark } = await recorder.beside.goesOn(rebuild)
      views.finish({ ...mark, timestamp: latest })
      await ends(home, rebuild)
      const before = logBytes(running)
      for (const key of ['three', 'four'])
        expect((await admin.append(session_id, said('more'), { 'idempotency-key': key })).body.reason).toBe('log-damaged')
      expect(logBytes(running)).toBe(before)
      expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ out: expect.stringContaining('the same rows') })
    })
  })

  it('that are not under way are refused before anything is opened', async () => {
    const { sessile, home } = await run()
    const { recorder } = sessile
    const first = await recorder.beside.begins()
    await recorder.beside.begins()
    // What the second one is filling.
    const views = Views.create(freshOf(recorder.views.file), features)
    const files = () => readdirSync(dirname(recorder.views.file)).sort()
    const before = files()
    for (const rebuild of [first.rebuild, 'none']) await expect(ends(home, rebuild)).rejects.toThrow(/not under way/)
    expect(files()).toEqual(before)
    views.close()
  })

  it('of which there is nothing to be opened are refused, and the live views stay', async () => {
    const { sessile, home } = await run()
    const { recorder } = sessile
    const { views } = recorder
    const { rebuild } = await recorder.beside.begins()
    await expect(ends(home, rebuild)).rejects.toThrow(/cannot be opened/)
    expect(recorder.views).toBe(views)
    expect(recorder.stalled).toBeUndefined()
  })

  it('are told of no log that only has another end, which the recorder puts there itself, unless there are very many', async () => {
    const { endsAtOnce } = bounds
    later(() => void Object.assign(bounds, { endsAtOnce }))
    const { sessile, admin } = await run()
    const { beside } = sessile.recorder
    const { session_id } = (await admin.start()).body
    const { rebuild } = await beside.begins()
    await admin.append(session_id, said('one'))
    expect((await beside.goesOn(rebuild)).grown).toEqual([])
    bounds.endsAtOnce = 0
    expect((await beside.goesOn(rebuild)).grown).toEqual([`users/ada/sessions/${session_id}`])
    expect((await beside.goesOn(rebuild)).grown).toEqual([])
  })

  it('are not adopted where what was recorded meanwhile contradicts them: who is active stays active, and the next one knows', async () => {
    const { sessile, admin, home } = await run()
    const { recorder, log, gathered } = sessile
    const older = (await admin.start()).body.session_id
    await admin.end({ session_id: older })
    await recorder.settle()
    // Its end is lost, and nobody has noticed yet.
    const file = sessionFile(home, older)
    const bytes = readFileSync(file)
    truncateSync(file, bytes.indexOf(10) + 1)
    const { rebuild, file: fresh } = await filledBeside(sessile)
    const newer = (await admin.start()).body.session_id
    const successor = new Replacement(reopen(fresh, gathered), gathered, log)
    await expect(recorder.beside.ends(rebuild, successor)).rejects.toMatchObject({ reason: 'no-rebuild' })
    await successor.close()
    const states = async () =>
      (await admin.get('/api/v1/sessions')).body.sessions.map(({ session_id, status }: { session_id: string; status: string }) => [
        session_id,
        status,
      ])
    const both = [
      [newer, 'active'],
      [older, 'closed'],
    ]
    expect(await states()).toEqual(both)
    expect((await admin.start()).body.reason).toBe('session-already-active')
    expect(await cli(home, ['rebuild'])).toMatchObject({ out: expect.stringContaining('1 of them are damaged') })
    expect((await states())[0]).toEqual([newer, 'active'])
    expect((await admin.start()).body.reason).toBe('session-already-active')
  })

  it('that somebody reads are not put in place, since some of what they hold lies beside them: nothing is lost', async () => {
    const { sessile, admin, home } = await run()
    const { recorder, log, gathered } = sessile
    const { session_id } = (await admin.start()).body
    const { rebuild, file } = await filledBeside(sessile)
    const stranger = openDatabase(file, { readonly: true })
    stranger.exec('BEGIN; SELECT * FROM meta')
    await admin.append(session_id, said('one'), { 'idempotency-key': 'one' })
    expect((await admin.end({ session_id })).status).toBe(200)
    const successor = new Replacement(reopen(file, gathered), gathered, log)
    const live = recorder.views
    await expect(recorder.beside.ends(rebuild, successor)).rejects.toMatchObject({ reason: 'no-rebuild' })
    expect([recorder.views, recorder.stalled]).toEqual([live, undefined])
    await successor.close()
    stranger.close()
    expect((await admin.get('/api/v1/sessions')).body.sessions).toMatchObject([{ session_id, status: 'closed' }])
    expect((await admin.append(session_id, said('one'), { 'idempotency-key': 'one' })).body.seq).toBe(2)
    expect(await cli(home, ['rebuild'])).toMatchObject({ code: 0 })
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })

  it('that cannot be put in place leave those that were there, brought up again from their file', async () => {
    const { sessile, admin, home } = await run()
    const { recorder, log, gathered } = sessile
    const { session_id } = (await admin.start()).body
    const { rebuild, file } = await filledBeside(sessile)
    const successor = new Replacement(reopen(file, gathered), gathered, log)
    const succeed = successor.succeed.bind(successor)
    successor.succeed = (live) => {
      rmSync(file)
      return succeed(live)
    }
    expect((await admin.end({ session_id })).status).toBe(200)
    await expect(recorder.beside.ends(rebuild, successor)).rejects.toMatchObject({ reason: 'not-recorded' })
    await successor.close()
    await vi.waitFor(() => expect(recorder.stalled).toBeUndefined(), 10_000)
    expect((await admin.get('/api/v1/sessions')).body.sessions).toMatchObject([{ session_id, status: 'closed' }])
    expect((await admin.start()).status).toBe(201)
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })

  it('that fail when what has grown was handed over cannot end as if nothing had', async () => {
    const { sessile, admin } = await run()
    const { beside, views } = sessile.recorder
    const { session_id } = (await admin.start()).body
    const failing = {
      catchUp: () => {
        throw new Error('there is no room')
      },
      approach: vi.fn(),
      complete: vi.fn(),
      succeed: vi.fn(),
    }
    const { rebuild } = await beside.begins()
    await admin.append(session_id, said('one'), { 'idempotency-key': 'one' })
    await expect(beside.ends(rebuild, failing)).rejects.toThrow('there is no room')
    await expect(beside.ends(rebuild, { ...failing, catchUp: () => true })).rejects.toMatchObject({ reason: 'no-rebuild' })
    expect(failing.succeed).not.toHaveBeenCalled()
    expect(sessile.recorder.views).toBe(views)
  })

  describe('with more that has grown than is handed over at a time', () => {
    const users = ['ada', 'bo', 'cy', 'di']

    /** A rebuild that may end, which takes several steps. */
    async function manySteps({ sessile, admin }: Running) {
      const ids: string[] = []
      for (const user_id of users) ids.push((await admin.start({ user_id })).body.session_id)
      const { rebuild, file } = await filledBeside(sessile)
      const say = async () => {
        const told: Json[] = []
        for (const [i, id] of ids.entries())
          told.push((await admin.append(id, said('one', { user_id: users[i] as string }), { 'idempotency-key': id })).body)
        return told
      }
      bounds.endsInTurn = 1
      const end = async () => {
        const successor = new Replacement(reopen(file, features), features, sessile.log)
        await sessile.recorder.beside.ends(rebuild, successor).finally(() => successor.close())
      }
      return { rebuild, say, end }
    }

    it('end once: who else would end one, or go on with it, is refused, and no name is lost', async () => {
      const running = await run()
      const { beside } = running.sessile.recorder
      const { rebuild, say, end } = await manySteps(running)
      const told = await say()
      const ended = end()
      await expect(end()).rejects.toMatchObject({ reason: 'no-rebuild' })
      await expect(beside.goesOn(rebuild)).rejects.toMatchObject({ reason: 'no-rebuild' })
      await ended
      expect(await say()).toEqual(told)
      expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    })

    it('end no more when the recorder stops: the next one keeps the views that it has', async () => {
      const running = await run()
      const { say, end } = await manySteps(running)
      await say()
      const ended = expect(end()).rejects.toMatchObject({ reason: 'no-rebuild' })
      await running.stop()
      const { admin, home } = await run(running.home)
      const { ino } = statSync(projectionOf(home))
      await admin.start({ user_id: 'late' })
      await ended
      expect(statSync(projectionOf(home)).ino).toBe(ino)
      expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    })
  })

  it('are handed what has grown some at a time, and what grows meanwhile in the end', async () => {
    const { sessile, admin } = await run()
    const { beside } = sessile.recorder
    const users = ['ada', 'bo', 'cy']
    const logs = await Promise.all(
      users.map(async (user_id) => `users/${user_id}/sessions/${(await admin.start({ user_id })).body.session_id}`),
    )
    const { rebuild } = await beside.begins()
    const grow = (log: string) => beside.grew([{ log, offset: 0, plain: false } as Line])
    for (const log of logs) grow(log)
    const handed: string[][] = []
    const take = ({ ends, others }: Grown) => handed.push([...ends.keys(), ...others]) > 0
    const catchUp = (grown: Grown) => {
      grow(logs[0] as string)
      return take(grown)
    }
    bounds.endsInTurn = 2
    await beside.ends(rebuild, { catchUp, approach: () => {}, complete: take, succeed: () => sessile.recorder.views })
    expect(handed).toEqual([logs.slice(0, 2), [logs[2], logs[0]], [logs[0]]])
  })

  it('forget nothing that has grown where a step of theirs fails', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { beside } = running.sessile.recorder
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    const { rebuild } = await beside.begins()
    // From before there is anything to write, so that it is not written at leisure by the time it is asked for.
    disk.refuse(statSync(sessionFile(running.home, session_id)).ino, 'ENOSPC')
    await running.admin.append(session_id, said('one'), { 'idempotency-key': 'one' })
    await expect(beside.goesOn(rebuild)).rejects.toThrow()
    disk.mend()
    expect((await beside.goesOn(rebuild)).grown).toEqual([`users/ada/sessions/${session_id}`])
  })

  it.each(['plain', 'named'])(
    'under a load of %s lines lose nothing, double nothing, and end soon',
    async (kind) => {
      const running = await run()
      const { beside } = running.sessile.recorder
      const asked = vi.spyOn(beside, 'goesOn')
      const ids = await Promise.all(
        // More than a rebuild leaves to the recorder, so that it never comes to an end by itself.
        Array.from({ length: 200 }, async (_, i) => (await running.admin.start({ user_id: `u${i}` })).body.session_id as string),
      )
      let stop = false
      const pouring = Promise.all(
        ids.map(async (id, i) => {
          for (let seq = 2; !stop; seq++) {
            const headers = kind === 'named' ? { 'idempotency-key': `${i}-${seq}` } : undefined
            const reply = await running.admin.append(id, said('x', { user_id: `u${i}` }), headers)
            expect(reply).toMatchObject({ status: 201, body: { seq } })
          }
        }),
      )
      for (let round = 0; round < 2; round++) {
        const both = await Promise.all([cli(running.home, ['rebuild']), cli(running.home, ['rebuild', '--check'])])
        expect(both.map(({ code, err, out }) => [code, code === 0 ? '' : err + out])).toEqual([
          [0, ''],
          [0, ''],
        ])
      }
      // Where all grow all the time, asking once more finds as many.
      expect(asked.mock.calls.length).toBeLessThanOrEqual(kind === 'named' ? 6 : 2)
      stop = true
      await pouring
      await sound(running)
    },
    120_000,
  )
})
