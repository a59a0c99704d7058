// Random commands against a model so small that it is plainly right. After every round the two agree:
// who has which session, in which status, under which number, with how many records.

import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { kindNames, kinds } from '../src/features/kinds.ts'
import { cli, type Running, run, said } from './harness.ts'

interface ModelSession {
  user: string
  kind: keyof typeof kinds
  number: number
  status: 'active' | 'closed'
  records: number
}

class Model {
  readonly sessions = new Map<string, ModelSession>()

  of(user: string) {
    return [...this.sessions.values()].filter((session) => session.user === user)
  }

  started(id: string, user: string, kind: keyof typeof kinds) {
    const number = Math.max(0, ...this.of(user).map((session) => session.number)) + 1
    this.sessions.set(id, { user, kind, number, status: 'active', records: 1 })
    return number
  }

  picked(pick: number) {
    const ids = [...this.sessions.keys()]
    const id = ids[pick % Math.max(1, ids.length)] ?? 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
    return { id, session: this.sessions.get(id) }
  }

  mayStart(user: string, kind: keyof typeof kinds) {
    return !(kinds[kind].exclusive && this.of(user).some((session) => session.kind === kind && session.status === 'active'))
  }
}

const users = ['ada', 'bob', 'eve']
const user = fc.constantFrom(...users)
const pick = fc.nat({ max: 30 })
const step = fc.oneof(
  { weight: 3, arbitrary: fc.record({ do: fc.constant('start' as const), user, kind: fc.constantFrom(...kindNames) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('end' as const), user, pick }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      user,
      pick,
      count: fc.integer({ min: 1, max: 4 }),
      bad: fc.boolean(),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('checkpoint' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('restart' as const) }) },
)
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never

/** Rounds of steps; after each the two are compared. */
const rounds = fc.array(fc.array(step, { minLength: 1, maxLength: 8 }), { minLength: 1, maxLength: 12 })

/** Takes one step and says what the rules would have answered. */
async function take(running: Running, model: Model, step: Step): Promise<void> {
  if (step.do === 'checkpoint') return running.sessile.recorder.checkpoint()
  if (step.do === 'start') {
    const may = model.mayStart(step.user, step.kind)
    const { status, body } = await running.admin.start({ user_id: step.user, kind: step.kind })
    expect(status).toBe(may ? 201 : 409)
    if (may) expect(body.session_number).toBe(model.started(body.session_id, step.user, step.kind))
  }
  if (step.do === 'end') {
    const { id, session } = model.picked(step.pick)
    const { status } = await running.admin.end({ user_id: step.user, session_id: id })
    expect(status).toBe(unlike(session, step.user) ?? (session?.status === 'closed' ? 409 : 200))
    if (status === 200 && session) Object.assign(session, { status: 'closed', records: session.records + 1 })
  }
  if (step.do === 'append') await append(running, model, step)
}

async function append(running: Running, model: Model, step: Extract<Step, { do: 'append' }>): Promise<void> {
  const { id, session } = model.picked(step.pick)
  const records = Array.from({ length: step.count }, (_, i) => said(`n${i}`, { user_id: step.user }))
  if (step.bad) Object.assign(records.at(-1) as object, { data: {} })
  const { status } = await running.admin.append(id, records)
  expect(status).toBe(unlike(session, step.user) ?? (session?.status === 'closed' || step.bad ? 400 : 201))
  if (status === 201 && session) session.records += step.count
}

/** How a session that is not there, or is another's, is refused. */
const unlike = (session: ModelSession | undefined, user: string) => (!session ? 404 : session.user !== user ? 403 : undefined)

async function agree(running: Running, model: Model): Promise<void> {
  const { body } = await running.admin.get('/api/v1/sessions?limit=200')
  const told = Object.fromEntries(
    body.sessions.map((session: Record<string, unknown>) => [
      session.session_id,
      { user: session.user_id, kind: session.kind, number: session.session_number, status: session.status },
    ]),
  )
  expect(told).toEqual(Object.fromEntries([...model.sessions].map(([id, { records: _, ...rest }]) => [id, rest])))
  const logs = [...model.sessions].map(async ([id, { records }]) => {
    expect((await running.admin.get(`/api/v1/sessions/${id}/records`)).body.records).toHaveLength(records)
  })
  await Promise.all(logs)
}

describe('Sessile and its model', () => {
  it('agree at every step, across checkpoints and restarts, and a rebuild gives the rows that were lived', async () => {
    await fc.assert(
      fc.asyncProperty(rounds, async (rounds) => {
        let running = await run()
        const model = new Model()
        for (const steps of rounds) {
          for (const step of steps) {
            if (step.do === 'restart') running = await running.restart()
            else await take(running, model, step)
          }
          await agree(running, model)
        }
        await running.stop()
        expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
        expect(await cli(running.home, ['verify'])).toMatchObject({ code: 0 })
      }),
      { numRuns: Number(process.env.SESSILE_TEST_RUNS ?? 12) },
    )
  })

  it('agree whatever the concurrency: what was acknowledged, replayed in the order of the log, obeys the rules', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.record({ user, kind: fc.constantFrom(...kindNames), after: fc.constantFrom('end', 'keep', 'twice') }), {
          minLength: 20,
          maxLength: 60,
        }),
        async (callers) => {
          const running = await run()
          await Promise.all(
            callers.map(async ({ user: user_id, kind, after }) => {
              const started = await running.admin.start({ user_id, kind })
              if (started.status !== 201) {
                expect(started.body.reason).toBe('session-already-active')
                return
              }
              const { session_id } = started.body
              await running.admin.append(session_id, said('x', { user_id }))
              if (after === 'keep') return
              const ends = [
                running.admin.end({ user_id, session_id }),
                ...(after === 'twice' ? [running.admin.end({ user_id, session_id })] : []),
              ]
              const replies = await Promise.all(ends)
              expect(replies.filter(({ status }) => status === 200)).toHaveLength(1)
            }),
          )
          running.sessile.log.settle()
          await replayed(running)
        },
      ),
      { numRuns: Number(process.env.SESSILE_TEST_RUNS ?? 12) },
    )
  })
})

/** Reads all boundaries in order of time and walks through them as the rules would have it. */
async function replayed(running: Running): Promise<void> {
  const { out } = await cli(running.home, ['replay'])
  const active = new Map<string, string>()
  const numbers = new Map<string, number[]>()
  const boundaries = out
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
    .filter(({ type }) => type.startsWith('session.'))
  for (const { type, user_id, session_id, data } of boundaries) {
    if (type === 'session.started') numbers.set(user_id, [...(numbers.get(user_id) ?? []), data.session_number])
    if (type === 'session.ended') active.delete(session_id)
    else active.set(session_id, `${user_id} ${data.kind}`)
  }
  for (const own of numbers.values()) expect(own.sort((a, b) => a - b)).toEqual(own.map((_, i) => i + 1))
  const exclusive = [...active.values()].filter((slot) => kinds[slot.split(' ')[1] as keyof typeof kinds].exclusive)
  expect(new Set(exclusive).size).toBe(exclusive.length)
  const { body } = await running.admin.get('/api/v1/sessions?status=active&limit=200')
  expect(body.sessions.map(({ session_id }: { session_id: string }) => session_id).sort()).toEqual([...active.keys()].sort())
}
