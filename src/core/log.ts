// The contract of a log: what the recorder needs from the place where lines live, and nothing more. Every backend
// passes the same tests (test/log.test.ts). Only the recorder's room (src/log) opens anything for writing.

import { SOME_BYTES } from './turn.ts'

/** One line on its way into a log. `more`: the next line belongs to the same command, and both are recorded or neither. */
export interface Line {
  log: string
  offset: number
  /** All of it; of a line that has yet to be sealed its content, as a text. */
  bytes: Buffer | string
  /** How many bytes it has, its seal and its newline included. */
  length: number
  more: boolean
  /** Of a line that has yet to be sealed: the hash that it follows, or the line before it, which is on its way as well. */
  follows?: string | Line | undefined
  /** Its hash, once it is durable. */
  hash?: string | undefined
  /** Does it change no row, and bear no name? Then all that the views know of it is where its log ends. */
  plain?: boolean
  /** Where the log keeps it till then. */
  place?: Place | undefined
}

/** A place within one of the batches that are on their way to the disk. */
interface Place {
  batch: number
  end: number
}

/** A line that the log has acknowledged and still holds in its journal. */
export interface JournalLine extends Line {
  bytes: Buffer
  lsn: number
}

/** Nothing of the batch was written, and the log stands where it stood. */
export class NotWritten extends Error {
  readonly full: boolean
  constructor(message: string, full: boolean) {
    super(message)
    this.full = full
  }
}

/** What the disk holds is unknown: nothing more may be acknowledged until it has been read anew. */
export class SyncFailed extends Error {}

/** Whole logs, to read. A log's name is its path under `logs/` without its ending. */
export interface Shelf {
  names(): Iterable<string>
  /** Up to `length` bytes from `offset`; fewer at the end. Of a log being written: all that was acknowledged. In `room`, where they fit in there. */
  read(log: string, offset: number, length: number, room?: Buffer): Buffer
}

export interface Log extends Shelf {
  /** Which journal this is: another life of the data directory has another. */
  readonly journal: string
  /** The place in order of the last line written. */
  readonly lsn: number
  /** The place in order of the last line that is durable. */
  readonly durable: number
  /**
   * Writes the lines, in order, whole commands only, and seals those that are not; they are neither durable nor to be read before the next
   * `sync`. What cannot be written is told here, or where others do the writing, by that sync.
   */
  write(lines: readonly Line[]): void
  /**
   * Makes everything durable that was written before; more may be written meanwhile. One call at a time. Where it throws
   * `NotWritten`, `durable` says what is durable all the same, and nothing more is written before `takeBack`. `alone`: nobody
   * else could use the time that it takes.
   */
  sync(alone?: boolean): Promise<void>
  /** Forgets what was written and is not durable, after a sync that threw `NotWritten`. Whoever calls this has forgotten it, too. */
  takeBack(): void
  /** Brings every acknowledged line into the file of its log, where other processes find it; throws where it cannot. */
  settle(): void
  /** The same in steps, of which each is short: the lines that were acknowledged when it began are in their files when it ends. */
  settling(): Iterable<void>
  /** Copies a few acknowledged lines to their files, if it is time for that; returns whether. It is done anyway, sooner or later. */
  copySome(): boolean
  /**
   * The acknowledged lines after this place in order, some at a time, which are there until the next are asked for; undefined if the
   * journal does not reach from there to its end.
   */
  since(lsn: number): Iterable<readonly JournalLine[]> | undefined
  /** The disk is too full for the views: gives up the room that was kept for them, and takes no lines until it is there again. */
  giveRoom(): void
  /** Is the room there that is kept for the views? Where it was given up it is made again as soon as that can be. */
  readonly roomy: boolean
  /** Throws where another recorder has taken the data over: what is known here may be old, and nothing may be changed. */
  assertOurs(): void
  /** The logs that take no more lines, and why. */
  readonly damaged: ReadonlyMap<string, string>
  /** Has the journal grown enough that it is time for a checkpoint? */
  readonly due: boolean
  /** Has it grown so much beyond that, that nothing more should be written before a checkpoint which is under way has ended? */
  readonly overfull: boolean
  /** Makes everything durable without the journal, then drops what the journal no longer needs to hold. */
  checkpoint(during: Between): Promise<void>
  close(): void
}

/** What a checkpoint needs of the recorder. */
export interface Between {
  /** Runs a job between two batches. */
  batches<T>(job: () => T): Promise<T>
  /** Makes the views durable; itself between two batches. */
  views(): Promise<void>
}

/** Tells the operator what happened; never whose record it was. */
export type Report = (message: string, facts?: Record<string, unknown>) => void

/** What of a log's name may be told where no user may be named: the session, or the account. */
export const lastName = (log: string) => log.slice(log.lastIndexOf('/') + 1)

/** The names of logs that were asked for lately: whoever looks for one text again and again finds it faster by its very self. */
const known = new Map<string, string>()
const MOST_KNOWN = 16_384

export function sessionLog(user_id: string, session_id: string): string {
  const log = known.get(session_id)
  if (log?.startsWith(user_id, 'users/'.length) && log.length === 'users//sessions/'.length + user_id.length + session_id.length)
    return log
  const made = `users/${user_id}/sessions/${session_id}`
  if (known.size >= MOST_KNOWN) known.clear()
  known.set(session_id, made)
  return made
}
export const isSessionLog = (log: string) => /^users\/[^/]+\/sessions\//.test(log)
/** Whose log it is, where it is a user's. */
export const userOf = (log: string) => (log.startsWith('users/') ? log.split('/')[1] : undefined)
export const userLog = (user_id: string) => `users/${user_id}/user`
export const accountLog = (account_id: string) => `accounts/${account_id}`
/** Is it one of those that hold keys, sign-ins, assignments: what somebody may do follows from them alone? */
export const saysWhoMay = (log: string) => log.startsWith('accounts/') || log.endsWith('/user')
/** The trail of a day. Where a part of it is damaged the trail goes on in the next. */
export const auditLog = (timestamp: string, part = 1) =>
  `audit/${timestamp.slice(0, 'YYYY-MM-DD'.length)}${part > 1 ? `.${part}` : ''}`

/** Does what stands before a damage count? Of an account it does not: what cannot be read may be that a key was revoked. */
export const countsInPart = (log: string) => !log.startsWith('accounts/')

/** How much of a log is read at a time. */
export const CHUNK = 256 * 1024

export interface PlacedLine {
  bytes: Buffer
  offset: number
  /** Where the next line begins. */
  end: number
}

const NOTHING = Buffer.alloc(0)

const rooms = Array.from({ length: 4 }, () => Buffer.allocUnsafeSlow(SOME_BYTES))

/**
 * Room for a log that is read in one go, and most are so short: what is made for each anew has to be collected. Whoever borrows
 * it gives it back before they wait for anybody who may not come again. None is left where others read; then each makes their own.
 */
export class Borrowed {
  room = rooms.pop()

  giveBack(): void {
    if (this.room) rooms.push(this.room)
    this.room = undefined
  }
}

/** Goes over the whole lines of a log, one after the other. It is at one of them, and keeps none. */
export class Lines {
  /** The line that it is at, without its newline. */
  bytes: Buffer = NOTHING
  offset: number
  /** Where the next line begins. */
  end: number
  readonly #shelf: Shelf
  readonly #log: string
  readonly #to: number
  #chunk: Buffer = NOTHING
  /** Where in the chunk the next line begins. */
  #at = 0
  #more = true
  #room: Buffer | undefined

  /**
   * `room`: where what is read is put, if it is not too long. What has room for a whole chunk is filled again with each; smaller room is used
   * for the first alone, since whoever lent it may have it back by the next.
   */
  constructor(shelf: Shelf, log: string, from = 0, to = Number.POSITIVE_INFINITY, room?: Buffer) {
    this.#shelf = shelf
    this.#log = log
    this.#to = to
    this.#room = room
    this.offset = from
    this.end = from
  }

  /** Goes on to the next line; false where there is none. */
  advance(): boolean {
    let newline = this.#chunk.indexOf(10, this.#at)
    while (newline < 0) {
      if (!this.#readOn()) return false
      newline = this.#chunk.indexOf(10, this.#at)
    }
    this.bytes = this.#chunk.subarray(this.#at, newline)
    this.offset = this.end
    this.end += newline + 1 - this.#at
    this.#at = newline + 1
    return true
  }

  /** Is there, behind the last whole line, one that has no end? */
  get unfinished(): boolean {
    return this.#left > 0 && this.end + this.#left < this.#to
  }

  /** How much is there of a line whose end was not read yet. */
  get #left(): number {
    return this.#chunk.length - this.#at
  }

  #readOn(): boolean {
    const left = this.#left
    // It is read once more, with what follows: to put that behind it takes room for both, anew each time, which takes longer.
    const most = Math.min(left < CHUNK / 2 ? CHUNK : left + CHUNK, this.#to - this.end)
    if (!this.#more || most <= left) return false
    this.#chunk = this.#shelf.read(this.#log, this.end, most, this.#room)
    this.#at = 0
    this.#more = this.#chunk.length === most
    if (this.#room && this.#room.length < CHUNK) this.#room = undefined
    return true
  }
}

/** The whole lines of a log from an offset on, without their newlines; an unfinished last line is left out. */
export function* linesOf(shelf: Shelf, log: string, from = 0, to = Number.POSITIVE_INFINITY): Generator<PlacedLine> {
  const lines = new Lines(shelf, log, from, to)
  while (lines.advance()) yield { bytes: lines.bytes, offset: lines.offset, end: lines.end }
}
