// Recovery: what a crash left is brought to where it belongs, what nobody was told about is set aside, and what cannot
// be explained is not papered over.

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import pino from 'pino'
import { describe, expect, it } from 'vitest'
import { bounds } from '../src/core/bounds.ts'
import { openDatabase } from '../src/core/tables.ts'
import { type Disk, realDisk } from '../src/log/disk.ts'
import { JournalDamaged } from '../src/log/journal.ts'
import { journalOf, projectionOf } from '../src/log/shelf.ts'
import { segmentsOf } from './damaging.ts'
import {
  cli,
  crashedCopy,
  filesUnder,
  type Json,
  later,
  linesIn,
  logBytes,
  makeHome,
  type Running,
  refused,
  run,
  said,
  serveApart,
  sessionFile,
} from './harness.ts'

const HEADER = 80
const segment = (home: string) => join(journalOf(home), segmentsOf(home).at(-1) as string)

/** A session with some records, whose server is then found dead. */
async function dead({ settled = true } = {}): Promise<{ home: string; session_id: string; texts: string[] }> {
  const running = await run()
  const { session_id } = (await running.admin.start()).body
  const texts = ['one', 'two ✓', 'three']
  for (const text of texts) await running.admin.append(session_id, said(text))
  if (settled) running.sessile.log.settle()
  await running.admin.get('/api/v1/sessions')
  return { home: crashedCopy(running.home), session_id, texts }
}

const transcript = async (running: Running, session_id: string) =>
  (await running.admin.get(`/api/v1/sessions/${session_id}`)).body.transcript.map(({ text }: { text: string }) => text)

async function whole(running: Running, session_id: string, texts: string[]): Promise<void> {
  expect(await transcript(running, session_id)).toEqual(texts)
  running.sessile.log.settle()
  expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
  expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
}

describe('a start after a crash', () => {
  it('brings lines that had not reached their file from the journal', async () => {
    const { home, session_id, texts } = await dead()
    rmSync(join(home, 'logs', 'users'), { recursive: true, force: true })
    rmSync(join(home, 'logs', 'accounts'), { recursive: true })
    await whole(await run(home), session_id, texts)
  })

  it('completes a file that was cut anywhere', async () => {
    const { home, session_id, texts } = await dead()
    const length = statSync(sessionFile(home, session_id)).size
    for (const cut of [0, 1, 100, length - 1, length]) {
      const copy = crashedCopy(home)
      truncateSync(sessionFile(copy, session_id), cut)
      const running = await run(copy)
      expect(await transcript(running, session_id)).toEqual(texts)
      running.sessile.log.settle()
      expect(readFileSync(sessionFile(copy, session_id))).toEqual(readFileSync(sessionFile(home, session_id)))
      await running.stop()
    }
  })

  it('rewrites a page of a file that the crash left as zeros', async () => {
    const { home, session_id, texts } = await dead()
    const bytes = readFileSync(sessionFile(home, session_id))
    bytes.fill(0, 200, 700)
    writeFileSync(sessionFile(home, session_id), bytes)
    await whole(await run(home), session_id, texts)
  })

  it('sets a torn tail aside, and loses nothing that was acknowledged', async () => {
    const { home, session_id, texts } = await dead()
    const file = segment(home)
    const bytes = readFileSync(file)
    const end = bytes.lastIndexOf(0x7d) + 2
    Buffer.from('FRAM and then a crash').copy(bytes, end)
    writeFileSync(file, bytes)
    const running = await run(home)
    await whole(running, session_id, texts)
    const aside = readdirSync(join(journalOf(home), 'quarantine'))
    expect(aside).toHaveLength(1)
    expect(readFileSync(join(journalOf(home), 'quarantine', aside[0] as string), 'utf8')).toBe('FRAM and then a crash')
  })

  it('keeps every command whose frames are whole, wherever the journal is cut', async () => {
    const { home, session_id } = await dead()
    const bytes = readFileSync(segment(home))
    const end = bytes.lastIndexOf(0x7d) + 2
    let before = -1
    for (let cut = HEADER; cut <= end; cut += 97) {
      const copy = makeHome()
      mkdirSync(journalOf(copy), { recursive: true })
      writeFileSync(join(journalOf(copy), segmentsOf(home).at(-1) as string), bytes.subarray(0, cut))
      const running = await run(copy)
      const { body } = await running.admin.get(`/api/v1/sessions/${session_id}/records`)
      const count = body.records?.length ?? 0
      expect(count).toBeGreaterThanOrEqual(before)
      before = count
      expect((await running.admin.start({ user_id: 'bob' })).status).toBe(201)
      await running.stop()
    }
    expect(before).toBeGreaterThan(2)
  }, 120_000)

  it('drops an array whole whose last frame is missing', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, [said('first'), said('second')])
    const home = crashedCopy(running.home)
    rmSync(join(home, 'logs', 'users'), { recursive: true, force: true })
    rmSync(join(home, 'projections'), { recursive: true })
    const bytes = readFileSync(segment(home))
    writeFileSync(segment(home), bytes.subarray(0, bytes.lastIndexOf(0x7d) - 10))
    const again = await run(home)
    expect(await transcript(again, session_id)).toEqual([])
  })

  it('refuses to start where the journal is damaged before what was acknowledged, and says how to go on', async () => {
    const { home } = await dead()
    const bytes = readFileSync(segment(home))
    bytes.write('TWO', bytes.indexOf('two'))
    writeFileSync(segment(home), bytes)
    const before = logBytes({ home })
    await expect(run(home)).rejects.toThrow(JournalDamaged)
    const { code, err } = await cli(home, ['serve'], { SESSILE_PORT: '0' })
    expect(code).toBe(5)
    expect(err).toMatch(/damaged in .*\.wal at byte \d+ .*move every \.wal file out/s)
    expect(logBytes({ home })).toBe(before)
    // What it said to do works.
    for (const name of segmentsOf(home)) rmSync(join(journalOf(home), name))
    const running = await run(home)
    expect((await running.admin.get('/api/v1/sessions')).body.sessions).toHaveLength(1)
  })

  it('leaves a file alone that somebody else has written to, sets its lines aside, and goes on with the others', async () => {
    const { home, session_id } = await dead()
    const file = sessionFile(home, session_id)
    appendFileSync(file, 'scribble')
    const scribbled = readFileSync(file)
    const running = await run(home)
    const problem = await refused(running, () => running.admin.append(session_id, said('more')), 503, 'log-damaged')
    expect(problem.detail).toContain('bytes that no record accounts for')
    expect(readFileSync(file)).toEqual(scribbled)
    expect(readdirSync(join(journalOf(home), 'quarantine'))).toEqual([expect.stringContaining(session_id)])
    expect((await running.admin.start({ user_id: 'bob' })).status).toBe(201)
    const again = await running.restart()
    await refused(again, () => again.admin.append(session_id, said('more')), 503, 'log-damaged')
  })

  it('compares all of a long file: what somebody else wrote far into it is seen, and all its lines are set aside', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    for (let n = 0; n < 4; n++)
      expect((await running.admin.append(session_id, said('what was said '.repeat(2500)))).status).toBe(201)
    running.sessile.log.settle()
    const home = crashedCopy(running.home)
    const file = sessionFile(home, session_id)
    const bytes = readFileSync(file)
    bytes.write('WAS', bytes.lastIndexOf('was', bytes.length - 10_000))
    writeFileSync(file, bytes)
    const again = await run(home)
    await refused(again, () => again.admin.append(session_id, said('more')), 503, 'log-damaged')
    expect(readFileSync(file)).toEqual(bytes)
    const [aside = ''] = readdirSync(join(journalOf(home), 'quarantine'))
    expect(readFileSync(join(journalOf(home), 'quarantine', aside))).toEqual(readFileSync(sessionFile(running.home, session_id)))
  })

  it('goes through a journal a part at a time, and through it again for what it has no room for', async () => {
    const running = await run()
    const begun: { user_id: string; session_id: string; texts: string[] }[] = []
    for (const user_id of ['ada', 'bob', 'cleo', 'dora', 'eve', 'fay'])
      begun.push({ user_id, session_id: (await running.admin.start({ user_id })).body.session_id, texts: [] })
    // Commands of several records, some longer than what is read at a time, and their sessions in turns.
    for (let round = 0; round < 4; round++)
      for (const { user_id, session_id, texts } of begun) {
        const more = Array.from({ length: 1 + ((round * 5) % 7) }, (_, n) => `${round}.${n}`)
        texts.push(...more)
        const body = more.map((text) => said(text, { user_id }))
        expect((await running.admin.append(session_id, body)).status).toBe(201)
      }
    const home = crashedCopy(running.home)
    rmSync(join(home, 'logs', 'users'), { recursive: true, force: true })
    const length = readFileSync(segment(home)).lastIndexOf(0x7d) + 2
    truncateSync(segment(home), length)
    const { journalRead, journalHeld } = bounds
    later(() => void Object.assign(bounds, { journalRead, journalHeld }))
    Object.assign(bounds, { journalRead: 1000, journalHeld: 5000 })
    const reads: number[] = []
    const read: Disk['read'] = (fd, bytes, position) => {
      reads.push(bytes.length)
      return realDisk.read(fd, bytes, position)
    }
    const again = await run(home, {}, undefined, { disk: { ...realDisk, read } })
    expect(Math.max(...reads)).toBeLessThan(length / 3)
    expect(reads.reduce((sum, bytes) => sum + bytes, 0)).toBeGreaterThan(12 * length)
    for (const { session_id, texts } of begun) expect(await transcript(again, session_id)).toEqual(texts)
    again.sessile.log.settle()
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })

  it('takes no more than it looked at of what one who was taken over still writes', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('one'))
    const home = crashedCopy(running.home)
    await running.admin.append(session_id, said('too late'))
    const [old, longer] = [segment(home), readFileSync(segment(running.home))]
    const open: Disk['open'] = (path, make) => {
      if (path.endsWith('.wal.new')) writeFileSync(old, longer)
      return realDisk.open(path, make)
    }
    const again = await run(home, {}, undefined, { disk: { ...realDisk, open } })
    await whole(again, session_id, ['one'])
  })

  it('never appends to an old segment: each start begins a new epoch', async () => {
    const first = await run()
    const before = segmentsOf(first.home)
    const second = await first.restart()
    const after = segmentsOf(second.home)
    expect(after).toHaveLength(1)
    expect(Number(after[0]?.slice(0, 8))).toBe(Number(before[0]?.slice(0, 8)) + 1)
  })

  it('ignores what an interrupted start left: a half-made segment, and segments of an older epoch', async () => {
    const { home, session_id, texts } = await dead()
    const old = readFileSync(segment(home))
    const first = await run(home)
    await first.stop()
    const name = segmentsOf(home).at(-1) as string
    writeFileSync(join(journalOf(home), `${String(Number(name.slice(0, 8)) + 1).padStart(8, '0')}-000001.wal.new`), 'half')
    writeFileSync(join(journalOf(home), '00000000-000001.wal'), old)
    await whole(await run(home), session_id, texts)
    expect(segmentsOf(home)).toHaveLength(1)
  })
})

describe('the views', () => {
  const damage: [string, (file: string) => void][] = [
    ['deleted', (file) => rmSync(file)],
    ['emptied', (file) => truncateSync(file, 0)],
    ['cut', (file) => truncateSync(file, 5000)],
    ['overwritten', (file) => writeFileSync(file, Buffer.alloc(40_000, 7))],
    [
      'from another version',
      (file) => {
        const db = openDatabase(file)
        db.exec("UPDATE meta SET value = 'older' WHERE key = 'fingerprint'; DELETE FROM sessions")
        db.close()
      },
    ],
    [
      'from another life of the data',
      (file) => {
        const db = openDatabase(file)
        db.exec("UPDATE meta SET value = 'ffff' WHERE key = 'journal'; DELETE FROM sessions")
        db.close()
      },
    ],
    [
      'behind what the journal still holds',
      (file) => {
        const db = openDatabase(file)
        db.exec("UPDATE meta SET value = '0' WHERE key = 'lsn'; DELETE FROM sessions")
        db.close()
      },
    ],
    [
      'ahead of the journal',
      (file) => {
        const db = openDatabase(file)
        db.exec("UPDATE meta SET value = '999' WHERE key = 'lsn'; DELETE FROM sessions")
        db.close()
      },
    ],
  ]
  it.each(damage)('come back without being asked when they are %s', async (_, harm) => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('one'))
    await running.stop()
    const file = projectionOf(running.home)
    for (const name of [`${file}-wal`, `${file}-shm`]) rmSync(name, { force: true })
    harm(file)
    await whole(await run(running.home), session_id, ['one'])
  })

  it('come back when the whole directory is gone after a crash', async () => {
    const { home, session_id, texts } = await dead()
    rmSync(join(home, 'projections'), { recursive: true })
    await whole(await run(home), session_id, texts)
  })

  it('come back without the older of two sessions that contradict each other because an end is lost', async () => {
    const running = await run()
    const first = (await running.admin.start()).body.session_id
    await running.admin.end({ session_id: first })
    const second = (await running.admin.start()).body.session_id
    await running.stop()
    const file = sessionFile(running.home, first)
    truncateSync(file, readFileSync(file).indexOf(10) + 1)
    rmSync(projectionOf(running.home))
    const again = await run(running.home)
    expect((await again.admin.get('/api/v1/sessions')).body.sessions).toEqual([expect.objectContaining({ session_id: second })])
    expect((await again.admin.append(second, said('more'))).status).toBe(201)
    expect((await again.admin.start({ kind: 'therapy' })).body.session_number).toBe(3)
    await again.stop()
    expect(await cli(running.home, ['rebuild'])).toMatchObject({ code: 1, out: expect.stringContaining('1 of them are damaged') })
  })

  it('come back without that one alone: what others have ended stays, whoever is active now', async () => {
    const running = await run()
    const whole = (user_id: string) => running.admin.start({ user_id }).then(({ body }) => body.session_id as string)
    for (let i = 0; i < 2; i++) await running.admin.end({ session_id: await whole('ada') })
    await whole('ada')
    const lost = await whole('bob')
    await running.admin.end({ user_id: 'bob', session_id: lost })
    const bobs = await whole('bob')
    await running.stop()
    const file = sessionFile(running.home, lost, 'bob')
    truncateSync(file, readFileSync(file).indexOf(10) + 1)
    rmSync(projectionOf(running.home))
    const again = await run(running.home)
    const numbers = async (user: string) =>
      (await again.admin.get(`/api/v1/users/${user}/sessions`)).body.sessions.map((row: Json) => [row.session_number, row.status])
    const found = async () => [await numbers('ada'), await numbers('bob')]
    const expected = [
      [
        [3, 'active'],
        [2, 'closed'],
        [1, 'closed'],
      ],
      [[2, 'active']],
    ]
    expect(await found()).toEqual(expected)
    expect((await again.admin.append(bobs, said('more', { user_id: 'bob' }))).status).toBe(201)
    // Also beside a recorder.
    expect(await cli(running.home, ['rebuild'])).toMatchObject({ code: 1, out: expect.stringContaining('1 of them are damaged') })
    expect(await found()).toEqual(expected)
    expect((await cli(running.home, ['rebuild', '--check'])).out).toContain('A rebuild gives the same rows')
  })

  it('tell of each damaged log once, also where others contradict each other and all are folded once more', async () => {
    const running = await run()
    const lost = (await running.admin.start()).body.session_id
    await running.admin.end({ session_id: lost })
    await running.admin.start()
    const bobs = (await running.admin.start({ user_id: 'bob' })).body.session_id
    await running.stop()
    const file = sessionFile(running.home, lost)
    truncateSync(file, readFileSync(file).indexOf(10) + 1)
    appendFileSync(sessionFile(running.home, bobs, 'bob'), 'scribble\n')
    rmSync(projectionOf(running.home))
    const told: Json[] = []
    const logger = pino({ level: 'warn' }, { write: (line) => void told.push(JSON.parse(line)) })
    await (await run(running.home, {}, undefined, { logger })).stop()
    expect(told.filter(({ msg }) => msg === 'a log is damaged').map(({ log }) => log)).toEqual([lost, bobs])
    const rebuilt = async () => {
      const { err } = await cli(running.home, ['rebuild'])
      return err.split('\n').flatMap((line) => /^users\/\w+\/sessions\/(\w+): /.exec(line)?.[1] ?? [])
    }
    expect(await rebuilt()).toEqual([lost, bobs])
    await run(running.home)
    expect(await rebuilt()).toEqual([lost, bobs])
  })

  it('come back when they are damaged while they are in use', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const { session_id } = (await apart.admin.start()).body
    const file = projectionOf(home)
    // A page of the database and the log of its changes are overwritten under its feet.
    for (const path of [file, `${file}-wal`]) if (existsSync(path)) writeFileSync(path, Buffer.alloc(statSync(path).size, 0x5a))
    const eventually = async (ask: () => Promise<{ status: number; body: Json }>, status: number) => {
      for (let i = 0; i < 100; i++) {
        const reply = await ask()
        if (reply.status === status) return reply.body
        expect(reply.status).toBe(503)
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
      throw new Error('it did not come back')
    }
    await eventually(() => apart.admin.append(session_id, said('after')), 201)
    const detail = await eventually(() => apart.admin.get(`/api/v1/sessions/${session_id}`), 200)
    expect(detail.transcript).toEqual([expect.objectContaining({ text: 'after' })])
    await expect.poll(apart.err, { timeout: 5000 }).toContain('the views are rebuilt')
  })
})

describe('a checkpoint', () => {
  it('leaves the journal empty at a clean stop, so that the next start has nothing to go through', async () => {
    const running = await run()
    for (let i = 0; i < 20; i++) await running.admin.start({ kind: 'therapy' })
    await running.stop()
    expect(segmentsOf(running.home)).toHaveLength(1)
    expect(statSync(segment(running.home)).size).toBe(HEADER)
    expect(filesUnder(join(running.home, 'logs', 'users'))).toHaveLength(20)
  })

  it('may come in the middle of the work: recording goes on, and a crash after it loses nothing', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const texts = Array.from({ length: 60 }, (_, i) => `text ${i}`)
    const appending = (async () => {
      for (const text of texts) await running.admin.append(session_id, said(text))
    })()
    for (let i = 0; i < 5; i++) await running.sessile.recorder.checkpoint()
    await appending
    await whole(await run(crashedCopy(running.home)), session_id, texts)
    expect(linesIn(sessionFile(running.home, session_id))).toHaveLength(61)
  })
})
