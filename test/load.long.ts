// Load with the numbers of a bad day. Each number can be raised: SESSILE_TEST_CONNECTIONS, SESSILE_TEST_FOLLOWERS,
// SESSILE_TEST_FLOOD. What it measures it prints; it asserts only what holds on any machine.
//
//   npm run torture:load

import { beforeAll, describe, expect, it } from 'vitest'
import {
  askOnce,
  descriptorsOf,
  everything,
  Follower,
  followers,
  head,
  KeptOpen,
  loadOf,
  long,
  memoryOf,
  needConnections,
  numbers,
  socketTo,
  until,
  vanish,
  vanishings,
  wait,
} from './crowd.ts'
import { ADMIN, type Apart, Client, cli, type Json, makeHome, said, serveApart, withFiles } from './harness.ts'

const CONNECTIONS = Number(process.env.SESSILE_TEST_CONNECTIONS ?? 1000)
const FOLLOWERS = Number(process.env.SESSILE_TEST_FOLLOWERS ?? 10_000)
const FLOOD = Number(process.env.SESSILE_TEST_FLOOD ?? 200)
const MINUTES = 60_000
const QUIET = { SESSILE_LOG_LEVEL: 'warn' }

const tell = (what: string) => process.stderr.write(`${what}\n`)

async function stopsClean(apart: Apart, home: string): Promise<void> {
  apart.child.kill('SIGTERM')
  expect(await apart.ended).toBe(0)
  expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
  expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
}

const clear = (apart: Apart, home: string) =>
  until(
    'something is left',
    () => loadOf(home, apart.url),
    (load: Json) => Object.values(load).every((count) => count === 0),
  )

/** What somebody on a connection of their own does, and what they were told was recorded. */
async function call(url: string, user_id: string, rounds: number, ledger: Map<string, string[]>): Promise<void> {
  const line = await KeptOpen.to(url)
  const must = async (...[method, path, body]: Parameters<KeptOpen['ask']>) => {
    const answer = await line.ask(method, path, body)
    if (answer === undefined || answer.status >= 300)
      throw new Error(`${path} answered ${answer?.status} ${JSON.stringify(answer?.body)}`)
    return answer.body
  }
  const { session_id } = await must('POST', '/session_manager/sessions.start', { user_id, performer_id: 'device-7' })
  const texts: string[] = []
  ledger.set(session_id, texts)
  for (let i = 0; i < rounds; i++) {
    await must('POST', `/api/v1/sessions/${session_id}/records`, said(`${user_id} ${i}`, { user_id }))
    texts.push(`${user_id} ${i}`)
    if (i % 3 === 0) expect((await must('GET', `/api/v1/sessions/${session_id}/records`)).records).toHaveLength(i + 2)
  }
  line.close()
}

describe(`${CONNECTIONS} callers`, () => {
  beforeAll(() => needConnections(Math.ceil((CONNECTIONS * 4) / 3)))

  it(
    'are served beside slow senders, and nothing that was acknowledged is missing',
    async () => {
      const home = makeHome()
      const apart = await serveApart(home, { ...QUIET, SESSILE_PATIENCE_SECONDS: '5' })
      const before = descriptorsOf(apart)
      const slow = await Promise.all(Array.from({ length: Math.ceil(CONNECTIONS / 3) }, () => socketTo(apart.url)))
      let cutOff = 0
      for (const socket of slow) {
        socket.on('data', (data) => {
          if (/^HTTP\/1.1 408 /.test(String(data))) cutOff++
        })
      }
      const body = JSON.stringify(said('slow'))
      let at = 0
      for (const [i, socket] of slow.entries()) {
        if (i % 2 === 0)
          socket.write(
            head('POST', '/session_manager/sessions.start', { 'Content-Type': 'application/json', 'Content-Length': 5000 }),
          )
      }
      const headers = 'GET /api/v1/sessions HTTP/1.1\r\nHost: x\r\nX-Slow: '.padEnd(5000, 'x')
      const dripping = setInterval(() => {
        for (const [i, socket] of slow.entries())
          if (socket.writable) socket.write((i % 2 === 0 ? body : headers).charAt(at % 200) || ' ')
        at++
      }, 250)
      const ledger = new Map<string, string[]>()
      const began = performance.now()
      await Promise.all(Array.from({ length: CONNECTIONS }, (_, i) => call(apart.url, `u${i}`, 12, ledger)))
      tell(
        `${CONNECTIONS} callers, ${slow.length} slow senders: ${Math.round(performance.now() - began)} ms; ${Math.round(memoryOf(apart).most)} MiB at most`,
      )
      await until(
        'slow senders are kept',
        () => cutOff,
        (count) => count === slow.length,
      )
      clearInterval(dripping)
      for (const socket of slow) socket.destroy()
      await clear(apart, home)
      await until(
        'descriptors are left',
        () => descriptorsOf(apart),
        (count) => count <= before + CONNECTIONS + 32,
      )
      expect(ledger.size).toBe(CONNECTIONS)
      for (const [session_id, texts] of ledger) {
        const records = await everything(apart, session_id)
        expect(records.slice(1).map(({ data }) => data.text)).toEqual(texts)
      }
      await stopsClean(apart, home)
    },
    5 * MINUTES,
  )

  it(
    'vanish in the middle of anything, and leave nothing behind',
    async () => {
      const home = makeHome()
      const apart = await serveApart(home, QUIET)
      const { session_id } = (await apart.admin.start()).body
      await apart.admin.append(session_id, [long(400_000), long(400_000), long(400_000)])
      const round = async (name: string, count: number) => {
        for (const [where, pieces] of Object.entries(vanishings)) {
          await vanish(apart.url, (i) => pieces(session_id, `${where} ${name}.${i}`), count)
        }
        await clear(apart, home)
        return until(
          'descriptors are left',
          () => descriptorsOf(apart),
          (open) => open < 50,
        )
      }
      await round('first', 10)
      const each = Math.ceil(CONNECTIONS / 10)
      const sizes: number[] = []
      for (let i = 0; i < 5; i++) {
        await round(`n${i}`, each)
        sizes.push(Math.round(memoryOf(apart).now))
      }
      tell(`${5 * each * Object.keys(vanishings).length} vanished: ${sizes.join(', ')} MiB after each fifth of them`)
      expect(sizes.at(-1)).toBeLessThan((sizes[0] as number) + 300)
      const texts = (await everything(apart, session_id)).map(({ data }) => String(data.text))
      const counts = new Map<string, number>()
      for (const text of texts) {
        const [, name] = /^((?:in an array|before its answer) .*)\/\d$/.exec(text) ?? []
        if (name !== undefined) counts.set(name, (counts.get(name) ?? 0) + 1)
      }
      expect([...counts.values()].filter((count) => count !== 3)).toEqual([])
      expect(counts.size).toBeGreaterThan(0)
      expect(texts.filter((text) => /^in an object|line that looks|line of a stream .*\/1/.test(text))).toEqual([])
      await stopsClean(apart, home)
    },
    5 * MINUTES,
  )
})

describe(`${FOLLOWERS} followers of one session`, () => {
  beforeAll(() => needConnections(FOLLOWERS))

  it(
    'get every record once and in order; who does not read is cut off and goes on later; the session goes on',
    async () => {
      const home = makeHome()
      const apart = await serveApart(home, { ...QUIET, SESSILE_PATIENCE_SECONDS: '5' })
      const { session_id } = (await apart.admin.start()).body
      await apart.admin.append(session_id, said('first'))
      const before = memoryOf(apart).now
      const all = await followers(FOLLOWERS, apart.url, session_id)
      const watching = memoryOf(apart).now
      tell(`${FOLLOWERS} followers: ${Math.round(((watching - before) * 1024) / FOLLOWERS)} KiB each`)
      expect(descriptorsOf(apart)).toBeGreaterThan(FOLLOWERS)
      const slow = all.filter((_, i) => i % 100 === 7)
      const quick = all.filter((_, i) => i % 100 !== 7)
      for (const one of slow) one.stopReading()
      let seq = 2
      const took: number[] = []
      const say = async (record: Json) => {
        const began = performance.now()
        const { status, body } = await askOnce(apart.url, 'POST', `/api/v1/sessions/${session_id}/records`, record)
        expect(status).toBe(201)
        took.push(performance.now() - began)
        seq = body.seq
      }
      const allHeard = (whom: Follower[]) => heard(whom, seq)
      for (let i = 0; i < 50; i++) await say(said(`n${i}`))
      for (let i = 0; i < 5; i++) await say(long(10_000))
      await allHeard(quick)
      for (const one of quick) expect(whole(one)).toBe(seq)
      // So much as buffers do not take is told to some of them only: it would be gigabytes.
      const rest = quick.splice(0, Math.min(400, quick.length))
      for (const one of quick) one.vanish()
      for (let i = 0; i < 80; i++) {
        await say(long(100_000))
        if (i % 10 === 9) await allHeard(rest)
      }
      took.sort((a, b) => a - b)
      tell(`an append meanwhile: ${took[took.length >> 1]?.toFixed(1)} ms in the middle, ${took.at(-1)?.toFixed(1)} ms at most`)
      const most = memoryOf(apart).most
      tell(`${Math.round(before)} MiB before, ${Math.round(watching)} MiB with followers, ${Math.round(most)} MiB at most`)
      expect(most).toBeLessThan(watching + 1500)
      const kept = async () => ((await loadOf(home, apart.url)) as { watchers: number }).watchers
      await until('those who do not read are kept', kept, (count) => count === rest.length)
      for (const one of rest) expect(whole(one)).toBe(seq)
      expect(slow.every(({ told }) => told.every(({ event }) => event === 'caught-up'))).toBe(true)
      const again = await Promise.all(slow.map((one) => resumed(one, apart.url, session_id, seq)))
      for (const one of [...all, ...again]) one.vanish()
      await clear(apart, home)
      await until(
        'descriptors are left',
        () => descriptorsOf(apart),
        (open) => open < 50,
      )
      await stopsClean(apart, home)
    },
    10 * MINUTES,
  )
})

const heard = (whom: Follower[], seq: number) =>
  until(
    'some have not heard',
    () => whom.filter(({ ids }) => ids.at(-1) !== seq).length,
    (left) => left === 0,
  )

/** Somebody who was cut off reads what was on its way, and goes on where that ended. */
async function resumed(one: Follower, url: string, session_id: string, seq: number): Promise<Follower> {
  one.readOn()
  await until('a slow one is kept', () => one.closed, Boolean)
  const last = whole(one)
  expect(last).toBeLessThan(seq)
  const again = await Follower.of(url, session_id, { after: last })
  await until('a resumed one has not caught up', () => again.caughtUp, Boolean)
  expect(again.ids).toEqual(numbers(last + 1, seq))
  return again
}

/** The last id that a follower has heard, having missed none. */
function whole({ ids }: Follower): number {
  if (ids.some((id, i) => id !== i + 1)) throw new Error(`heard ${ids}`)
  return ids.length
}

describe(`a flood of long arrays over ${FLOOD} connections`, () => {
  beforeAll(() => needConnections(Math.ceil(FLOOD * 1.1)))

  it(
    'into little memory is refused in part, with a word on when to come again; reads go on, and what was acknowledged is there once',
    async () => {
      const home = makeHome()
      const apart = await serveApart(home, { ...QUIET, NODE_OPTIONS: '--max-old-space-size=160' })
      const sessions: string[] = []
      for (let i = 0; i < 20; i++) sessions.push((await apart.admin.start({ user_id: `u${i}` })).body.session_id)
      const outcomes = new Map<string, boolean>()
      const statuses = new Map<string, number>()
      let over = false
      // On a connection that is kept open: new ones are let in one with each turn, and the flood's own stand in line.
      const reading = (async () => {
        const took: number[] = []
        let line = await KeptOpen.to(apart.url)
        const small = said('small', { user_id: 'u0' })
        while (!over) {
          if (line.closed) line = await KeptOpen.to(apart.url)
          const began = performance.now()
          const answers = [
            await line.ask('GET', '/api/v1/sessions'),
            await line.ask('POST', `/api/v1/sessions/${sessions[0]}/records`, small),
          ]
          expect(
            answers.map((answer) => answer?.status ?? 'closed').filter((status) => ![200, 201, 'closed'].includes(status)),
          ).toEqual([])
          took.push(Math.round(performance.now() - began))
        }
        line.close()
        return took.sort((one, other) => one - other)
      })()
      const flood = async (i: number) => {
        const [session_id, user_id] = [sessions[i % 20] as string, `u${i % 20}`]
        const line = await KeptOpen.to(apart.url)
        const name = `f${i}`
        const array = Array.from({ length: 200 }, (_, n) => ({
          ...long(15_000, { user_id }),
          source: `s${n}`,
          data: { name, n, ...long(15_000).data },
        }))
        const answer = await line.ask('POST', `/api/v1/sessions/${session_id}/records`, array)
        const outcome = answer === undefined ? 'broken off' : `${answer.status} ${answer.body.reason ?? ''}`
        statuses.set(outcome, (statuses.get(outcome) ?? 0) + 1)
        if (answer?.status === 503) expect(answer.headers).toMatch(/retry-after: [1-9]/i)
        if (answer !== undefined) outcomes.set(name, answer.status === 201)
        line.close()
      }
      const streams = Array.from({ length: Math.ceil(FLOOD / 10) }, (_, i) =>
        stream(apart.url, sessions[i % 20] as string, `u${i % 20}`, i),
      )
      await Promise.all(Array.from({ length: FLOOD }, (_, i) => flood(i)))
      const streamed = (await Promise.all(streams)).flat()
      tell(`${streamed.length} lines of streams were recorded meanwhile`)
      over = true
      const memory = memoryOf(apart)
      const took = await reading
      expect(took.length).toBeGreaterThan(0)
      tell(
        `a flood: ${JSON.stringify(Object.fromEntries(statuses))}, ${took.length} reads and small records meanwhile, ${took[took.length >> 1]} ms in the middle, ${took.at(-1)} ms at most; ${Math.round(memory.most)} MiB at most`,
      )
      expect(memory.most).toBeLessThan(1000)
      expect([...statuses.keys()].filter((outcome) => !/^201|^503|^broken off/.test(outcome))).toEqual([])
      await clear(apart, home)
      expect((await apart.admin.append(sessions[1] as string, said('after', { user_id: 'u1' }))).status).toBe(201)
      const counts = new Map<string, number>()
      for (const session_id of sessions) {
        for (const { data } of await everything(apart, session_id))
          if (data.name) counts.set(data.name, (counts.get(data.name) ?? 0) + 1)
      }
      for (const name of streamed) {
        expect([name, counts.get(name)]).toEqual([name, 1])
        counts.delete(name)
      }
      for (const [name, recorded] of outcomes) expect([name, counts.get(name) ?? 0]).toEqual([name, recorded ? 200 : 0])
      expect([...counts.values()].filter((count) => count !== 200)).toEqual([])
      await stopsClean(apart, home)
    },
    5 * MINUTES,
  )
})

/** Sends a stream of long lines; returns the names of those that were recorded. Where it is refused, a line says so. */
async function stream(url: string, session_id: string, user_id: string, i: number): Promise<string[]> {
  const lines = Array.from({ length: 100 }, (_, n) => {
    const { data, ...record } = long(30_000, { user_id })
    return JSON.stringify({ ...record, data: { name: `s${i}.${n}`, ...data } })
  })
  const response = await new Client(url, ADMIN).raw('POST', `/api/v1/sessions/${session_id}/records`, {
    body: `${lines.join('\n')}\n`,
    headers: { 'content-type': 'application/x-ndjson' },
  })
  expect(response.status).toBe(200)
  const answers = (await response.text())
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Json)
  expect(answers).toHaveLength(lines.length)
  for (const { reason, name } of answers) expect(reason).toBe(name === undefined ? 'overloaded' : undefined)
  return answers.flatMap(({ name }) => (name === undefined ? [] : [name as string]))
}

describe('few descriptors', () => {
  beforeAll(() => needConnections(300))

  it(
    'are kept for the recorder: nothing acknowledged is lost while hundreds press in, and it ends clean',
    async () => {
      const home = makeHome()
      const apart = await serveApart(home, QUIET, [], withFiles(256))
      const recorded: string[] = []
      const statuses = new Map<string, number>()
      const press = async (i: number) => {
        for (let round = 0; round < 4; round++) {
          try {
            const line = await KeptOpen.to(apart.url)
            const user_id = `u${i}.${round}`
            const answer = await line.ask('POST', '/session_manager/sessions.start', { user_id, performer_id: 'device-7' })
            const outcome = answer === undefined ? 'broken off' : `${answer.status} ${answer.body.reason ?? ''}`
            statuses.set(outcome, (statuses.get(outcome) ?? 0) + 1)
            if (answer?.status === 201) recorded.push(answer.body.session_id)
            await wait(20)
            line.close()
          } catch {
            statuses.set('refused', (statuses.get('refused') ?? 0) + 1)
          }
        }
      }
      await Promise.all(Array.from({ length: 300 }, (_, i) => press(i)))
      tell(`few descriptors: ${JSON.stringify(Object.fromEntries(statuses))}`)
      expect([...statuses.keys()].filter((outcome) => !/^201|^503 overloaded|^broken off|^refused/.test(outcome))).toEqual([])
      expect(recorded.length).toBeGreaterThan(100)
      await until(
        'nobody is let in',
        () =>
          apart.admin.get('/healthz').then(
            ({ status }) => status,
            () => 0,
          ),
        (status) => status === 200,
      )
      for (const session_id of recorded) expect(await everything(apart, session_id)).toHaveLength(1)
      await stopsClean(apart, home)
    },
    5 * MINUTES,
  )
})
