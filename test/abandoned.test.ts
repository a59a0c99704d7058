// A session whose log is damaged can take no more records, not even its end. It is in nobody's way: the next start in its
// kind gives it up, which stands in its user's log, and whatever becomes of the damage, the views follow from the logs.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FailingDisk, runOnFailingDisk } from './failing.ts'
import {
  cli,
  clockAt,
  crashedCopy,
  type Json,
  linesIn,
  makeHome,
  type Running,
  refused,
  run,
  said,
  sessionFile,
} from './harness.ts'

const userFile = (home: string) => join(home, 'logs', 'users', 'ada', 'user.jsonl')

/** Harms the last line of a file: one bit, which can be put back, or so much that nothing can. */
function harmEnd(file: string, bytes: number): void {
  const whole = readFileSync(file)
  const at = whole.lastIndexOf('session.ended')
  for (let i = 0; i < bytes; i++) whole[at + i] = (whole[at + i] as number) ^ 4
  writeFileSync(file, whole)
}

/** A data directory with a session of ada's that had ended, of which the end is damaged, and no views. */
async function withDamagedEnd(bytes = 1): Promise<{ home: string; session_id: string }> {
  const running = await run()
  const { session_id } = (await running.admin.start()).body
  await running.admin.append(session_id, said('one'))
  await running.admin.end({ session_id })
  await running.stop()
  harmEnd(sessionFile(running.home, session_id), bytes)
  rmSync(join(running.home, 'projections'), { recursive: true })
  return { home: running.home, session_id }
}

const rowsIn = async ({ admin }: Pick<Running, 'admin'>): Promise<Json[]> =>
  (await admin.get('/api/v1/users/ada/sessions')).body.sessions.map((row: Json) => [
    row.session_id,
    row.session_number,
    row.status,
    row.damaged ?? false,
  ])

const validate = ({ admin }: Pick<Running, 'admin'>, session_id: string) =>
  admin.post('/session_manager/sessions.validate', { user_id: 'ada', session_id })

describe('sessions.start', () => {
  it('gives up the session in its way whose log is damaged, and says of it what is known', async () => {
    const { home, session_id } = await withDamagedEnd()
    const running = await run(home)
    expect(await rowsIn(running)).toEqual([[session_id, 1, 'active', true]])
    await refused(running, () => validate(running, session_id), 503, 'log-damaged')
    // Another kind has nothing to do with it, and so it stays as it is.
    expect((await running.admin.start({ kind: 'therapy' })).status).toBe(201)
    expect((await validate(running, session_id)).status).toBe(503)

    const next = (await running.admin.start()).body
    expect(next).toMatchObject({ type: 'session.started', seq: 1, session_number: 3, user_id: 'ada' })
    running.sessile.log.settle()
    expect(linesIn(userFile(home))).toMatchObject([
      {
        seq: 1,
        type: 'session.abandoned',
        user_id: 'ada',
        performer_id: 'system',
        timestamp: next.timestamp,
        data: { session_id },
      },
    ])
    expect((await rowsIn(running)).filter(([, number]) => number !== 2)).toEqual([
      [next.session_id, 3, 'active', false],
      [session_id, 1, 'closed', true],
    ])
    expect((await validate(running, session_id)).body).toEqual({ status: 'closed' })
    await refused(running, () => running.admin.append(session_id, said('x')), 400, 'session-already-closed')
    await refused(running, () => running.admin.end({ session_id }), 409, 'session-already-closed')
    await refused(running, () => running.admin.start(), 409, 'session-already-active')
    expect((await running.admin.end({ session_id: next.session_id })).status).toBe(200)
    expect((await running.admin.start()).body.session_number).toBe(4)
    running.sessile.log.settle()
    expect(linesIn(userFile(home))).toHaveLength(1)
  })

  it('is told the same by views that are made anew, beside the recorder, at a start, and from a crash', async () => {
    const { home, session_id } = await withDamagedEnd()
    const running = await run(home)
    const { sessions } = (await running.admin.start()).body && (await running.admin.get('/api/v1/sessions')).body
    expect((await cli(home, ['rebuild', '--check'])).out).toContain('A rebuild gives the same rows')
    expect((await cli(home, ['rebuild'])).code).toBe(1)
    expect((await running.admin.get('/api/v1/sessions')).body.sessions).toEqual(sessions)
    // Not sooner: whoever copies the lock of their own process lets it go.
    const crashed = crashedCopy(home)
    await running.stop()
    rmSync(join(home, 'projections'), { recursive: true })
    for (const left of [home, crashed]) {
      const again = await run(left)
      expect((await again.admin.get('/api/v1/sessions')).body.sessions).toEqual(sessions)
      await refused(again, () => again.admin.get(`/api/v1/sessions/${session_id}`), 503, 'log-damaged')
      await refused(again, () => again.admin.start(), 409, 'session-already-active')
      await again.stop()
    }
  })

  it('with a name is answered once more as it was, also after the views are made anew', async () => {
    const { home } = await withDamagedEnd()
    let running = await run(home)
    const start = () => running.admin.start({}, { 'idempotency-key': 'once' })
    const first = (await start()).body
    expect(first.type).toBe('session.started')
    expect((await start()).body).toEqual(first)
    await running.stop()
    rmSync(join(home, 'projections'), { recursive: true })
    running = await run(home)
    expect((await start()).body).toEqual(first)
    expect(linesIn(userFile(home))).toHaveLength(1)
  })

  it('gives up a session that was going on when the disk lost its file', async () => {
    const { running, disk } = await runOnFailingDisk(undefined, new FailingDisk())
    const { session_id } = (await running.admin.start()).body
    await running.sessile.recorder.checkpoint()
    await refused(running, () => running.admin.start(), 409, 'session-already-active')
    disk.lose(sessionFile(running.home, session_id))
    await running.admin.append(session_id, said('one'))
    await running.sessile.recorder.checkpoint()
    const next = (await running.admin.start()).body
    expect(await rowsIn(running)).toEqual([
      [next.session_id, 2, 'active', false],
      [session_id, 1, 'closed', true],
    ])
  })

  it('comes too late to give up a session that has outlived its limits: the system has done so', async () => {
    const clock = clockAt(new Date().toISOString())
    const { home, session_id } = await withDamagedEnd()
    clock.move(25 * 3600)
    const running = await run(home, {}, clock)
    expect(await rowsIn(running)).toEqual([[session_id, 1, 'closed', true]])
    running.sessile.log.settle()
    expect(linesIn(userFile(home))).toMatchObject([{ type: 'session.abandoned', performer_id: 'system', data: { session_id } }])
    expect((await running.admin.start()).body.session_number).toBe(2)
    await running.restart()
    running.sessile.log.settle()
    expect(linesIn(userFile(home))).toHaveLength(1)
  })

  it('is refused where the log in which that would stand is damaged, too', async () => {
    const { home, session_id } = await withDamagedEnd()
    writeFileSync(userFile(home), 'this is no record\n')
    const running = await run(home)
    await refused(running, () => running.admin.start(), 503, 'log-damaged')
    expect((await rowsIn(running))[0]).toEqual([session_id, 1, 'active', true])
  })
})

describe('a session that was given up', () => {
  async function givenUp(bytes: number) {
    const { home, session_id } = await withDamagedEnd(bytes)
    const running = await run(home)
    const next = (await running.admin.start()).body.session_id as string
    await running.stop()
    return { home, session_id, next }
  }

  it('is not one of two that are active at once, for the doctor', async () => {
    const { home } = await givenUp(1)
    const { code, out } = await cli(home, ['doctor'])
    expect(code).toBe(3)
    expect(out).not.toContain('active at once')
  })

  it.each([
    ['comes back with its end', 1, { end_reason: 'completed', ended_by: 'device-7', ended_at: expect.any(String) }],
    ['stays closed', 60, { end_reason: 'abandoned', ended_by: null, ended_at: null, duration_seconds: null }],
  ])('%s, when recover has been at work', async (_, bytes, expected) => {
    const { home, session_id, next } = await givenUp(bytes)
    const to = join(makeHome(), 'mended')
    expect((await cli(home, ['recover', '--to', to])).code).toBe(bytes === 1 ? 0 : 3)
    const running = await run(to)
    expect(await rowsIn(running)).toEqual([
      [next, 2, 'active', false],
      [session_id, 1, 'closed', false],
    ])
    const detail = (await running.admin.get(`/api/v1/sessions/${session_id}`)).body
    expect(detail).toMatchObject({ status: 'closed', ...expected })
    expect(detail.transcript).toHaveLength(1)
    await refused(running, () => running.admin.start(), 409, 'session-already-active')
    await running.stop()
    expect(await cli(to, ['rebuild', '--check'])).toMatchObject({ code: 0 })
    expect(await cli(to, ['verify'])).toMatchObject({ code: 0 })
    expect(await cli(to, ['doctor', '--least-free', '0'])).toMatchObject({ code: 0 })
  })
})
