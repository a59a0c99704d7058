// A stream of records, one JSON object a line, answered line by line while it is still coming. A line that is refused
// is answered with its problem and the stream goes on, for as long as its sender may send.

import type { Command } from '../core/command.ts'
import { Refusal } from '../core/errors.ts'
import type { Caller } from '../core/policy.ts'
import { LARGEST_LINE } from '../core/record.ts'
import type { Asking, Sessile } from '../core/sessile.ts'
import { pause } from '../core/turn.ts'
import type { Burden, Hold } from './burden.ts'
import type { Flow } from './flow.ts'
import { asJson } from './json.ts'
import { Pieces } from './pieces.ts'
import { problemOf } from './problem.ts'

/** How many lines of one stream may wait for their sync at a time. */
const MOST_UNANSWERED = 1024

/** Who asks, or why that is nobody. */
type Proved = Caller | Refusal

interface Parts {
  sessile: Sessile
  burden: Burden
  command: Command
  asking: Omit<Asking, 'caller' | 'body'>
  /** Who is asking by now: a stream may last for hours. */
  who: () => Proved | Promise<Proved>
  /** Tells the trail of a line that is refused; gives what its sender is told, and whether that is all that they may send. */
  traced: (trace: Asking['trace'], error: unknown) => Promise<{ error: unknown; last: boolean }>
  broke: (error: unknown) => void
}

export async function* answerLines(
  { sessile, burden, command, asking, who, traced, broke }: Parts,
  body: AsyncIterable<Buffer>,
): Flow {
  let number = 0
  let ended = false
  const answer = async (line: Uint8Array | Refusal, caller: Proved): Promise<string> => {
    // Each line of a named stream has a name of its own, so that a stream that broke off can be sent again.
    const key = asking.key === undefined ? undefined : `${asking.key} ${++number}`
    const trace = asking.trace && { ...asking.trace, users: [] }
    const bytes = line instanceof Refusal ? 0 : line.length
    burden.move(bytes)
    try {
      if (line instanceof Refusal) throw line
      if (caller instanceof Refusal) throw caller
      if (trace) trace.caller = caller
      return (await sessile.perform(command, {
        ...asking,
        caller,
        body: asJson(line),
        key,
        trace,
        asText: true,
      })) as string
    } catch (refused) {
      const { error, last } = await traced(trace, refused)
      if (last) ended = true
      if (!(error instanceof Refusal)) broke(error)
      return JSON.stringify(problemOf(error, command.door))
    } finally {
      burden.move(-bytes)
    }
  }
  const waiting: Promise<string>[] = []
  const lines = linesIn(body, burden)

  // Lines are taken on as they come; answers leave in the same order, all that are ready in one piece.
  const take = async () => {
    const next = await lines.next()
    if (next.done) ended = true
    for (const line of next.value ?? []) {
      // A stream can wait where a request would be turned away: nothing more is read from its sender meanwhile.
      while (sessile.recorder.crowded || burden.heavy) await pause()
      const asked = who()
      const proved = asked instanceof Promise ? await asked : asked
      if (ended) break
      waiting.push(answer(line, proved))
      if (isFinal(proved)) ended = true
    }
  }
  let taking: Promise<void> | undefined
  const takeAhead = () => {
    if (!ended && waiting.length < MOST_UNANSWERED) {
      taking ??= take().finally(() => {
        taking = undefined
      })
    }
    return taking
  }
  try {
    for (;;) {
      while (waiting.length === 0 && !ended) await takeAhead()
      const batch = waiting.splice(0)
      if (batch.length === 0) return Buffer.alloc(0)
      takeAhead()?.catch(() => {})
      yield Buffer.from(`${(await Promise.all(batch)).join('\n')}\n`)
    }
  } finally {
    void lines.return(undefined)
  }
}

/** Whoever may send no more is told so once, whatever else they have sent. What passes by itself is no reason. */
const isFinal = (proved: Proved) => proved instanceof Refusal && proved.kind !== 'unavailable'

/** A line that is longer than a record can be: it is answered, and passed over up to its end. */
const tooLong = () => new Refusal('too-large', 'record-too-large', `A line is at most ${LARGEST_LINE} bytes.`)

/** The lines of a body in groups, as its chunks bring them; blank lines are left out. */
async function* linesIn(body: AsyncIterable<Buffer>, burden: Burden): AsyncGenerator<(Uint8Array | Refusal)[]> {
  const hold = burden.hold()
  try {
    yield* linesOf(body, hold)
  } finally {
    hold.keep(0)
  }
}

async function* linesOf(body: AsyncIterable<Buffer>, hold: Hold): AsyncGenerator<(Uint8Array | Refusal)[]> {
  const rest = new Pieces()
  let passing = false
  for await (const bytes of body) {
    const lines: (Uint8Array | Refusal)[] = []
    const pass = (refusal: Refusal | undefined) => {
      if (!refusal) return
      rest.take()
      lines.push(refusal)
      passing = true
    }
    const keep = (piece: Buffer) => {
      if (passing) return
      rest.add(piece)
      if (rest.length > LARGEST_LINE) pass(tooLong())
    }
    let start = 0
    for (let end = bytes.indexOf(10); end >= 0; end = bytes.indexOf(10, start)) {
      if (rest.length > 0 || end - start > LARGEST_LINE) keep(bytes.subarray(start, end))
      const line = rest.length > 0 ? rest.take() : bytes.subarray(start, end)
      if (!passing && !isBlank(line)) lines.push(line)
      passing = false
      start = end + 1
    }
    // Copied, so that the start of a line does not keep the whole chunk it came with.
    if (start < bytes.length) keep(Buffer.from(bytes.subarray(start)))
    pass(tooMuch(hold, rest.length))
    if (lines.length > 0) yield lines
  }
  const last = rest.take()
  if (!isBlank(last)) yield [last]
}

/** A line that has yet to come whole is held like a body, or refused like one. */
function tooMuch(hold: Hold, length: number): Refusal | undefined {
  hold.keep(0)
  try {
    hold.take(length)
  } catch (error) {
    return error as Refusal
  }
  return undefined
}

const isBlank = (line: Buffer) => line.every((byte) => byte === 32 || byte === 13 || byte === 9)
