// Damage, at length: every bit of a log, every byte of a journal, every page of the views. `npm run torture:damage` takes a
// bounded round of all of it, spread evenly; SESSILE_TEST_DAMAGE says how many places of each kind, or `all`.
// SESSILE_TEST_SEED moves the places of a bounded round.

import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { fileOf, journalOf, projectionOf } from '../src/log/shelf.ts'
import { Chance } from './chance.ts'
import {
  clock,
  cuts,
  expectedOfCut,
  expectedOfHarm,
  fileFor,
  filesOf,
  findingsIn,
  flipAndRebuild,
  flipped,
  flipWhileRunning,
  HEADER,
  homeWith,
  inMemory,
  leftovers,
  lineOf,
  logOf,
  makeScene,
  type Scene,
  sampleOf,
  scribbled,
  segmentsOf,
  startOnJournal,
  without,
} from './damaging.ts'
import { cli, crashedCopy, run } from './harness.ts'
import { comesUp, type Harm, harms, holdViews, obstacles, rebuild, startInTheWay, startOnViews, tellsTruth } from './views.ts'

const WANTED = process.env.SESSILE_TEST_DAMAGE ?? '100'
const PLACES = WANTED === 'all' ? Number.POSITIVE_INFINITY : Number(WANTED)
const SEED = Number(process.env.SESSILE_TEST_SEED ?? Date.now() % 1_000_000)
const BIN = new URL('../src/sessile.cjs', import.meta.url).pathname
const LONG = 24 * 3600_000

let scene: Scene
beforeAll(async () => {
  scene = await makeScene()
})
const bytesOf = (log: string) => scene.stopped.get(fileFor(log)) as Buffer
const bitsOf = (log: string, count: number) => sampleOf(8 * bytesOf(log).length, count, SEED)
const told = (what: string, count: number) => process.stderr.write(`${what}: ${count}\n`)

describe(`a flipped bit in a log (seed ${SEED})`, () => {
  it('is found by verify in its file and line, and in no other', { timeout: LONG }, () => {
    const home = homeWith(scene.stopped)
    for (const log of [
      logOf('ada', scene.ended),
      logOf('bob', scene.bobs),
      'accounts/device-7',
      'accounts/device-9',
      'accounts/admin',
    ]) {
      const whole = bytesOf(log)
      const bits = bitsOf(log, 20 * PLACES)
      for (const bit of bits) {
        writeFileSync(fileOf(home, log), flipped(whole, bit))
        const { findings } = findingsIn(home)
        expect({ bit, log: findings[0]?.log, line: findings[0]?.line }).toEqual({ bit, log, line: lineOf(whole, bit >> 3) })
        expect(findings.every((finding) => finding.log === log)).toBe(true)
      }
      writeFileSync(fileOf(home, log), whole)
      told(`bits of a log of ${whole.length} bytes, verified`, bits.length)
    }
  })

  it('is named by the command line, with its file and line', { timeout: LONG }, async () => {
    const log = logOf('ada', scene.ended)
    for (const bit of bitsOf(log, 5)) {
      const home = homeWith(scene.stopped)
      writeFileSync(fileOf(home, log), flipped(bytesOf(log), bit))
      const { code, out } = await cli(home, ['verify'])
      expect(code).toBe(1)
      expect(out.startsWith(`${fileOf(home, log)}:${lineOf(bytesOf(log), bit >> 3)}: `), out).toBe(true)
      expect(
        out
          .trimEnd()
          .split('\n')
          .every((line) => line.startsWith(`${fileOf(home, log)}:`)),
        out,
      ).toBe(true)
    }
  })

  it('is told to whoever reads the session while it is served, and to nobody else', { timeout: LONG }, async () => {
    const running = await run(homeWith(scene.stopped), {}, clock())
    for (const session of [scene.ended, scene.active]) {
      const bits = bitsOf(logOf('ada', session), 3 * PLACES)
      for (const bit of bits) await flipWhileRunning(running, scene, session, bit)
      told('bits flipped while served', bits.length)
    }
  })

  it('never passes for the truth when the views are made anew', { timeout: LONG }, async () => {
    for (const session of [scene.ended, scene.active]) {
      const bits = bitsOf(logOf('ada', session), PLACES)
      for (const bit of bits) await flipAndRebuild(scene, logOf('ada', session), bit)
      told('bits flipped before a rebuild', bits.length)
    }
  })

  it('in the log of an account opens no door', { timeout: LONG }, async () => {
    for (const account of ['accounts/device-7', 'accounts/device-9', 'accounts/admin']) {
      const bits = bitsOf(account, PLACES / 4)
      for (const bit of bits) await flipAndRebuild(scene, account, bit)
      told(`bits of ${account} flipped before a rebuild`, bits.length)
    }
  })
})

describe(`the journal of a crashed directory (seed ${SEED})`, () => {
  let journal: Scene
  let segment: Buffer
  beforeAll(() => {
    // A log is opened without its views.
    journal = { ...scene, crashed: without(scene.crashed, 'projections/') }
    segment = (scene.crashed.get(scene.segment) as Buffer).subarray(0, scene.frames.at(-1)?.end)
  })
  const chance = (at: number) => new Chance(SEED + at)

  it.each(Object.keys(leftovers))('cut at every byte (%s is left)', { timeout: LONG }, (left) => {
    for (const [how, cut] of Object.entries(cuts)) {
      const places = sampleOf(segment.length + 1, PLACES, SEED)
      for (const at of places)
        startOnJournal(journal, left, cut(segment, at, chance(at)), expectedOfCut(journal, how, at), inMemory)
      told(`cuts, after which the journal ${how}, and ${left} is left`, places.length)
    }
  })

  it.each(Object.keys(leftovers))('with every bit flipped (%s is left)', { timeout: LONG }, (left) => {
    const bits = sampleOf(8 * segment.length, 3 * PLACES, SEED)
    for (const bit of bits) {
      const harmed = flipped(segment, bit)
      startOnJournal(journal, left, harmed, expectedOfHarm(journal, harmed), inMemory)
    }
    told(`bits of the journal flipped, and ${left} is left`, bits.length)
  })

  it.each(Object.keys(leftovers))('with some noise at every byte (%s is left)', { timeout: LONG }, (left) => {
    const places = sampleOf(segment.length, PLACES, SEED)
    for (const at of places) {
      const harmed = scribbled(segment, at, chance(at))
      startOnJournal(journal, left, harmed, expectedOfHarm(journal, harmed), inMemory)
    }
    told(`places of the journal with noise, and ${left} is left`, places.length)
  })

  it('that a start had copied, cut or flipped anywhere, refuses: all of it had been acknowledged', { timeout: LONG }, async () => {
    const running = await run(homeWith(scene.crashed), {}, clock())
    const home = crashedCopy(running.home)
    await running.stop()
    const [name] = segmentsOf(home)
    const file = join('logs', '.journal', name as string)
    const copied: Scene = { ...scene, crashed: without(filesOf(home), 'projections/'), segment: file }
    const whole = readFileSync(join(journalOf(home), name as string)).subarray(0, segment.length)
    // What follows the header's digest says nothing.
    const isHarmless = (bit: number) => bit >= 8 * (HEADER - 4) && bit < 8 * HEADER
    for (const left of Object.keys(leftovers)) {
      const bits = sampleOf(8 * whole.length, 3 * PLACES, SEED).filter((bit) => !isHarmless(bit))
      for (const bit of bits) startOnJournal(copied, left, flipped(whole, bit), 'refused', inMemory)
      told(`bits of a copied journal flipped, and ${left} is left`, bits.length)
      const places = sampleOf(whole.length, PLACES, SEED)
      for (const at of places) startOnJournal(copied, left, whole.subarray(0, at), 'refused', inMemory)
      told(`cuts of a copied journal, and ${left} is left`, places.length)
    }
  })
})

describe(`the views (seed ${SEED})`, () => {
  let other: Scene
  beforeAll(async () => {
    other = await makeScene()
  })
  const cases = harms(
    () => scene,
    () => other,
  )

  it.each(cases)('%s (%s): come up right without being asked', { timeout: LONG }, async (_, after, harm) => {
    await startOnViews(scene, after, harm)
  })

  it.each(obstacles)('with %s: say what is in their way, and come up when it has gone', { timeout: LONG }, async (_, put) => {
    await startInTheWay(scene, put)
  })

  it('cut at any length, and so their write-ahead file', { timeout: LONG }, async () => {
    for (const [after, suffix] of [
      ['stopped', ''],
      ['crashed', ''],
      ['crashed', '-wal'],
    ] as const) {
      const { length } = scene[after].get(`projections/sessile.db${suffix}`) as Buffer
      const lengths = [0, 1, 16, 32, 99, 100, 4095, 4096, 4097, length - 1, ...sampleOf(length, PLACES / 5, SEED)]
      const cut =
        (to: number): Harm =>
        (file) =>
          truncateSync(`${file}${suffix}`, Math.min(to, length))
      for (const to of lengths) await startOnViews(scene, after, cut(to))
      told(`lengths of the views${suffix}, ${after}`, lengths.length)
    }
  })

  it('with every page overwritten in turn: never tell anything else; what no reader meets, a check finds', {
    timeout: LONG,
  }, async () => {
    const whole = scene.stopped.get('projections/sessile.db') as Buffer
    const size = whole.readUInt16BE(16)
    const pages = sampleOf(whole.length / size, PLACES, SEED)
    let unmet = 0
    for (const page of pages) {
      const home = homeWith(scene.stopped)
      const harmed = Buffer.from(whole)
      for (let at = page * size; at < (page + 1) * size; at++) harmed[at] = (at * 31 + SEED) & 0xff
      writeFileSync(projectionOf(home), harmed)
      const running = await run(home, {}, clock())
      await tellsTruth(running, scene)
      await running.stop()
      const found = await rebuild(home, true).catch(() => 1)
      if (found === 0) continue
      unmet++
      expect(await rebuild(home, false)).toBe(0)
      expect(await rebuild(home, true)).toBe(0)
    }
    told('pages of the views overwritten', pages.length)
    told('of which a check found what no reader had met', unmet)
  })

  it('that another process holds, at the start and while they are used, come back without a loss', { timeout: LONG }, async () => {
    const home = homeWith(scene.stopped)
    await holdViews(home, 20_000)
    const running = await run(home, {}, clock())
    await tellsTruth(running, scene)
    await holdViews(home, 20_000)
    const { status } = await running.admin.start({ user_id: 'eve' })
    const sessions = () => running.admin.get('/api/v1/users/eve/sessions')
    await expect.poll(async () => (await sessions()).status, { timeout: 30_000 }).toBe(200)
    expect((await sessions()).body.sessions).toHaveLength(status === 201 ? 1 : 0)
    await running.stop()
    expect(await rebuild(home, true)).toBe(0)
  })

  it('in a folder that may not be written to: say so, and come up when it may', { timeout: LONG }, async () => {
    const home = homeWith(scene.stopped)
    const folder = join(projectionOf(home), '..')
    writeFileSync(projectionOf(home), 'noise')
    // The superuser may write anywhere, so that somebody else must try.
    const nobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {}
    if (nobody.uid !== undefined)
      for (const path of ['', ...readdirSync(home, { recursive: true })])
        chownSync(join(home, String(path)), nobody.uid, nobody.gid)
    chmodSync(folder, 0o500)
    const env = { ...process.env, SESSILE_HOME: home, SESSILE_PORT: '0' }
    const { status, stderr } = spawnSync(process.execPath, [BIN, 'serve'], { ...nobody, env, encoding: 'utf8', timeout: 20_000 })
    expect(stderr).toContain('The views cannot be put into')
    expect(status).toBe(5)
    chmodSync(folder, 0o700)
    await comesUp(home, scene)
  })
})
