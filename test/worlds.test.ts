// Two worlds that differ in nothing but data which a caller may not see look the same to that caller: every route that
// reads, under every filter, page by page, is answered alike, byte by byte. Time and ids are told by the test, so that
// nothing else differs, either.

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { Events } from '../src/core/event.ts'
import type { Source } from '../src/core/ids.ts'
import { features } from '../src/features/index.ts'
import { settingsOf } from './config.ts'
import { Client, clockAt, type Json, type Running, run, said, sessionFile } from './harness.ts'

/** In these worlds what vendors record is clinical. */
const events = new Events(
  features.events.all.map((event) => (event.type === 'x.open' ? { ...event, sensitivity: 'clinical' } : event)),
)
const gathered = { ...features, events }

type Part = 'seen' | 'unseen'

/** A clock that stands still, and ids that tell in which part of the story they were drawn, and as the how-manieth there. */
function storyteller(): Source & { part: Part; move: (seconds: number) => void } {
  const drawn = { seen: 0, unseen: 0 }
  const clock = clockAt('2031-05-02T09:00:00Z')
  const next = (letters: number, base: number) => {
    const number = (++drawn[teller.part])
      .toString(base)
      .toUpperCase()
      .padStart(letters - 1, '0')
    return (teller.part === 'seen' ? 'A' : 'B') + number
  }
  const teller = {
    ...clock,
    part: 'seen' as Part,
    uuid: () => `00000000-0000-4000-8000-${next(12, 16).toLowerCase()}`,
    // Of a time and a number, both of digits alone: those are letters of a ULID, too.
    ulid: (at: number) => String(Math.floor(at / 1000)).padStart(10, '0') + next(16, 10),
    secret: () => next(43, 10),
  }
  return teller
}

interface World {
  running: Running
  clients: Map<string, Client>
  /** Sessions by what the story calls them. */
  sessions: Map<string, string>
}

interface Differing {
  /** Are there others, with whom none of the callers has anything to do? */
  others?: boolean
  /** Has somebody written clinical records of the patient? */
  clinical?: boolean
  conceal?: boolean
}

const note = (user_id: string) => said('', { type: 'x.acme.note', source: 'acme', user_id, data: { suspects: 'nothing good' } })
const flagged = (user_id: string) => said('', { type: 'crisis.flagged', source: 'classifier', user_id, data: {} })

/** Tells the same story each time, with or without what is unseen. */
class Story {
  readonly source = storyteller()
  readonly sessions = new Map<string, string>()
  running!: Running
  readonly #differing: Differing

  constructor(differing: Differing) {
    this.#differing = differing
  }

  async aside(what: 'others' | 'clinical', happens: (running: Running) => Promise<unknown>): Promise<void> {
    if (!this.#differing[what]) return
    this.source.part = 'unseen'
    await happens(this.running)
    this.source.part = 'seen'
  }

  async session(user_id: string, kind: string, what: object[] = [], ends = false): Promise<void> {
    const { admin } = this.running
    const started = await admin.start({ user_id, kind })
    expect(started.status).toBe(201)
    const { session_id } = started.body
    this.sessions.set(`${user_id} ${kind}`, session_id)
    for (const record of [said('hello', { user_id }), ...what]) expect((await admin.append(session_id, record)).status).toBe(201)
    if (ends) expect((await admin.end({ user_id, session_id, reason: 'disconnected' })).status).toBe(200)
  }

  async assign(therapist_id: string, user_id: string): Promise<void> {
    const { status } = await this.running.admin.post('/api/v1/assignments', { therapist_id, user_id, relationship_type: 'primary' })
    expect(status).toBe(201)
  }
}

async function makeWorld(differing: Differing): Promise<World> {
  const story = new Story(differing)
  const { source } = story
  const settings = settingsOf({ conceal: differing.conceal ?? false })
  story.running = await run(undefined, { settings }, source, { gathered })
  const { admin } = story.running
  const others = (happens: (running: Running) => Promise<unknown>) => story.aside('others', happens)
  await others(async ({ admin }) => {
    await admin.account({ account_id: 'eve', name: 'eve@sessile.example' })
    await admin.account({ account_id: 'theo', role: 'therapist', name: 'theo@sessile.example' })
    await admin.device({ account_id: 'device-9', users: ['eve'] })
    await story.assign('theo', 'eve')
    await story.session('eve', 'capture', [], true)
  })
  const people = { ada: 'patient', thea: 'therapist', rea: 'researcher', ann: 'analyst' }
  for (const [account_id, role] of Object.entries(people))
    await admin.account({ account_id, role, name: `${account_id}@sessile.example` })
  const device = await admin.device({ users: ['sam', 'tom'] })
  for (const user_id of ['carla', 'tom']) await story.assign('thea', user_id)
  for (const [i, kind] of ['capture', 'voice', 'video', 'therapy', 'workflow'].entries()) {
    for (const user_id of ['ada', 'carla', 'sam']) {
      source.move(7)
      await story.session(user_id, kind, i === 1 ? [flagged(user_id)] : [], i % 2 === 0)
      await others(() => story.session('eve', `${kind === 'capture' ? 'therapy' : kind}`, [flagged('eve')]).catch(() => {}))
    }
    const session_id = story.sessions.get(`ada ${kind}`) as string
    if (i % 2 === 1) await story.aside('clinical', ({ admin }) => admin.append(session_id, [note('ada'), note('ada')]))
    if (i % 2 === 1) expect((await admin.append(session_id, said('and then', { user_id: 'ada' }))).status).toBe(201)
  }
  await admin.get('/api/v1/users/ada/sessions')
  await admin.get(`/api/v1/sessions/${story.sessions.get('ada voice')}/records`)
  await others(async ({ admin, anyone }) => {
    await admin.get('/api/v1/users/eve/sessions')
    const theo = await anyone.signIn('theo@sessile.example')
    await theo.get('/api/v1/sessions')
    await theo.get(`/api/v1/sessions/${story.sessions.get('eve therapy')}`)
    await theo.get(`/api/v1/sessions/${story.sessions.get('ada voice')}`)
    await theo.get('/api/v1/users/ada/access')
    await theo.post('/api/v1/emergency-access', { user_id: 'bob', reason: 'somebody must see to it' })
  })
  await admin.get(`/api/v1/sessions/${story.sessions.get('ada voice')}`)
  story.running = await madeAnew(story, differing)
  const clients = new Map([['device', new Client(story.running.url, device.key)]])
  for (const name of Object.keys(people)) clients.set(name, await story.running.anyone.signIn(`${name}@sessile.example`))
  return { running: story.running, clients, sessions: story.sessions }
}

/** Starts it again from its logs alone; of the others, one log has been damaged from its first line on. */
async function madeAnew({ running, sessions }: Story, { others = false }: Differing): Promise<Running> {
  await running.stop()
  if (others) {
    const file = sessionFile(running.home, sessions.get('eve capture') as string, 'eve')
    writeFileSync(file, readFileSync(file, 'utf8').replace('"kind":"capture"', '"kind":"captore"'))
  }
  rmSync(join(running.home, 'projections'), { recursive: true })
  return running.restart()
}

// --- what is asked --------------------------------------------------------------------------------------------------------

const USERS = ['ada', 'carla', 'eve', 'nobody-there']
const filters = [
  ...[
    '',
    'mode=voice',
    'mode=video',
    'status=active',
    'status=closed',
    'status=closed&kind=therapy',
    'limit=1',
    'limit=2',
    'offset=3&limit=4',
  ],
  ...['capture', 'voice', 'video', 'therapy', 'workflow'].map((kind) => `kind=${kind}`),
  ...['from=2031-05-02T09:00:40Z', 'to=2031-05-02T09:00:40Z', 'from=2031-05-02&to=2031-05-02T09:01:00Z&limit=3', 'cursor=AAAA'],
]
const ofSession = ['', 'after=2', 'limit=2', 'after=1&limit=1']

/** For every route that reads, what is asked there: after the path, for those whom a path names. */
const questions: Record<string, string[]> = {
  'GET /api/v1/sessions': filters,
  'GET /api/v1/users/{user_id}/sessions': filters,
  'GET /api/v1/users/{user_id}/access': ['', 'limit=1', 'limit=2', 'cursor=AAAA'],
  'GET /api/v1/sessions/{session_id}': [''],
  'GET /api/v1/sessions/{session_id}/records': [...ofSession, 'follow=0'],
  'GET /api/v1/sessions/{session_id}/timeline': ofSession,
  'GET /api/v1/keys': [''],
  'GET /api/v1/accounts': ['', 'name=eve@sessile.example', 'role=patient', 'after=ada', 'limit=1'],
  'GET /api/v1/account': [''],
  'GET /api/v1/assignments': [
    '',
    'therapist_id=thea',
    'therapist_id=theo',
    'user_id=carla',
    'user_id=eve',
    'status=active',
    'limit=1',
    'cursor=AAAA',
  ],
  'GET /api/v1/emergency-access': ['', 'therapist_id=theo', 'user_id=eve', 'limit=1', 'cursor=AAAA'],
  'GET /api/v1/audit': [
    ...['', 'account=theo', 'user=eve', 'route=GET /api/v1/sessions', 'outcome=read', 'request_id=one'],
    ...['from=2031-05-02', 'to=2031-05-03', 'limit=1', 'cursor=AAAA'],
  ],
  'POST /session_manager/sessions.validate': [''],
}

interface Question {
  method: string
  path: string
  body?: object
  headers?: Record<string, string>
}

function pathsOf(route: string, sessions: string[]): string[] {
  const named = route.includes('{user_id}') ? USERS : route.includes('{session_id}') ? sessions : ['']
  return named.map((name) => route.replace(/\{\w+\}/, name))
}

/** Every question there is, about these sessions. */
function questionsOf(sessions: string[]): Question[] {
  const all = Object.entries(questions).flatMap(([at, queries]): Question[] => {
    const [method, route] = at.split(' ') as [string, string]
    if (method === 'POST')
      return USERS.flatMap((user_id) => sessions.map((session_id) => ({ method, path: route, body: { user_id, session_id } })))
    return pathsOf(route, sessions).flatMap((path) =>
      queries.map((query) => ({ method, path: path + (query && `?${encodeURI(query)}`) })),
    )
  })
  const streamed = pathsOf('/api/v1/sessions/{session_id}/records', sessions).flatMap((path): Question[] => [
    ...['', '?after=2'].map((query) => ({ method: 'GET', path: path + query, headers: { accept: 'application/x-ndjson' } })),
    ...['?follow=1', '?follow=1&after=2'].map((query) => ({ method: 'GET', path: path + query })),
  ])
  return [...all, ...streamed]
}

/** The answer, and everything by which it could be told from another, but for the seals of lines: their salt is drawn by chance. */
async function told(client: Client, { method, path, body, headers = {} }: Question): Promise<{ text: string; bytes: string }> {
  const response = await client.raw(method, path, {
    headers: { ...headers, 'x-request-id': 'one', ...(body ? { 'content-type': 'application/json' } : {}) },
    ...(body ? { body: JSON.stringify(body) } : {}),
  })
  const follows = response.headers.get('content-type') === 'text/event-stream'
  const text = follows ? await untilCaughtUp(response) : await response.text()
  const kept = [...response.headers].filter(([name]) => name !== 'date')
  const unsealed = text.replace(/,"salt":"[\w-]{22}","hash":"[\w-]{43}"\}/g, '}')
  return { text, bytes: JSON.stringify([method, path, body, headers, response.status, kept, unsealed]) }
}

const cursorIn = (text: string) => /"next_cursor":"([\w-]+)"/.exec(text)?.[1]

/** More than the callers have sessions; what was looked at grows with each page that is looked at. */
const MOST_PAGES = 6

/** All answers to a caller, page after page. */
async function everything(client: Client, sessions: string[]): Promise<string[]> {
  const answers: string[] = []
  for (const question of questionsOf(sessions)) {
    const { path } = question
    let cursor: string | undefined = ''
    for (let page = 0; cursor !== undefined && page < MOST_PAGES; page++) {
      const next: string = cursor && `${path.includes('?') ? '&' : '?'}cursor=${cursor}`
      const { text, bytes } = await told(client, { ...question, path: path + next })
      answers.push(bytes)
      cursor = cursorIn(text)
    }
  }
  return answers
}

async function untilCaughtUp(response: Response): Promise<string> {
  const reader = (response.body as ReadableStream<Uint8Array>).getReader()
  let text = ''
  while (!/event: caught-up\ndata: .*\n\n/.test(text)) text += Buffer.from((await reader.read()).value ?? []).toString()
  await reader.cancel()
  return text
}

/** What each of the worlds tells this caller. */
async function compared(worlds: [World, World], name: string, sessions: string[]): Promise<[string[], string[]]> {
  const [one, other] = worlds.map(({ clients, running }) => clients.get(name) ?? running.admin) as [Client, Client]
  return [await everything(one, sessions), await everything(other, sessions)]
}

/** Some of the callers', and one that is not there. */
const someOf = ({ sessions }: World) => [
  'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV',
  ...['ada capture', 'ada voice', 'carla therapy', 'sam workflow'].map((name) => sessions.get(name) as string),
]

describe('two worlds that differ in what a caller may not see', () => {
  it('are asked at every route that reads, by every parameter that it has', async () => {
    const { anyone } = await run()
    const { body } = await anyone.get('/openapi.json')
    expect(Object.keys(questions).sort()).toEqual(features.queries.map(({ at }) => at).sort())
    for (const [at, queries] of Object.entries(questions)) {
      const [method, path] = at.split(' ') as [string, string]
      const parameters = (body.paths[path][method.toLowerCase()].parameters ?? []).filter((one: Json) => one.in === 'query')
      for (const { name } of parameters)
        expect([at, name, queries.some((query) => `&${query}`.includes(`&${name}=`))]).toEqual([at, name, true])
    }
  })

  it.each([false, true])(
    'look the same where they differ in others’ data (concealed: %s)',
    async (conceal) => {
      const worlds: [World, World] = [await makeWorld({ conceal }), await makeWorld({ conceal, others: true })]
      const [alone, among] = worlds
      // That a session of others is there is told by a refusal of its own, unless that is concealed.
      const foreign = ['eve capture', 'eve therapy'].map((name) => among.sessions.get(name) as string)
      const sessions = [...someOf(alone), ...(conceal ? foreign : [])]
      for (const name of ['device', 'ada', 'thea', 'rea', 'ann']) {
        const [one, other] = await compared(worlds, name, sessions)
        expect([name, other]).toEqual([name, one])
        expect(one.length).toBeGreaterThan(150)
      }
      const own = await alone.clients.get('ada')?.get('/api/v1/sessions')
      expect(own?.body.sessions).toHaveLength(5)
      const [one, other] = await Promise.all(
        worlds.map(({ running }) => told(running.admin, { method: 'GET', path: '/api/v1/sessions' })),
      )
      expect(other?.text).not.toEqual(one?.text)
    },
    300_000,
  )

  it('look the same to the patient of whom clinical records were written', async () => {
    const worlds: [World, World] = [await makeWorld({}), await makeWorld({ clinical: true })]
    const sessions = someOf(worlds[0])
    const [one, other] = await compared(worlds, 'ada', sessions)
    expect(other).toEqual(one)
    const noted = { method: 'GET', path: `/api/v1/sessions/${worlds[1].sessions.get('ada voice')}/records` }
    expect((await told(worlds[1].running.admin, noted)).text).toContain('nothing good')
  }, 300_000)
})
