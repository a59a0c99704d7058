// The recorder: the one writer. One loop takes every command that has queued and, for each in turn, decides, checks,
// seals and applies it to the views in an open transaction; then it makes the whole batch durable with one sync, and only
// then answers. Because there is one loop, there is no lock per user, and no state that did not follow from the log.
//
//   queue ─► decide ─► check ─► seal ─► apply ─┐            (per command, under its own savepoint)
//     ▲                                        ├─► append ─► answer everyone ─► tell the watchers
//     └──────── while the sync is under way ◄──┘            (per batch)
//
// A refusal undoes its own savepoint. A failed write undoes the batch, and everybody in it is told: nothing changed.
// A failed sync is the end of this process: what the disk holds is unknown until the log is read again.

import { tryAgain } from './again.ts'
import { answer, prepare } from './answering.ts'
import { Beside } from './beside.ts'
import type { Command } from './command.ts'
import { Deciding, type Parts } from './deciding.ts'
import { notRecorded, outcomeUnknown, Refusal } from './errors.ts'
import { Leisure } from './leisure.ts'
import { type Line, type Log, NotWritten } from './log.ts'
import { Steps } from './steps.ts'
import { type Batch, Syncing } from './syncing.ts'
import { isDamage, isSqlite } from './tables.ts'
import { turn } from './turn.ts'
import type { Mark, Views } from './views.ts'
import { type Request, Waiting } from './waiting.ts'
import { Watchers } from './watchers.ts'

const [MOST_BYTES, MOST_WAITING] = [4 * 1024 * 1024, 16_384]
/**
 * All that is under way must be durable before a commit. Where nobody waits to read what it brings it comes more seldom, and
 * where that is nothing but how far the views have come, seldom.
 */
const COMMIT_AFTER_MS = 100
const [TRAIL_AFTER_MS, MARK_AFTER_MS] = [4 * COMMIT_AFTER_MS, 10 * COMMIT_AFTER_MS]
const overloaded = () => new Refusal('unavailable', 'overloaded', 'Too many requests are waiting to be recorded.')

export class Recorder {
  readonly #parts: Parts
  readonly #log: Log
  readonly #deciding: Deciding
  readonly #queue: Waiting[] = []
  readonly #jobs: (() => Promise<void> | void)[] = []
  readonly watchers = new Watchers(() => this.#deciding.rulings)
  #running: Promise<void> | undefined
  readonly #syncing: Syncing
  #stalled: Refusal | undefined
  /** What everyone is told whose records were written when the log became doubtful. */
  #doubt: Refusal | undefined
  #closed = false
  #timer: NodeJS.Timeout | undefined
  /** When the views' transaction was opened. */
  #opened = 0
  /** Does it hold anything but the trail, which nobody waits to read? */
  #awaited = false
  readonly #steps: Steps
  readonly #leisure: Leisure
  /** A rebuild beside the live views, where there is one. */
  readonly beside: Beside

  constructor(parts: Parts) {
    this.#parts = parts
    this.#log = parts.log
    this.#deciding = new Deciding(parts, parts.views)
    const failed = (error: unknown) => this.#viewsFailed(error, [])
    this.#leisure = new Leisure({ log: parts.log, trailing: () => this.#deciding.trailing, failed })
    const { between } = this
    this.#steps = new Steps({
      log: parts.log,
      between,
      trail: (upTo) => this.#trail(upTo),
      harden: () => {
        this.#commitAll()
        this.#tending(() => this.#deciding.views.harden(this.#mark))
      },
      die: (error) => this.#die(error, []),
      report: parts.report,
    })
    this.beside = new Beside({
      token: parts.source.uuid,
      between,
      approach: () => this.#steps.approach(),
      endOf: (log) => this.#deciding.heads.endOf(log),
      settle: () => {
        this.#commit()
        this.#log.settle()
      },
      mark: () => this.#mark,
      replace: (adopt) => this.#deciding.replace(this.#tending(() => adopt(this.views))),
    })
    const syncFailed = (error: Error, waiting: readonly Waiting[]) => this.#syncFailed(error, waiting)
    this.#syncing = new Syncing(parts.log, this.#queue, (batch) => this.#answer(batch), syncFailed)
  }

  /** Records what a command decides; resolves with its answer once that is durable, rejects with a refusal. */
  submit(command: Command, request: Request): Promise<unknown> {
    if (this.#stalled) return Promise.reject(this.#stalled)
    if (this.#closed) return Promise.reject(new Refusal('unavailable', 'stopping', 'Sessile is stopping.'))
    if (this.waiting >= MOST_WAITING) return Promise.reject(overloaded())
    return new Promise((done, failed) => {
      this.#queue.push(new Waiting(command, request, done, failed))
      this.#syncing.came()
      this.#wake()
    })
  }

  /** Do so many wait that whoever can wait should? */
  get crowded(): boolean {
    return this.waiting >= MOST_WAITING / 2
  }

  /** Is somebody waiting for what is being recorded? */
  get busy(): boolean {
    return this.#queue.length > 0 || this.#syncing.underWay !== undefined
  }

  /** How many wait for an answer: to be decided, or for their sync. */
  get waiting(): number {
    return this.#queue.length + this.#syncing.waiting
  }

  /** Runs between two batches, when the views and the log agree. */
  readonly between = <T>(job: () => Promise<T> | T): Promise<T> =>
    new Promise((resolve, reject) => {
      this.#jobs.push(() => Promise.resolve().then(job).then(resolve, reject))
      this.#wake()
    })

  /** Resolves when readers see everything that has been acknowledged; the trail of other readers only where they ask for it. */
  async settled(trail = true): Promise<void> {
    this.#log.assertOurs()
    // Between batches the open transaction holds only what is durable; within one it does not.
    if (!this.#stalled && this.#deciding.views.changed && (trail || this.#awaited)) {
      const committed = this.#running ? this.between(() => this.#commit()) : Promise.resolve().then(() => this.#commit())
      await committed.catch(() => this.between(() => {})) // The views are being brought back: as a rule that is soon done.
    }
    // What could not be committed is missing from what can be read.
    if (this.#stalled) throw this.#stalled
  }

  /** Where a log ends, with what is being recorded, and when it last grew. */
  endOf(log: string): { size: number; at: number } | undefined {
    return this.#deciding.heads.find(log)
  }

  get views(): Views {
    return this.#deciding.views
  }

  /** The logs that take no more records, and why. */
  get damaged(): ReadonlyMap<string, string> {
    return this.#deciding.damaged
  }

  /** Why nothing can be recorded at the moment; undefined when all is well. */
  get stalled(): string | undefined {
    return this.#closed ? 'it is stopping' : this.#stalled?.message
  }

  #wake(): void {
    // A turn of the event loop first: requests that arrived together are recorded together.
    this.#running ??= turn().then(() => this.#loop())
  }

  async #loop(): Promise<void> {
    try {
      // To the end of what is under way: who finds no loop running may count on it that all is durable.
      while (this.#queue.length > 0 || this.#jobs.length > 0 || this.#syncing.underWay) {
        if (this.#jobs.length > 0) await this.#between()
        else if (this.#deciding.views.uncommitted && performance.now() - this.#opened > this.#patience) {
          await this.#syncing.underWay
          this.#tend()
        }
        if (!this.#closed) this.#steps.look()
        if (this.#queue.length > 0 && !this.#steps.holdsUp) this.#batch()
        while (!this.#stalled && this.#syncing.atLeisure && this.#leisure.work()) await turn()
        await this.#syncing.more
        if (this.#queue.length > 0) await this.#steps.turn()
      }
    } finally {
      this.#running = undefined
    }
    if (!this.#deciding.views.uncommitted) return
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => void this.between(() => this.#tend()), this.#patience)
  }

  async #between(): Promise<void> {
    await this.#syncing.underWay
    for (const job of this.#jobs.splice(0)) await job()
  }

  /** How long what is not committed may wait. */
  get #patience(): number {
    if (!this.#deciding.views.changed) return MARK_AFTER_MS
    return this.#awaited ? COMMIT_AFTER_MS : TRAIL_AFTER_MS
  }

  /** Decides what has queued, for about as long as a sync takes, and writes it. It is answered when it has been synced. */
  #batch(): void {
    const batch: Waiting[] = []
    const lines: Line[] = []
    try {
      if (!this.#deciding.views.uncommitted) {
        this.#deciding.views.begin()
        this.#opened = performance.now()
      }
      this.#deciding.views.savepoint('batch')
      let bytes = 0
      const most = this.#syncing.portion
      const until = performance.now() + this.#syncing.slice
      do {
        const waiting = this.#queue[batch.length] as Waiting
        batch.push(waiting)
        const first = lines.length
        this.#deciding.take(waiting, lines)
        if (lines.length > first && waiting.command !== this.#parts.gathered.trail) this.#awaited = true
        for (let i = first; i < lines.length; i++) bytes += lines[i]?.length ?? 0
      } while (batch.length < most && bytes < MOST_BYTES && performance.now() < until)
      this.#queue.splice(0, batch.length)
    } catch (error) {
      this.#queue.splice(0, batch.length)
      this.#viewsFailed(error, batch)
      return
    }
    try {
      if (lines.length > 0) this.#log.write(lines)
      this.#deciding.views.release('batch')
      this.#deciding.heads.keep()
    } catch (error) {
      this.#writeFailed(error, batch)
      return
    }
    this.#syncing.add({ waiting: batch, lines, lsn: this.#log.lsn })
    for (const waiting of batch) prepare(waiting)
    this.#leisure.owe(lines.length)
  }

  /** Answers everyone, and wakes whoever watches a log that grew. */
  #answer({ waiting: all, lines }: Batch): void {
    for (const waiting of all) this.#doubt ? waiting.failed(this.#doubt) : answer(waiting, this.#log, this.#parts.gathered.events)
    this.#deciding.heads.sealed(lines)
    this.beside.grew(lines)
    this.watchers.grew(lines)
  }

  /** Law 5: the write failed, so nothing happened; also not to those who were refused because of what now did not happen. */
  #writeFailed(error: unknown, batch: Waiting[]): void {
    if (!(error instanceof NotWritten)) {
      this.#die(error as Error, batch)
      return
    }
    try {
      this.#deciding.views.undo('batch')
      this.#deciding.heads.undo(0)
    } catch (inner) {
      this.#viewsFailed(inner, batch)
      return
    }
    for (const { failed } of batch) failed(notRecorded(error.message, error.full))
  }

  /** Where others write, it is told late that they could not. What has been decided since rests on it, and is forgotten as well. */
  #syncFailed(error: Error, batch: readonly Waiting[]): void {
    if (!(error instanceof NotWritten)) {
      this.#die(error, batch)
      return
    }
    this.#log.takeBack()
    this.#parts.report('what was decided could not be written', { error: error.message })
    this.#bringBack(notRecorded(error.message, error.full), batch)
  }

  /** The views failed, not the log: nothing of this batch was recorded. They are brought back, and then work goes on. */
  #viewsFailed(error: unknown, batch: readonly Waiting[]): void {
    const { code, message } = isSqlite(error) ? error : { code: '', message: (error as Error).message }
    this.#parts.report('the views failed', { code, error: message })
    this.#bringBack(
      notRecorded(`the views failed: ${message}`, code === 'SQLITE_FULL'),
      batch,
      isDamage(code) ? message : undefined,
    )
  }

  /** Tells everybody why, and makes the views be those of the log again. `distrust`: why what was committed of them is none of use. */
  #bringBack(why: Refusal, batch: readonly Waiting[], distrust?: string): void {
    // At once, before anything else can run: what was half done must not be committed, nor heads kept that follow from it.
    this.#deciding.views.abandon(distrust !== undefined)
    this.#deciding.heads.clear()
    this.#stalled = why
    for (const { failed } of [...batch, ...this.#queue.splice(0)]) failed(why)
    this.#restoreViews(distrust)
  }

  #restoreViews(distrust: string | undefined): void {
    const attempt = async () => {
      clearTimeout(this.#timer)
      this.#timer = undefined
      if (this.#closed || !this.#stalled) return // Where two things failed at a time, one attempt is enough.
      const views = await this.#parts.restore(distrust)
      this.#deciding.views.close()
      this.#deciding.replace(views)
      this.#stalled = undefined
      this.#parts.report('the views are back')
    }
    const failed = (error: Error) => this.#parts.report('the views could not be brought back yet', { error: error.message })
    void tryAgain(() => this.between(attempt), { failed, roomy: () => this.#log.roomy })
  }

  /** A reader found the views damaged: they are rebuilt, and reads and writes wait until they are. */
  distrust(error: unknown): boolean {
    if (!isSqlite(error) || !isDamage(error.code)) return false
    // Many may have met the same page: when its turn comes, it may have been seen to.
    const { views } = this
    void this.between(() => {
      if (!this.#stalled && this.views === views) this.#viewsFailed(error, [])
    })
    return true
  }

  #die(error: Error, batch: readonly Waiting[]): void {
    this.#closed = true
    this.#stalled = notRecorded(error.message, false)
    this.#doubt = outcomeUnknown(error.message)
    for (const { failed } of batch) failed(this.#doubt)
    for (const { failed } of this.#queue.splice(0)) failed(this.#stalled)
    this.#parts.fatal(error)
  }

  get #mark(): Mark {
    return { journal: this.#log.journal, lsn: this.#log.lsn, timestamp: this.#deciding.latest }
  }

  #commit(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    // After a failed sync nobody knows whether what the rows say is on the disk.
    if (this.#stalled || !this.#deciding.views.uncommitted) return
    this.#log.assertOurs()
    this.#tending(() => {
      this.#deciding.trailing.catchUp()
      this.#deciding.views.commit(this.#mark)
    })
    this.#awaited = false
  }

  /** Work on the views between two batches; where it fails, they are brought back. */
  #tending<T>(work: () => T): T {
    try {
      return work()
    } catch (error) {
      this.#viewsFailed(error, [])
      throw this.#stalled
    }
  }

  #tend(): void {
    try {
      this.#commit()
    } catch {} // The views are being brought back; the next commit comes with the next batch.
  }

  /** Makes everything durable without the journal. Recording goes on meanwhile; one at a time. */
  readonly checkpoint = (): Promise<void> => this.#steps.checkpoint()

  /** Brings what trails the views a step closer to this place in order; returns whether it is there. */
  #trail(upTo: number): boolean {
    if (this.#stalled) throw this.#stalled
    this.#deciding.views.begin()
    return this.#tending(() => this.#deciding.trailing.step(upTo, this.#log.lsn))
  }

  /** Commits the rows and all that trails them, however long that takes. */
  #commitAll(): void {
    while (!this.#trail(this.#log.lsn));
    this.#commit()
  }

  /** Brings every acknowledged line into its file and everything into the views, for another process to read. */
  settle(): Promise<void> {
    return this.between(() => {
      this.#commitAll()
      this.#log.settle()
    })
  }

  /** A moment between two batches: what was acknowledged by then has a time up to it, and all that follows a later one. */
  readonly moment = (): Promise<number> => this.between(() => this.#deciding.moment())

  /** Refuses new commands, answers those under way, makes everything durable. */
  async close(): Promise<void> {
    this.#closed = true
    this.beside.forget()
    await this.#running
    clearTimeout(this.#timer)
    const failed = ({ message }: Error) => this.#parts.report('the last checkpoint failed; the journal is kept', { error: message })
    if (!this.#stalled) await this.#steps.lastCheckpoint().catch(failed)
    this.#deciding.views.close()
    this.#log.close()
  }
}
