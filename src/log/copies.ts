// From the journal to the files: each acknowledged line is copied to the file of its own log, after the answer and out
// of its way. Until then, and while a disk is full, readers get it from here.

import { dirname } from 'node:path'
import { bounds } from '../core/bounds.ts'
import { type Line, NotWritten, type Report, type Shelf, SyncFailed } from '../core/log.ts'
import { pacer } from '../core/turn.ts'
import { Harmed, isLost, isMisplaced, isOutOfReach, twice, unwritable } from './aside.ts'
import { codeOf, type Disk, each, isOutOfDescriptors, writeAll } from './disk.ts'
import type { Printed } from './frame.ts'
import { Extents, type Holds, mismatch, type Piece, piecesOf } from './portions.ts'
import { fileOf, logsOf, readOn } from './shelf.ts'
import { type Pieces, Slabs, together } from './slabs.ts'

/** A log on its way: where it will end once all that was written to the journal is durable there, and what has yet to get to its file. */
interface Pending extends Pieces {
  end: number
  offset: number
}

/** How long lines wait to be copied together: a moment where there are few of them, longer where many keep coming. */
const [GATHER_MS, BUSY_MS] = [50, 500]
const [BUSY_BYTES, GATHER_BYTES] = [64 * 1024, 8 * 1024 * 1024]
const SLICE_MS = 0.25
/** Where somebody has nothing else to do they begin earlier, copy less at a time, and have a while before the clock goes on. */
const [EARLY_MS, EARLY_BYTES, LITTLE_MS, WHILE_MS] = [250, 4 * 1024 * 1024, 0.05, 10]
/** Where much is waiting, copying takes its time from the recorder, which slows it down before it has to refuse. */
const [LONG_SLICE_MS, MUCH_PENDING] = [30, 24 * 1024 * 1024]
const AGAIN_MS = 1000
/** Lines waiting for their files beyond which no more are taken on. */
const MOST_PENDING = 64 * 1024 * 1024

export class Copies {
  readonly #disk: Disk
  readonly #home: string
  readonly #files: Shelf
  readonly #report: Report
  readonly #pending = new Map<string, Pending>()
  readonly #open = new Map<string, number>()
  /** Where the files end that were written lately. */
  readonly #ends = new Map<string, number>()
  readonly #harmed: Harmed
  readonly #slabs = new Slabs()
  /** What the next checkpoint must sync. */
  #touched = new Set<string>()
  #folders = new Set<string>()
  #bytes = 0
  /** The logs whose lines are being copied now, the next one last. */
  #round: string[] = []
  #next: NodeJS.Timeout | undefined
  #since = 0
  #trouble: string | undefined
  #full = false

  constructor(disk: Disk, home: string, journal: string, files: Shelf, report: Report) {
    this.#disk = disk
    this.#home = home
    this.#files = files
    this.#report = report
    this.#harmed = new Harmed(disk, journal, report)
  }

  /** The logs that take no more, and why. */
  get damaged(): ReadonlyMap<string, string> {
    return this.#harmed.all
  }

  /** Why no more lines should be taken on; undefined when there is room. */
  get crowded(): NotWritten | undefined {
    if (this.#bytes <= MOST_PENDING) return undefined
    return new NotWritten(this.#trouble ?? 'too many lines are waiting for their files', this.#full)
  }

  /**
   * Looks whether each line begins where its log ends. It always does, unless the recorder's memory or a file is wrong:
   * then writing would destroy what had been acknowledged, so nothing of this batch is written, and that log takes no more.
   */
  expect(lines: readonly Line[]): void {
    let expected = 0
    try {
      for (; expected < lines.length; expected++) this.#expect(lines[expected] as Line)
    } catch (error) {
      this.unexpect(lines, expected)
      throw error
    }
  }

  #expect({ log, offset, length }: Line): void {
    const known = this.#pending.get(log)
    const pending = known ?? this.#begin(log)
    if (pending.end !== offset) {
      this.#harmed.note(log, `its file ends at byte ${pending.end}, and its next record would begin at byte ${offset}`)
      throw new NotWritten(`the log ${log} is damaged`, false)
    }
    pending.end = offset + length
    if (!known) this.#pending.set(log, pending)
  }

  /** The first so many lines of a batch were not written after all. */
  unexpect(lines: readonly Line[], count = lines.length): void {
    for (let i = count - 1; i >= 0; i--) {
      const { log, offset } = lines[i] as Line
      const pending = this.#pending.get(log) as Pending
      pending.end = offset
      if (pending.end === pending.offset) this.#pending.delete(log)
    }
  }

  #begin(log: string): Pending {
    const end = this.#ends.get(log) ?? this.#sizeOf(log)
    return { end, offset: end, length: 0, slabs: [], from: [], to: [] }
  }

  /** Where something else stands in the way to a file, its log takes no more; the others do. */
  #sizeOf(log: string): number {
    try {
      return twice(() => this.#disk.sizeAt(fileOf(this.#home, log)))
    } catch (error) {
      if (isOutOfReach(error)) this.#harmed.note(log, unwritable(error))
      throw new NotWritten(`the log ${log} cannot be reached (${codeOf(error)})`, false)
    }
  }

  /** These lines are durable in the journal now. */
  add(lines: readonly Line[], printed: Printed): void {
    const { slab, at } = this.#slabs.keep(printed.bytes, lines.length)
    for (let i = 0; i < lines.length; i++) {
      const { log, length } = lines[i] as Line
      const pending = this.#pending.get(log) as Pending
      const from = at + (printed.at[i] as number)
      pending.slabs.push(slab)
      pending.from.push(from)
      pending.to.push(from + length)
      pending.length += length
      this.#bytes += length
    }
    if (!this.#next) this.#gather()
  }

  #gather(): void {
    this.#since = performance.now()
    this.#next = setTimeout(() => this.#gathered(), GATHER_MS)
  }

  /** Where many lines keep coming, several of each log go in one write if they wait a little longer. */
  #gathered(): void {
    const early = this.#bytes < GATHER_BYTES && performance.now() - this.#since < BUSY_MS
    if (early && this.#bytes > BUSY_BYTES && this.#round.length === 0) this.#next = setTimeout(() => this.#gathered(), GATHER_MS)
    else this.#slice(this.#bytes > MUCH_PENDING ? LONG_SLICE_MS : SLICE_MS)
  }

  /**
   * Copies a little, if it is time for that; returns whether. What is copied by somebody who has nothing else to do need not be when
   * others wait; so much that it cannot wait is not left to them.
   */
  copySome(): boolean {
    if (this.#trouble !== undefined || this.#bytes > GATHER_BYTES) return false
    const busy = this.#bytes > EARLY_BYTES || (this.#bytes > BUSY_BYTES && performance.now() - this.#since > EARLY_MS)
    if (!busy && this.#round.length === 0) return false
    this.#slice(LITTLE_MS, WHILE_MS)
    return true
  }

  /** A part of a log, from its file and from what has yet to get there. */
  read(log: string, offset: number, length: number, room?: Buffer): Buffer {
    const pending = this.#pending.get(log)
    if (!pending) return this.#files.read(log, offset, length, room)
    const waiting = together(pending, Buffer.allocUnsafe(pending.length))
    if (pending.slabs.length > 1) {
      this.#slabs.release(pending)
      const { slab, at } = this.#slabs.keep(waiting, 1)
      Object.assign(pending, { slabs: [slab], from: [at], to: [at + waiting.length] })
    }
    if (offset >= pending.offset) return waiting.subarray(offset - pending.offset, offset - pending.offset + length)
    return readOn((bytes) => this.#files.read(log, offset, bytes), pending.offset - offset, length, waiting)
  }

  /**
   * Copies all there is by now, a log with each step. One file that cannot be written keeps no other from being complete,
   * and what its disk has lost is not waited for any longer.
   */
  *settling(): Generator<void> {
    const errors: unknown[] = []
    for (const [i, log] of [...this.#pending.keys()].entries()) {
      // Between two of them: nobody needs a turn when all is done.
      if (i > 0) yield
      try {
        this.#copy(log, isLost)
      } catch (error) {
        if (error instanceof SyncFailed) throw error
        errors.push(error)
      }
    }
    if (errors.length > 0) throw errors[0]
  }

  /** Copies what is there for a moment, a log after the other, then lets others have their turn. */
  #slice(ms: number, pause = 0): void {
    clearTimeout(this.#next)
    this.#next = undefined
    if (this.#round.length === 0) this.#round = [...this.#pending.keys()].reverse()
    const until = performance.now() + ms
    let failed: unknown
    // One file that cannot be written must not keep the others waiting.
    while (this.#round.length > 0 && performance.now() < until) {
      try {
        this.#copy(this.#round.pop() as string)
      } catch (error) {
        failed = error
        // Those that are kept open for later may be what is missing now.
        if (isOutOfDescriptors(error)) this.#keepOpen(0)
      }
    }
    this.#trouble = failed === undefined ? undefined : `lines wait for their files (${codeOf(failed)})`
    this.#full = ['ENOSPC', 'EDQUOT'].includes(codeOf(failed))
    if (this.#trouble !== undefined) {
      this.#report(this.#trouble, { waiting: this.#pending.size })
      this.#next = setTimeout(() => this.#gathered(), AGAIN_MS).unref()
    } else if (this.#round.length > 0) this.#next = setTimeout(() => this.#gathered(), pause)
    else if (this.#pending.size > 0) this.#gather()
  }

  /** `givesUp`: is this trouble a reason to give the log up? Any other may pass, and is tried again. */
  #copy(log: string, givesUp = isMisplaced): void {
    const pending = this.#pending.get(log)
    if (!pending || pending.length === 0) return // Somebody could not wait, and settled it.
    const { offset, length } = pending
    const piece = { offset, bytes: this.#slabs.atOnce(pending) }
    const wrong = this.damaged.get(log) ?? this.#place(log, piece, givesUp)
    if (wrong !== undefined) this.#harmed.setAside(log, piece, wrong)
    this.#touched.add(log)
    this.#slabs.release(pending)
    this.#bytes -= length
    // What has been written to the journal, and is not durable there, is still to come.
    if (pending.end === offset + length) this.#pending.delete(log)
    else Object.assign(pending, { offset: offset + length, length: 0, slabs: [], from: [], to: [] })
  }

  /** Brings these bytes to their place in the file, or says why that cannot be. */
  #place(log: string, piece: Piece, givesUp: (error: unknown) => boolean): string | undefined {
    const { offset, bytes } = piece
    try {
      return twice(() => {
        const fd = this.#fd(log, piece)
        if (typeof fd === 'string') return fd
        writeAll(this.#disk, fd, bytes, offset)
        this.#remember(log, offset + bytes.length)
        return undefined
      })
    } catch (error) {
      if (givesUp(error)) return unwritable(error)
      throw error
    }
  }

  #remember(log: string, end: number): void {
    this.#ends.delete(log)
    this.#ends.set(log, end)
    for (const oldest of this.#ends.keys()) {
      if (this.#ends.size <= bounds.knownEnds) break
      this.#ends.delete(oldest)
    }
  }

  /** The open file of a log; or why what the file holds is not what the recorder left there. */
  #fd(log: string, piece: Piece): number | string {
    const known = this.#open.get(log)
    if (known !== undefined) {
      this.#open.delete(log)
      this.#open.set(log, known)
      return known
    }
    const path = fileOf(this.#home, log)
    const isFirst = piece.offset === 0
    if (isFirst) this.#makeFolders(path)
    const fd = this.#disk.open(path, isFirst)
    let wrong: string | undefined = 'its file cannot be read'
    try {
      wrong = mismatch(this.#disk, fd, piece)
    } finally {
      if (wrong !== undefined) this.#disk.close(fd)
    }
    if (wrong !== undefined) return wrong
    this.#open.set(log, fd)
    this.#keepOpen(bounds.openFiles)
    return fd
  }

  #keepOpen(most: number): void {
    for (const [oldest, old] of this.#open) {
      if (this.#open.size <= most) break
      this.#disk.close(old)
      this.#open.delete(oldest)
    }
  }

  #makeFolders(path: string): void {
    const top = logsOf(this.#home)
    if (!this.#folders.has(dirname(path))) this.#disk.makeFolder(dirname(path))
    for (let folder = dirname(path); folder.length >= top.length; folder = dirname(folder)) this.#folders.add(folder)
  }

  // --- recovery -----------------------------------------------------------------------------------------------------

  /**
   * Idempotent redo: brings every surviving line to its place, also where the same bytes are to be read there: they may be
   * what a failed sync left in memory alone. Bytes that a crash left as zeros are written over. Anything else was not written
   * by Sessile: that file is left as it is, its lines are set aside, and it takes no more.
   */
  redo(extents: Extents, holds: Holds): void {
    for (const [log, piece] of piecesOf(extents, holds)) {
      this.#touched.add(log)
      const wrong = this.#place(log, piece, isLost)
      if (wrong !== undefined) this.#harmed.setAside(log, piece, wrong)
    }
  }

  // --- checkpoints --------------------------------------------------------------------------------------------------

  /**
   * Makes every file touched since the last time durable, and the names that lead to it. Of a file that is out of reach
   * nobody knows what is durable: what the journal `holds` of it is set aside.
   */
  async harden(holds: Holds): Promise<void> {
    // Others have their turn meanwhile: all that was acknowledged by now is in its file at the end.
    const pace = pacer(SLICE_MS)
    for (const _ of this.settling()) await pace()
    const { touched, folders } = { touched: this.#touched, folders: this.#folders }
    this.#touched = new Set()
    this.#folders = new Set()
    try {
      const lost = new Map<string, string>()
      // While lines keep coming everybody waits for the journal's syncs: those of the files hold them up. Where there are many files
      // it must not take so long that nothing may be written before it has ended.
      const inTheWay = () => this.#bytes > 0 && touched.size <= bounds.filesInTurn
      await each([...touched], (log) => this.#syncFile(log, lost), inTheWay)
      await each([...folders], (folder) => this.#disk.syncFolder(folder))
      this.#mustStayLost(lost)
      if (lost.size > 0) this.#setAside(lost, holds)
    } catch (error) {
      for (const log of touched) this.#touched.add(log)
      for (const folder of folders) this.#folders.add(folder)
      throw error
    }
  }

  /** All that the journal holds of these logs is put where it can be found. */
  #setAside(why: ReadonlyMap<string, string>, holds: Holds): void {
    const theirs = new Extents()
    for (const lines of holds()) for (const line of lines) if (why.has(line.log)) theirs.note(line)
    for (const [log, piece] of piecesOf(theirs, holds)) this.#harmed.setAside(log, piece, why.get(log) as string)
  }

  /** The open file of a log, or why it is out of reach. */
  #reach(log: string): number | string {
    try {
      return twice(() => this.#disk.open(fileOf(this.#home, log), false))
    } catch (error) {
      if (!isLost(error)) throw error
      return unwritable(error)
    }
  }

  /** The disk may have been disturbed for as long as that took: a log is given up only while others can be written. */
  #mustStayLost(lost: ReadonlyMap<string, string>): void {
    for (const [log, why] of lost) {
      const fd = this.#reach(log)
      if (typeof fd === 'string') continue
      this.#disk.close(fd)
      throw new Error(`a log was out of reach and is back: ${why}`)
    }
  }

  async #syncFile(log: string, lost: Map<string, string>): Promise<void> {
    const fd = this.#reach(log)
    if (typeof fd === 'string') {
      lost.set(log, fd)
      return
    }
    try {
      await this.#disk.sync(fd)
    } finally {
      this.#disk.close(fd)
    }
  }

  close(): void {
    clearTimeout(this.#next)
    this.#keepOpen(0)
  }
}
