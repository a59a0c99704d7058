// A part of a log as an answer: as JSON, as the log's own bytes, or as Server-Sent Events that go on as the log grows.

import type { Slice } from '../core/query.ts'
import { scan } from '../core/record.ts'
import type { Sessile } from '../core/sessile.ts'
import { beginningOf } from '../core/sound.ts'
import { turn } from '../core/turn.ts'
import { problemOf } from './problem.ts'

const AT_ONCE = 64 * 1024
const HEARTBEAT_MS = 15_000

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

const eventOf = (seq: number, line: Buffer) =>
  `id: ${seq}\nevent: ${scan(line) ? 'record' : 'erased'}\ndata: ${line.toString()}\n\n`

/**
 * Follows a log. The stream reads from the log itself and is only woken by the recorder, so there is nothing that a slow
 * reader could miss or make Sessile hold in memory: whoever is behind reads from where they are, whenever they can.
 */
export function sliceAsEvents(sessile: Sessile, { log, after }: Slice, open: Set<() => void>): ReadableStream<Uint8Array> {
  let stream: ReadableStreamDefaultController<Uint8Array>
  let place = beginningOf(log)
  let seq = after
  let caughtUp = false
  let unwatch = () => {}
  let beat: NodeJS.Timeout

  const hasRoom = () => (stream.desiredSize ?? 0) > 0
  const pump = () => {
    try {
      if (hasRoom()) give()
    } catch (error) {
      // A line that is not what was recorded: the stream ends here, and says why.
      const { reason } = problemOf(error, 'api')
      stream.enqueue(Buffer.from(`event: problem\ndata: ${JSON.stringify({ reason })}\n\n`))
      stop()
    }
  }
  const give = () => {
    let text = ''
    try {
      for (const line of sessile.lines(log, place)) {
        place = { end: line.end, hash: line.hash, number: line.number }
        if (place.number === undefined || place.number <= seq) continue
        seq = place.number
        text += eventOf(seq, line.bytes)
        if (text.length > AT_ONCE) break
      }
    } catch (error) {
      if (text !== '') stream.enqueue(Buffer.from(text))
      throw error
    }
    if (text.length <= AT_ONCE && !caughtUp) {
      caughtUp = true
      text += `event: caught-up\ndata: {"seq":${seq}}\n\n`
    }
    if (text !== '') stream.enqueue(Buffer.from(text))
  }
  const leave = () => {
    clearInterval(beat)
    unwatch()
    open.delete(stop)
  }
  const stop = () => {
    leave()
    stream.close()
  }
  return new ReadableStream<Uint8Array>(
    {
      start(controller) {
        stream = controller
        beat = setInterval(() => hasRoom() && stream.enqueue(Buffer.from(': still here\n\n')), HEARTBEAT_MS).unref()
        unwatch = sessile.recorder.watch(log, pump)
        open.add(stop)
      },
      pull: pump,
      cancel: leave,
    },
    { highWaterMark: AT_ONCE * 4, size: (chunk) => chunk?.byteLength ?? 0 },
  )
}
