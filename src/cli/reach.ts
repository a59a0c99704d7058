// How a verb reaches the recorder: the process that holds the data directory, where one runs; else by holding it itself
// for as long as the verb takes.

import { existsSync } from 'node:fs'
import { openLog, openRecorder } from '../app.ts'
import type { Config } from '../config.ts'
import type { Command } from '../core/command.ts'
import { type Fault, Refusal } from '../core/errors.ts'
import type { Query } from '../core/query.ts'
import { system } from '../core/sessile.ts'
import { Held, type Holder, holderOf, isHeld } from '../log/lock.ts'
import { journalOf, logsOf } from '../log/shelf.ts'

/** For verbs that have nothing to do where nothing was ever recorded, and must not make a data directory there. */
export function needData({ home }: Config): void {
  if (!existsSync(logsOf(home))) throw new Refusal('not-found', 'no-data', `There is no data in ${home}.`)
}

/** The process that holds the data, if one does. */
export function holder(config: Config): Holder | undefined {
  const journal = journalOf(config.home)
  return isHeld(journal) ? (holderOf(journal) ?? { pid: 0, since: '' }) : undefined
}

/** Asks the holder over its own door, with the token that only the owner of the files can read. */
export async function askHolder(config: Config, holder: Holder, method: string, path: string, body?: unknown): Promise<unknown> {
  if (!holder.url || !holder.token) throw new Held(config.home, holder)
  const response = await fetch(new URL(path, holder.url.replace('//0.0.0.0', '//127.0.0.1').replace('//[::]', '//[::1]')), {
    method,
    headers: { authorization: `Bearer ${holder.token}`, 'content-type': 'application/json' },
    ...(body === undefined ? {} : { body: JSON.stringify(body) }),
  })
  const answer = (await response.json()) as { reason?: string; detail?: string; errors?: Fault[] }
  if (!response.ok)
    throw inWords(answer.reason ?? 'refused', answer.detail ?? `the holder answered ${response.status}`, answer.errors)
  return answer
}

/** A refusal whose sentence names each fault: on a terminal there is nothing beside the sentence. */
const inWords = (reason: string, detail: string, faults: Fault[] = []) =>
  new Refusal('refused', reason, [detail, ...faults.map(({ path, message }) => `${path}: ${message}`)].join(' '))

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
  if (running) return askHolder(config, running, method, path, method === 'GET' ? undefined : rest)
  const log = openLog({ config })
  const sessile = await openRecorder(log, { config })
  try {
    return 'decide' in what
      ? await sessile.perform(what, { body: input, caller: system })
      : await sessile.ask(what, { input, caller: system })
  } catch (error) {
    throw error instanceof Refusal ? inWords(error.reason, error.message, error.faults) : error
  } finally {
    await sessile.recorder.close()
  }
}
