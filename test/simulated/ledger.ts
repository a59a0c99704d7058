// What callers were told, kept outside of what is tested: for each request what it would have recorded, whether that was
// acknowledged, and what must therefore be in the logs, once and whole, or must never be.

import { isDeepStrictEqual } from 'node:util'
import { Refusal } from '../../src/core/errors.ts'

// biome-ignore lint/suspicious/noExplicitAny: records and answers are looked into, whose shape other tests assert
type Any = any

interface Entry {
  /** How many records it makes. */
  count: number
  /** How many attempts have not been answered. */
  pending: number
  /** Did an attempt end in a way that leaves open whether it was recorded? */
  open: boolean
  /** The ids of its records, where it is known to have been recorded. */
  ids: string[] | undefined
  answer: Any
}

export class Broken extends Error {}

/** Refusals after which nothing of the request may be there. */
const NOTHING = new Set(['not-recorded', 'overloaded', 'stopping', 'rebuilding', 'starting', 'log-damaged'])

export class Ledger {
  readonly #entries = new Map<string, Entry>()
  acknowledged = 0
  refused = 0
  /** The time of the last record that was acknowledged in each session. */
  readonly #latest = new Map<string, string>()
  #lost: string | undefined

  /** Watches one attempt at a request to its end. Each request names itself as the performer of its records. */
  attempt(performer: string, count: number, answer: Promise<unknown>, dead: () => boolean): Promise<void> {
    const entry = this.#entries.get(performer) ?? { count, pending: 0, open: false, ids: undefined, answer: undefined }
    this.#entries.set(performer, entry)
    entry.pending++
    const before = [...this.#latest.values()].sort().at(-1) ?? ''
    return answer.then(
      (answer) => {
        entry.pending--
        this.#acknowledge(performer, entry, answer, before)
      },
      (error: unknown) => {
        entry.pending--
        this.#refuse(performer, entry, error, dead())
      },
    )
  }

  #acknowledge(performer: string, entry: Entry, answer: Any, before: string): void {
    const records: Any[] = Array.isArray(answer) ? answer : [answer]
    const ids = records.map(({ record_id }) => record_id)
    if (ids.length !== entry.count) throw new Broken(`${performer} was answered with ${ids.length} records, not ${entry.count}`)
    if (entry.ids && !isDeepStrictEqual(entry.ids, ids))
      throw new Broken(`${performer} was recorded as ${entry.ids}, and again as ${ids}`)
    if (entry.answer && !isDeepStrictEqual(entry.answer, answer)) throw new Broken(`a retry of ${performer} got another answer`)
    const retried = entry.ids !== undefined || entry.open
    for (const { session_id, timestamp } of records) {
      if (!retried && timestamp < before) throw new Broken(`${performer} is of ${timestamp}, after one of ${before}`)
      if (session_id !== this.#lost && timestamp > (this.#latest.get(session_id) ?? '')) this.#latest.set(session_id, timestamp)
    }
    entry.ids = ids
    entry.answer = answer
    this.acknowledged++
  }

  #refuse(performer: string, entry: Entry, error: unknown, dead: boolean): void {
    if (error instanceof Refusal && error.reason === 'outcome-unknown') entry.open = true
    else if (error instanceof Refusal && (error.kind !== 'unavailable' || NOTHING.has(error.reason))) this.refused++
    else if (dead) entry.open = true
    else throw new Broken(`${performer} failed with ${error instanceof Error ? error.stack : error}`)
  }

  /** The disk has lost the file of this session. Where the views are lost as well, nobody can know what time it was in it. */
  lose(session_id: string): void {
    this.#lost = session_id
    this.#latest.delete(session_id)
  }

  /** Whoever listened is gone: what was not answered stays open. */
  end(): void {
    for (const entry of this.#entries.values()) {
      if (entry.pending > 0) entry.open = true
      entry.pending = 0
    }
  }

  /** Compares with the records of all logs, by performer, while nobody asks for anything. */
  check(recorded: Map<string, Any[]>): void {
    for (const [performer, entry] of this.#entries) {
      const records = recorded.get(performer) ?? []
      const ids = records.map(({ record_id }) => record_id)
      if (entry.ids && !isDeepStrictEqual(ids, entry.ids))
        throw new Broken(`${performer} was acknowledged as ${entry.ids.join(' ')}, and the logs hold ${ids.join(' ') || 'nothing'}`)
      if (!entry.ids && !entry.open && ids.length > 0) throw new Broken(`${performer} was refused, and the logs hold it`)
      if (ids.length !== 0 && ids.length !== entry.count)
        throw new Broken(`of ${performer} the logs hold ${ids.length} records of ${entry.count}`)
      // From now on it is known, and stays as it is.
      entry.open = false
      if (ids.length > 0) entry.ids = ids
    }
    for (const performer of recorded.keys())
      if (performer !== 'system' && !this.#entries.has(performer)) throw new Broken(`nobody asked for ${performer}`)
  }
}
