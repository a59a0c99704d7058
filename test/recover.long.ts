// Harm done at random to small data directories, many times over: whatever it is, all that can be saved is saved, the rest
// is told, the source is only read, and what comes out verifies, rebuilds and serves. The doctor finds what was harmed.
// How many: SESSILE_TEST_DAMAGES; from where: SESSILE_TEST_SEED.

import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { doctorVerb } from '../src/verbs/doctor.ts'
import { rebuildVerb } from '../src/verbs/rebuild.ts'
import { copyOf, drawing, everyByte, type Harm, harm, jsonLines, place, type Recorded, recordedForDamage, verb } from './harming.ts'
import { makeHome, run, said, sessionFile } from './harness.ts'
import { recovered } from './recovered.ts'

const first = Number(process.env.SESSILE_TEST_SEED ?? 1)
const many = Number(process.env.SESSILE_TEST_DAMAGES ?? 100)
/** Starting takes longer than all the rest. */
const SERVE_EVERY = 10

let made: Recorded
beforeAll(async () => {
  made = await recordedForDamage()
})
afterAll(() => made.remove())

async function harmed(seed: number, only?: 'byte') {
  const draw = drawing(seed)
  const home = copyOf(draw(2) === 0 ? made.stopped : made.crashed)
  const harms: Harm[] = [harm(home, draw, only)]
  if (only === undefined && draw(3) === 0) harms.push(harm(home, draw))
  return { home, harms }
}

async function each(only: 'byte' | undefined, look: (home: string, harms: Harm[], seed: number) => Promise<void>) {
  for (let seed = first; seed < first + many; seed++) {
    const { home, harms } = await harmed(seed, only)
    await look(home, harms, seed).catch((error: Error) => {
      throw new Error(`seed ${seed}: ${JSON.stringify(harms)}: ${error.message}`, { cause: error })
    })
    rmSync(home, { recursive: true })
  }
}

describe('sessile recover', () => {
  it(
    'saves all that can be saved whatever is harmed, tells the rest, and makes what serves',
    async () => {
      await each(undefined, async (home, _, seed) => {
        const { to, missing } = await recovered(home, made.truth)
        expect((await verb(rebuildVerb, to, ['--check'])).out).toContain('A rebuild gives the same rows')
        if (seed % SERVE_EVERY === 0) {
          const running = await run(to)
          const { session_id } = (await running.admin.start({ user_id: 'dora' })).body
          expect((await running.admin.append(session_id, said('after', { user_id: 'dora' }))).status).toBe(201)
          if (missing === 0) expect((await running.admin.get(`/api/v1/sessions/${made.ada}`)).body.transcript).toHaveLength(3)
          await running.stop()
        }
        rmSync(dirname(to), { recursive: true })
      })
    },
    many * 5000,
  )

  it(
    'loses nothing to a single byte in a log or the journal, as long as the line is short enough to try every byte',
    async () => {
      await each('byte', async (home) => {
        const { to, missing, code } = await recovered(home, made.truth)
        expect({ missing, code }).toEqual({ missing: 0, code: 0 })
        rmSync(dirname(to), { recursive: true })
      })
    },
    many * 5000,
  )

  it('goes on where the disk has lost a part of a file', async () => {
    const home = copyOf(made.stopped)
    const [file, to] = [sessionFile(home, made.ada), place()]
    const bin = new URL('../src/sessile.cjs', import.meta.url).pathname
    const broken = (...verb: string[]) => {
      const inject = ['-f', '-qq', '-o', join(makeHome(), 'trace'), '-P', file, '-e', 'inject=read,pread64:error=EIO']
      const env = { ...process.env, SESSILE_HOME: home }
      return spawnSync('strace', [...inject, process.execPath, bin, ...verb, '--json'], { env, encoding: 'utf8' })
    }
    const doctor = broken('doctor')
    expect(jsonLines(doctor.stdout)).toContainEqual(
      expect.objectContaining({ level: 'lost', file, what: expect.stringContaining('EIO') }),
    )
    const recover = broken('recover', '--to', to)
    expect([doctor.status, recover.status]).toEqual([3, 3])
    const told = jsonLines(recover.stdout)
    expect(told).toContainEqual(expect.objectContaining({ level: 'lost', file, what: 'Here are only zeros.' }))
    expect(told.at(-1)).toMatchObject({ logs: 5, records: 9 })
  })
})

describe('sessile doctor', () => {
  it(
    'finds every byte that was changed in a log, changes none, and never fails',
    async () => {
      await each('byte', async (home, [changed]) => {
        const before = everyByte(home)
        const { code } = await verb(doctorVerb, home, ['--json'])
        expect(everyByte(home)).toBe(before)
        if (/\.(?:jsonl|wal)$/.test(changed?.file ?? '')) expect(code).toBe(3)
        else expect([0, 1, 3]).toContain(code)
      })
    },
    many * 5000,
  )
})
