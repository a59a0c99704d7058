// Backups cut off at every system call that touches a disk, damaged at every byte, and made again and again under load.
// Needs strace, and fails where it is missing.
//
//   SESSILE_TEST_POINTS=all npm run torture:backup     each call in turn, not only some of them

import { spawnSync } from 'node:child_process'
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
import {
  BIN,
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
import { crashedCopy, filesUnder, linesIn, makeHome, run, said, sessionFile } from './harness.ts'

const POINTS = process.env.SESSILE_TEST_POINTS === 'all' ? Number.POSITIVE_INFINITY : Number(process.env.SESSILE_TEST_POINTS ?? 10)
const FLIPS = Number(process.env.SESSILE_TEST_FLIPS ?? 40)
const ROUNDS = Number(process.env.SESSILE_TEST_ROUNDS ?? 6)
const HOURS = 24 * 3_600_000

const CALLS = ['pwrite64', 'rename', 'fsync', 'fdatasync', 'ftruncate', 'unlink', 'mkdir', 'rmdir']

/** A backup that a second one follows in which there is something of everything: more, new, erased, forgotten. */
async function twoBackups(): Promise<{ home: string; old: string; first: Json; second: Json }> {
  const running = await run()
  const { to } = folders()
  const sessions = await Promise.all(['ada', 'bob', 'eve'].map((user) => talk(running.admin, user, 'one', 'two', 'three')))
  const artifact = join(running.home, 'logs/users/ada/artifacts/audio-1.wav')
  mkdirSync(join(artifact, '..'), { recursive: true })
  writeFileSync(artifact, Buffer.alloc(10_000, 7))
  await backup(running.home, to)
  await running.stop()
  const erasing = sessionFile(running.home, sessions[0] as string)
  writeFileSync(erasing, erase(readFileSync(erasing, 'utf8'), 1))
  rmSync(artifact)
  rmSync(join(running.home, 'projections'), { recursive: true })
  const again = await running.restart()
  await again.admin.append(sessions[1] as string, said('four', { user_id: 'bob' }))
  await talk(again.admin, 'fay', 'five')
  await again.stop()
  const last = `${to}-last`
  cpSync(to, last, { recursive: true })
  expect(await backup(running.home, last, '--forget')).toMatchObject({ code: 0, told: { made: 1, grown: 1, replaced: 1, gone: 1 } })
  return { home: running.home, old: to, first: await restored(to), second: await restored(last) }
}

type Json = Record<string, string>

/** What a restore gives. */
async function restored(from: string): Promise<Json> {
  const { back } = folders()
  expect(await restore(from, back)).toMatchObject({ code: 0, err: '' })
  const tree = treeOf(back, 'logs')
  for (const name of Object.keys(tree)) if (name.includes('.journal')) delete tree[name]
  return tree
}

/** Backs up under strace, with these options. */
const traced = (home: string, to: string, options: string[]) =>
  spawnSync('strace', ['-f', '-qq', ...options, process.execPath, BIN, 'backup', to, '--forget'], {
    env: { ...process.env, SESSILE_HOME: home, UV_USE_IO_URING: '0' },
    encoding: 'utf8',
  })

/** Every call of a whole backup that touches a disk, by its name and its place among those of that name. */
function callsOf(home: string, old: string): [call: string, nth: number][] {
  const copy = join(makeHome(), 'saved')
  cpSync(old, copy, { recursive: true })
  const log = join(makeHome(), 'calls')
  const { status, error } = traced(home, copy, ['-o', log, '-e', `trace=${CALLS.join(',')}`])
  if (error) throw new Error('this suite needs strace')
  expect(status).toBe(0)
  const lines = readFileSync(log, 'utf8').split('\n')
  return CALLS.flatMap((call) => {
    // Each thread counts its own.
    const byThread = new Map<string, number>()
    for (const line of lines) {
      const [, thread = '', name] = /^(\d+) +(\w+)\(/.exec(line) ?? []
      if (name === call) byThread.set(thread, (byThread.get(thread) ?? 0) + 1)
    }
    return Array.from({ length: Math.max(0, ...byThread.values()) }, (_, i): [string, number] => [call, i + 1])
  })
}

/** Did a call on one of these folders fail by force? One that another thread came between is printed in two parts. */
function struckIn(log: string, folders: string[]): boolean {
  const lines = readFileSync(log, 'utf8').split('\n')
  const begun = (thread: string, before: number) =>
    lines.slice(0, before).findLast((line) => line.startsWith(`${thread} `) && line.includes('<unfinished')) ?? ''
  return lines.some((line, i) => {
    if (!line.includes('INJECTED')) return false
    const whole = line.includes('resumed>') ? begun(line.split(' ')[0] as string, i) : line
    return folders.some((folder) => whole.includes(folder))
  })
}

const spread = <T>(all: T[], most: number): T[] =>
  all.length <= most ? all : Array.from({ length: most }, (_, i) => all[Math.floor((i * all.length) / most)] as T)

describe('sessile backup', () => {
  it('saves artifacts, and forgets one that is gone only when told to', async () => {
    const { home } = await stopped()
    const { to, back } = folders()
    const name = 'logs/users/ada/artifacts/audio-1.wav'
    mkdirSync(join(home, 'logs/users/ada/artifacts'))
    const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251))
    writeFileSync(join(home, name), bytes)
    expect(await backup(home, to)).toMatchObject({ code: 0, told: { made: 4 } })
    expect(await restore(to, back)).toMatchObject({ code: 0 })
    expect(readFileSync(join(back, name)).equals(bytes)).toBe(true)
    rmSync(join(home, name))
    expect(await backup(home, to)).toMatchObject({ code: 1, told: { gone: 0, findings: [{ name }] } })
    expect(existsSync(join(to, name))).toBe(true)
    expect(await backup(home, to, '--forget')).toMatchObject({ code: 0, told: { gone: 1, findings: [] } })
    expect(existsSync(join(to, name))).toBe(false)
  })

  it('begins anew where a recorder was started meanwhile, whose records it has not seen', async () => {
    const running = await run()
    const { to } = folders()
    const first = await talk(running.admin, 'ada', 'one')
    await backup(running.home, to)
    await Promise.all(Array.from({ length: 10 }, (_, i) => talk(running.admin, `user-${i}`, 'two')))
    const restarted = async () => {
      const again = await running.restart()
      return (await again.admin.append(first, said('three'))).body
    }
    const { done, out } = await paused(running.home, to, restarted, 'SIGCONT')
    expect(JSON.parse(out)).toMatchObject({ records: 1 + 2 + 20 + 1, findings: [] })
    expect(linesIn(join(to, nameOf(first))).at(-1).record_id).toBe(done.record_id)
  })

  it('saves what a start would set aside, because it does not fit the file it belongs to', async () => {
    const running = await run()
    const first = await talk(running.admin, 'ada', 'one', 'two')
    running.sessile.log.settle()
    const home = crashedCopy(running.home)
    const file = readFileSync(sessionFile(home, first))
    writeFileSync(sessionFile(home, first), file.toString().replace('"two"', '"too"'))
    const { to, back } = folders()
    const { code, told } = await backup(home, to)
    expect({ code, ...told }).toMatchObject({
      code: 1,
      findings: [{ name: nameOf(first), what: expect.stringContaining('line 3') }],
    })
    expect((await restore(to, back)).code).toBe(1)
    const aside = join('logs/.journal/quarantine', `users~ada~sessions~${first}@0.lines`)
    for (const place of [to, back]) expect(readFileSync(join(place, aside)).equals(file)).toBe(true)
    const again = await run(back)
    expect(await again.admin.append(first, said('three'))).toMatchObject({ status: 503, body: { reason: 'log-damaged' } })
    expect((await again.admin.start({ user_id: 'bob' })).status).toBe(201)
  })
})

describe('sessile backup, cut off', () => {
  it.each(['signal=KILL', 'error=ENOSPC', 'error=EIO'])(
    'at a system call by %s, is the last one or the new one, and never anything between',
    async (how) => {
      const { home, old, first, second } = await twoBackups()
      const points = spread(callsOf(home, old), POINTS)
      expect(points.length).toBeGreaterThan(0)
      const became = { first: 0, second: 0 }
      const log = join(makeHome(), 'calls')
      let hits = 0
      for (const [call, nth] of points) {
        const copy = join(makeHome(), 'saved')
        cpSync(old, copy, { recursive: true })
        const inject = ['-y', '-o', log, '-e', `trace=${call}`, '-e', `inject=${call}:${how}:when=${nth}`]
        const { status, stderr } = traced(home, copy, inject)
        const at = `${call} ${nth}, ${how}: ${stderr}`
        const tree = await restored(copy)
        const is = JSON.stringify(tree) === JSON.stringify(second) ? 'second' : 'first'
        expect(tree, at).toEqual(is === 'second' ? second : first)
        // What fails is told, in words. Where the threads have shared the calls otherwise, nothing was struck, or only stdout.
        expect(stderr, at).not.toContain('    at ')
        // A folder that is there already need not be made.
        const struck = call !== 'mkdir' && struckIn(log, [copy, home])
        if (status === 0) expect({ is, struck }, at).toEqual({ is: 'second', struck: false })
        else hits++
        if (struck && how === 'error=EIO' && call.endsWith('sync')) expect(status, at).toBe(70)
        became[is]++
        // The next one clears up and is whole, with nothing left of what was erased.
        expect(await backup(home, copy, '--forget'), at).toMatchObject({ code: 0 })
        expect(await restored(copy), at).toEqual(second)
        expect(
          filesUnder(copy).filter((path) => /replaced|under-way|\.new$|\.wav$/.test(path)),
          at,
        ).toEqual([])
        rmSync(join(copy, '..'), { recursive: true })
      }
      console.log(`${hits} calls, ${how}: ${became.first} times the last one stayed, ${became.second} times the new one counted`)
      expect(hits).toBeGreaterThan(points.length / 2)
      expect(became.first).toBeGreaterThan(0)
    },
    HOURS,
  )
})

describe('sessile restore', () => {
  it('tells of a full disk plainly, and leaves nothing behind', async () => {
    const running = await run()
    await talkMuch(running.admin)
    const { to } = folders()
    await backup(running.home, to)
    const { disk, ran } = smallDisk()
    const told = await ran(disk, ['restore', to, '--to', join(disk, 'back')])
    expect(told).toMatchObject({ code: 1, out: '' })
    expect(told.err).toContain('There is no space left in')
    expect(readdirSync(disk)).toEqual([])
  })

  it('refuses a manifest that leads out of its folder, and a log that nobody sealed', async () => {
    const { home, first } = await stopped()
    const { to, back } = folders()
    await backup(home, to)
    const name = nameOf(first)
    const forged = async (change: (copy: string, manifest: string) => string) => {
      const copy = join(makeHome(), 'copy')
      cpSync(to, copy, { recursive: true })
      const path = join(copy, 'manifest.jsonl')
      const text = change(copy, readFileSync(path, 'utf8').replace(/\{"sha256":"\w+"\}\n$/, ''))
      writeFileSync(path, `${text}{"sha256":"${sha256(text)}"}\n`)
      const told = await restore(copy, back)
      expect(told).toMatchObject({ code: 1, out: '' })
      expect(existsSync(back)).toBe(false)
      return told.err
    }
    expect(await forged((_, text) => text.replace(name, '../../../outside.jsonl'))).toContain('does not belong in a data directory')
    const rewritten = await forged((copy, text) => {
      const before = readFileSync(join(copy, name))
      const bytes = Buffer.from(before.toString().replace('"one"', '"ohe"'))
      writeFileSync(join(copy, name), bytes)
      return text.replace(sha256(before), sha256(bytes))
    })
    expect(rewritten).toContain(`${name}: line 2`)
  })

  it(
    'refuses a backup by the name of each of its files that was flipped, cut, grown or removed',
    async () => {
      const { home } = await stopped()
      const { to, back } = folders()
      await backup(home, to)
      const names = ['manifest.jsonl', ...filesUnder(to).filter((path) => path.startsWith('logs/'))]
      expect(names).toHaveLength(4)
      const damages: ((path: string) => void)[] = [
        (path) => flip(path, Math.floor(statSync(path).size / 2)),
        (path) => truncateSync(path, statSync(path).size - 1),
        (path) => truncateSync(path, 0),
        (path) => appendFileSync(path, '\n'),
        (path) => rmSync(path),
      ]
      for (const name of names) {
        for (const damage of damages) {
          const copy = join(makeHome(), 'copy')
          cpSync(to, copy, { recursive: true })
          damage(join(copy, name))
          const told = await restore(copy, back)
          expect(told).toMatchObject({ code: 1, out: '' })
          expect(told.err).toContain(existsSync(join(copy, 'manifest.jsonl')) ? name : 'There is no backup')
          expect(existsSync(back)).toBe(false)
        }
      }
    },
    HOURS,
  )

  it(
    'refuses a backup in which any bit is flipped',
    async () => {
      const { old } = await twoBackups()
      const names = ['manifest.jsonl', ...filesUnder(old).filter((path) => path.startsWith('logs/'))]
      const places = names.flatMap((name) => Array.from(readFileSync(join(old, name)), (_, at): [string, number] => [name, at]))
      const chosen = spread(places, FLIPS)
      for (const [i, [name, at]] of chosen.entries()) {
        const before = readFileSync(join(old, name))
        const bytes = Buffer.from(before)
        bytes[at] = (bytes[at] as number) ^ (1 << (i % 8))
        writeFileSync(join(old, name), bytes)
        const told = await checked(old)
        expect(told, `${name} at ${at}`).toMatchObject({ code: 1, out: '' })
        expect(told.err, `${name} at ${at}`).toContain(name)
        writeFileSync(join(old, name), before)
      }
      console.log(`${chosen.length} flipped bits of ${places.length} bytes refused`)
      expect(await checked(old)).toMatchObject({ code: 0 })
    },
    HOURS,
  )

  it(
    'gives a beginning of the order of recording, however often it is saved under load',
    async () => {
      const running = await run()
      const { to } = folders()
      const { acknowledged, stop } = await load(running.admin, 6)
      const rounds: { early: Set<string>; until: string; records: Awaited<ReturnType<typeof recordsIn>> }[] = []
      for (let round = 0; round < ROUNDS; round++) {
        const early = new Set(acknowledged)
        const { code, told } = await backup(running.home, to)
        expect({ code, findings: told.findings }).toEqual({ code: 0, findings: [] })
        rounds.push({ early, until: told.until, records: recordsIn(to) })
      }
      await stop()
      running.sessile.log.settle()
      const all = recordsIn(running.home)
      for (const { early, until, records } of rounds) expectBeginning(records, all, early, until)
      console.log(`${ROUNDS} backups while ${all.length} records were recorded`)
    },
    HOURS,
  )
})
