// What must hold of a recovery, whatever was done to the data directory before.

import { expect } from 'vitest'
import { recoverVerb } from '../src/verbs/recover.ts'
import { verifyVerb } from '../src/verbs/verify.ts'
import { everyByte, filesAfter, jsonLines, place, type Recorded, verb } from './harming.ts'

/** Recovers a harmed directory, and asserts what must hold whatever was done to it. */
export async function recovered(home: string, truth: Recorded['truth']) {
  const before = everyByte(home)
  const to = place()
  const ran = await verb(recoverVerb, home, ['--to', to, '--json'])
  expect(everyByte(home)).toBe(before)
  const told = jsonLines(ran.out)
  const total = told.pop()
  expect([0, 3]).toContain(ran.code)
  expect(ran.code === 3).toBe(told.some(({ level }) => level === 'lost'))
  expect((await verb(verifyVerb, to, [])).err).toMatch(/verified\.\n$/)
  const after = filesAfter(to)
  let missing = 0
  for (const [log, lines] of truth) {
    const own = after.get(log) ?? []
    const same = lines.findIndex((line, i) => line !== own[i])
    const kept = same < 0 ? lines.length : same
    missing += lines.length - kept
    // Nothing but what was recorded, up to where it ends; and behind that, what the system recorded just now.
    for (const line of own.slice(kept)) expect(JSON.parse(line)).toMatchObject({ seq: kept + 1, performer_id: 'system' })
  }
  for (const log of after.keys()) expect(truth.has(log)).toBe(true)
  if (missing > 0) expect(ran.code).toBe(3)
  return { to, code: ran.code, told, total, after, missing }
}
