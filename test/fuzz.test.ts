import { describe, expect, it } from 'vitest'
import { Fuzzer } from './fuzzing.ts'
import { cli, run } from './harness.ts'

const seed = Number(process.env.SESSILE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))

describe('requests drawn from the contract', () => {
  it(`(seed ${seed}) are answered as it says, and what is refused leaves no byte`, async () => {
    const running = await run()
    const { findings, ...told } = await new Fuzzer(running, seed).go(900, 200)
    expect(findings.join('\n\n'), `SESSILE_TEST_SEED=${seed}`).toBe('')
    expect(told.taken).toBeGreaterThan(100)
    expect(told.refused).toBeGreaterThan(100)
    await running.stop()
    expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
    expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })
})
