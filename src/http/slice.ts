// A part of a log as an answer: as JSON, or as the log's own bytes.

import type { Slice } from '../core/query.ts'
import type { Sessile } from '../core/sessile.ts'
import { asTold } from '../core/sight.ts'
import { turn } from '../core/turn.ts'
import type { Hold } from './burden.ts'

const AT_ONCE = 64 * 1024
/** A page is no longer than this and one record, whatever its limit. */
const MOST_IN_PAGE = 4 * 1024 * 1024
const PAGE = 1000
const SLICE_MS = 5

/** What is gathered is held by `hold`, so that pages which nobody takes do not take all memory. */
export async function sliceAsJson(sessile: Sessile, slice: Slice, hold: Hold): Promise<string> {
  const records: string[] = []
  let length = 0
  let last: number | null = null
  const page = (next_after: number | null) => `{"records":[${records.join(',')}],"next_after":${next_after}}`
  let until = performance.now() + SLICE_MS
  for (const record of sessile.records(slice)) {
    if (records.length === (slice.limit ?? PAGE) || length > MOST_IN_PAGE) return page(last)
    const text = JSON.stringify(record)
    records.push(text)
    length += text.length
    hold.take(text.length)
    last = record.seq
    if (performance.now() > until) {
      await turn()
      until = performance.now() + SLICE_MS
    }
  }
  return page(null)
}

export function sliceAsLines(sessile: Sessile, slice: Slice): ReadableStream<Uint8Array> {
  const lines = sessile.lines(slice)
  let left = slice.limit ?? Number.POSITIVE_INFINITY
  const piece = (): Buffer => {
    const chunk: Buffer[] = []
    let length = 0
    while (length <= AT_ONCE && left > 0) {
      const next = lines.next()
      if (next.done) break
      const { line, seq } = next.value
      if (!line || seq <= slice.after) continue
      const bytes = asTold(line, seq, slice.sight)
      chunk.push(bytes, NEWLINE)
      length += bytes.length
      left--
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
