// Sight: how much of a log a reader is told. Who may not read notes is told of a log as if its clinical records had never
// been written: the others are numbered anew, and without what would tell of a line that was left out: their seals, and
// the names of requests, which are digests of all that was recorded with them.

import type { Events } from './event.ts'
import type { PlacedLine } from './log.ts'
import { cut, skim } from './record.ts'
import { SEAL_LENGTH } from './seal.ts'
import type { Place } from './sound.ts'

export type Sight = 'whole' | 'not clinical'

/** Where a reader stands: behind this line, which is the how-manieth that it is told of. */
export interface Stand {
  place: Place
  seq: number
}

/** A line that was passed, as it was recorded; nothing of it where the reader is not told. */
export interface Passed extends Stand {
  line: Buffer | undefined
}

/** The lines from a stand on that a reader with this sight is told. */
export function* seen(
  lines: Iterable<PlacedLine & Place>,
  { sight, events, seq }: { sight: Sight; events: Events; seq: number },
): Generator<Passed> {
  for (const place of lines) {
    if (sight === 'whole') {
      yield { line: place.bytes, place, seq: place.number as number }
      continue
    }
    // An erased line does not tell its type.
    const type = skim(place.bytes)?.type
    if (type === undefined || hides(sight, type, events)) yield { line: undefined, place, seq }
    else yield { line: place.bytes, place, seq: ++seq }
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
