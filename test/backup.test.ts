// Backups through the command line: what is in them, that they are only ever whole, and that what is restored lives on.

import {
  appendFileSync,
  cpSync,
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
import { describe, expect, it } from 'vitest'
import { SyncFailed } from '../src/core/log.ts'
import { Backup } from '../src/log/saved.ts'
import { save } from '../src/log/saving.ts'
import { FileShelf } from '../src/log/shelf.ts'
import { backupVerb } from '../src/verbs/backup.ts'
import {
  backup,
  checked,
  erase,
  expectBeginning,
  flip,
  folders,
  load,
  nameOf,
  paused,
  recordsIn,
  restore,
  sha256,
  smallDisk,
  stopped,
  talk,
  talkMuch,
  treeOf,
} from './backups.ts'
import { FailingDisk } from './failing.ts'
import { verb } from './harming.ts'
import { Client, cli, clockAt, crashedCopy, filesUnder, linesIn, makeHome, type Ran, run, said, sessionFile } from './harness.ts'

describe('sessile backup', () => {
  it('saves everything, and then only what is new, without a byte changed in the data', async () => {
    const running = await run()
    const { to } = folders()
    const first = await talk(running.admin, 'ada', 'one', 'two')
    const second = await talk(running.admin, 'bob', 'three')
    const before = await backup(running.home, to)
    expect(before).toMatchObject({ code: 0, told: { number: 1, records: 6, made: 3, grown: 0, findings: [] } })
    expect(before.told.written).toBe(before.told.bytes)
    expectPlain(to)
    const file = readFileSync(join(to, nameOf(first)), 'utf8')
    expect(file).toBe(readFileSync(sessionFile(running.home, first), 'utf8'))
    const inodes = () => [nameOf(first), nameOf(second, 'bob')].map((name) => statSync(join(to, name)).ino)
    const known = inodes()
    const untouched = statSync(join(to, nameOf(second, 'bob'))).mtimeMs

    await running.admin.append(first, said('four'))
    const new_ = await talk(running.admin, 'eve', 'five')
    running.sessile.log.settle()
    const data = treeOf(running.home, 'logs')
    const { told } = await backup(running.home, to)
    expect(treeOf(running.home, 'logs')).toEqual(data)
    const added = statSync(sessionFile(running.home, first)).size - file.length
    const made = statSync(sessionFile(running.home, new_, 'eve')).size
    expect(told).toMatchObject({ number: 2, records: 9, made: 1, grown: 1, unchanged: 2, written: added + made, findings: [] })
    // Beside what is new, it looked at the end of what it had, to see that the rest follows.
    expect(told.read).toBeLessThanOrEqual(added + made + 256)
    expect(inodes()).toEqual(known)
    expect(statSync(join(to, nameOf(second, 'bob'))).mtimeMs).toBe(untouched)
    expect(readFileSync(join(to, nameOf(first)), 'utf8')).toBe(readFileSync(sessionFile(running.home, first), 'utf8'))
    expect((await backup(running.home, to)).told).toMatchObject({ number: 3, made: 0, grown: 0, unchanged: 4, read: 0, written: 0 })
  })

  it('under load holds what was acknowledged before it began, whole commands, and nothing that a moment of the record had not', async () => {
    const running = await run()
    const { to, back } = folders()
    const { acknowledged, stop } = await load(running.admin, 4)
    await backup(running.home, to)
    const early = new Set(acknowledged)
    const { told } = await backup(running.home, to)
    await stop()
    running.sessile.log.settle()
    expect(early.size).toBeGreaterThan(0)
    expect(told.grown).toBeGreaterThan(0)
    expect(await restore(to, back)).toMatchObject({ code: 0 })
    const all = recordsIn(running.home)
    const restored = recordsIn(back)
    expect(all.length).toBeGreaterThan(restored.length)
    expectBeginning(restored, all, early, told.until)
  })

  it('parts what was recorded before from what follows, also where the clock stands still or goes back', async () => {
    const clock = clockAt('2031-05-02T09:30:00Z')
    const running = await run(undefined, {}, clock)
    const { body } = await running.admin.start()
    const owner = new Client(running.url, JSON.parse(readFileSync(join(running.home, 'logs/.journal/holder.json'), 'utf8')).token)
    for (const seconds of [0, 0, -7200, 60]) {
      clock.move(seconds)
      const before = await running.admin.append(body.session_id, said('before'))
      const { until } = (await owner.post('/operator/backup.begins', {})).body
      const after = await running.admin.append(body.session_id, said('after'))
      expect([before.body.timestamp <= until, until < after.body.timestamp]).toEqual([true, true])
    }
    expect((await running.admin.post('/operator/backup.begins', {})).status).toBe(403)
  })

  it('finds what a crash left in the journal only, and leaves the data as it is', async () => {
    const running = await run()
    const first = await talk(running.admin, 'ada', 'one', 'two')
    const second = await talk(running.admin, 'bob', 'three')
    running.sessile.log.settle()
    const home = crashedCopy(running.home)
    // As after a power loss: one file is gone, the other ends within a line.
    rmSync(sessionFile(home, first))
    truncateSync(sessionFile(home, second, 'bob'), 100)
    const data = treeOf(home)
    const { to } = folders()
    expect(await backup(home, to)).toMatchObject({ code: 0, told: { records: 6, findings: [] } })
    expect(treeOf(home)).toEqual(data)
    expect(treeOf(to, 'logs/users')).toEqual(treeOf(running.home, 'logs/users'))
  })

  it('keeps what is in the journal only of a log in whose place something else stands, and says so', async () => {
    const running = await run()
    const session = await talk(running.admin, 'ada', 'one', 'two')
    running.sessile.log.settle()
    const home = crashedCopy(running.home)
    const whole = readFileSync(sessionFile(home, session))
    rmSync(sessionFile(home, session))
    mkdirSync(sessionFile(home, session))
    const { to } = folders()
    const { code, told } = await backup(home, to)
    expect(code).toBe(1)
    expect(told.findings).toEqual([
      { name: `logs/users/ada/sessions/${session}.jsonl`, what: 'it is not a file: it was not saved' },
    ])
    expect(readFileSync(join(to, 'logs/.journal/quarantine', `users~ada~sessions~${session}@0.lines`))).toEqual(whole)
  })

  it('refuses where the journal is damaged, since acknowledged records would be missing', async () => {
    const running = await run()
    const session = await talk(running.admin, 'ada', 'one', 'two')
    const home = crashedCopy(running.home)
    const wal = join(
      home,
      'logs/.journal',
      readdirSync(join(home, 'logs/.journal')).find((name) => name.endsWith('.wal')) as string,
    )
    flip(wal, readFileSync(wal).indexOf(session))
    const { to } = folders()
    const told = await backup(home, to)
    expect(told).toMatchObject({ code: 5, told: undefined })
    expect(told.err).toContain('The journal is damaged')
    expect(existsSync(to)).toBe(false)
  })

  it('carries an erased line as it is now, and its content no longer', async () => {
    const { home, first, running } = await stopped()
    const { to } = folders()
    await backup(home, to)
    writeFileSync(sessionFile(home, first), erase(readFileSync(sessionFile(home, first), 'utf8'), 1))
    rmSync(join(home, 'projections'), { recursive: true })
    const again = await running.restart()
    // It grows beyond where it ended, so that its length alone tells nothing.
    for (const text of ['six', 'seven', 'eight']) await again.admin.append(first, said(text))
    expect(await backup(home, to)).toMatchObject({ code: 0, told: { replaced: 1, findings: [] } })
    expect(readFileSync(join(to, nameOf(first)), 'utf8')).toBe(readFileSync(sessionFile(home, first), 'utf8'))
    expect(filesUnder(to).filter((path) => readFileSync(join(to, path), 'utf8').includes('"one"'))).toEqual([])
    expect(await checked(to)).toMatchObject({ code: 0 })
  })

  it('keeps what was saved where the original was cut, changed or lost, names it, and saves the rest', async () => {
    const running = await run()
    const { to } = folders()
    const users = ['cut', 'changed', 'lost', 'fine']
    const ids = await Promise.all(users.map((user) => talk(running.admin, user, 'one', 'two')))
    await running.stop()
    const file = (i: number) => sessionFile(running.home, ids[i] as string, users[i])
    const name = (i: number) => nameOf(ids[i] as string, users[i])
    await backup(running.home, to)
    const saved = treeOf(to, 'logs')
    const text = readFileSync(file(0), 'utf8')
    truncateSync(file(0), text.indexOf('\n') + 1)
    writeFileSync(file(1), readFileSync(file(1), 'utf8').replace('"two"', '"too"'))
    rmSync(file(2))
    const { code, told } = await backup(running.home, to)
    expect(code).toBe(1)
    expect(told.findings).toEqual(
      expect.arrayContaining([
        { name: name(0), what: expect.stringContaining('ends after line 1') },
        { name: name(1), what: expect.stringContaining('line 3 is not the one that was saved') },
        { name: name(2), what: expect.stringContaining('gone from the data directory') },
      ]),
    )
    expect(told.findings).toHaveLength(3)
    expect(treeOf(to, 'logs')).toEqual(saved)
  })

  it('saves a log that was damaged before, says so, and restores it as it was', async () => {
    const { home, first } = await stopped()
    const { to, back } = folders()
    const file = readFileSync(sessionFile(home, first), 'utf8').replace('"one"', '"ohe"')
    writeFileSync(sessionFile(home, first), file)
    const { code, told } = await backup(home, to)
    expect({ code, ...told }).toMatchObject({
      code: 1,
      findings: [{ name: nameOf(first), what: expect.stringContaining('line 2') }],
    })
    const [restored, bad] = await Promise.all([restore(to, back), worse(to, nameOf(first))])
    expect(bad).toMatchObject({ code: 1, out: '', err: expect.stringContaining(`${nameOf(first)}: its SHA-256`) })
    expect(restored.code).toBe(1)
    expect(restored.err).toContain(`${nameOf(first)}:2`)
    expect(readFileSync(sessionFile(back, first), 'utf8')).toBe(file)
  })

  it('lets nobody else in while it is made, and leaves the last one whole when it is killed', async () => {
    const running = await run()
    const { to } = folders()
    const many = (tag: string) => Promise.all(Array.from({ length: 10 }, (_, i) => talk(running.admin, `${tag}-${i}`, 'words')))
    await many('before')
    await backup(running.home, to)
    await many('after')
    const others = () => Promise.all([backup(running.home, to), checked(to)])
    const [second, look] = (await paused(running.home, to, others, 'SIGKILL')).done
    expect(existsSync(join(to, 'under-way'))).toBe(true)
    expect(second).toMatchObject({ code: 4, told: undefined })
    expect(second.err).toContain('is held by process')
    expect(look).toMatchObject({ code: 1, out: '' })
    expect(look.err).toContain('is just being made')
    expect(await checked(to)).toMatchObject({ code: 0 })
    expect(await backup(running.home, to)).toMatchObject({ code: 0, told: { records: 1 + 2 * 20, findings: [] } })
    expect(treeOf(to, 'logs/users')).toEqual(treeOf(running.home, 'logs/users'))
  })

  it('tells of a full disk plainly, and leaves the last one whole', async () => {
    const { home, running } = await stopped()
    const { disk, ran } = smallDisk()
    const to = join(disk, 'saved')
    expect(await ran(home, ['backup', to])).toMatchObject({ code: 0 })
    const saved = treeOf(to)
    const again = await running.restart()
    await talkMuch(again.admin)
    const told = await ran(home, ['backup', to])
    expect(told).toMatchObject({ code: 1, out: '' })
    expect(told.err).toContain(`There is no space left in ${to}`)
    expect(treeOf(to)).toEqual(saved)
    expect(await checked(to)).toMatchObject({ code: 0 })
  })

  it('whose sync fails, whichever it is, asks for no other, and leaves the last one or the new one whole', async () => {
    const running = await run()
    const { to } = folders()
    const users = ['ada', 'bob', 'eve', 'fay', 'kim', 'zoe']
    const sessions = await Promise.all(users.map((user) => talk(running.admin, user, 'one')))
    await backup(running.home, to)
    for (const [i, user_id] of users.entries()) await running.admin.append(sessions[i] as string, said('two', { user_id }))
    await running.stop()
    const { home } = running
    const became = new Map<number, number>()
    for (let nth = 1; ; nth++) {
      const copy = join(makeHome(), 'saved')
      cpSync(to, copy, { recursive: true })
      const disk = new FailingDisk()
      disk.failSync((asked) => asked === nth)
      const told = await save(copy, { home, shelf: new FileShelf(home) }, {}, disk).catch((error: Error) => error)
      if (!(told instanceof Error)) break
      expect(told).toBeInstanceOf(SyncFailed)
      expect(told.message).toBe(
        `The disk of ${copy} cannot be trusted, a sync failed (EIO): this backup was given up, and the last one that counts is whole.`,
      )
      // Those that were under way beside it are waited for, and it is not settled by others that may mean nothing.
      expect(disk.syncs - nth).toBeLessThan(4)
      const saved = Backup.open(copy)
      const { number } = saved.manifest
      became.set(number, (became.get(number) ?? 0) + 1)
      expect([...saved.faults()]).toEqual([])
      expect(existsSync(join(copy, 'under-way')) || number === 2).toBe(true)
      expect(await verb(backupVerb, home, [copy])).toMatchObject({ code: 0, err: '' })
      expect(treeOf(copy, 'logs/users')).toEqual(treeOf(home, 'logs/users'))
      expect(existsSync(join(copy, 'under-way'))).toBe(false)
    }
    expect(became.get(1)).toBeGreaterThan(users.length)
    // Only the names of the folder are in doubt once the manifest has got its own.
    expect(became.get(2)).toBeGreaterThan(0)
  })

  it('refuses a folder that is something else, one within the data, and data that is not there', async () => {
    const { home } = await stopped()
    const other = makeHome()
    writeFileSync(join(other, 'letter.txt'), 'mine')
    const { back } = folders()
    const told = await Promise.all([backup(home, other), backup(home, join(home, 'saved')), backup(other, back)])
    expect(told.map(({ code }) => code)).toEqual([1, 1, 1])
    expect(told[0]?.err).toContain('neither empty nor a backup')
    expect(told[1]?.err).toContain('outside of')
    expect(told[2]?.err).toContain('There is no data')
    expect(readdirSync(other)).toEqual(['letter.txt'])
    expect(existsSync(join(home, 'saved'))).toBe(false)
  })
})

describe('sessile restore', () => {
  it('makes a data directory that serves, verifies, goes on with its numbers, and knows named requests again', async () => {
    const running = await run()
    const { to, back } = folders()
    const named = { 'idempotency-key': 'call-42' }
    const start = await running.admin.start({}, named)
    await running.admin.append(start.body.session_id, said('one'))
    const ended = await talk(running.admin, 'bob', 'two')
    await running.admin.end({ user_id: 'bob', session_id: ended })
    await backup(running.home, to)
    const told = await restore(to, back)
    expect(told).toMatchObject({ code: 0, err: '' })
    expect(told.out).toMatch(/^6 records in 3 files are restored in /)
    expect(treeOf(back, 'logs/users')).toEqual(treeOf(running.home, 'logs/users'))
    const [verified, rebuilt] = [await cli(back, ['verify']), await cli(back, ['rebuild', '--check'])]
    expect([verified.code, rebuilt.code]).toEqual([0, 0])
    const again = await run(back)
    expect(await again.admin.start({}, named)).toMatchObject({ status: 201, body: start.body })
    expect(await again.admin.start()).toMatchObject({ status: 409, body: { session_id: start.body.session_id } })
    expect((await again.admin.start({ user_id: 'bob' })).body.session_number).toBe(2)
    expect((await again.admin.append(start.body.session_id, said('three'))).body.seq).toBe(3)
    // Another life of the data: views of the first one are not its own.
    expect(again.sessile.log.journal).not.toBe(running.sessile.log.journal)
    // What follows in the restored directory is saved to the same backup.
    expect(await backup(back, to)).toMatchObject({ code: 0, told: { findings: [], grown: 1, made: 2 } })
  })

  it('restores an earlier moment, whole commands and nothing later', async () => {
    const running = await run()
    const { to, back } = folders()
    const { body } = await running.admin.start()
    const three = await running.admin.append(body.session_id, [said('one'), said('two'), said('three')])
    const { timestamp } = three.body[2]
    while (Date.now() <= Date.parse(timestamp)) await new Promise((resolve) => setImmediate(resolve))
    const after = await talk(running.admin, 'bob', 'four')
    await running.admin.append(body.session_id, said('five'))
    await backup(running.home, to)
    expect(await restore(to, back, '--at', timestamp)).toMatchObject({ code: 0 })
    expect(linesIn(sessionFile(back, body.session_id)).map(({ data }) => data.text)).toEqual([undefined, 'one', 'two', 'three'])
    expect(existsSync(sessionFile(back, after, 'bob'))).toBe(false)
    const again = await run(back)
    expect((await again.admin.append(body.session_id, said('six'))).body.seq).toBe(5)
    const none = join(to, '..', 'none')
    expect(await restore(to, none, '--at', '2001-01-01T00:00:00Z')).toMatchObject({ code: 1 })
    expect(existsSync(none)).toBe(false)
  })

  it('refuses a folder that is not empty, and leaves it as it is', async () => {
    const { home } = await stopped()
    const { to, back } = folders()
    await backup(home, to)
    mkdirSync(back)
    writeFileSync(join(back, 'letter.txt'), 'mine')
    for (const into of [home, back]) {
      const before = treeOf(into)
      const told = await restore(to, into)
      expect(told).toMatchObject({ code: 1, out: '' })
      expect(told.err).toContain('is not empty')
      expect(treeOf(into)).toEqual(before)
    }
  })

  it('refuses a backup by the name of whatever file is not what was saved, and leaves nothing behind', async () => {
    const { home, first } = await stopped()
    const { to, back } = folders()
    await backup(home, to)
    const log = nameOf(first)
    const stray = 'logs/users/ada/sessions/sess_1.jsonl'
    const damage: [string, (path: string) => void][] = [
      ['manifest.jsonl', (path) => flip(path, Math.floor(statSync(path).size / 2))],
      [log, (path) => flip(path, Math.floor(statSync(path).size / 2))],
      [log, (path) => truncateSync(path, statSync(path).size - 1)],
      [log, (path) => appendFileSync(path, '\n')],
      [log, (path) => rmSync(path)],
      [stray, (path) => writeFileSync(path, '')],
    ]
    await Promise.all(
      damage.map(async ([name, damaging], i) => {
        const copy = `${to}-${i}`
        cpSync(to, copy, { recursive: true })
        damaging(join(copy, name))
        const told = await restore(copy, back)
        expect(told).toMatchObject({ code: 1, out: '' })
        expect(told.err).toContain(name)
      }),
    )
    expect(existsSync(back)).toBe(false)
  })
})

/** For its owner alone, without secrets and views; and every file is named with its length and its digest. */
function expectPlain(to: string): void {
  for (const path of filesUnder(to)) expect(statSync(join(to, path)).mode & 0o077).toBe(0)
  expect(statSync(join(to, 'logs', 'users')).mode & 0o077).toBe(0)
  const [head, ...files] = linesIn(join(to, 'manifest.jsonl'))
  const seal = files.pop()
  expect(head).toMatchObject({ format: 'sessile backup', v: 1, number: 1, files: files.length })
  expect(files.map(({ name }) => name).sort()).toEqual(filesUnder(to).filter((path) => path.startsWith('logs/')))
  for (const { name, bytes, sha256: digest } of files) {
    const saved = readFileSync(join(to, name))
    expect({ bytes, digest }).toEqual({ bytes: saved.length, digest: sha256(saved) })
  }
  const text = readFileSync(join(to, 'manifest.jsonl'), 'utf8')
  expect(seal.sha256).toBe(sha256(text.slice(0, text.lastIndexOf('{'))))
  expect(filesUnder(to).filter((path) => /holder|\.wal|\.db/.test(path))).toEqual([])
}

/** The same line of a copy, damaged once more. */
function worse(to: string, name: string): Promise<Ran> {
  const copy = `${to}-worse`
  cpSync(to, copy, { recursive: true })
  flip(join(copy, name), readFileSync(join(copy, name)).indexOf('"ohe"') + 1)
  return checked(copy)
}
