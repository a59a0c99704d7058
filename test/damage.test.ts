// Damage: a bit that flips in a log or in the journal, a journal that is cut. What is damaged is told by file and line, and
// by a plain refusal to whoever reads it; everything else goes on, and nothing that was acknowledged is lost in silence.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { Chance } from './chance.ts'
import {
  allRefused,
  clock,
  cuts,
  expectedOfCut,
  expectedOfHarm,
  fileFor,
  findingsIn,
  flipAndRebuild,
  flipped,
  flipWhileRunning,
  HEADER,
  homeWith,
  leftovers,
  lineOf,
  logOf,
  makeScene,
  type Scene,
  sampleOf,
  startOnJournal,
  tell,
  withFile,
} from './damaging.ts'
import { type Json, refused, run, said } from './harness.ts'
import { comesUp, harms, holdViews, obstacles, plainTruth, startInTheWay, startOnViews } from './views.ts'

const SEED = Number(process.env.SESSILE_TEST_SEED ?? 1)
let scene: Scene
beforeAll(async () => {
  scene = await makeScene()
})
const bytesOf = (log: string) => scene.stopped.get(fileFor(log)) as Buffer
const bitsOf = (log: string, count: number) => sampleOf(8 * bytesOf(log).length, count, SEED)

describe(`a flipped bit in a log (seed ${SEED})`, () => {
  it('is found by verify in its file and line, and in no other', () => {
    const home = homeWith(scene.stopped)
    for (const log of [logOf('ada', scene.ended), 'accounts/device-9']) {
      const whole = bytesOf(log)
      for (const bit of bitsOf(log, 100)) {
        writeFileSync(join(home, fileFor(log)), flipped(whole, bit))
        const { findings } = findingsIn(home)
        expect({ bit, log: findings[0]?.log, line: findings[0]?.line }).toEqual({ bit, log, line: lineOf(whole, bit >> 3) })
        expect(findings.every((finding) => finding.log === log)).toBe(true)
      }
      writeFileSync(join(home, fileFor(log)), whole)
    }
    expect(findingsIn(home)).toEqual({ findings: [], logs: 7 })
  })

  it('is told to whoever reads the session while it is served, and to nobody else', async () => {
    const running = await run(homeWith(scene.stopped), {}, clock())
    for (const bit of bitsOf(logOf('ada', scene.ended), 20)) await flipWhileRunning(running, scene, scene.ended, bit)
  })

  it('never passes for the truth when the views are made anew', async () => {
    for (const session of [scene.ended, scene.active])
      for (const bit of bitsOf(logOf('ada', session), 3)) await flipAndRebuild(scene, logOf('ada', session), bit)
  })

  it('in what ends a line does not either, though two lines look like one then, with an envelope and a seal', async () => {
    const log = logOf('ada', scene.ended)
    for (const [at, byte] of bytesOf(log).entries()) if (byte === 10) await flipAndRebuild(scene, log, 8 * at + 1)
  })

  it('in the log of an account opens no door: its keys open nothing, and a revoked one stays revoked', async () => {
    for (const account of ['accounts/device-7', 'accounts/device-9', 'accounts/admin'])
      for (const bit of bitsOf(account, 1)) await flipAndRebuild(scene, account, bit)
  })
})

describe('a damaged log', () => {
  it('that was cut at the end of a line is not taken for a shorter one', async () => {
    const log = logOf('ada', scene.ended)
    const whole = bytesOf(log)
    const home = homeWith(scene.stopped)
    writeFileSync(join(home, fileFor(log)), whole.subarray(0, whole.lastIndexOf(10, -2) + 1))
    const running = await run(home, {}, clock())
    await allRefused(running.admin, scene.ended)
    expect((await running.admin.get(`/api/v1/sessions/${scene.bobs}`)).status).toBe(200)
  })

  it('is told page by page as far as it is sound', async () => {
    const running = await run(undefined, {}, clock())
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(
      session_id,
      Array.from({ length: 30 }, (_, i) => said(`word ${i}`)),
    )
    running.sessile.log.settle()
    const file = join(running.home, fileFor(logOf('ada', session_id)))
    const whole = readFileSync(file)
    writeFileSync(file, flipped(whole, 8 * whole.indexOf('word 20')))
    for (const [what, named] of [
      ['records', 'records'],
      ['timeline', 'entries'],
    ] as const) {
      const page = (after: number) => running.admin.get(`/api/v1/sessions/${session_id}/${what}?limit=10&after=${after}`)
      expect((await page(0)).body[named]).toHaveLength(10)
      expect((await page(10)).body).toMatchObject({ next_after: 20 })
      expect((await page(20)).body).toMatchObject({ status: 503, reason: 'log-damaged' })
    }
  })

  it('breaks off a long answer of lines where the damage is, and the service goes on', async () => {
    const running = await run(undefined, {}, clock())
    const { session_id } = (await running.admin.start()).body
    for (let i = 0; i < 4; i++) await running.admin.append(session_id, said('long '.repeat(10_000)))
    running.sessile.log.settle()
    const file = join(running.home, fileFor(logOf('ada', session_id)))
    const whole = readFileSync(file)
    const lines = async () => {
      const reply = await running.admin.raw('GET', `/api/v1/sessions/${session_id}/records`, {
        headers: { accept: 'application/x-ndjson' },
      })
      return { status: reply.status, text: reply.text() }
    }
    expect(await (await lines()).text).toBe(whole.toString())
    writeFileSync(file, flipped(whole, 8 * (whole.length - 20_000)))
    const broken = await lines()
    expect(broken.status).toBe(200)
    await expect(broken.text).rejects.toThrow()
    writeFileSync(file, whole)
    expect(await (await lines()).text).toBe(whole.toString())
  })
})

describe(`the journal of a crashed directory (seed ${SEED})`, () => {
  const segment = () => (scene.crashed.get(scene.segment) as Buffer).subarray(0, scene.frames.at(-1)?.end)

  it.each(Object.keys(leftovers))(
    'cut anywhere, keeps every whole command before the cut, and says what it set aside (%s is left)',
    (left) => {
      for (const [how, cut] of Object.entries(cuts))
        for (const at of [79, 80, ...sampleOf(segment().length + 1, 5, SEED)])
          startOnJournal(scene, left, cut(segment(), at, new Chance(SEED + at)), expectedOfCut(scene, how, at))
    },
  )

  it.each(Object.keys(leftovers))(
    'with a flipped bit, refuses where the disk had held it, and else sets it aside (%s is left)',
    (left) => {
      const last = 8 * ((scene.frames.at(-1)?.at as number) + 10)
      for (const bit of [...sampleOf(8 * segment().length, 15, SEED), last, 8 * HEADER - 1]) {
        const harmed = flipped(segment(), bit)
        startOnJournal(scene, left, harmed, expectedOfHarm(scene, harmed))
      }
    },
  )

  it('may have lost its last record: every line is still read, and a log that the journal does not reach takes no more', async () => {
    const harmed = flipped(segment(), 8 * ((scene.frames.at(-1)?.at as number) + 100))
    const running = await run(homeWith(withFile(scene.crashed, scene.segment, harmed)), {}, clock())
    const marked: string[] = []
    const told = JSON.parse(JSON.stringify(await tell(running, scene)), function (this: Json, key: string, value: unknown) {
      if (key !== 'damaged') return value
      marked.push(this.session_id)
      return undefined
    })
    expect(told).toEqual(plainTruth(scene))
    // In both lists and in its own detail, and nowhere else.
    expect(marked).toEqual([scene.active, scene.active, scene.active])
    await refused(running, () => running.admin.append(scene.active, said('five')), 503, 'log-damaged')
    expect((await running.admin.append(scene.bobs, said('more', { user_id: 'bob' }))).status).toBe(201)
  })
})

describe('the views', () => {
  let other: Scene
  beforeAll(async () => {
    other = await makeScene()
  })
  const some = [
    'without the table keys',
    'without the indexes that guard',
    'replaced by a link to elsewhere',
    'crashed, with half of it',
  ]
  const cases = harms(
    () => scene,
    () => other,
  ).filter(([name]) => some.includes(name))
  expect(cases).toHaveLength(some.length)

  it.each(cases)('%s (%s): come up right without being asked', async (_, after, harm) => {
    await startOnViews(scene, after, harm)
  })

  it.each(obstacles.slice(0, 1))('with %s: say what is in their way, and come up when it has gone', async (_, put) => {
    await startInTheWay(scene, put)
  })

  it('that another process holds when it starts: come up without a loss', async () => {
    const home = homeWith(scene.stopped)
    await holdViews(home, 20_000)
    await comesUp(home, scene)
  })
})
