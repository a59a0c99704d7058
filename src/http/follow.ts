// Following a log as Server-Sent Events. What is sent is read from the log itself: the recorder only wakes whoever waits,
// so nothing is held for a reader but the one piece that it is being sent, and none can miss a record. Who does not read
// is cut off, is told why, and goes on later from the last id it got.

import type { ServerResponse } from 'node:http'
import type { Slice } from '../core/query.ts'
import { skim } from '../core/record.ts'
import type { Sessile } from '../core/sessile.ts'
import { asTold, type Stand } from '../core/sight.ts'
import { beginningOf } from '../core/sound.ts'
import { whenOver } from './connections.ts'
import type { Still } from './flow.ts'
import { Looking } from './looking.ts'
import { problemOf } from './problem.ts'

const AT_ONCE = 64 * 1024
const HEARTBEAT_MS = 15_000
/** How many are sent something, and for how long, before others have their turn. */
const SLICE = 64
const SLICE_MS = 2
/** How far a reader may fall behind a log that it once had caught up with, in bytes. */
const MOST_BEHIND = 8 * 1024 * 1024
/** What may be on its way to all readers together, and how long a piece is left alone where that is too much. */
const MOST_SENDING = 64 * 1024 * 1024
const LEFT_ALONE_MS = 1000

/** What a reader who stands at one place in a log is sent next. */
interface Piece {
  bytes: Buffer
  /** Where it ends. */
  stand: Stand
  /** Is there nothing after it? */
  last: boolean
  /** Why nothing can come after it. */
  broken?: unknown
}

/** What is followed, and on what terms. */
export interface Following {
  sessile: Sessile
  slice: Slice
  still: Still
  /** Is told why a stream could not go on. */
  broke: (error: unknown) => void
}

export class Followers {
  readonly #open = new Set<Follower>()
  /** Who is being sent something; who has waited longest comes first. */
  readonly #sending = new Set<Follower>()
  #bytes = 0
  readonly #patience: number
  /** Thousands may stand at the same place: what they are sent is read once. */
  readonly #pieces = new Map<string, Piece>()
  readonly #looking = new Looking((now, busy) => this.#look(now, busy))
  /** Who has taken what it was sent, and may have more to come. */
  readonly #ready = new Set<Follower>()

  constructor(patience: number) {
    this.#patience = patience
  }

  /** Sends what there is, and what comes, until either side ends it. */
  follow(following: Following, outgoing: ServerResponse): void {
    this.#looking.begin()
    const follower = new Follower(this, following, outgoing)
    this.#open.add(follower)
    whenOver(outgoing, () => this.#left(follower))
    follower.pump()
  }

  get count(): number {
    return this.#open.size
  }

  end(): void {
    for (const follower of this.#open) follower.end()
  }

  #left(follower: Follower): void {
    follower.leave()
    this.took(follower, follower.underWay)
    this.#open.delete(follower)
    if (this.#open.size === 0) this.#looking.end()
  }

  /** So many bytes are on their way to this reader from now on. */
  sends(follower: Follower, bytes: number): void {
    this.#bytes += bytes
    follower.underWay += bytes
    this.#sending.add(follower)
    if (this.#bytes <= MOST_SENDING) return
    const [slowest] = this.#sending
    if (slowest && performance.now() - slowest.since > LEFT_ALONE_MS) slowest.drop()
  }

  took(follower: Follower, bytes: number): void {
    const taken = Math.min(bytes, follower.underWay)
    this.#bytes -= taken
    follower.underWay -= taken
    if (follower.underWay === 0) this.#sending.delete(follower)
  }

  /** Has its turn when others have had theirs: those who are ready at a time may be thousands. */
  ready(follower: Follower): void {
    if (this.#ready.size === 0) setImmediate(() => this.#goOn())
    this.#ready.add(follower)
  }

  #goOn(): void {
    const until = performance.now() + SLICE_MS
    let given = 0
    for (const follower of this.#ready) {
      this.#ready.delete(follower)
      follower.pump()
      if (++given === SLICE || performance.now() > until) break
    }
    if (this.#ready.size > 0) setImmediate(() => this.#goOn())
  }

  #look(now: number, busy: number): void {
    for (const follower of this.#sending) follower.since += busy
    const longAgo = now - this.#patience
    for (const follower of [...this.#sending]) {
      if (follower.since > longAgo) break
      this.cutOff(follower)
    }
  }

  /** A reader who reads again gets what was on its way to it, and is told why that was all; one who does not is dropped. */
  cutOff(follower: Follower): void {
    if (follower.cut) follower.drop()
    else {
      follower.cutOff()
      this.#sending.delete(follower)
      this.#sending.add(follower)
    }
  }

  piece(sessile: Sessile, slice: Slice, stand: Stand): Piece {
    const key = `${slice.log} ${slice.sight} ${stand.place.end} ${Math.max(stand.seq, slice.after)}`
    let piece = this.#pieces.get(key)
    if (!piece) {
      piece = pieceOf(sessile, slice, stand)
      // Only for those whose turn comes with ours: the log goes on.
      if (this.#pieces.size === 0) setImmediate(() => this.#pieces.clear())
      this.#pieces.set(key, piece)
    }
    return piece
  }
}

function pieceOf(sessile: Sessile, slice: Slice, from: Stand): Piece {
  let text = ''
  let stand = from
  const piece = (last: boolean) => ({ bytes: Buffer.from(text), stand, last })
  try {
    const lines = sessile.lines(slice, from)
    while (lines.advance()) {
      const { line, seq, end } = lines
      stand = lines.stand
      if (line && seq > slice.after) {
        const data = asTold(line, seq, slice.sight).toString()
        text += `id: ${seq}\nevent: ${skim(line) ? 'record' : 'erased'}\ndata: ${data}\n\n`
      }
      // Others get their turn, also where all is passed over.
      if (text.length > AT_ONCE || end - from.place.end > MOST_PASSED) return piece(false)
    }
  } catch (broken) {
    return { ...piece(false), broken }
  }
  return piece(true)
}

const MOST_PASSED = 4 * 1024 * 1024

class Follower {
  readonly #all: Followers
  readonly #sessile: Sessile
  readonly #slice: Slice
  readonly #outgoing: ServerResponse
  readonly #still: Still
  readonly #broke: Following['broke']
  /** Is it being asked about whether this reader still may read? */
  #asking = false
  readonly #unwatch: () => void
  readonly #beat: NodeJS.Timeout
  #stand: Stand
  #caughtUp = false
  #over = false
  /** How many bytes are on their way, and since when. */
  underWay = 0
  since = 0
  cut = false

  constructor(all: Followers, { sessile, slice, still, broke }: Following, outgoing: ServerResponse) {
    this.#all = all
    this.#sessile = sessile
    this.#slice = slice
    this.#stand = { place: beginningOf(slice.log), seq: 0 }
    this.#outgoing = outgoing
    this.#unwatch = sessile.recorder.watchers.add(slice.log, () => this.pump())
    this.#still = still
    this.#broke = broke
    this.#beat = setInterval(() => this.#live(), HEARTBEAT_MS).unref()
  }

  pump(): void {
    if (this.#over) return
    if (this.underWay > 0) this.#mind()
    else if (this.#may()) this.#give()
  }

  /**
   * Nothing leaves here for who may no longer read: whoever was let in once is asked about each time. Where that is not known
   * at once, it goes on when it is, and first with what is to be done `then`.
   */
  #may(then = () => {}): boolean {
    if (this.#asking) return false
    const refusal = this.#still()
    if (refusal instanceof Promise) {
      this.#asking = true
      void refusal.then(
        () => {
          this.#asking = false
          then()
          this.pump()
        },
        (error) => this.#endBroken(error),
      )
      return false
    }
    if (refusal) this.#endFor(refusal)
    return refusal === undefined
  }

  #give(): void {
    const { bytes, stand, last, broken } = this.#all.piece(this.#sessile, this.#slice, this.#stand)
    this.#stand = stand
    if (broken !== undefined) {
      // A line that is not what was recorded: the stream ends before it, and says why.
      if (bytes.length > 0) this.#send(bytes)
      this.#endBroken(broken)
      return
    }
    if (bytes.length > 0) this.#send(bytes)
    else if (!last) this.#all.ready(this)
    if (last && !this.#caughtUp) {
      // They have more than there is: of a log restored from a backup, what comes next is not what follows on theirs.
      if (this.#stand.seq < this.#slice.after) {
        this.#endWith(JSON.stringify({ reason: 'beyond-the-end', seq: this.#stand.seq }))
        return
      }
      this.#caughtUp = true
      this.#send(Buffer.from(`event: caught-up\ndata: {"seq":${this.#seq}}\n\n`))
    }
  }

  /** The last one that this reader has. */
  get #seq(): number {
    return Math.max(this.#stand.seq, this.#slice.after)
  }

  /** Says from time to time that it is still there, to whoever still may follow. */
  #live(): void {
    if (!this.#over && this.#may(() => this.#live()) && this.underWay === 0) this.#send(STILL_HERE)
  }

  /** The log grew while this reader has yet to take what it was sent. */
  #mind(): void {
    const behind = (this.#sessile.recorder.endOf(this.#slice.log)?.size ?? 0) - this.#stand.place.end
    if (this.#caughtUp && behind > MOST_BEHIND) this.#all.cutOff(this)
  }

  #send(bytes: Buffer): void {
    if (this.underWay === 0) this.since = performance.now()
    this.#all.sends(this, bytes.length)
    this.#outgoing.write(bytes, () => {
      this.#all.took(this, bytes.length)
      if (this.underWay === 0) this.#all.ready(this)
    })
  }

  cutOff(): void {
    this.cut = true
    this.since = performance.now()
    this.#endWith(`{"reason":"too-slow","after":${this.#seq}}`)
  }

  drop(): void {
    // Where others stand before it on its connection, it has none of its own to end.
    this.#outgoing.req.socket.destroy()
  }

  #endBroken(error: unknown): void {
    this.#broke(error)
    this.#endFor(error)
  }

  #endFor(error: unknown): void {
    this.#endWith(JSON.stringify({ reason: problemOf(error, 'api').reason }))
  }

  #endWith(data: string): void {
    if (this.#over) return
    this.leave()
    this.#outgoing.end(`event: problem\ndata: ${data}\n\n`)
  }

  end(): void {
    if (this.#over) return
    this.leave()
    this.#outgoing.end()
  }

  leave(): void {
    this.#over = true
    clearInterval(this.#beat)
    this.#unwatch()
  }
}

const STILL_HERE = Buffer.from(': still here\n\n')
