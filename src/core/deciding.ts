// Deciding: what becomes of one command within a batch. It is decided on the views as they stand, its records are checked
// against their published schemas, sealed to the ends of their logs and applied to the views, or it is refused and
// leaves no trace.

import { hash } from 'node:crypto'
import type { Command, Decision } from './command.ts'
import { assert, Refusal } from './errors.ts'
import { type Draft, logOf } from './event.ts'
import type { Gathered } from './feature.ts'
import { Heads } from './heads.ts'
import type { Source } from './ids.ts'
import { auditLog, type Line, type Log, type Report, saysWhoMay } from './log.ts'
import { rawMedia } from './media.ts'
import { partsOf } from './names.ts'
import type { Caller } from './policy.ts'
import { contentOf, flatText, LARGEST_LINE, type Recorded } from './record.ts'
import type { Schemas } from './schemas.ts'
import { sealedLength } from './seal.ts'
import type { Settings } from './settings.ts'
import { isSqlite } from './tables.ts'
import { concern } from './trail.ts'
import { Trailing } from './trailing.ts'
import type { Read } from './view.ts'
import type { Views } from './views.ts'
import { Printed, type Request, type Waiting } from './waiting.ts'

/** What deciding needs to know and to draw from. */
export interface Grounds {
  log: Log
  gathered: Gathered
  schemas: Schemas
  settings: Settings
  source: Source
}

/** What a recorder is made of. */
export interface Parts extends Grounds {
  views: Views
  report: Report
  /** Brings back views that failed while running. */
  restore: (distrust: string | undefined) => Promise<Views>
  /** Called once when the log can no longer be trusted: the process must end. */
  fatal: (error: Error) => void
}

type Same = Pick<Decision<unknown, string>, 'settings' | 'ulid' | 'secret' | 'event' | 'ours' | 'lastAt' | 'damaged'>

export class Deciding {
  readonly heads: Heads
  #views: Views
  #trailing: Trailing
  /** The latest timestamp given, in milliseconds. */
  latest: number
  /** Every record from now on has this time or a later one. */
  #earliest = 0
  /** How many records were decided by which somebody may do more, or less; and how often other views took the place of these. */
  rulings = 0
  readonly #parts: Grounds
  /** What is the same for every command. */
  readonly #same: Same
  #printed = { at: -1, text: '' }

  constructor(parts: Grounds, views: Views) {
    this.#parts = parts
    this.#same = {
      settings: parts.settings,
      ulid: () => parts.source.ulid(this.latest),
      secret: parts.source.secret,
      event: (type) => parts.gathered.events.named(type),
      ours: (source) => parts.gathered.events.isOurs(source),
      lastAt: (log) => this.heads.find(log)?.at,
      damaged: () => this.damaged,
    }
    this.#views = views
    this.latest = views.mark.timestamp
    this.heads = new Heads((log) => this.views.head(log))
    this.#trailing = new Trailing(views, this.heads)
  }

  get views(): Views {
    return this.#views
  }

  /** Other views take their place, which have come as far. */
  replace(views: Views): void {
    this.#views = views
    this.rulings++
    this.heads.clear()
    this.#trailing = new Trailing(views, this.heads)
  }

  /** The logs that take no more records, and why: some were damaged when they were folded, others cannot be written. */
  get damaged(): ReadonlyMap<string, string> {
    const { log } = this.#parts
    return log.damaged.size === 0 ? this.views.damaged : new Map([...this.views.damaged, ...log.damaged])
  }

  get trailing(): Trailing {
    return this.#trailing
  }

  /** A moment that every record so far has reached, and none that follows will: it divides the order of recording in two. */
  moment(): number {
    const moment = Math.max(this.latest, this.#earliest, this.#parts.source.now())
    this.#earliest = moment + 1
    return moment
  }

  /** Decides one command and takes its records into the batch; a refusal leaves the batch as it was. */
  take(waiting: Waiting, lines: Line[]): void {
    const { heads, first } = { heads: this.heads.savepoint, first: lines.length }
    const latest = this.latest
    try {
      const drafts = this.#decide(waiting)
      if (drafts.length === 0) return
      waiting.begin()
      this.views.savepoint('one')
      try {
        for (const draft of drafts) this.#record(draft, waiting, lines)
      } catch (error) {
        this.views.undo('one')
        throw error
      }
      this.views.release('one')
      const last = lines.at(-1)
      assert(last, 'records without lines')
      last.more = false
    } catch (error) {
      if (isSqlite(error) && !error.code.startsWith('SQLITE_CONSTRAINT')) throw error
      lines.length = first
      this.heads.undo(heads)
      this.latest = latest
      waiting.refusal = waiting.asked ? placed(error, waiting.command, waiting.asked.body) : error
      waiting.over()
    }
  }

  #decide(waiting: Waiting): Draft[] {
    const { command, request } = waiting
    const asked = request.asks()
    waiting.asked = asked
    if (request.key !== undefined) {
      waiting.printed = new Printed()
      waiting.command_id = commandId(command, request, command.printed(asked.input, waiting.printed.print))
      const { name, body } = partsOf(waiting.command_id)
      const before = this.views.names.find(name, this.#parts.log)
      if (before.some((found) => found.body !== body)) {
        throw new Refusal('refused', 'idempotency-key-reused', 'This Idempotency-Key was used for another request.')
      }
      if (before.length > 0) {
        waiting.before = before
        return []
      }
    }
    // Law 6: the server's clock, and never earlier than the last record.
    this.latest = Math.max(this.latest, this.#earliest, this.#parts.source.now())
    return command.decide(new Choice(this.#same, waiting, this.views.read, this.latest))
  }

  #record(draft: Draft, waiting: Waiting, lines: Line[]): void {
    const { user_id, session_id, performer_id } = draft.owner
    const timestamp = this.#timestamp()
    assert(draft.event.home !== 'session' || session_id !== undefined, `${draft.type} without a session`)
    const log = this.#home(draft, timestamp)
    const damage = this.#damageOf(log)
    if (damage !== undefined) throw new Refusal('unavailable', 'log-damaged', `The log takes no more records: ${damage}.`)

    const at = `records.${waiting.records.length}.data`
    const fault = this.#parts.schemas.fault(draft.event.type, draft.event.v, draft.data, at)
    if (fault) throw new Refusal('invalid', 'invalid', 'The data does not fit its schema.', { faults: [fault] })
    const media = rawMedia(draft.data, at)
    if (media) throw new Refusal('invalid', 'raw-media', 'A log holds no raw media.', { faults: [media] })

    const known = this.heads.of(log)
    const before = known.head
    const record: Recorded = {
      record_id: this.#parts.source.uuid(),
      seq: before.seq + 1,
      type: draft.type,
      v: draft.event.v,
      source: draft.source,
      user_id,
      session_id,
      performer_id,
      timestamp,
      command_id: waiting.command_id,
      data: draft.data,
    } as Recorded
    const content = contentOf(record, waiting.printed?.nth(waiting.records.length, draft.data))
    const length = sealedLength(content)
    if (length > LARGEST_LINE) {
      throw new Refusal('too-large', 'record-too-large', `A record is at most ${LARGEST_LINE} bytes; this one has ${length}.`)
    }
    this.views.name(waiting.command_id, known.log, before.size)
    this.views.apply(record)
    const plain = waiting.command_id === undefined && !this.views.folds(draft.type)
    const line: Line = {
      log: known.log,
      offset: before.size,
      bytes: content,
      length,
      more: true,
      follows: before.hash,
      hash: undefined,
      place: undefined,
      plain,
    }
    this.heads.move(known, { seq: record.seq, hash: line, size: before.size + length, at: this.latest })
    lines.push(line)
    if (saysWhoMay(log)) this.rulings++
    waiting.records.push(record)
    if (waiting.tellsTexts) waiting.texts.push(flatText(record, content))
  }

  /** The log that a draft goes to. The trail takes the next part of its day where one is damaged. */
  #home({ event: { home }, owner }: Draft, timestamp: string): string {
    const first = logOf(home, owner, timestamp)
    if (home !== 'audit') return first
    for (let [log, part] = [first, 2]; ; log = auditLog(timestamp, part++)) if (this.#damageOf(log) === undefined) return log
  }

  /** Why a log takes no more; there is hardly ever one. */
  #damageOf(log: string): string | undefined {
    const [lost, unfolded] = [this.#parts.log.damaged, this.views.damaged]
    return lost.size + unfolded.size === 0 ? undefined : (lost.get(log) ?? unfolded.get(log))
  }

  /** The records of a batch share a few moments: each is printed once. */
  #timestamp(): string {
    if (this.latest !== this.#printed.at) this.#printed = { at: this.latest, text: new Date(this.latest).toISOString() }
    return this.#printed.text
  }
}

/** What a command is decided on. One is made for each: what few commands ask for is made when they do. */
class Choice implements Decision<unknown, string> {
  readonly settings: Settings
  readonly ulid: () => string
  readonly secret: () => string
  readonly event: Same['event']
  readonly ours: Same['ours']
  readonly lastAt: Same['lastAt']
  readonly damaged: Same['damaged']
  readonly input: unknown
  readonly prepared: unknown
  readonly caller: Caller
  readonly read: Read
  readonly now: number
  readonly #waiting: Waiting

  constructor(same: Same, waiting: Waiting, read: Read, now: number) {
    this.settings = same.settings
    this.ulid = same.ulid
    this.secret = same.secret
    this.event = same.event
    this.ours = same.ours
    this.lastAt = same.lastAt
    this.damaged = same.damaged
    this.input = waiting.asked?.input
    this.prepared = waiting.request.prepared
    this.caller = waiting.request.caller
    this.read = read
    this.now = now
    this.#waiting = waiting
  }

  get refuse(): Decision<unknown, string>['refuse'] {
    const { refuses } = this.#waiting.command
    return (reason, detail, facts) => refusalOf(refuses, reason, detail, facts)
  }

  get reveal(): Decision<unknown, string>['reveal'] {
    const waiting = this.#waiting
    return (once) => {
      waiting.revealed = once
    }
  }

  get concerns(): Decision<unknown, string>['concerns'] {
    const { trace } = this.#waiting.request
    return (...users) => {
      if (trace) concern(trace, users)
    }
  }
}

const digest = (text: string) => hash('sha256', text, 'base64url').slice(0, 22)

/** The same for the same caller, key and input, and for no others: `<digest of caller and key>.<digest of what was asked>`. */
const commandId = ({ at }: Command, { caller, key }: Request, asked: string) =>
  `${digest(`${caller.account_id}\n${key}`)}.${digest(`${at}\n${asked}`)}`

/** The faults of a refusal as places in the body that the caller sent, and not in the input that was made of it. */
export function placed(error: unknown, command: Command, body: unknown): unknown {
  if (!(error instanceof Refusal) || !error.faults) return error
  const faults = error.faults.map(({ path, message }) => ({ path: command.place(path, body), message }))
  return new Refusal(error.kind, error.reason, error.message, { faults, facts: error.facts })
}

export function refusalOf(refuses: Command['refuses'], reason: string, detail: string, facts?: Record<string, unknown>): Refusal {
  const kind = refuses[reason]
  assert(kind, `the reason ${reason} was not declared`)
  return new Refusal(kind, reason, detail, facts ? { facts } : {})
}
