// Sight: how much of a log a reader is told. Who may not read notes is told of a log as if its clinical records had never
// been written: the others are numbered anew, and without what would tell of a line that was left out: their seals, and
// the names of requests, which are digests of all that was recorded with them.

import type { Events } from './event.ts'
import { cut, skim } from './record.ts'
import { SEAL_LENGTH } from './seal.ts'
import type { Place, SoundLines } from './sound.ts'

export type Sight = 'whole' | 'not clinical'

/** Where a reader stands: behind this line, which is the how-manieth that it is told of. */
export interface Stand {
  place: Place
  seq: number
}

/** Goes over the lines of a log as a reader with this sight is told of them. */
export class SeenLines {
  /** The line that it is at, as it was recorded; nothing of it where the reader is not told. */
  line: Buffer | undefined
  /** The how-manieth it is that the reader is told of. */
  seq: number
  readonly #lines: SoundLines
  readonly #sight: Sight
  readonly #events: Events

  constructor(lines: SoundLines, { sight, events, seq }: { sight: Sight; events: Events; seq: number }) {
    this.#lines = lines
    this.#sight = sight
    this.#events = events
    this.seq = seq
  }

  advance(): boolean {
    if (!this.#lines.advance()) return false
    const { bytes, number } = this.#lines
    if (this.#sight === 'whole') {
      this.line = bytes
      this.seq = number as number
      return true
    }
    // An erased line does not tell its type.
    const type = skim(bytes)?.type
    this.line = type === undefined || hides(this.#sight, type, this.#events) ? undefined : bytes
    if (this.line) this.seq++
    return true
  }

  /** Where the line ends. */
  get end(): number {
    return this.#lines.end
  }

  get stand(): Stand {
    return { place: this.#lines.place, seq: this.seq }
  }
}

/** Is nothing of this type told to a reader with this sight? A type that nobody knows might be clinical. */
export const hides = (sight: Sight, type: string, events: Events): boolean =>
  sight === 'not clinical' && (events.named(type)?.sensitivity ?? 'clinical') === 'clinical'

const SEQ = /^(\{"record_id":"[0-9a-f-]{36}","seq":)\d+/

/** A line as it is told: the very bytes; or under the number that this reader knows it by, without its seal and its request. */
export function asTold(line: Buffer, seq: number, sight: Sight): Buffer {
  if (sight === 'whole') return line
  const { envelope, data } = cut(line.toString('utf8', 0, line.length - SEAL_LENGTH))
  return Buffer.from(`${envelope.replace(SEQ, (_, before: string) => before + seq)},"data":${data}}`)
}

/** What was recorded as it is told to whoever knows it by another number, or by none. */
export function unnumbered(answer: unknown): unknown {
  if (Array.isArray(answer)) return answer.map(unnumbered)
  if (typeof answer !== 'object' || answer === null) return answer
  const { seq: _, ...rest } = answer as { seq?: unknown }
  return rest
}
