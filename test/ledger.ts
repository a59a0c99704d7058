// A small piece of work over HTTP, always the same, and what was answered to each request of it; then, after whatever
// happened to the process that did it, what must hold of the data directory that is left.

import { readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { readConfig } from '../src/config.ts'
import { type Client, cli, crashedCopy, filesUnder, type Json, linesIn, type Ran, type Reply, run, said } from './harness.ts'

/** Answers that say: nothing changed, and nothing of it will show up later. */
const NOTHING = ['not-recorded', 'starting', 'stopping', 'rebuilding', 'overloaded']

type Outcome = 'recorded' | 'refused' | 'unknown'

interface Asked {
  key: string
  path: string
  body: unknown
  /** Every text that it would record. */
  texts: string[]
  outcome: Outcome
  answer: Json
  /** When it was sent, in seconds. */
  sent: number
}

export class Ledger {
  readonly asked: Asked[] = []
  /** What no request may be answered with. */
  readonly wrong: string[] = []
  /** The sessions there are from the beginning. */
  readonly sessions: string[] = []

  /** A ledger that goes on where another was. */
  static after(before: Ledger): Ledger {
    const ledger = new Ledger()
    ledger.asked.push(...before.asked)
    ledger.sessions.push(...before.sessions)
    return ledger
  }

  #sort({ status, body }: Reply): Outcome {
    if (status === 200 || status === 201) return 'recorded'
    if (status === 503 && body.reason === 'outcome-unknown') return 'unknown'
    if ((status === 503 || status === 507) && NOTHING.includes(body.reason)) return 'refused'
    this.wrong.push(`answered ${status} ${body.reason}: ${body.detail}`)
    return 'unknown'
  }

  /** Asks once, and a second time under the same name where nothing was recorded. */
  async ask(client: Client, key: string, path: string, body: unknown, texts: string[] = []): Promise<Json> {
    for (let tries = 0; tries < 2; tries++) {
      const sent = Date.now() / 1000
      const reply = await client.post(path, body, { 'idempotency-key': key }).catch(() => undefined)
      const outcome = reply ? this.#sort(reply) : 'unknown'
      const before = this.asked.findIndex((asked) => asked.key === key)
      const asked = { key, path, body, texts, outcome, answer: reply?.body, sent }
      if (before < 0) this.asked.push(asked)
      else this.asked[before] = asked
      if (outcome === 'recorded') return reply?.body
      if (!reply) return undefined
    }
    return undefined
  }

  append(client: Client, key: string, session_id: string, texts: string[], user_id = 'ada'): Promise<Json> {
    const records = texts.map((text) => said(text, { user_id }))
    return this.ask(client, key, `/api/v1/sessions/${session_id}/records`, records, texts)
  }
}

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** Every kind of record, alone and side by side, with a pause in which lines are copied and views are committed. */
export async function work(client: Client, ledger: Ledger): Promise<void> {
  const [old = ''] = ledger.sessions
  const start = { user_id: 'bob', performer_id: 'device-7', kind: 'voice' }
  const session = (await ledger.ask(client, 'w-start', '/session_manager/sessions.start', start))?.session_id
  await ledger.append(client, 'w-old', old, ['old one', 'old two', 'old three'])
  if (session) {
    await Promise.all([
      ledger.append(client, 'w-a', session, ['a one', 'a two'], 'bob'),
      ledger.append(client, 'w-b', session, ['b one'], 'bob'),
      ledger.append(client, 'w-c', old, ['c one', 'c two', 'c three', 'c four']),
    ])
  }
  await wait(180)
  await ledger.ask(client, 'w-key', '/api/v1/keys', { account_id: 'device-9', users: ['bob'] })
  if (session) {
    const end = { user_id: 'bob', session_id: session, performer_id: 'device-7' }
    await ledger.ask(client, 'w-end', '/session_manager/sessions.end', end)
  }
  await ledger.append(client, 'w-last', old, ['last'])
}

/** A data directory as a crash left it, with lines that are in the journal only; and who was told what. */
export async function begun(): Promise<{ home: string; ledger: Ledger }> {
  const running = await run()
  const ledger = new Ledger()
  const start = { user_id: 'ada', performer_id: 'device-7' }
  ledger.sessions.push((await ledger.ask(running.admin, 't-start', '/session_manager/sessions.start', start)).session_id)
  const [session = ''] = ledger.sessions
  await ledger.append(running.admin, 't-one', session, ['t one', 't two'])
  await running.sessile.recorder.checkpoint()
  await ledger.append(running.admin, 't-two', session, ['t three', 't four'])
  await ledger.ask(running.admin, 't-bob', '/session_manager/sessions.start', { ...start, user_id: 'carl', kind: 'therapy' })
  return { home: crashedCopy(running.home), ledger }
}

/** Starts without faults, as the environment has it set, and says what does not hold. The directory is gone afterwards. */
export async function audit(home: string, ledger: Ledger): Promise<string[]> {
  const wrong = [...ledger.wrong]
  const before = linesUnder(home).length
  const fatal: string[] = []
  const { settings } = readConfig()
  const running = await run(home, { settings }, undefined, { fatal: (error) => void fatal.push(error.message) })
  // Looked at before anything is asked again: what was refused may not have come to light by itself.
  running.sessile.log.settle()
  const found = linesUnder(home)
  if (found.length < before) wrong.push(`there were ${before} lines, and ${found.length} after the start`)
  wrong.push(...ledger.asked.flatMap((asked) => missing(asked, found)))
  for (const { key, path, body, outcome, answer } of ledger.asked) {
    const again = await running.admin.post(path, body, { 'idempotency-key': key })
    if (again.status !== 200 && again.status !== 201) wrong.push(`${key} asked again: ${again.status} ${again.body.reason}`)
    const { secret: _, ...told } = answer ?? {}
    if (outcome === 'recorded' && JSON.stringify(again.body) !== JSON.stringify(Array.isArray(answer) ? answer : told))
      wrong.push(`${key} was answered ${JSON.stringify(answer)}, and then ${JSON.stringify(again.body)}`)
  }
  await running.stop()
  wrong.push(...fatal.map((message) => `a start without faults ended: ${message}`))
  // By now every request has been recorded, and each of them once.
  const all = linesUnder(home)
  for (const { key, texts } of ledger.asked)
    if (countsOf(texts, all).some((n) => n !== 1)) wrong.push(`${key} is there more than once`)
  wrong.push(...ordered(home))
  const verbs = [['verify'], ['rebuild', '--check']]
  const ran = await Promise.all(verbs.map((words) => cli(home, words)))
  ran.forEach(({ code, out, err }: Ran, i) => {
    if (code !== 0) wrong.push(`${verbs[i]?.join(' ')} ended with ${code}: ${out}${err}`)
  })
  for (const name of readdirSync(home)) rmSync(join(home, name), { recursive: true, force: true })
  return wrong
}

/** An acknowledged request is there once, a refused one is not, any other is there whole or not at all. */
function missing({ key, texts, outcome, answer }: Asked, found: Json[]): string[] {
  if (outcome === 'recorded') {
    const told: Json[] = Array.isArray(answer) ? answer : [answer]
    return told
      .filter(({ record_id }) => record_id !== undefined)
      .flatMap(({ record_id, text }) => {
        const own = found.filter((line) => line.record_id === record_id)
        if (own.length !== 1) return [`${key}: record ${record_id} was acknowledged and is there ${own.length} times`]
        return own[0].data.text === text ? [] : [`${key}: record ${record_id} holds another text`]
      })
  }
  const counts = new Set(countsOf(texts, found))
  if (outcome === 'refused' && [...counts].some((n) => n > 0)) return [`${key} was refused, and shows up later`]
  if (counts.size > 1 || [...counts].some((n) => n > 1)) return [`${key} is there in part, or more than once`]
  return []
}

const countsOf = (texts: string[], lines: Json[]) => texts.map((text) => lines.filter(({ data }) => data?.text === text).length)

const logsUnder = (home: string) =>
  filesUnder(join(home, 'logs'))
    .filter((file) => file.endsWith('.jsonl'))
    .map((file) => join(home, 'logs', file))

/** Every whole line of every log. */
const linesUnder = (home: string): Json[] => logsUnder(home).flatMap((file) => whole(file))

function whole(file: string): Json[] {
  try {
    return linesIn(file)
  } catch {
    return [] // A file that a crash left unfinished: the start completes it.
  }
}

/** Places in order without a gap, session numbers without a double, one active session of an exclusive kind. */
function ordered(home: string): string[] {
  const wrong: string[] = []
  const numbers = new Set<string>()
  const active = new Set<string>()
  for (const file of logsUnder(home)) {
    const lines = linesIn(file)
    if (lines.some(({ seq }, i) => seq !== i + 1)) wrong.push(`${file} has a gap in seq`)
    const [first] = lines
    if (first.type !== 'session.started') continue
    const number = `${first.user_id} ${first.data.session_number}`
    if (numbers.has(number)) wrong.push(`number ${number} was given twice`)
    numbers.add(number)
    if (lines.at(-1).type === 'session.ended' || first.data.kind === 'therapy') continue
    const exclusive = `${first.user_id} ${first.data.kind}`
    if (active.has(exclusive)) wrong.push(`two active sessions: ${exclusive}`)
    active.add(exclusive)
  }
  return wrong
}
