// Thousands of crashes on a simulated disk: kills and power cuts anywhere, also during a start, a checkpoint or a rebuild,
// with writes lost, torn and reordered, and with disks that fill up or fail. After each, every promise is looked at.
//
//   npm run simulate                                   fifty times as many, or SESSILE_TEST_CRASHES
//   node src/load.cjs test/simulated/main.ts SEED 1    one run again

import { expect, it } from 'vitest'
import { SyncFailed } from '../src/core/log.ts'
import { FileLog } from '../src/log/files.ts'
import { Chance } from './chance.ts'
import { SimulatedDisk } from './simulated/disk.ts'
import { Loop } from './simulated/loop.ts'
import { simulate } from './simulated/run.ts'

const CRASHES = 2000

it('a simulation does the same each time it is run with the same seed', async () => {
  for (const seed of [1, 2, 3, 4]) expect(await simulate(seed)).toEqual(await simulate(seed))
})

it('what a failed sync of a file left in memory alone is written again by the next start, before the journal lets go of it', async () => {
  const chance = new Chance(1)
  const loop = new Loop(chance)
  const disk = new SimulatedDisk(chance, loop)
  disk.prepare('/data')
  const waitFor = (work: Promise<void>) => loop.until(work, () => false)
  const checkpoint = (log: FileLog, after: () => void) => {
    const batches = async <T>(job: () => T) => {
      const done = job()
      after()
      return done
    }
    return waitFor(log.checkpoint({ batches, views: async () => {} }))
  }
  const name = 'users/ada/sessions/sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
  const first = FileLog.open('/data', { disk })
  first.write([{ log: name, offset: 0, bytes: Buffer.from('acknowledged\n'), length: 13, more: false }])
  await waitFor(first.sync())
  await expect(checkpoint(first, () => disk.failAt('sync', 'EIO', { once: true }))).rejects.toThrow(SyncFailed)
  // The process ends; what the next one reads is what it would have read.
  disk.kill()
  disk.end(false, loop)
  const second = FileLog.open('/data', { disk })
  expect(second.read(name, 0, 100).toString()).toBe('acknowledged\n')
  await checkpoint(second, () => {})
  disk.kill()
  disk.end(true, loop)
  expect(FileLog.open('/data', { disk }).read(name, 0, 100).toString()).toBe('acknowledged\n')
})

it(`${CRASHES} crashes lose nothing that was acknowledged, keep nothing that was refused, and leave views that a rebuild would give`, async () => {
  const total = { crashes: 0, acknowledged: 0, refused: 0 }
  for (let seed = 1; total.crashes < CRASHES; seed++) {
    const { crashes, acknowledged, refused } = await simulate(seed)
    total.crashes += crashes
    total.acknowledged += acknowledged
    total.refused += refused
  }
  // A simulation in which nothing happens would prove nothing.
  expect(total.acknowledged).toBeGreaterThan(10 * CRASHES)
  expect(total.refused).toBeGreaterThan(5 * CRASHES)
}, 300_000)
