// The policy page, held against the door: every route of the contract, asked by everybody there is about everything there
// could be, answers as the page says. A route that the page or the examples below do not know fails here.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type Action, policy, type Role, roles, withoutFactor } from '../src/core/policy.ts'
import type { SecondFactor } from '../src/core/settings.ts'
import { features } from '../src/features/index.ts'
import { settingsOf } from './config.ts'
import { Client, type Json, PASSWORD, type Running, refused, run, said, sessionFile } from './harness.ts'

// --- who and whose --------------------------------------------------------------------------------------------------------

/** Whose data it is, as seen by the caller; each but the absent one has sessions. */
const whose = {
  own: undefined, // The user with the id of the account that asks.
  scoped: 'sam', // In the scope of the device's key.
  assigned: 'carla',
  formerly: 'fred',
  emergency: 'emma',
  foreign: 'eve',
  absent: 'nobody-there',
} as const
type Whose = keyof typeof whose

interface Somebody {
  role: Role
  client: Client
  account_id: string
  /** Signs in once more. */
  again: () => Promise<Client>
}

interface World {
  running: Running
  callers: Somebody[]
  /** A session of each user. */
  sessions: Map<string, string>
}

async function makeWorld(conceal: boolean, secondFactor: SecondFactor = 'off'): Promise<World> {
  const running = await run(undefined, { settings: settingsOf({ conceal, signUp: true, secondFactor }) })
  const { admin, anyone } = running
  const key = await admin.device({ users: ['sam'] })
  const device: Somebody = { role: 'device', client: key, account_id: 'device-7', again: async () => key }
  const nobody: Somebody = { role: 'nobody', client: anyone, account_id: 'anonymous', again: async () => anyone }
  const people = await Promise.all(
    (['patient', 'therapist', 'researcher', 'analyst', 'admin'] as const).map(async (role): Promise<Somebody> => {
      const client = await admin.account({ role, account_id: `the-${role}` })
      return { role, client, account_id: client.account_id, again: () => anyone.signIn(client.name) }
    }),
  )
  const therapist = people.find(({ role }) => role === 'therapist') as Somebody
  for (const user_id of ['carla', 'fred']) await assign(running, user_id)
  const { body } = await admin.get('/api/v1/assignments?user_id=fred')
  await admin.post(`/api/v1/assignments/${body.assignments[0].assignment_id}/end`, {})
  await therapist.client.post('/api/v1/emergency-access', { user_id: 'emma', reason: 'nobody else is here tonight' })
  const callers = [nobody, device, ...people]
  const users = [
    ...callers.map(({ account_id }) => account_id),
    ...Object.values(whose).filter((user) => user && user !== whose.absent),
  ]
  const sessions = new Map<string, string>()
  for (const user_id of users as string[]) sessions.set(user_id, await startedFor(running, user_id))
  return { running, callers, sessions }
}

async function startedFor({ admin }: Running, user_id: string): Promise<string> {
  const { status, body } = await admin.start({ user_id, kind: 'workflow' })
  expect(status).toBe(201)
  return body.session_id
}

async function assign({ admin }: Running, user_id: string): Promise<string> {
  const { status, body } = await admin.post('/api/v1/assignments', {
    therapist_id: 'the-therapist',
    user_id,
    relationship_type: 'primary',
  })
  expect(status).toBe(201)
  return body.assignment_id
}

// --- what is asked --------------------------------------------------------------------------------------------------------

/** What a request is made of. */
interface Cell {
  world: World
  caller: Somebody
  user_id: string
  session_id: string
  there: boolean
}

interface Example {
  /** Does it concern a user, something that a user does not have and that is there or not, or nothing in particular? */
  of: 'user' | 'thing' | 'nothing'
  /** What stands in the place of the path's names, and what is sent. */
  asks?: (on: Cell) => { path?: Record<string, string>; body?: object } | Promise<{ path?: Record<string, string>; body?: object }>
  /** The answer to whoever may, and to them where it is not there. */
  done: string
  absent?: string
  /** Is it looked for before the policy is asked, so that everybody is told that it is not there? */
  looks?: true
  /** Asked by a sign-in of its own, since it may end it. */
  apart?: true
}

const NO_SESSION = '404 session-not-found'
const readsSession: Example = {
  of: 'user',
  asks: ({ session_id }) => ({ path: { session_id } }),
  done: '200',
  absent: NO_SESSION,
  looks: true,
}
const madeAccount = async ({ world }: Cell) => {
  const { body } = await world.running.admin.post('/api/v1/accounts', {
    name: `somebody-${++made}@sessile.example`,
    role: 'patient',
  })
  return body as { account_id: string; token: string }
}
let made = 0
const ofAccount = (body: object, change: (cell: Cell, account_id: string) => Promise<unknown> = async () => {}): Example => ({
  of: 'thing',
  asks: async (cell) => {
    const { account_id } = await madeAccount(cell)
    await change(cell, account_id)
    return { path: { account_id: cell.there ? account_id : 'nobody-there' }, body }
  },
  done: '200',
  absent: '404 account-not-found',
})

/** One request for every route: a new route has one here, or this test fails. */
const examples: Record<string, Example> = {
  'GET /api/v1/sessions': { of: 'nothing', done: '200' },
  'GET /api/v1/users/{user_id}/sessions': {
    of: 'user',
    asks: ({ user_id }) => ({ path: { user_id } }),
    done: '200',
  },
  'GET /api/v1/users/{user_id}/access': { of: 'user', asks: ({ user_id }) => ({ path: { user_id } }), done: '200' },
  'GET /api/v1/audit': { of: 'nothing', done: '200' },
  'GET /api/v1/sessions/{session_id}': readsSession,
  'GET /api/v1/sessions/{session_id}/records': readsSession,
  'GET /api/v1/sessions/{session_id}/timeline': readsSession,
  'POST /session_manager/sessions.start': {
    of: 'user',
    asks: ({ user_id, caller, there }) => ({
      body: { user_id: there ? user_id : `${user_id}-${++made}`, performer_id: caller.account_id, kind: 'workflow' },
    }),
    done: '201',
  },
  'POST /session_manager/sessions.end': {
    of: 'user',
    asks: async ({ world, user_id, session_id, caller, there }) => ({
      body: { user_id, performer_id: caller.account_id, session_id: there ? await startedFor(world.running, user_id) : session_id },
    }),
    done: '200',
    absent: NO_SESSION,
  },
  'POST /session_manager/sessions.validate': {
    of: 'user',
    asks: ({ user_id, session_id }) => ({ body: { user_id, session_id } }),
    done: '200',
  },
  'POST /api/v1/sessions/{session_id}/records': {
    of: 'user',
    asks: ({ user_id, session_id, caller }) => ({
      path: { session_id },
      body: said('hello', { user_id, performer_id: caller.account_id }),
    }),
    done: '201',
    absent: NO_SESSION,
  },
  'GET /api/v1/keys': { of: 'nothing', done: '200' },
  'POST /api/v1/keys': { of: 'nothing', asks: () => ({ body: { account_id: 'device-9', users: ['ada'] } }), done: '201' },
  'POST /api/v1/keys/{key_id}/revoke': {
    of: 'thing',
    asks: async ({ world, there }) => {
      const { body } = await world.running.admin.post('/api/v1/keys', { account_id: 'device-9', users: ['ada'] })
      return { path: { key_id: there ? body.key_id : 'key_nobody' }, body: {} }
    },
    done: '200',
    absent: '404 key-not-found',
  },
  'GET /api/v1/assignments': { of: 'nothing', done: '200' },
  'POST /api/v1/assignments': {
    of: 'nothing',
    asks: () => ({ body: { therapist_id: 'the-therapist', user_id: `user-${++made}`, relationship_type: 'primary' } }),
    done: '201',
  },
  'POST /api/v1/assignments/{assignment_id}/end': {
    of: 'thing',
    asks: async ({ world, there }) => ({
      path: { assignment_id: there ? await assign(world.running, `user-${++made}`) : 'asg_nobody' },
      body: {},
    }),
    done: '200',
    absent: '404 assignment-not-found',
  },
  'GET /api/v1/emergency-access': { of: 'nothing', done: '200' },
  'POST /api/v1/emergency-access': {
    of: 'thing',
    asks: ({ there }) => ({ body: { user_id: there ? 'gert' : `user-${++made}`, reason: 'nobody else is here tonight' } }),
    done: '201',
  },
  'GET /api/v1/accounts': { of: 'nothing', done: '200' },
  'POST /api/v1/accounts': {
    of: 'nothing',
    asks: () => ({ body: { name: `somebody-${++made}@sessile.example`, role: 'patient' } }),
    done: '201',
  },
  'POST /api/v1/accounts/{account_id}/invite': { ...ofAccount({}), done: '201' },
  'POST /api/v1/accounts/{account_id}/deactivate': ofAccount({}),
  'POST /api/v1/accounts/{account_id}/reactivate': ofAccount({}, ({ world }, account_id) =>
    world.running.admin.post(`/api/v1/accounts/${account_id}/deactivate`, {}),
  ),
  'POST /api/v1/accounts/{account_id}/role': ofAccount({ role: 'analyst' }),
  'GET /api/v1/account': { of: 'nothing', done: '200' },
  'POST /api/v1/account/password': {
    of: 'nothing',
    asks: () => ({ body: { password: 'not the one that it is', new_password: PASSWORD } }),
    done: '403 password-wrong',
  },
  'POST /api/v1/account/totp': { of: 'nothing', asks: () => ({ body: { password: PASSWORD } }), done: '201' },
  'POST /api/v1/account/totp/confirm': {
    of: 'nothing',
    asks: () => ({ body: { code: 'not-the-one' } }),
    done: '403 code-wrong',
    absent: '404 factor-not-found',
  },
  'POST /api/v1/account/totp/remove': {
    of: 'nothing',
    asks: () => ({ body: { password: PASSWORD, code: 'not-the-one' } }),
    done: '404 factor-not-found',
  },
  'POST /api/v1/accounts/{account_id}/totp/remove': {
    ...ofAccount({}),
    done: '404 factor-not-found',
    absent: '404 factor-not-found',
  },
  'POST /api/v1/account/signins/{signin_id}/end': {
    of: 'thing',
    asks: async ({ caller, there }) => ({
      path: {
        signin_id: there ? (((await caller.again()) as Client & { signin_id?: string }).signin_id ?? 'sign_nobody') : 'sign_nobody',
      },
      body: {},
    }),
    done: '200',
    absent: '404 signin-not-found',
  },
  'POST /api/v1/sign-out': { of: 'nothing', asks: () => ({ body: {} }), done: '200', apart: true },
  'POST /api/v1/sign-in': {
    of: 'nothing',
    asks: () => ({ body: { name: 'nobody@sessile.example', password: PASSWORD } }),
    done: '401 sign-in-failed',
  },
  'POST /api/v1/sign-up': {
    of: 'nothing',
    asks: () => ({ body: { name: `somebody-${++made}@sessile.example`, password: PASSWORD } }),
    done: '200',
  },
  'POST /api/v1/refresh': { of: 'nothing', asks: () => ({ body: { refresh_token: 'none' } }), done: '401 refresh-failed' },
  'POST /api/v1/identity/begin': { of: 'nothing', asks: () => ({ body: {} }), done: '409 identity-off' },
  'POST /api/v1/identity/finish': { of: 'nothing', asks: () => ({ body: { code: 'x', state: 'x' } }), done: '409 identity-off' },
  'POST /api/v1/invitations/accept': {
    of: 'thing',
    asks: async (cell) => ({ body: { token: cell.there ? (await madeAccount(cell)).token : 'invite_none', password: PASSWORD } }),
    done: '200',
    absent: '404 invitation-not-found',
  },
}

// --- what the page says ---------------------------------------------------------------------------------------------------

const routes = new Map<string, Action>(
  [...features.queries, ...features.commands].flatMap(({ at, may }) => (at ? [[at, may]] : [])),
)

/** Whose data each reach of the page means. */
const reached: Record<(typeof policy)[Action][Role], readonly Whose[]> = {
  '–': [],
  pseudonymous: [],
  open: [],
  self: ['own'],
  'in scope': ['scoped'],
  assigned: ['assigned', 'emergency'],
  all: Object.keys(whose) as Whose[],
}

/** The answer that the page promises. */
function promised(
  at: string,
  role: Role,
  { of, done, absent = done, looks }: Example,
  subject: Whose | 'there',
  [conceal, secondFactor]: [boolean, SecondFactor],
): string {
  const action = routes.get(at) as Action
  const reach = policy[action][role]
  const signsIn = !['nobody', 'device'].includes(role)
  const demanded = signsIn && (secondFactor === 'all' || (secondFactor === 'staff' && role !== 'patient'))
  if (demanded && !withoutFactor.includes(action)) return '403 second-factor-missing'
  const answered = subject === 'absent' ? absent : done
  if (reach === 'open') return answered
  if (role === 'nobody') return '401 unauthenticated'
  const may = of === 'user' ? reached[reach].includes(subject as Whose) : reached[reach].length > 0
  if (may || (looks && subject === 'absent')) return answered
  return conceal ? `404 ${/^404 (.*)/.exec(absent)?.[1] ?? 'not-found'}` : '403 forbidden'
}

const subjectsOf = ({ of }: Example): (Whose | 'there')[] =>
  of === 'user' ? (Object.keys(whose) as Whose[]) : of === 'thing' ? ['there', 'absent'] : ['there']

interface Answered {
  row: string
  status: number
  body: Json
  /** Everything by which one answer could be told from another. */
  bytes: string
}

async function ask(world: World, at: string, example: Example, caller: Somebody, subject: Whose | 'there'): Promise<Answered> {
  const there = subject !== 'absent'
  const user_id = (subject === 'there' ? undefined : whose[subject]) ?? caller.account_id
  const session_id = world.sessions.get(user_id) ?? 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
  const { path = {}, body } = (await example.asks?.({ world, caller, user_id, session_id, there })) ?? {}
  const [method, route] = at.split(' ') as [string, string]
  const client = example.apart ? await caller.again() : caller.client
  const response = await client.raw(
    method,
    route.replace(/\{(\w+)\}/g, (_, name: string) => encodeURIComponent(path[name] as string)),
    {
      headers: { 'x-request-id': 'one', ...(body ? { 'content-type': 'application/json' } : {}) },
      ...(body ? { body: JSON.stringify(body) } : {}),
    },
  )
  const text = await response.text()
  const told = JSON.parse(text) as Json
  // How many requests are left, and when it is, has nothing to do with what was asked for.
  const headers = [...response.headers].filter(([name]) => !['date', 'ratelimit'].includes(name))
  const { status } = response
  const outcome = status < 400 ? `${status}` : `${status} ${told.reason}`
  return {
    row: `${at} by ${caller.role} of ${subject}: ${outcome}`,
    status,
    body: told,
    bytes: JSON.stringify([status, headers, text]),
  }
}

describe('the policy page', () => {
  it('knows every route of the contract, and so do the examples', async () => {
    const { anyone } = await run()
    const { body } = await anyone.get('/openapi.json')
    const contract = Object.entries<object>(body.paths).flatMap(([path, operations]) =>
      Object.keys(operations).map((method) => `${method.toUpperCase()} ${path}`),
    )
    expect([...routes.keys()].sort()).toEqual(contract.sort())
    expect(Object.keys(examples).sort()).toEqual(contract)
    for (const [at, may] of routes) for (const role of roles) expect([at, policy[may][role]]).toEqual([at, expect.any(String)])
  })

  it.each<[boolean, SecondFactor]>([
    [false, 'off'],
    [true, 'off'],
    [true, 'staff'],
    [false, 'all'],
  ])(
    'is what the door does, to everybody, about everything (concealed: %s; a second factor is demanded of: %s)',
    async (conceal, secondFactor) => {
      const world = await makeWorld(conceal, secondFactor)
      const [answers, pages]: [string[], string[]] = [[], []]
      for (const [at, example] of Object.entries(examples)) {
        for (const caller of world.callers) {
          const told: Answered[] = []
          for (const subject of subjectsOf(example)) {
            const answered = await ask(world, at, example, caller, subject)
            told.push(answered)
            answers.push(answered.row)
            pages.push(
              `${at} by ${caller.role} of ${subject}: ${promised(at, caller.role, example, subject, [conceal, secondFactor])}`,
            )
          }
          // What is out of reach and what is not there is told alike, to the last byte.
          const refusals = new Set(told.flatMap(({ status, bytes }) => (status === 404 ? [bytes] : [])))
          if (conceal) expect([at, caller.role, [...refusals].slice(1)]).toEqual([at, caller.role, []])
        }
      }
      expect(answers).toEqual(pages)
      expect(answers.length).toBeGreaterThan(500)
    },
    180_000,
  )

  it('bounds what lists show', async () => {
    const world = await makeWorld(false)
    const { callers, sessions } = world
    for (const { role, client, account_id } of callers) {
      const within = reached[policy.read[role]].map((subject) => whose[subject] ?? account_id)
      if (within.length === 0) continue
      const { body } = await client.get('/api/v1/sessions?limit=200')
      const shown = new Set(body.sessions.map(({ user_id }: Json) => user_id))
      expect([role, [...shown].sort()]).toEqual([role, role === 'admin' ? [...sessions.keys()].sort() : within.sort()])
    }
  })

  it.each([false, true])('gives nobody a session under another name than its user’s (concealed: %s)', async (conceal) => {
    const world = await makeWorld(conceal)
    const within: Partial<Record<Role, string>> = { device: 'sam', patient: 'the-patient', therapist: 'carla', admin: 'eve' }
    for (const { role, client, account_id } of world.callers) {
      const user_id = within[role]
      if (user_id === undefined) continue
      const foreign = world.sessions.get('fred') as string
      const named = { user_id, performer_id: account_id }
      const told = async (session_id: string) => {
        const answers = [
          await client.post('/session_manager/sessions.end', { ...named, session_id }, ID),
          await client.append(session_id, said('hello', named), ID),
          await client.append(session_id, [said('hello', named), said('hello', named)], ID),
          await client.post('/session_manager/sessions.validate', { user_id, session_id }, ID),
        ]
        return answers.map(({ status, body }) => ({ status, body }))
      }
      const [there, absent] = [await told(foreign), await told('sess_01ARZ3NDEKTSV4RRFFQ69G5FAV')]
      expect(absent.map(({ status, body }) => `${status} ${body.reason ?? body.status}`)).toEqual([
        ...Array(3).fill(NO_SESSION),
        '200 invalid',
      ])
      if (conceal) expect(there).toEqual(absent)
      else expect(there.slice(0, 3).map(({ body }) => body.reason)).toEqual(Array(3).fill('session-user-mismatch'))
      expect(there[3]).toEqual(absent[3])
    }
  })

  it.each([false, true])('tells of a lost log those alone whose session it is (concealed: %s)', async (conceal) => {
    const running = await run(undefined, { settings: settingsOf({ conceal }) })
    const { key } = await running.admin.device({ users: ['ada'] })
    const lost = await startedFor(running, 'eve')
    await running.stop()
    const file = sessionFile(running.home, lost, 'eve')
    writeFileSync(file, readFileSync(file, 'utf8').replace('"kind":"workflow"', '"kind":"workfloe"'))
    rmSync(join(running.home, 'projections'), { recursive: true })
    const again = await running.restart()
    const device = new Client(again.url, key)
    const named = { user_id: 'ada', performer_id: 'device-7' }
    const truth = 'session-user-mismatch'
    const [status, reason] = conceal ? [404, 'session-not-found'] : [403, truth]
    await refused(again, () => device.post('/session_manager/sessions.end', { ...named, session_id: lost }), status, reason, truth)
    await refused(again, () => device.append(lost, said('hello', named)), status, reason, truth)
    const asked = await device.post('/session_manager/sessions.validate', { user_id: 'ada', session_id: lost })
    expect(asked.body).toEqual({ status: 'invalid' })
    await refused(again, () => again.admin.end({ user_id: 'eve', session_id: lost }), 503, 'log-damaged')
  })

  it('says what a caller may not say of themselves also where it conceals', async () => {
    const world = await makeWorld(true)
    const [patient, device] = ['patient', 'device'].map((role) => world.callers.find((one) => one.role === role) as Somebody)
    const own = { user_id: 'the-patient', kind: 'workflow' }
    const by = (performer_id: string) => () => (patient as Somebody).client.start({ ...own, performer_id })
    await refused(world.running, by('somebody-else'), 403, 'not-yourself')
    await refused(world.running, by('system'), 403, 'not-the-system')
    const asSystem = { user_id: 'sam', kind: 'workflow', performer_id: 'system' }
    await refused(world.running, () => (device as Somebody).client.start(asSystem), 403, 'not-the-system')
    const remove = () =>
      (patient as Somebody).client.post('/api/v1/account/totp/remove', { password: PASSWORD, code: 'none-at-all' })
    const { detail } = await refused(world.running, remove, 404, 'factor-not-found')
    expect(detail).not.toMatch(/that you may reach/)
    const accept = () => world.running.anyone.post('/api/v1/invitations/accept', { token: 'invite_none', password: PASSWORD })
    expect((await refused(world.running, accept, 404, 'invitation-not-found')).detail).not.toMatch(/that you may reach/)
  })

  it('lets nobody who signs in record in another’s name, nor anybody record for one more user than they reach', async () => {
    const world = await makeWorld(false)
    const within: Partial<Record<Role, string>> = { device: 'sam', patient: 'the-patient', therapist: 'carla' }
    for (const { role, client, account_id } of world.callers) {
      const user_id = within[role]
      if (user_id === undefined) continue
      const session_id = world.sessions.get(user_id) as string
      const mine = said('hello', { user_id, performer_id: account_id })
      const both = () => client.append(session_id, [mine, { ...mine, user_id: 'eve' }])
      await refused(world.running, both, 403, 'forbidden')
      const forged = () => client.append(session_id, [mine, { ...mine, performer_id: 'the-analyst' }])
      if (role === 'device') expect((await forged()).status).toBe(201)
      else await refused(world.running, forged, 403, 'not-yourself')
    }
  })
})

const ID = { 'x-request-id': 'one' }
