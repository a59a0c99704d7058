// V8 describes objects by their shapes, which are old from the moment they are made: a shape that is made for one request keeps
// what belongs to that request till all that is old is gone over, and every collection before copies it. So once a kind of
// request has been seen, no further one makes any.

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { makeHome, said, serveApart } from './harness.ts'

const TIMES = 60
/** What is compiled meanwhile, and what is done now and then, makes shapes, too; what each request makes is made in every try. */
const TRIES = 3

describe('a request of a known kind', () => {
  it('makes no shape of its own', async () => {
    const log = join(makeHome(), 'shapes.log')
    const { admin } = await serveApart(
      makeHome(),
      { SESSILE_LOG_LEVEL: 'silent' },
      [],
      [],
      ['--log-maps', `--logfile=${log}`, '--no-logfile-per-isolate'],
    )
    const made = () => readFileSync(log, 'latin1').split('\nmap,').length
    const { session_id } = (await admin.start()).body
    const session = `/api/v1/sessions/${session_id}`
    let asked = 0
    const kinds: Record<string, () => Promise<{ status: number }>> = {
      'a record': () => admin.append(session_id, said('x')),
      'a record with a name': () => admin.append(session_id, said('x'), { 'idempotency-key': `k${asked++}` }),
      'some records': () => admin.append(session_id, [said('x'), said('y')]),
      'a start and an end': async () => {
        const { body } = await admin.start({ user_id: 'bob' })
        return admin.end({ user_id: 'bob', session_id: body.session_id })
      },
      'a list': () => admin.get('/api/v1/sessions?limit=5'),
      'a list of one user': () => admin.get('/api/v1/users/ada/sessions?limit=5'),
      'a detail': () => admin.get(session),
      'a timeline': () => admin.get(`${session}/timeline?limit=5`),
      'a log': () => admin.get(`${session}/records?limit=5`),
      'a refusal': () => admin.get('/api/v1/sessions/sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'),
    }
    const each: Record<string, number> = {}
    for (const [kind, ask] of Object.entries(kinds)) {
      for (let n = 0; n < TIMES; n++) await ask()
      for (let tries = 0; tries < TRIES && each[kind] !== 0; tries++) {
        const before = made()
        for (let n = 0; n < TIMES; n++) await ask()
        each[kind] = Math.round((made() - before) / TIMES)
      }
    }
    expect(each).toEqual(Object.fromEntries(Object.keys(kinds).map((kind) => [kind, 0])))
  })
})
