// What a caller reaches: commands to perform and queries to ask. Every way in (HTTP, the command line, the chores)
// goes through here, so that nothing is recorded or read without its input checked and its caller permitted.

import type { z } from 'zod'
import type { Command, Preparing } from './command.ts'
import { concealed } from './concealing.ts'
import { placed, refusalOf } from './deciding.ts'
import { assert, type Fault, invalid, Refusal } from './errors.ts'
import type { Gathered } from './feature.ts'
import type { Source } from './ids.ts'
import { Borrowed, type Log, userOf } from './log.ts'
import { type Caller, demandFactor, permit, permitPerformer, permits, reach } from './policy.ts'
import { Listed, type Query, Slice } from './query.ts'
import { type Erased, isErased, parseLine, parseOf, type Recorded } from './record.ts'
import type { Recorder } from './recorder.ts'
import type { Settings } from './settings.ts'
import { hides, SeenLines, type Sight, type Stand } from './sight.ts'
import { beginningOf, type Place, placeAt, SoundLines } from './sound.ts'
import { type Standing, standing } from './standing.ts'
import { isSqlite } from './tables.ts'
import { concern, type Noted, type Trace } from './trail.ts'
import { pacer, SOME_BYTES, type Some } from './turn.ts'
import type { Vault } from './vault.ts'
import type { Read } from './view.ts'
import { type Asked, Unread } from './waiting.ts'

/** Sessile itself, when it acts on its own. */
export const system: Caller = { account_id: 'system', role: 'admin', users: 'all', system: true }

export interface Asking {
  /** What was sent; it may be `Unread`. */
  body?: unknown
  path?: Record<string, string>
  caller: Caller
  key?: string | undefined
  /** What the caller's browser carries. */
  carried?: Preparing<unknown, string>['carried']
  /** Counts a try to prove who one is, under this name, or refuses it. */
  tried?: ((name: string) => void) | undefined
  /** Is the answer wanted as JSON, which is made at leisure? */
  asText?: boolean | undefined
  /** What the trail is told of this request where it is refused; nothing, of what Sessile asks of itself. */
  trace?: Trace | undefined
}

interface Question {
  input: unknown
  caller: Caller
  trace?: Trace | undefined
  /** Counts what is gathered for the answer. */
  hold?: (bytes: number) => void
}

export class Sessile {
  readonly recorder: Recorder
  readonly log: Log
  readonly gathered: Gathered
  readonly settings: Settings
  readonly source: Source
  readonly vault: Vault

  constructor(parts: { recorder: Recorder; log: Log; gathered: Gathered; settings: Settings; source: Source; vault: Vault }) {
    this.recorder = parts.recorder
    this.log = parts.log
    this.gathered = parts.gathered
    this.settings = parts.settings
    this.source = parts.source
    this.vault = parts.vault
  }

  /** Checks, permits, prepares, records; the answer comes when what was recorded is durable. */
  perform(command: Command, asking: Asking): Promise<unknown> {
    return this.#concealing(command, this.#perform(command, asking))
  }

  #perform(command: Command, asking: Asking): Promise<unknown> {
    const { body, caller, key, trace, asText } = asking
    try {
      demandFactor(caller, command.may)
      if (key !== undefined && !command.named) throw nameless()
      if (body instanceof Unread && !command.prepare && !command.tries)
        return this.recorder.submit(command, { asks: () => this.#read(command, asking), caller, key, trace, asText })
      const asked = this.#read(command, asking)
      if (command.tries) asking.tried?.(command.tries(asked.input, caller))
      const asks = () => asked
      if (!command.prepare) return this.recorder.submit(command, { asks, caller, key, trace, asText })
      return this.#prepare(command, asked.input, asking).then(
        (prepared) => this.recorder.submit(command, { asks, caller, key, trace, asText, prepared }),
        (error) => Promise.reject(placed(this.#told(error), command, asked.body)),
      )
    } catch (error) {
      return Promise.reject(error)
    }
  }

  /** What is asked for, where it is in order and the caller may ask for it. */
  #read(command: Command, { body: sent, path = NO_PATH, caller, trace }: Asking): Asked {
    const body = sent instanceof Unread ? sent.read() : sent
    try {
      const input = check(command.input, command.shape(body, path))
      const users = command.whose(input, caller)
      if (trace) concern(trace, users)
      permit(caller, command.may, users)
      for (const performer of command.who(input)) permitPerformer(caller, performer)
      return { input, body, unnumbered: !command.prepare && !seesNumbers(caller, users) }
    } catch (error) {
      throw placed(error, command, body)
    }
  }

  async #prepare(command: Command, input: unknown, { caller, carried, trace }: Asking): Promise<unknown> {
    const now = this.source.now()
    return command.prepare?.({
      input,
      caller,
      carried,
      read: (view) => this.reading((read) => read(view)),
      settings: this.settings,
      vault: this.vault,
      now,
      ulid: () => this.source.ulid(now),
      secret: this.source.secret,
      concerns: (...users) => {
        if (trace) concern(trace, users)
      },
      refuse: (reason, detail, facts) => refusalOf(command.refuses, reason, detail, facts),
    })
  }

  /** Answers from what is durable, and from nothing that the caller may not see; when the trail says who has seen what. */
  async ask(query: Query, question: Question): Promise<unknown> {
    const { trace = this.#traceOf(query, question.caller) } = question
    const answer = await this.#concealing(query, this.#ask(query, question, trace))
    const begun = answer instanceof Listed ? await answer.begun() : answer
    await this.note(trace)
    return begun
  }

  /** What would be answered now to a question that was answered before, and noted then. */
  askAgain(query: Query, question: Question): Promise<unknown> {
    return this.#concealing(query, this.#ask(query, question, question.trace ?? this.#traceOf(query, question.caller)))
  }

  /** What is out of reach looks as if it were not there, where that is wished for. */
  #concealing(asked: Pick<Command, 'may' | 'refuses'>, answer: Promise<unknown>): Promise<unknown> {
    if (!this.settings.conceal) return answer
    return answer.catch((error) => {
      throw concealed(error, asked)
    })
  }

  async #ask(query: Query, { input: stated, caller, hold = unheld }: Question, trace: Trace): Promise<unknown> {
    demandFactor(caller, query.may)
    const input = check(query.input, stated)
    let [permitted, reached] = [false, false]
    await this.recorder.settled(query.ofTrail).catch((error: Error) => {
      throw this.recorder.stalled === undefined ? error : rebuilding()
    })
    try {
      const answer = await query.read({
        input,
        caller,
        now: this.source.now(),
        // Looked for each time: an answer may last longer than these views.
        read: (view) => this.recorder.views.committed(view),
        refuse: (reason, detail, facts) => refusalOf(query.refuses, reason, detail, facts),
        permit: (...users) => {
          concern(trace, users)
          permit(caller, query.may, users)
          permitted = true
        },
        reach: () => {
          reached = true
          return reach(caller, query.may)
        },
        records: (log, after) => this.records({ log, sight: this.#sightOf(caller, log), after: after ?? 0 }),
        standing: (log, which) => this.#standing(log, which, this.#sightOf(caller, log), hold),
        hold,
        slice: (log, part) => new Slice(log, this.#sightOf(caller, log), part),
        damaged: () => this.recorder.damaged,
        says: (record) => this.gathered.events.named(record.type)?.says(record) ?? record.type,
        did: (route) => this.gathered.queries.find(({ at }) => at === route)?.did ?? route,
      })
      // Deny by default: a query that never asked the policy must not answer, nor one that does not say whose data it showed.
      assert(permitted || reached, `${query.at} answered without asking the policy`)
      assert(!reached || query.shows, `${query.at} answered without saying whose data it shows`)
      if (query.shows) concern(trace, query.shows(answer))
      const { session_id } = input as { session_id?: string }
      if (session_id !== undefined) trace.session_id = session_id
      return answer
    } catch (error) {
      throw this.#told(error)
    }
  }

  /** Writes down what became of a request. Nobody is answered before that is durable, and nobody where it cannot be. */
  async note(trace: Trace, refusal?: Refusal): Promise<void> {
    // Never what a concealed refusal says, but what it hides.
    const { reason } = refusal?.hides ?? refusal ?? {}
    const input: Noted = reason === undefined ? trace : Object.assign({ reason }, trace)
    const asks = () => ({ input, body: undefined })
    const write = () => this.recorder.submit(this.gathered.trail, { asks, caller: trace.caller })
    // Views that failed meanwhile are as a rule soon back, and nothing of this was recorded.
    await write().catch((error: Error) => {
      if (this.recorder.stalled === undefined) throw error
      return this.recorder.between(() => {}).then(write)
    })
  }

  #traceOf({ at }: Query, caller: Caller): Trace {
    return { request_id: this.source.uuid(), route: at, caller, users: [] }
  }

  /** Reads the views as they stand; where they turn out to be damaged, they are rebuilt and the caller is told to wait. */
  reading<T>(read: (read: Read) => T): T {
    if (this.recorder.stalled !== undefined) throw rebuilding()
    try {
      return read(this.recorder.views.read)
    } catch (error) {
      throw this.#told(error)
    }
  }

  /** What becomes of a mistake that was met while reading the views. */
  #told(error: unknown): unknown {
    return this.recorder.distrust(error) ? rebuilding() : unlessLacking(error)
  }

  /** The lines of a log from a stand on, as far as they may be seen; or a refusal where they are not what was recorded. */
  lines({ log, sight }: Pick<Slice, 'log' | 'sight'>, from: Stand = { place: beginningOf(log), seq: 0 }, room?: Buffer): SeenLines {
    try {
      const lines = new SoundLines(this.log, log, { from: from.place, least: this.recorder.views.leastSize(log), room })
      return new SeenLines(lines, { sight, events: this.gathered.events, seq: from.seq })
    } catch (error) {
      throw this.#told(error)
    }
  }

  /** The records of a log after this seq, as they read today and as far as they may be seen. Others get their turn, also while all is passed over. */
  async *records({ after, ...part }: Pick<Slice, 'log' | 'sight' | 'after'>): Some<Recorded | Erased> {
    const pace = pacer()
    const borrowed = new Borrowed()
    let [some, length]: [(Recorded | Erased)[], number] = [[], 0]
    let damage: unknown
    try {
      const lines = this.lines(part, undefined, borrowed.room)
      while (lines.advance()) {
        const rest = pace()
        if (rest) await rest
        const { line, seq } = lines
        if (!line || seq <= after) continue
        if (length > SOME_BYTES) {
          borrowed.giveBack() // What is told now is more than it holds.
          yield some
          ;[some, length] = [[], 0]
        }
        length += line.length
        some.push(this.#recordOf(line, seq, part.sight))
      }
    } catch (error) {
      damage = error
    } finally {
      borrowed.giveBack()
    }
    // What stands before a damage is told to whoever asks for no more.
    yield some
    if (damage !== undefined) throw damage
  }

  #recordOf(line: Buffer, seq: number, sight: Sight): Recorded | Erased {
    const record = parseLine(line)
    if (isErased(record)) return record
    if (sight !== 'whole') delete record.command_id
    const today = this.gathered.events.upcast(record)
    if (today.seq !== seq) Object.assign(today, { seq })
    return today
  }

  #standing(log: string, which: Standing, sight: Sight, hold: (bytes: number) => void): Some<Recorded> {
    const { events } = this.gathered
    if (hides(sight, which.type, events)) return none()
    const source = {
      beginning: beginningOf(log),
      lines: (from: Place, to?: number, room?: Buffer) =>
        new SoundLines(this.log, log, { from, to, least: to ?? this.recorder.views.leastSize(log), room }),
      lineAt: (offset: number, to: number) => {
        const lines = new SoundLines(this.log, log, { from: placeAt(this.log, log, offset), to })
        lines.advance()
        return lines.bytes
      },
      recordOf: (line: Buffer, type: string) => {
        const record = parseOf(type, line)
        return record && events.upcast(record)
      },
    }
    return standing(source, which, hold)
  }

  /** Clinical records are for those who may read notes, whatever else they may read. */
  #sightOf(caller: Caller, log: string): Sight {
    return permits(caller, 'read notes', [userOf(log) ?? '']) ? 'whole' : 'not clinical'
  }

  /** Lets the system do what is due. */
  async doChores(): Promise<void> {
    await this.recorder.settled()
    for (const chore of this.gathered.chores) {
      const due = this.reading((read) =>
        chore.due({ read, now: this.source.now(), settings: this.settings, lastAt: (log) => this.recorder.endOf(log)?.at }),
      )
      await Promise.all(due.map(({ command, input }) => this.#doQuietly(command, input)))
    }
  }

  /** What was due may no longer be, by the time it is decided. */
  async #doQuietly(command: Command, input: unknown): Promise<void> {
    try {
      await this.perform(command, { body: input, caller: system })
    } catch (error) {
      if (!(error instanceof Refusal) || error.kind === 'broken') throw error
    }
  }
}

const nameless = () =>
  invalid([
    { path: 'Idempotency-Key', message: 'is not taken here: what is asked holds a secret, and no digest of it is recorded' },
  ])

/** Whoever reads these users' records in numbers of their own is told no number of the log: it would tell of what is left out. */
const seesNumbers = (caller: Caller, users: readonly string[]) =>
  permits(caller, 'read notes', users) || !permits(caller, 'read', users)

const NO_PATH: Record<string, string> = {}
const unheld = () => {}
async function* none(): Some<never> {}

/** What the database cannot open for want of descriptors it can open later. */
const unlessLacking = (error: unknown): unknown =>
  isSqlite(error) && error.code.startsWith('SQLITE_CANTOPEN')
    ? new Refusal('unavailable', 'overloaded', 'Too many files are open. Ask again.')
    : error

const rebuilding = () => new Refusal('unavailable', 'rebuilding', 'The views are being brought back from the logs.')

/** The input as the schema reads it, or a refusal that says what is wrong and where. */
function check<T>(schema: z.ZodType<T>, value: unknown): T {
  const result = schema.safeParse(value)
  if (result.success) return result.data
  const faults = result.error.issues.slice(0, MOST_FAULTS).flatMap(faultsOf).slice(0, MOST_FAULTS)
  const nameless = result.error.issues.find(({ path }) => path.at(-1) === 'performer_id' && isBlank(at(value, path)))
  if (nameless)
    throw new Refusal('invalid', 'performer-required', 'Every record says who did it: performer_id is missing.', { faults })
  throw invalid(faults)
}

/** So many faults of an input are told, and so much of the way to each: an answer must not outgrow what it answers. */
const MOST_FAULTS = 20
const LONGEST_PATH = 200

function faultsOf(issue: z.core.$ZodIssue): Fault[] {
  const under = (last?: string) =>
    [...issue.path.map(String), ...(last === undefined ? [] : [last])].join('.').slice(0, LONGEST_PATH)
  if (issue.code === 'unrecognized_keys')
    return issue.keys.slice(0, MOST_FAULTS).map((key) => ({ path: under(key), message: 'is not a known field' }))
  return [{ path: under(), message: issue.message }]
}

const isBlank = (value: unknown) => value === undefined || value === null || (typeof value === 'string' && value.trim() === '')

const at = (value: unknown, path: readonly PropertyKey[]): unknown =>
  path.reduce<unknown>(
    (inner, step) => (typeof inner === 'object' && inner !== null ? (inner as Record<PropertyKey, unknown>)[step] : undefined),
    value,
  )
