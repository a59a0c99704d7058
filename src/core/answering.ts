// Answering: what callers are told once their batch is durable, and how a retry gets the first answer again.

import { Refusal } from './errors.ts'
import type { Events } from './event.ts'
import type { Shelf } from './log.ts'
import type { Remembered } from './names.ts'
import { contentOf, flat, flatText, isErased, parseLine, type Recorded } from './record.ts'
import { unnumbered } from './sight.ts'
import { placeAt, SoundLines } from './sound.ts'
import type { Asked, Waiting } from './waiting.ts'

/** Makes the answer while what was recorded is being synced: then nothing else of the command has to be kept till it can be given. */
export function prepare(waiting: Waiting): void {
  if (waiting.refusal !== undefined || waiting.before || waiting.told) return
  try {
    waiting.told = { is: told(waiting, waiting.records, waiting.texts) }
  } catch (error) {
    waiting.refusal = error
  }
  waiting.over()
}

export function answer(waiting: Waiting, shelf: Shelf, events: Events): void {
  prepare(waiting)
  const { done, failed, command_id, before, refusal } = waiting
  if (refusal !== undefined) failed(refusal)
  else if (!before) done(waiting.give())
  else {
    try {
      const records = recall(before, command_id, shelf, events)
      const texts = waiting.tellsTexts ? records.map((record) => flatText(record, contentOf(record))) : []
      done(told(waiting, records, texts))
    } catch (error) {
      failed(error)
    }
  }
}

function told({ command, request, asked, revealed }: Waiting, records: Recorded[], texts: readonly string[]): unknown {
  const { input, unnumbered: hides } = asked as Asked
  const at = command.tells(records, input)
  if (texts.length > 0 && !revealed) return at === undefined ? `[${texts.join(',')}]` : texts[at]
  const recorded = () => (at === undefined ? records.map(flat) : flat(records[at] as Recorded))
  const answer = command.answer ? command.answer(records, input) : recorded()
  const whole = revealed ? { ...(answer as object), ...revealed } : answer
  const shown = hides ? unnumbered(whole) : whole
  return request.asText ? JSON.stringify(shown) : shown
}

/** The records of the first request of this name: in each log they stand side by side. */
function recall(places: readonly Remembered[], command_id: string | undefined, shelf: Shelf, events: Events): Recorded[] {
  const records: Recorded[] = []
  for (const { log, offset } of places) {
    const lines = new SoundLines(shelf, log, { from: placeAt(shelf, log, offset) })
    while (lines.advance()) {
      const record = parseLine(lines.bytes)
      if (isErased(record)) continue
      if (record.command_id !== command_id) break
      records.push(events.upcast(record))
    }
  }
  if (records.length === 0) throw new Refusal('not-found', 'erased', 'What this request recorded has been erased.')
  return records
}
