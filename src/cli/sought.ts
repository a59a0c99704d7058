// Which records stood in the damaged parts of a journal, and whether all of them turned up elsewhere: what was lost there
// can only be told by what is missing.

import { scan } from '../core/record.ts'
import { hashIn } from '../core/seal.ts'
import type { DamagedSpan, SiftedJournal } from '../log/sift.ts'
import { count } from './looking.ts'

/** What is told of a salvage, one thing at a time. */
export interface Told {
  /** `lost`: it was acknowledged, or may have been, and is not in the new logs. `mended`: it is, and was damaged. */
  level: 'lost' | 'mended' | 'note'
  log?: string
  file?: string
  line?: number
  /** Which bytes of the file. */
  from?: number
  to?: number
  what: string
  /** Where its bytes are kept. */
  kept?: string
}

export class Sought {
  readonly #spans: { path: string; span: DamagedSpan; found: Set<string> }[]
  readonly #byName = new Map<string, Set<string>>()

  readonly #proven: number

  /** `proven`: up to this place in order, what is lost shows in the logs themselves. */
  constructor({ segments }: SiftedJournal, proven: number) {
    this.#proven = proven
    this.#spans = segments.flatMap(({ path, damaged }) => damaged.map((span) => ({ path, span, found: new Set<string>() })))
    for (const { span, found } of this.#spans) for (const name of span.names) this.#byName.set(name, found)
  }

  found(line: Buffer): void {
    if (this.#byName.size === 0) return
    const hash = hashIn(line)
    const found = this.#byName.get(hash) ?? this.#byName.get(scan(line)?.envelope.record_id ?? '')
    found?.add(hash)
  }

  *missing(): Generator<Told> {
    for (const { path, span, found } of this.#spans) {
      const { from, to, first, lines } = span
      const doubtful = Math.min(lines, first + lines - 1 - this.#proven) - found.size
      const where = to > from ? 'is damaged here' : 'was cut off here'
      const what =
        doubtful > 0
          ? `The journal ${where}: ${count(doubtful, 'record')} did not turn up elsewhere. They may be in their logs, and may not.`
          : `The journal ${where}. What it held is found elsewhere, or told with its log.`
      yield { level: doubtful > 0 ? 'lost' : 'mended', file: path, from, to, what }
    }
  }
}

/** What else there is to say of a journal. */
export function* aboutJournal({ segments, missing, quarantine }: SiftedJournal): Generator<Told> {
  for (const { after, lines } of missing) {
    const what = `Behind this segment of the journal ${count(lines, 'record')} cannot be found: they may be in their logs, and may not.`
    yield { level: 'lost', file: after, what }
  }
  for (const { path, header, torn } of segments) {
    if (!header)
      yield { level: 'mended', file: path, what: 'The header of this segment is damaged; its frames were read without it.' }
    if (torn)
      yield {
        level: 'note',
        file: path,
        ...torn,
        what: 'A crash tore these writes. Nobody had been told about them: they are not taken.',
      }
  }
  for (const { path, is } of quarantine) {
    const what = 'A start set these torn writes aside. Nobody had been told about them: they are not taken.'
    if (is === 'torn') yield { level: 'note', file: path, what }
  }
}
