// Many requests drawn from the contract, at a process that lives through all of them. SESSILE_TEST_FUZZ says how many,
// SESSILE_TEST_SEED draws the same ones again.

import { describe, expect, it } from 'vitest'
import { Fuzzer } from './fuzzing.ts'
import { cli, run } from './harness.ts'

const requests = Number(process.env.SESSILE_TEST_FUZZ ?? 200_000)
const seed = Number(process.env.SESSILE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))
/** So many go to one data directory: what is read must not grow beyond what can be looked at. */
const TOGETHER = 20_000
const MOST_MEMORY = 1024 * 1024 * 1024

describe(`${requests} requests drawn from the contract (seed ${seed})`, () => {
  it('are answered as it says; what is refused leaves no byte; the log and the views are whole at the end', async () => {
    const total: Record<string, number> = {}
    for (let done = 0; done < requests; done += TOGETHER) {
      const running = await run()
      const { findings, byStatus, byReason } = await new Fuzzer(running, seed + done).go(Math.min(TOGETHER, requests - done), 1000)
      for (const [name, n] of [...Object.entries(byStatus), ...Object.entries(byReason)]) total[name] = (total[name] ?? 0) + n
      expect(findings.join('\n\n'), `SESSILE_TEST_SEED=${seed + done} SESSILE_TEST_FUZZ=${TOGETHER}`).toBe('')
      await running.stop()
      expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
      expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
      expect(process.memoryUsage().rss).toBeLessThan(MOST_MEMORY)
    }
    console.log(JSON.stringify({ seed, requests, ...total }))
    expect(total['201']).toBeGreaterThan(requests / 20)
    expect(total.invalid).toBeGreaterThan(requests / 20)
  }, 7_200_000)
})
