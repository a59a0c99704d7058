// A part of a log as an answer: as JSON, or as the log's own bytes.

import type { Slice } from '../core/query.ts'
import { scan } from '../core/record.ts'
import type { Sessile } from '../core/sessile.ts'
import { beginningOf } from '../core/sound.ts'
import { turn } from '../core/turn.ts'
import { problemOf } from './problem.ts'

const AT_ONCE = 64 * 1024

export function sliceAsJson(sessile: Sessile, { log, after, limit }: Slice) {
  const records = []
  for (const record of sessile.records(log, after)) {
    if (records.length === limit) return { records, next_after: records.at(-1)?.seq ?? null }
    records.push(record)
  }
  return { records, next_after: null }
}

export function sliceAsLines(sessile: Sessile, { log, after }: Slice): ReadableStream<Uint8Array> {
  const lines = sessile.lines(log)
  const piece = (): Buffer => {
    const chunk: Buffer[] = []
    let length = 0
    while (length <= AT_ONCE) {
      const next = lines.next()
      if (next.done) break
      if ((next.value.number as number) <= after) continue
      chunk.push(next.value.bytes, NEWLINE)
      length += next.value.bytes.length
    }
    return Buffer.concat(chunk)
  }
  // The first piece is read before anything is answered, so that a damaged log is refused. Where the damage is further on, the answer breaks off.
  let first: Buffer | undefined = piece()
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      // Others get their turn between two pieces, however fast this reader is.
      await turn()
      const bytes = first ?? piece()
      first = undefined
      if (bytes.length > 0) controller.enqueue(bytes)
      else controller.close()
    },
  })
}

const NEWLINE = Buffer.from('\n')
