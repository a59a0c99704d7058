// A part of a log as an answer, as JSON or as the log's own bytes; and an answer that ends with a long list.

import type { Listed, Slice } from '../core/query.ts'
import type { Sessile } from '../core/sessile.ts'
import { asTold } from '../core/sight.ts'
import { pause, turn } from '../core/turn.ts'
import type { Hold } from './burden.ts'
import type { Flow } from './flow.ts'

const AT_ONCE = 64 * 1024
/** A page is no longer than this and one record, whatever its limit. */
const MOST_IN_PAGE = 4 * 1024 * 1024
const PAGE = 1000
/** So much of a log is gone over before others get their turn, and a moment besides where somebody waits for what is being recorded. */
const A_PIECE = 32 * 1024

async function othersFirst(recorder: { readonly busy: boolean }): Promise<void> {
  await turn()
  if (recorder.busy) await pause()
}

/** What is gathered is held by `hold`, so that pages which nobody takes do not take all memory. */
export async function sliceAsJson(sessile: Sessile, slice: Slice, hold: Hold): Promise<string> {
  const records: string[] = []
  let length = 0
  let last: number | null = null
  const page = (next_after: number | null) => `{"records":[${records.join(',')}],"next_after":${next_after}}`
  for await (const some of sessile.records(slice)) {
    for (const record of some) {
      if (records.length === (slice.limit ?? PAGE) || length > MOST_IN_PAGE) return page(last)
      const text = JSON.stringify(record)
      records.push(text)
      length += text.length
      hold.take(text.length)
      last = record.seq
    }
  }
  return page(null)
}

export async function* sliceAsLines(sessile: Sessile, slice: Slice): Flow {
  const { after, sight, limit = Number.POSITIVE_INFINITY } = slice
  let piece: Buffer[] = []
  let [given, length, passed] = [0, 0, 0]
  const lines = sessile.lines(slice)
  while (lines.advance()) {
    const { line, seq } = lines
    // Others get their turn, however fast this reader is, and also where all is passed over.
    if (lines.end - passed > A_PIECE) {
      passed = lines.end
      await othersFirst(sessile.recorder)
    }
    if (!line || seq <= after) continue
    if (length > AT_ONCE) {
      yield Buffer.concat(piece)
      piece = []
      length = 0
    }
    const bytes = asTold(line, seq, sight)
    piece.push(bytes, NEWLINE)
    length += bytes.length
    if (++given === limit) break
  }
  return Buffer.concat(piece)
}

const NEWLINE = Buffer.from('\n')

export async function* listedAsJson({ about, name, items }: Listed): Flow {
  const fields = JSON.stringify(about).slice(0, -1)
  let text = `${fields}${fields === '{' ? '' : ','}"${name}":[`
  let comma = ''
  for await (const some of items) {
    for (const item of some) {
      if (text.length > AT_ONCE) {
        yield Buffer.from(text)
        text = ''
      }
      text += comma + JSON.stringify(item)
      comma = ','
    }
  }
  return Buffer.from(`${text}]}`)
}
