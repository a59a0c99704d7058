// What is done while nobody waits for it: lines go on to their files, rows behind the views.

import { existsSync, statSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { bounds } from '../src/core/bounds.ts'
import { Leisure } from '../src/core/leisure.ts'
import type { Line, Log } from '../src/core/log.ts'
import { Steps } from '../src/core/steps.ts'
import { Syncing } from '../src/core/syncing.ts'
import { Trailing } from '../src/core/trailing.ts'
import { turn } from '../src/core/turn.ts'
import type { Waiting } from '../src/core/waiting.ts'
import { type Disk, realDisk } from '../src/log/disk.ts'
import { FileLog } from '../src/log/files.ts'
import { fileOf } from '../src/log/shelf.ts'
import { FailingDisk, runOnFailingDisk } from './failing.ts'
import { later, linesIn, makeHome, run, said, sessionFile } from './harness.ts'

const LOGS = Array.from({ length: 40 }, (_, i) => `accounts/device-${i}`)

describe('lines on their way to their files', () => {
  /** To write a file takes so long; the clock of the timers goes by itself. */
  const WRITE_MS = 0.02
  let now = 0
  const pass = (ms: number) => {
    now += ms
    vi.advanceTimersByTime(ms)
  }

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    now = performance.now()
    vi.spyOn(performance, 'now').mockImplementation(() => now)
  })
  afterEach(() => {
    vi.useRealTimers()
    vi.restoreAllMocks()
  })

  /** A log of which so many bytes are acknowledged, and none is in its file. `refuses`: files that cannot be written, which takes longer. */
  async function acknowledged(length: number, refuses: (log: string) => boolean = () => false) {
    const home = makeHome()
    const logs = new Map<number, string>()
    const disk: Disk = {
      ...realDisk,
      open: (path, make) => {
        const fd = realDisk.open(path, make)
        const log = LOGS.find((log) => fileOf(home, log) === path)
        if (log !== undefined) logs.set(fd, log)
        return fd
      },
      write: (fd, bytes, position) => {
        const log = logs.get(fd)
        if (log !== undefined) now += refuses(log) ? 1 : WRITE_MS
        if (log !== undefined && refuses(log)) throw Object.assign(new Error('EIO: write'), { code: 'EIO' })
        return realDisk.write(fd, bytes, position)
      },
    }
    const log = FileLog.open(home, { disk })
    later(() => log.close())
    const bytes = Buffer.from(`${'x'.repeat(length - 1)}\n`)
    log.write(LOGS.map((log): Line => ({ log, offset: 0, bytes, length, more: false })))
    await log.sync()
    const there = () => LOGS.filter((log) => existsSync(fileOf(home, log)) && statSync(fileOf(home, log)).size === length).length
    return { log, there }
  }

  it('are copied by whoever has nothing else to do, before the clock does it, a few at a time', async () => {
    const { log, there } = await acknowledged(4000)
    expect(log.copySome()).toBe(false)
    pass(260)
    expect(there()).toBe(0)
    for (let calls = 1; log.copySome(); calls++) expect(there()).toBe(Math.min(3 * calls, LOGS.length))
    expect(there()).toBe(LOGS.length)
  })

  it('are not left to gather for as long where there are many', async () => {
    const { log, there } = await acknowledged(120_000)
    pass(10)
    expect(log.copySome()).toBe(true)
    expect(there()).toBeGreaterThan(0)
  })

  it('are left to them as long as they go on, and no longer', async () => {
    const { log, there } = await acknowledged(4000)
    pass(260)
    log.copySome()
    pass(5)
    expect(there()).toBe(3)
    log.copySome()
    pass(9)
    expect(there()).toBe(6)
    pass(2)
    expect(there()).toBeGreaterThan(6)
    pass(100)
    expect(there()).toBe(LOGS.length)
  })

  it('are left to gather where there are few', async () => {
    const { log, there } = await acknowledged(400)
    pass(40)
    expect(log.copySome()).toBe(false)
    pass(100)
    expect(there()).toBe(LOGS.length)
  })

  it('are not left to anybody where there are very many', async () => {
    const { log, there } = await acknowledged(300_000)
    // The clock is late.
    now += 200
    expect(log.copySome()).toBe(false)
    pass(60)
    expect(there()).toBe(LOGS.length)
  })

  it('wait for the clock where a file cannot be written: nobody tries again and again, and it keeps no other waiting for long', async () => {
    const { log, there } = await acknowledged(4000, (log) => log === LOGS[0])
    pass(260)
    expect(log.copySome()).toBe(true)
    expect(log.copySome()).toBe(false)
    for (let second = 0; second < 3; second++) pass(1000)
    expect(there()).toBe(LOGS.length - 1)
  })
})

describe('the files of logs', () => {
  /** How many were being synced each time that another sync began, in the later half of a checkpoint. */
  async function syncedAtOnce(coming: boolean): Promise<number[]> {
    const atOnce: number[] = []
    const files = new Set<number>()
    let [under, done] = [0, false]
    const disk: Disk = {
      ...realDisk,
      open: (path, make) => {
        const fd = realDisk.open(path, make)
        if (path.endsWith('.jsonl')) files.add(fd)
        return fd
      },
      close: (fd) => {
        files.delete(fd)
        realDisk.close(fd)
      },
      sync: async (fd) => {
        const isFile = files.has(fd)
        if (isFile) atOnce.push(++under)
        await realDisk.sync(fd)
        if (isFile) under--
      },
    }
    const log = FileLog.open(makeHome(), { disk })
    later(() => log.close())
    const put = (log: string, n: number): Line => ({ log, offset: 5 * n, bytes: Buffer.from('line\n'), length: 5, more: false })
    log.write(LOGS.map((name) => put(name, 0)))
    await log.sync()
    const checkpoint = log.checkpoint({ batches: async (job) => job(), views: async () => {} }).finally(() => {
      done = true
    })
    for (let n = 0; coming && !done; n++) {
      await turn()
      log.write([put('accounts/another', n)])
      await log.sync()
    }
    await checkpoint
    expect(atOnce.length).toBeGreaterThanOrEqual(LOGS.length)
    return atOnce.slice(LOGS.length / 2)
  }

  it('are synced several at a time, and one after the other while lines keep coming, whose syncs they would hold up', async () => {
    expect(Math.max(...(await syncedAtOnce(false)))).toBeGreaterThan(1)
    expect(Math.max(...(await syncedAtOnce(true)))).toBe(1)
  })

  it('are synced several at a time all the same where there are many', async () => {
    const { filesInTurn } = bounds
    later(() => void Object.assign(bounds, { filesInTurn }))
    bounds.filesInTurn = LOGS.length - 1
    expect(Math.max(...(await syncedAtOnce(true)))).toBeGreaterThan(1)
  })
})

describe('a recorder that waits for a sync', () => {
  it('copies meanwhile what was acknowledged before', async () => {
    const { running, disk } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    await running.sessile.recorder.settle()
    // More than is left to gather.
    const many = Array.from({ length: 100 }, () => said('x'.repeat(1000)))
    expect(await running.admin.append(session_id, many)).toMatchObject({ status: 201 })
    await new Promise((resolve) => setTimeout(resolve, 260))
    const copySome = vi.spyOn(running.sessile.log, 'copySome')
    const release = disk.holdSync()
    later(release)
    const all = Array.from({ length: 9 }, () => running.admin.append(session_id, said('more')))
    await disk.syncAsked
    await vi.waitFor(() => expect(linesIn(sessionFile(running.home, session_id)).length).toBeGreaterThan(many.length))
    expect(copySome).toHaveReturnedWith(true)
    release()
    expect((await Promise.all(all)).map(({ status }) => status)).toEqual(Array(9).fill(201))
  })
})

describe('what has queued', () => {
  afterEach(() => void vi.restoreAllMocks())

  it('is decided for half as long as everything else has just taken, where that is longer, and no longer than four milliseconds', () => {
    let now = performance.now()
    vi.spyOn(performance, 'now').mockImplementation(() => now)
    const log = { durable: 0, sync: () => new Promise<void>(() => {}) } as unknown as Log
    const syncing = new Syncing(
      log,
      [],
      () => {},
      () => {},
    )
    syncing.add({ waiting: [{} as Waiting], lines: [{} as Line], lsn: 1 })
    const slices = [0, 1, 5, 24].map((later) => {
      now += later
      return syncing.slice
    })
    expect(slices).toEqual([1, 1, 3, 4])
  })
})

describe('before all is settled', () => {
  it.each([
    ['as long as that becomes less', [400, 100, 40, 5, 3], 4],
    ['and no longer', [400, 350, 20], 2],
    ['once, where little has', [15, 0], 1],
  ] as const)('what has been recorded meanwhile is brought to its place, %s', async (_, grown, rounds) => {
    let round = 0
    const log = { lsn: 0, settling: () => Array.from({ length: grown[round++] as number }) } as unknown as Log
    const steps = new Steps({
      log,
      between: async (job) => job(),
      trail: () => true,
      harden: () => {},
      die: () => {},
      report: () => {},
    })
    await steps.approach()
    expect(round).toBe(rounds)
  })
})

describe('of those who wait to be decided', () => {
  it('half are, where they are many: the others while the first wait for their sync', async () => {
    let over = () => {}
    const sync = () =>
      new Promise<void>((done) => {
        over = done
      })
    const log = { durable: 0, sync } as unknown as Log
    const queue = { length: 0 }
    const syncing = new Syncing(
      log,
      queue,
      () => {},
      () => {},
    )
    const portions = [1, 15, 16, 63, 2000, 5000].map((length) => Object.assign(queue, { length }) && syncing.portion)
    expect(portions).toEqual([1, 15, 8, 32, 1000, bounds.batch])
    queue.length = 63
    syncing.add({ waiting: [{} as Waiting], lines: [{} as Line], lsn: 1 })
    expect(syncing.portion).toBe(63)
    over()
    await syncing.underWay
    expect(syncing.portion).toBe(32)
  })
})

describe('a sync that the recorder makes itself', () => {
  it('leaves it no time: when it is over, the answer is next', async () => {
    const seen = new Map<boolean, boolean>()
    const log = { durable: 0, sync: async (alone: boolean) => void seen.set(alone, false) } as unknown as Log
    const syncing = new Syncing(
      log,
      [],
      () => {},
      () => {},
    )
    // Till it is known that syncs are quick, others make them.
    for (let lsn = 1; lsn <= 30; lsn++) {
      syncing.add({ waiting: [{} as Waiting], lines: [{} as Line], lsn })
      const [alone] = [...seen.keys()].slice(-1)
      seen.set(alone as boolean, syncing.atLeisure)
      await syncing.underWay
    }
    expect([...seen]).toEqual([
      [false, true],
      [true, false],
    ])
  })
})

describe('what cannot be written at leisure', () => {
  const { rowsAtLeast } = bounds
  afterEach(() => {
    bounds.rowsAtLeast = rowsAtLeast
    vi.restoreAllMocks()
  })

  it('brings the views back, once, and nothing else is tried meanwhile', async () => {
    const told: string[] = []
    const logger = { warn: (_: object, message: string) => void told.push(message), info: () => {}, error: () => {} }
    const disk = new FailingDisk()
    const running = await run(undefined, {}, undefined, { disk, logger: logger as never })
    const { session_id } = (await running.admin.start()).body
    await running.sessile.recorder.settle()
    bounds.rowsAtLeast = 2
    const work = vi.spyOn(Trailing.prototype, 'work').mockImplementation(() => {
      throw new Error('no more rows')
    })
    const release = disk.holdSync()
    later(release)
    const all = Array.from({ length: 9 }, () => running.admin.append(session_id, said('kept')))
    await disk.syncAsked
    await vi.waitFor(() => expect(work).toHaveBeenCalled())
    for (let i = 0; i < 20; i++) await turn()
    expect(work).toHaveBeenCalledTimes(1)
    expect(told.filter((message) => message === 'the views failed')).toHaveLength(1)
    work.mockRestore()
    release()
    const statuses = (await Promise.all(all)).map(({ status }) => status)
    // Those that had been written are durable, and answered so; the others were told that nothing was recorded.
    const kept = statuses.filter((status) => status === 201).length
    expect(kept).toBeGreaterThan(0)
    await vi.waitFor(() => expect(told).toContain('the views are back'))
    await running.sessile.recorder.settle()
    expect(linesIn(sessionFile(running.home, session_id))).toHaveLength(1 + kept)
  })
})

describe('what trails the views', () => {
  const { rowsAtLeast, rowsOwed } = bounds

  function leisure() {
    const done: number[] = []
    const log = { lsn: 0, durable: 0, copySome: () => false } as unknown as Log
    const trailing = () => ({ work: (rows: number) => void done.push(rows) }) as unknown as Trailing
    return { leisure: new Leisure({ log, trailing, failed: () => {} }), done }
  }

  it('is done at leisure, a little at a time, till nothing is left that would be worth it', () => {
    const { leisure: it, done } = leisure()
    it.owe(rowsAtLeast)
    expect(done).toEqual([])
    while (it.work());
    expect(done).toEqual([rowsAtLeast, rowsAtLeast])
  })

  it('is done in proportion to what is recorded where there is no leisure', () => {
    const { leisure: it, done } = leisure()
    for (let i = 0; i < 100; i++) it.owe(rowsAtLeast)
    const sum = done.reduce((sum, rows) => sum + rows, 0)
    expect(200 * rowsAtLeast - sum).toBeLessThan(rowsOwed + rowsAtLeast)
    expect(Math.max(...done)).toBeLessThanOrEqual(2 * rowsAtLeast)
  })
})
