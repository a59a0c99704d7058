// Answering: what callers are told once their batch is durable, and how a retry gets the first answer again.

import type { Waiting } from './deciding.ts'
import { Refusal } from './errors.ts'
import type { Events } from './event.ts'
import type { Shelf } from './log.ts'
import type { Remembered } from './names.ts'
import { isErased, parseLine, type Recorded } from './record.ts'
import { placeAt, soundLines } from './sound.ts'

export function answer(waiting: Waiting, shelf: Shelf, events: Events): void {
  const { command, request, done, failed, records, command_id, before, refusal, revealed } = waiting
  if (refusal !== undefined) {
    failed(refusal)
    return
  }
  try {
    const told = command.answer(before ? recall(before, command_id, shelf, events) : records, request.input)
    done(revealed ? { ...(told as object), ...revealed } : told)
  } catch (error) {
    failed(error)
  }
}

/** The records of the first request of this name: in each log they stand side by side. */
function recall(places: readonly Remembered[], command_id: string | undefined, shelf: Shelf, events: Events): Recorded[] {
  const records: Recorded[] = []
  for (const { log, offset } of places) {
    for (const line of soundLines(shelf, log, { from: placeAt(shelf, log, offset) })) {
      const record = parseLine(line.bytes)
      if (isErased(record)) continue
      if (record.command_id !== command_id) break
      records.push(events.upcast(record))
    }
  }
  if (records.length === 0) throw new Refusal('not-found', 'erased', 'What this request recorded has been erased.')
  return records
}
