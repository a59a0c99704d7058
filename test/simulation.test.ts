// Thousands of crashes on a simulated disk: kills and power cuts anywhere, also during a start, a checkpoint or a rebuild,
// with writes lost, torn and reordered, and with disks that fill up or fail. After each, every promise is looked at.
//
//   npm run simulate                                   fifty times as many, or SESSILE_TEST_CRASHES
//   node src/load.mjs test/simulated/main.ts SEED 1    one run again

import { expect, it } from 'vitest'
import { simulate } from './simulated/run.ts'

const CRASHES = 2000

it('a simulation does the same each time it is run with the same seed', async () => {
  for (const seed of [1, 2, 3, 4]) expect(await simulate(seed)).toEqual(await simulate(seed))
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
