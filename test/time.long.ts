// Time, for a process of its own whose clock is really set while it runs: by libfaketime (Debian: libfaketime), which gives
// it another clock and leaves the time that passes alone. `npm run torture:time`; SESSILE_TEST_STEPS says how many times the
// clock is set, SESSILE_TEST_SEED by how much.

import { existsSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Apart, cli, filesUnder, type Json, linesIn, makeHome, said, serveApart } from './harness.ts'

const STEPS = Number(process.env.SESSILE_TEST_STEPS ?? 8)
const SEED = Number(process.env.SESSILE_TEST_SEED ?? Date.now() % 1_000_000)
const IDLE = 2
const HOUR = 3600
const LONG = 24 * 3600_000

function faketime(): string {
  const folders = [
    '/usr/lib/faketime',
    '/usr/local/lib/faketime',
    ...readdirSync('/usr/lib').map((name) => `/usr/lib/${name}/faketime`),
  ]
  const found = folders.map((folder) => join(folder, 'libfaketime.so.1')).find((file) => existsSync(file))
  if (found === undefined) throw new Error('this suite needs libfaketime: apt-get install libfaketime')
  return found
}

/** A clock that is off by so many seconds, and can be set by others while it is used. */
function clockOf(home: string) {
  const file = join(home, 'clock')
  let off = 0
  const move = (seconds: number) => {
    off += seconds
    writeFileSync(file, `${off < 0 ? '-' : '+'}${Math.abs(off)}s\n`)
  }
  move(0)
  const env = { LD_PRELOAD: faketime(), FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1' }
  return { move, env }
}

const YEAR = 365 * 24 * HOUR

/** By how much the clock is set each time: two hours and a year to and fro, and anything in between. */
function steps(): number[] {
  let state = SEED
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
  const known = [-2 * HOUR, YEAR, -YEAR, 24 * HOUR]
  return Array.from({ length: STEPS }, (_, i) => known[i] ?? Math.round((random() - 0.5) * 10 ** (1 + 6 * random())))
}

describe(`a process whose clock is set (seed ${SEED})`, () => {
  it('goes on: nothing is earlier than what was before it, what is idle is closed, what goes on is not', {
    timeout: LONG,
  }, async () => {
    const home = makeHome()
    const clock = clockOf(home)
    const env = { ...clock.env, SESSILE_IDLE_SECONDS: String(IDLE), SESSILE_LONGEST_SECONDS: '0' }
    let apart: Apart = await serveApart(home, env)
    const made: Json[] = []
    const starts: Json[] = []
    const start = async (user_id: string) => {
      const { status, body } = await apart.admin.start({ user_id })
      expect(status).toBe(201)
      made.push(body)
      starts.push(body)
      return body.session_id as string
    }
    const statusOf = async (id: string) => (await apart.admin.get(`/api/v1/sessions/${id}`)).body.status
    const restart = async (signal: NodeJS.Signals) => {
      apart.child.kill(signal)
      await apart.ended
      apart = await serveApart(home, env)
    }
    for (const [i, step] of steps().entries()) {
      const context = `step ${i}: the clock is set by ${step} s`
      const idle = await start(`idle${i}`)
      if (i % 3 === 2) await restart('SIGKILL')
      clock.move(step)
      if (i % 3 === 1) await restart('SIGTERM')
      const busy = await start(`busy${i}`)
      // Whoever speaks is heard, for longer than a silence may be, and meanwhile the silent one is closed.
      let spoken = 0
      while (spoken < 10 * IDLE || (await statusOf(idle)) === 'active') {
        const { status, body } = await apart.admin.append(busy, said(`${spoken}`, { user_id: `busy${i}` }))
        expect({ context, status }).toEqual({ context, status: 201 })
        made.push(body)
        expect(spoken++, `${context}, and the silent session stays open`).toBeLessThan(200 * IDLE)
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
      const { status, body } = await apart.admin.end({ user_id: `busy${i}`, session_id: busy })
      expect({ context, status }).toEqual({ context, status: 200 })
      made.push(body)
    }
    const times = made.map(({ timestamp }) => timestamp)
    expect(times).toEqual([...times].sort())
    const ids = starts.map(({ session_id }) => session_id)
    expect(ids).toEqual([...ids].sort())
    const { sessions } = (await apart.admin.get('/api/v1/sessions?limit=200')).body
    expect(sessions.map(({ session_id }: Json) => session_id)).toEqual([...ids].reverse())
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    const users = join(home, 'logs', 'users')
    const records = filesUnder(users).flatMap((file) => linesIn(join(users, file)))
    expect(new Set(records.map(({ record_id }) => record_id)).size).toBe(records.length)
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })
})
