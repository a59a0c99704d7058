// The simulation at length, with seeds that nobody has tried before, each few hundred of them in a process of their own.
//   npm run simulate         SESSILE_TEST_CRASHES says how many crashes, SESSILE_TEST_SEED where to begin

import { execFile } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { promisify } from 'node:util'
import { expect, it } from 'vitest'

const CRASHES = Number(process.env.SESSILE_TEST_CRASHES ?? 100_000)
const FIRST = Number(process.env.SESSILE_TEST_SEED ?? Date.now() % 2 ** 30)
const SEEDS = 200

const path = (file: string) => new URL(file, import.meta.url).pathname

it(
  `${CRASHES} crashes, from seed ${FIRST} on`,
  async () => {
    const total = { crashes: 0, acknowledged: 0, refused: 0, records: 0, operations: 0, failed: 0 }
    let next = FIRST
    const some = async () => {
      while (total.crashes < CRASHES && total.failed === 0) {
        const seeds = [String(next), String(SEEDS)]
        next += SEEDS
        const { stdout, stderr } = await promisify(execFile)(process.execPath, [
          path('../src/load.cjs'),
          path('./simulated/main.ts'),
          ...seeds,
        ])
        if (stderr !== '') console.error(stderr)
        const told = JSON.parse(stdout) as typeof total
        for (const what of Object.keys(total) as (keyof typeof total)[]) total[what] += told[what]
      }
    }
    await Promise.all(Array.from({ length: availableParallelism() }, some))
    console.log(`${JSON.stringify(total)} from seed ${FIRST} to ${next - 1}`)
    expect(total.failed).toBe(0)
    expect(total.crashes).toBeGreaterThanOrEqual(CRASHES)
    expect(total.acknowledged).toBeGreaterThan(10 * CRASHES)
  },
  24 * 60 * 60_000,
)
