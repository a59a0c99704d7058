// How a verb reaches the recorder: the process that holds the data directory, where one runs; else by holding it itself
// for as long as the verb takes.

import { existsSync } from 'node:fs'
import type { Config } from '../config.ts'
import type { Command } from '../core/command.ts'
import { type Fault, Refusal } from '../core/errors.ts'
import { atRoute } from '../core/feature.ts'
import { Listed, type Query } from '../core/query.ts'
import { system } from '../core/sessile.ts'
import { after } from '../core/turn.ts'
import { features } from '../features/index.ts'
import { Held, type Holder, holderOf, type InTheWay, inTheWay, isHeld } from '../log/lock.ts'
import { journalOf, logsOf } from '../log/shelf.ts'
import { openLog, openRecorder } from '../open.ts'
import { asked, isGood } from './asking.ts'
import { say } from './verb.ts'

/** For verbs that have nothing to do where nothing was ever recorded, and must not make a data directory there. */
export function needData({ home }: Config): void {
  if (!existsSync(logsOf(home))) throw new Refusal('not-found', 'no-data', `There is no data in ${home}.`)
}

/** The process that holds the data, if one does. */
export function holder(config: Config): Holder | undefined {
  const journal = journalOf(config.home)
  return isHeld(journal) ? (holderOf(journal) ?? { pid: 0, since: '' }) : undefined
}

/** A holder that listens everywhere is asked here. */
export const urlOf = ({ url = '' }: Pick<Holder, 'url'>, path: string) =>
  new URL(path, url.replace('//0.0.0.0', '//127.0.0.1').replace('//[::]', '//[::1]'))

/** Does the holder say anything at all? A stopped process keeps its address, and takes connections that nobody serves. */
async function answers({ patience }: Config, holder: Holder): Promise<boolean> {
  return asked(urlOf(holder, '/healthz'), { signal: AbortSignal.timeout(patience) }).then(
    () => true,
    () => false,
  )
}

const LOOK_AGAIN_MS = 100

/**
 * The one whom a take-over may put aside: a holder who does not answer, or has said for as long as that nowhere
 * where to ask. One who answers is alive and well; undefined where nobody is in the way.
 */
export async function hangingHolder(config: Config): Promise<InTheWay | undefined> {
  let until = performance.now() + config.patience
  let before: InTheWay | undefined
  for (;;) {
    // Who it is, before anything is asked: what was learnt of one holder is not true of the next, who has as long as they had.
    const found = inTheWay(journalOf(config.home))
    if (before && found?.note !== before.note) until = performance.now() + config.patience
    before = found
    const running = found && holder(config)
    if (!running) return undefined
    if (running.url !== undefined && (await answers(config, running)))
      throw new Held(config.home, running, ' It answers: stop it instead of taking over.')
    // One refused connection is no silence: it may be stopping, or have as many callers as it can take.
    if (performance.now() > until) {
      say(`Taking over from process ${running.pid}, which does not answer.`)
      return found
    }
    await after(LOOK_AGAIN_MS)
  }
}

/** Asks the holder over its own door, with the token that only the owner of the files can read. */
export async function askHolder(config: Config, holder: Holder, method: string, path: string, body?: unknown): Promise<unknown> {
  if (!holder.url || !holder.token) throw new Held(config.home, holder)
  // What is asked may take long; whether anybody is there is soon told.
  const silent = () =>
    new Held(config.home, holder, ' It does not answer: wake it or end it, or take over with sessile serve --take-over.')
  if (!(await answers(config, holder))) throw silent()
  const headers = { authorization: `Bearer ${holder.token}`, 'content-type': 'application/json' }
  const text = body === undefined ? undefined : JSON.stringify(body)
  const answered = await whileAlive(config, holder, (signal) =>
    asked(urlOf(holder, path), { method, headers, body: text, signal }),
  ).catch(() => Promise.reject(silent()))
  const answer = JSON.parse(answered.text) as { reason?: string; detail?: string; errors?: Fault[] }
  const { reason = 'refused', detail = `the holder answered ${answered.status}`, errors } = answer
  if (!isGood(answered.status)) throw inWords(reason, detail, errors)
  return answer
}

/** So many looks in a row at a holder who says nothing are enough. One alone may have been refused for want of room. */
const SILENT_LOOKS = 3

/** Waits for something of the holder for as long as anybody is there: a process may be stopped, or its disk hang, while it is asked. */
async function whileAlive<T>(config: Config, holder: Holder, ask: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const giveUp = new AbortController()
  let silent = 0
  const look = async () => {
    silent = (await answers(config, holder)) ? 0 : silent + 1
    if (silent >= SILENT_LOOKS) giveUp.abort()
  }
  const looking = setInterval(() => void look(), config.patience)
  return ask(giveUp.signal).finally(() => clearInterval(looking))
}

/** A refusal whose sentence names each fault: on a terminal there is nothing beside the sentence. */
const inWords = (reason: string, detail: string, faults: Fault[] = []) =>
  new Refusal('refused', reason, [detail, ...faults.map(({ path, message }) => `${path}: ${message}`)].join(' '))

/** What answers at this route. */
export const at = (route: string): Command | Query => atRoute([...features.commands, ...features.queries], route)

/** Performs a command or asks a query, wherever the recorder is. */
export async function reach(config: Config, what: Command | Query, input: Record<string, unknown>): Promise<unknown> {
  const running = holder(config)
  const [method, route] = (what.at ?? '').split(' ') as [string, string]
  const rest = { ...input }
  const path = route.replace(/\{(\w+)\}/g, (_, name: string) => {
    const value = rest[name]
    delete rest[name]
    return encodeURIComponent(String(value))
  })
  const query = new URLSearchParams(rest as Record<string, string>).toString()
  if (running)
    return method === 'GET'
      ? askHolder(config, running, method, query === '' ? path : `${path}?${query}`)
      : askHolder(config, running, method, path, rest)
  const log = openLog({ config })
  const sessile = await openRecorder(log, { config })
  try {
    if ('decide' in what) return await sessile.perform(what, { body: input, caller: system })
    const answer = await sessile.ask(what, { input, caller: system })
    return answer instanceof Listed ? await answer.whole() : answer
  } catch (error) {
    throw error instanceof Refusal ? inWords(error.reason, error.message, error.faults) : error
  } finally {
    await sessile.recorder.close()
  }
}
