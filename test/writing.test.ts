// Where much is recorded, a thread of its own seals, writes and syncs. What is promised is the same.

import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { bounds } from '../src/core/bounds.ts'
import { atRoute } from '../src/core/feature.ts'
import { system } from '../src/core/sessile.ts'
import { turn } from '../src/core/turn.ts'
import { features } from '../src/features/index.ts'
import { realDisk } from '../src/log/disk.ts'
import type { FileLog } from '../src/log/files.ts'
import type { Sit } from '../src/log/thread.ts'
import { beside } from './beside.ts'
import { FailingDisk } from './failing.ts'
import {
  crashedCopy,
  expectSound,
  type Json,
  linesIn,
  logBytes,
  makeHome,
  type Reply,
  type Running,
  run,
  said,
  sessionFile,
} from './harness.ts'

const usual = { ...bounds }
beforeEach(() => {
  Object.assign(bounds, { busy: 0, busyAtOnce: 0 })
})
afterEach(() => {
  Object.assign(bounds, usual)
})

const isHelped = ({ sessile }: Pick<Running, 'sessile'>) => (sessile.log as FileLog).helped

/** Records until another writes: from then on there is nothing else than what is to be looked at. */
async function helped(running: Running, expected = true): Promise<string> {
  const { session_id } = (await running.admin.start()).body
  if (!expected) return session_id
  const until = performance.now() + 20_000
  while (!isHelped(running)) {
    expect(performance.now()).toBeLessThan(until)
    await running.admin.append(session_id, said('something'))
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return session_id
}

const textsIn = (home: string, session_id: string) =>
  linesIn(sessionFile(home, session_id)).flatMap(({ type, data }) => (type === 'transcript.said' ? [data.text] : []))

describe('a thread that writes', () => {
  it('seals each line to the one before it, however many of a log are on their way at a time', async () => {
    const running = await run()
    const session_id = await helped(running)
    const others = await Promise.all(Array.from({ length: 20 }, (_, i) => running.admin.start({ user_id: `u${i}` })))
    const waves = Array.from({ length: 8 }, async (_, wave) => {
      const many = Array.from({ length: 30 }, (_, i) => said(`${wave} ${i}`))
      const asked = [running.admin.append(session_id, many), ...many.map((one) => running.admin.append(session_id, one))]
      for (const [i, { body }] of others.entries())
        asked.push(running.admin.append(body.session_id, said('x', { user_id: `u${i}` })))
      expect((await Promise.all(asked)).filter(({ status }) => status !== 201)).toEqual([])
    })
    await Promise.all(waves)
    expect(isHelped(running)).toBe(true)
    const told = (await running.admin.get(`/api/v1/sessions/${session_id}/records?limit=1000`)).body.records as Json[]
    expect(told.filter(({ type, data }) => type === 'transcript.said' && data.text !== 'something')).toHaveLength(8 * 60)
    await running.stop()
    await expectSound(running.home)
  })

  it('has made durable what was answered: a crash at any moment keeps it', async () => {
    const running = await run()
    const session_id = await helped(running)
    const texts = Array.from({ length: 200 }, (_, i) => `text ${i}`)
    const replies = await Promise.all(texts.map((text) => running.admin.append(session_id, said(text))))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([201]))
    const copy = crashedCopy(running.home)
    await running.stop()
    const again = await run(copy)
    await again.stop()
    expect(textsIn(copy, session_id)).toEqual(expect.arrayContaining(texts))
    await expectSound(copy)
  })

  it('goes on over checkpoints, and its names are known again after a restart', async () => {
    const running = await run()
    const session_id = await helped(running)
    const key = { 'idempotency-key': 'the-same' }
    const first = await running.admin.append(session_id, said('once'), key)
    for (let n = 0; n < 3; n++) {
      await Promise.all(Array.from({ length: 50 }, (_, i) => running.admin.append(session_id, said(`${n} ${i}`))))
      await running.sessile.recorder.checkpoint()
    }
    expect((await running.admin.append(session_id, said('once'), key)).body).toEqual(first.body)
    const again = await running.restart()
    expect((await again.admin.append(session_id, said('once'), key)).body).toEqual(first.body)
    await again.stop()
    expect(textsIn(running.home, session_id).filter((text) => text === 'once')).toEqual(['once'])
    await expectSound(running.home)
  })
})

describe('whoever reads', () => {
  it.each([
    ['the recorder’s own hand writes', undefined],
    ['another writes', beside],
  ])('is shown nothing that is not durable, where %s', async (_, by) => {
    const disk = new FailingDisk()
    disk.sync = async (fd) => {
      await new Promise((resolve) => setTimeout(resolve, 25))
      return realDisk.sync(fd)
    }
    const running = await run(makeHome(), {}, undefined, { disk, sit: by?.(disk) })
    await helped(running, by !== undefined)
    const { recorder, log } = running.sessile
    bounds.batch = 1 // So that some are decided, and others durable, when the first are answered.
    for (let round = 0; round < 5; round++) {
      const asking = (_: unknown, i: number) => running.sessile.perform(start, { body: who(`u${round}-${i}`), caller: system })
      const asked = Array.from({ length: 6 }, asking)
      for (const which of [4, 5]) {
        await asked[which]
        await turn()
        await recorder.settled()
        expect(recorder.views.mark.lsn).toBeLessThanOrEqual(log.durable)
      }
    }
  })
})

const start = atRoute(features.commands, 'POST /session_manager/sessions.start')
const who = (user_id: string) => ({ user_id, performer_id: 'device-7' })

/** Sessile on a disk that can be told to fail, with a scribe beside it. */
async function besideOnFailing(sit?: (disk: FailingDisk) => Sit) {
  const disk = new FailingDisk()
  const fatal: Error[] = []
  const running = await run(makeHome(), {}, undefined, {
    disk,
    sit: (sit ?? beside)(disk),
    fatal: (error) => void fatal.push(error),
  })
  return { running, disk, fatal, session_id: await helped(running) }
}

const quarantined = (home: string) => {
  const folder = join(home, 'logs', '.journal', 'quarantine')
  try {
    return readdirSync(folder)
  } catch {
    return []
  }
}

describe('what a thread finds out late', () => {
  it('a write that the full disk refuses records nothing of that batch, nor of those decided since, and all goes on when there is room', async () => {
    const { running, disk, fatal, session_id } = await besideOnFailing()
    const before = logBytes(running)
    disk.fail('ENOSPC')
    const append = (text: string) => running.admin.append(session_id, said(text))
    const replies: Reply[] = await Promise.all([
      ...Array.from({ length: 40 }, (_, i) => append(`refused ${i}`)),
      running.admin.start({ user_id: 'bea' }),
    ])
    for (const { status, body } of replies) {
      expect([503, 507]).toContain(status)
      expect(['not-recorded', 'rebuilding']).toContain(body.reason)
    }
    expect(replies.map(({ status }) => status)).toContain(507)
    disk.mend()
    const until = performance.now() + 20_000
    let reply = await append('kept')
    for (; reply.status !== 201 && performance.now() < until; reply = await append('kept'))
      await new Promise((resolve) => setTimeout(resolve, 50))
    expect(reply.status).toBe(201)
    expect((await running.admin.start({ user_id: 'bea' })).body).toMatchObject({ session_number: 1 })
    expect(before).not.toBe(logBytes(running))
    expect(fatal).toEqual([])
    await running.stop()
    expect(textsIn(running.home, session_id).filter((text) => text !== 'something')).toEqual(['kept'])
    expect(quarantined(running.home)).toEqual([])
    await expectSound(running.home)
  })

  it('what was durable before a write was refused is answered as recorded', async () => {
    const { running, disk, session_id } = await besideOnFailing()
    const release = disk.holdSync()
    const kept = running.admin.append(session_id, said('kept'))
    await disk.syncAsked
    disk.fail('EIO')
    const refused = running.admin.append(session_id, said('refused'))
    await new Promise((resolve) => setTimeout(resolve, 200))
    release()
    expect((await kept).status).toBe(201)
    expect((await refused).body.reason).toBe('not-recorded')
    disk.mend()
    await running.stop()
    expect(textsIn(running.home, session_id)).toContain('kept')
    expect(textsIn(running.home, session_id)).not.toContain('refused')
    await expectSound(running.home)
  })

  it('is found out at once from then on, for as long as the disk takes nothing: whoever reads is not disturbed', async () => {
    const { running, disk, session_id } = await besideOnFailing()
    disk.fail('ENOSPC')
    await running.admin.append(session_id, said('late'))
    expect(isHelped(running)).toBe(false)
    await running.sessile.recorder.between(() => {})
    const { views } = running.sessile.recorder
    expect((await running.admin.append(session_id, said('at once'))).status).toBe(507)
    expect(running.sessile.recorder.stalled).toBeUndefined()
    expect(running.sessile.recorder.views).toBe(views)
    disk.mend()
    await running.admin.append(session_id, said('kept'))
    expect(isHelped(running)).toBe(false)
    await new Promise((resolve) => setTimeout(resolve, 1100))
    await running.admin.append(session_id, said('kept, too'))
    expect(isHelped(running)).toBe(true)
    await running.stop()
    expect(textsIn(running.home, session_id).filter((text) => text !== 'something')).toEqual(['kept', 'kept, too'])
    await expectSound(running.home)
  })

  it('a thread that cannot be had is done without', async () => {
    const sit: Sit = () => {
      throw new Error('ERR_WORKER_INIT_FAILED')
    }
    const running = await run(makeHome(), {}, undefined, { sit })
    const { session_id } = (await running.admin.start()).body
    expect((await running.admin.append(session_id, said('something'))).status).toBe(201)
    expect(isHelped(running)).toBe(false)
  })

  it('a sync that fails is the end: nobody is told that it was recorded, or that it was not, and none is tried again', async () => {
    const { running, disk, fatal, session_id } = await besideOnFailing()
    const syncs = disk.syncs
    disk.failSync()
    const reply = await running.admin.append(session_id, said('who knows'))
    expect(reply).toMatchObject({ status: 503, body: { reason: 'outcome-unknown' } })
    expect(fatal).toHaveLength(1)
    expect((await running.admin.append(session_id, said('more'))).status).toBe(503)
    expect(disk.syncs).toBe(syncs + 1)
  })

  it('the end of the thread is the end, too', async () => {
    let kill = (_: Error) => {}
    const sit =
      (disk: FailingDisk): Sit =>
      (heard, gone) => {
        kill = gone
        return beside(disk)(heard, gone)
      }
    const { running, disk, fatal, session_id } = await besideOnFailing(sit)
    const release = disk.holdSync()
    const asked = running.admin.append(session_id, said('who knows'))
    await disk.syncAsked
    kill(new Error('it ended with 1'))
    expect(await asked).toMatchObject({ status: 503, body: { reason: 'outcome-unknown' } })
    expect(fatal.map(({ message }) => message)).toEqual(['the thread that writes has ended: it ended with 1'])
    release()
  })
})
