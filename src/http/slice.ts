// A part of a log as an answer: as JSON, as the log's own bytes, or as Server-Sent Events that go on as the log grows.

import { linesOf, type PlacedLine } from '../core/log.ts'
import type { Slice } from '../core/query.ts'
import { parseLine, scan } from '../core/record.ts'
import type { Sessile } from '../core/sessile.ts'
import { turn } from '../core/turn.ts'

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

const seqOf = ({ bytes }: PlacedLine) => scan(bytes)?.envelope.seq ?? parseLine(bytes).seq

export function sliceAsLines(sessile: Sessile, { log, after }: Slice): ReadableStream<Uint8Array> {
  const lines = linesOf(sessile.log, log)
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      // Others get their turn between two pieces, however fast this reader is.
      await turn()
      const chunk: Buffer[] = []
      let length = 0
      for (let next = lines.next(); ; next = lines.next()) {
        if (next.done) {
          if (chunk.length > 0) controller.enqueue(Buffer.concat(chunk))
          controller.close()
          return
        }
        if (after > 0 && seqOf(next.value) <= after) continue
        chunk.push(next.value.bytes, NEWLINE)
        length += next.value.bytes.length
        if (length > AT_ONCE) break
      }
      controller.enqueue(Buffer.concat(chunk))
    },
  })
}

const NEWLINE = Buffer.from('\n')

/**
 * Follows a log. The stream reads from the log itself and is only woken by the recorder, so there is nothing that a slow
 * reader could miss or make Sessile hold in memory: whoever is behind reads from where they are, whenever they can.
 */
export function sliceAsEvents(sessile: Sessile, { log, after }: Slice, open: Set<() => void>): ReadableStream<Uint8Array> {
  let stream: ReadableStreamDefaultController<Uint8Array>
  let offset = 0
  let seq = after
  let caughtUp = false
  let unwatch = () => {}
  let beat: NodeJS.Timeout

  const hasRoom = () => (stream.desiredSize ?? 0) > 0
  const pump = () => {
    try {
      if (hasRoom()) give()
    } catch {
      // A line that is no record: the stream ends here, and says why.
      stream.enqueue(Buffer.from('event: problem\ndata: {"reason":"log-damaged"}\n\n'))
      stop()
    }
  }
  const give = () => {
    let text = ''
    for (const line of linesOf(sessile.log, log, offset)) {
      offset = line.end
      const scanned = scan(line.bytes)
      const own = scanned?.envelope.seq ?? parseLine(line.bytes).seq
      if (own <= seq) continue
      seq = own
      text += `id: ${own}\nevent: ${scanned ? 'record' : 'erased'}\ndata: ${line.bytes.toString()}\n\n`
      if (text.length > AT_ONCE) break
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
