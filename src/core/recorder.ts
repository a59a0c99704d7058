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

import { Beside } from './beside.ts'
import type { Command } from './command.ts'
import { Deciding, type Grounds, type Request, type Waiting } from './deciding.ts'
import { Refusal } from './errors.ts'
import type { Head } from './heads.ts'
import { type Line, type Log, linesOf, NotWritten, type Report, SyncFailed } from './log.ts'
import type { Remembered } from './names.ts'
import { isErased, parseLine, type Recorded } from './record.ts'
import { isDamage, isSqlite } from './tables.ts'
import type { Mark, Views } from './views.ts'

/** Called when a log has grown; what it grew by is read from the log. */
export type Watcher = () => void

export interface Parts extends Grounds {
  views: Views
  report: Report
  /** Brings back views that failed while running. */
  restore: (distrust: string | undefined) => Promise<Views>
  /** Called once when the log can no longer be trusted: the process must end. */
  fatal: (error: Error) => void
}

const MOST_IN_BATCH = 1024
const MOST_BYTES = 4 * 1024 * 1024
const MOST_WAITING = 16_384
const COMMIT_AFTER_MS = 100
const RESTORE_AFTER_MS = 500

export class Recorder {
  readonly #parts: Parts
  readonly #log: Log
  readonly #deciding: Deciding
  readonly #queue: Waiting[] = []
  readonly #jobs: (() => Promise<void> | void)[] = []
  readonly #watchers = new Map<string, Set<Watcher>>()
  #running: Promise<void> | undefined
  #stalled: Refusal | undefined
  #closed = false
  #timer: NodeJS.Timeout | undefined
  /** When the views' transaction was opened. */
  #opened = 0
  #checkpointing: Promise<void> | undefined
  readonly #beside = new Beside()

  constructor(parts: Parts) {
    this.#parts = parts
    this.#log = parts.log
    this.#deciding = new Deciding(parts, parts.views)
  }

  /** Records what a command decides; resolves with its answer once that is durable, rejects with a refusal. */
  submit(command: Command, request: Request): Promise<unknown> {
    if (this.#stalled) return Promise.reject(this.#stalled)
    if (this.#closed) return Promise.reject(new Refusal('unavailable', 'stopping', 'Sessile is stopping.'))
    if (this.#queue.length >= MOST_WAITING) {
      return Promise.reject(new Refusal('unavailable', 'overloaded', 'Too many requests are waiting to be recorded.'))
    }
    return new Promise((done, failed) => {
      this.#queue.push({
        command,
        request,
        done,
        failed,
        records: [],
        command_id: undefined,
        revealed: undefined,
        before: undefined,
        refusal: undefined,
      })
      this.#wake()
    })
  }

  /** Runs between two batches, when the views and the log agree. */
  between<T>(job: () => Promise<T> | T): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#jobs.push(() => Promise.resolve().then(job).then(resolve, reject))
      this.#wake()
    })
  }

  /** Resolves when readers see everything that has been acknowledged. */
  async settled(): Promise<void> {
    if (!this.#deciding.views.uncommitted) return
    // Between batches the open transaction holds only what is durable; within one it does not.
    if (this.#running) await this.between(() => this.#commit())
    else this.#commit()
  }

  /** When a log last grew, in milliseconds. */
  lastAt(log: string): number | undefined {
    return this.#deciding.heads.find(log)?.at
  }

  watch(log: string, watcher: Watcher): () => void {
    const watchers = this.#watchers.get(log) ?? new Set()
    this.#watchers.set(log, watchers.add(watcher))
    return () => {
      watchers.delete(watcher)
      if (watchers.size === 0) this.#watchers.delete(log)
    }
  }

  get views(): Views {
    return this.#deciding.views
  }

  /** Why nothing can be recorded at the moment; undefined when all is well. */
  get stalled(): string | undefined {
    return this.#closed ? 'it is stopping' : this.#stalled?.message
  }

  #wake(): void {
    // A turn of the event loop first: requests that arrived together are recorded together.
    this.#running ??= new Promise<void>((resolve) => setImmediate(resolve)).then(() => this.#loop())
  }

  async #loop(): Promise<void> {
    try {
      while (this.#queue.length > 0 || this.#jobs.length > 0) {
        for (const job of this.#jobs.splice(0)) await job()
        if (this.#queue.length > 0) await this.#batch()
        if (this.#deciding.views.uncommitted && performance.now() - this.#opened > COMMIT_AFTER_MS) this.#tend()
      }
    } finally {
      this.#running = undefined
    }
    if (this.#deciding.views.uncommitted) this.#timer ??= setTimeout(() => void this.between(() => this.#tend()), COMMIT_AFTER_MS)
  }

  async #batch(): Promise<void> {
    const batch: Waiting[] = []
    const lines: Line[] = []
    try {
      if (!this.#deciding.views.uncommitted) {
        this.#deciding.views.begin()
        this.#opened = performance.now()
      }
      this.#deciding.views.savepoint('batch')
      let bytes = 0
      while (this.#queue.length > batch.length && batch.length < MOST_IN_BATCH && bytes < MOST_BYTES) {
        const waiting = this.#queue[batch.length] as Waiting
        batch.push(waiting)
        const first = lines.length
        this.#deciding.take(waiting, lines)
        for (let i = first; i < lines.length; i++) bytes += lines[i]?.bytes.length ?? 0
      }
      this.#queue.splice(0, batch.length)
    } catch (error) {
      this.#queue.splice(0, batch.length)
      this.#viewsFailed(error, batch)
      return
    }
    try {
      if (lines.length > 0) await this.#log.append(lines)
      this.#deciding.views.release('batch')
      this.#deciding.heads.keep()
    } catch (error) {
      this.#appendFailed(error, batch)
      return
    }
    this.#answer(batch)
    this.#tell(lines)
  }

  #answer(batch: Waiting[]): void {
    for (const waiting of batch) {
      const { command, request, done, failed, records, before, refusal, revealed } = waiting
      if (refusal !== undefined) failed(refusal)
      else if (before) this.#recall(before, waiting)
      else {
        try {
          const answer = command.answer(records, request.input)
          done(revealed ? { ...(answer as object), ...revealed } : answer)
        } catch (error) {
          failed(error)
        }
      }
    }
  }

  /** Answers a retry from the records of the first request, read from where they stand. */
  #recall(places: readonly Remembered[], { command, request, done, failed }: Waiting): void {
    const records: Recorded[] = []
    try {
      for (const { log, offset, count } of places) {
        let left = count
        for (const line of linesOf(this.#log, log, offset)) {
          const record = parseLine(line.bytes)
          if (!isErased(record)) records.push(this.#parts.gathered.events.upcast(record))
          if (--left === 0) break
        }
      }
      if (records.length === 0) throw new Refusal('not-found', 'erased', 'What this request recorded has been erased.')
      done(command.answer(records, request.input))
    } catch (error) {
      failed(error)
    }
  }

  /** Wakes whoever watches a log that grew. */
  #tell(lines: Line[]): void {
    this.#beside.grew(lines)
    if (this.#watchers.size === 0) return
    for (const log of new Set(lines.map((line) => line.log))) for (const watcher of this.#watchers.get(log) ?? []) watcher()
  }

  // --- when something fails -----------------------------------------------------------------------------------------

  /** Law 5: the append failed, so nothing happened; also not to those who were refused because of what now did not happen. */
  #appendFailed(error: unknown, batch: Waiting[]): void {
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

  /** The views failed, not the log: nothing of this batch was recorded. They are brought back, and then work goes on. */
  #viewsFailed(error: unknown, batch: Waiting[]): void {
    const { code, message } = isSqlite(error) ? error : { code: '', message: (error as Error).message }
    this.#parts.report('the views failed', { code, error: message })
    // At once, before anything else can run: what was half done must not be committed, nor heads kept that follow from it.
    this.#deciding.views.abandon()
    this.#deciding.heads.clear()
    this.#stalled = notRecorded(`the views failed: ${message}`, code === 'SQLITE_FULL')
    for (const { failed } of [...batch, ...this.#queue.splice(0)]) failed(this.#stalled)
    this.#restoreViews(isDamage(code) ? message : undefined)
  }

  #restoreViews(distrust: string | undefined): void {
    const attempt = async () => {
      clearTimeout(this.#timer)
      this.#timer = undefined
      if (this.#closed) return
      try {
        const views = await this.#parts.restore(distrust)
        this.#deciding.views.close()
        this.#deciding.views = views
        this.#stalled = undefined
        this.#parts.report('the views are back')
      } catch (error) {
        this.#parts.report('the views could not be brought back yet', { error: (error as Error).message })
        setTimeout(() => void this.between(attempt), RESTORE_AFTER_MS).unref()
      }
    }
    void this.between(attempt)
  }

  /** A reader found the views damaged: they are rebuilt, and reads and writes wait until they are. */
  distrust(error: unknown): boolean {
    if (!isSqlite(error) || !isDamage(error.code)) return false
    if (!this.#stalled) void this.between(() => this.#viewsFailed(error, []))
    return true
  }

  #die(error: Error, batch: Waiting[]): void {
    this.#closed = true
    this.#stalled = notRecorded(error.message, false)
    for (const { failed } of [...batch, ...this.#queue.splice(0)]) failed(this.#stalled)
    this.#parts.fatal(error)
  }

  // --- commits, checkpoints, rebuilds -------------------------------------------------------------------------------

  get #mark(): Mark {
    return { journal: this.#log.journal, lsn: this.#log.lsn, timestamp: this.#deciding.latest }
  }

  #commit({ all = false } = {}): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (all) this.#deciding.views.begin()
    if (!this.#deciding.views.uncommitted) return
    try {
      this.#deciding.heads.flush((log, head: Head) => this.#deciding.views.putHead(log, head))
      this.#deciding.views.commit(this.#mark, { all })
    } catch (error) {
      this.#viewsFailed(error, [])
      throw this.#stalled
    }
  }

  /** What is done now and then: commit, and see whether the journal has grown enough for a checkpoint. */
  #tend(): void {
    try {
      this.#commit()
    } catch {
      return // The views are being brought back; the next commit comes with the next batch.
    }
    if (!this.#log.due || this.#checkpointing) return
    this.checkpoint().catch((error: Error) =>
      this.#parts.report('a checkpoint failed; the journal is kept', { error: error.message }),
    )
  }

  /** Makes everything durable without the journal. Recording goes on meanwhile; one at a time. */
  checkpoint(): Promise<void> {
    this.#checkpointing ??= this.#log
      .checkpoint({
        batches: (job) => this.between(job),
        views: () =>
          this.between(() => {
            this.#commit()
            try {
              this.#deciding.views.harden(this.#mark)
            } catch (error) {
              this.#viewsFailed(error, [])
              throw error
            }
          }),
      })
      .catch((error: Error) => {
        if (error instanceof SyncFailed) this.#die(error, [])
        throw error
      })
      .finally(() => {
        this.#checkpointing = undefined
      })
    return this.#checkpointing
  }

  /** Brings every acknowledged line into its file and everything into the views, for another process to read. */
  settle(): Promise<void> {
    return this.between(() => {
      this.#commit({ all: true })
      this.#log.settle()
    })
  }

  /** A rebuild begins beside the live views; one that began before it is forgotten. */
  rebuildBegins(): Promise<{ rebuild: string; mark: Mark }> {
    return this.between(() => {
      this.#log.settle()
      return { rebuild: this.#beside.begin(this.#parts.source.uuid()), mark: this.#mark }
    })
  }

  /** Tells a rebuild which logs have grown since it last asked. */
  rebuildGoesOn(token: string): Promise<{ mark: Mark; grown: string[] }> {
    return this.between(() => {
      const grown = this.#beside.goOn(token)
      this.#log.settle()
      return { mark: this.#mark, grown }
    })
  }

  /** Brings fresh views up to date, between two batches, and puts them in the place of the live ones. */
  rebuildEnds(token: string, adopt: (grown: readonly string[], mark: Mark, live: Views) => Views): Promise<void> {
    return this.between(() => {
      const grown = this.#beside.goOn(token)
      this.#commit()
      this.#log.settle()
      this.#beside.end()
      this.#deciding.views = adopt(grown, this.#mark, this.#deciding.views)
      this.#deciding.heads.clear()
    })
  }

  /** Refuses new commands, answers those under way, makes everything durable. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#running
    clearTimeout(this.#timer)
    if (!this.#stalled) {
      await this.checkpoint().catch((error: Error) =>
        this.#parts.report('the last checkpoint failed; the journal is kept', { error: error.message }),
      )
    }
    this.#deciding.views.close()
    this.#log.close()
  }
}

const notRecorded = (why: string, full: boolean) =>
  new Refusal('unavailable', 'not-recorded', `Nothing was recorded: ${why}.`, { facts: full ? { disk_full: true } : {} })
