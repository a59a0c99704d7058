// The log of one data directory on one machine: the lock, the journal, and the files that readers know.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { bounds } from '../core/bounds.ts'
import { Refusal } from '../core/errors.ts'
import { type Between, type JournalLine, type Line, type Log, NotWritten, type Report } from '../core/log.ts'
import { Copies } from './copies.ts'
import { codeOf, type Disk, realDisk } from './disk.ts'
import { endingAtSyncs, fenced } from './fence.ts'
import { noteHashes, type Printed } from './frame.ts'
import { Journal } from './journal.ts'
import { type InTheWay, Lock } from './lock.ts'
import { Room } from './room.ts'
import { FileShelf, journalOf, logsOf } from './shelf.ts'
import { inThread, type Sit, ThreadHand } from './thread.ts'
import { realHome } from './way.ts'

interface Opened {
  disk?: Disk
  now?: () => number
  report?: Report
  /** Whose lock may be put aside, if need be: a holder who does not answer. */
  takeOver?: InTheWay | undefined
  /** Called once when nothing may be written any more: the process must end. */
  lost?: (error: Error) => void
  /** Who writes where much is recorded; where nobody is named, a thread of this process, if that can reach the disk. */
  sit?: Sit | undefined
}

const SECOND_MS = 1000
/** For so long it is counted how much is written. */
const WHILE_MS = 250
/** Is so much written, and so much at a time, that it is worth the way to another thread? */
const isMuch = ({ batches, lines }: { batches: number; lines: number }) =>
  lines > (bounds.busy * WHILE_MS) / SECOND_MS && lines > bounds.busyAtOnce * batches

export class FileLog implements Log {
  readonly #lock: Lock
  readonly #journal: Journal
  readonly #copies: Copies
  readonly #files: FileShelf
  readonly #room: Room
  /** Who is to write where much is recorded, and the hand that has been asked for. */
  #sit: Sit | undefined
  #asked: ThreadHand | undefined
  /** Does another thread write by now? */
  helped = false
  /** How much there was to write in this while. */
  #counted = { since: 0, batches: 0, lines: 0 }
  /** When the journal could last not be written. */
  #refused = Number.NEGATIVE_INFINITY
  /** What was written and is not durable yet. */
  #written: { lines: readonly Line[]; printed: Printed }[] = []
  /** The hashes of all batches up to this one stand in their lines. */
  #known = 0

  private constructor(lock: Lock, journal: Journal, copies: Copies, files: FileShelf, room: Room, sit: Sit | undefined) {
    this.#room = room
    this.#sit = sit
    void room.kept // From the first moment on, where that can be.
    this.#lock = lock
    this.#journal = journal
    this.#copies = copies
    this.#files = files
  }

  /** Takes the lock, recovers what a crash left, and is ready to append. */
  static open(
    named: string,
    { disk: bare = realDisk, now = Date.now, report = () => {}, takeOver, lost = () => {}, sit }: Opened = {},
  ): FileLog {
    const home = realHome(named)
    const folder = journalOf(home)
    bare.makeFolder(folder)
    let held: Lock | undefined
    const disk = fenced(bare, () => held?.assertOurs())
    const room = new Room(disk, join(folder, 'room'))
    const lock = Lock.take({ disk: bare, home, journal: folder, now: now(), over: takeOver, spend: room.spend, lost })
    held = lock
    try {
      const files = new FileShelf(home, { disk })
      const { journal, survived } = room.spend(() => Journal.open(disk, folder, report))
      disk.syncFolderNow(logsOf(home))
      disk.syncFolderNow(home)
      const copies = new Copies(endingAtSyncs(disk, lost), home, folder, files, report)
      room.spend(() => copies.redo(survived.extents, () => journal.linesIn()))
      if (survived.count > 0) report('records were recovered from the journal', { records: survived.count })
      // A disk that is not the real one lives in this thread.
      return new FileLog(lock, journal, copies, files, room, sit ?? (bare === realDisk ? inThread(lock.sign) : undefined))
    } catch (error) {
      lock.release()
      throw error
    }
  }

  get journal(): string {
    return this.#journal.id
  }

  get lsn(): number {
    return this.#journal.lsn
  }

  get durable(): number {
    return this.#journal.durable
  }

  get due(): boolean {
    return this.#journal.due
  }

  get overfull(): boolean {
    return this.#journal.overfull
  }

  /** Was the data taken from a process that may still be there? */
  get tookOver(): boolean {
    return this.#lock.tookOver
  }

  assertOurs(): void {
    this.#lock.assertOurs()
  }

  get roomy(): boolean {
    return this.#room.kept
  }

  giveRoom(): void {
    this.#room.give()
  }

  write(lines: readonly Line[]): void {
    if (this.#copies.crowded) throw this.#copies.crowded
    if (!this.roomy) throw new NotWritten('the disk is full', true)
    this.#askForHelp(lines.length)
    this.#copies.expect(lines)
    try {
      this.#written.push({ lines, printed: this.#journal.write(lines, this.#known) })
    } catch (error) {
      this.#copies.unexpect(lines)
      this.#refused = performance.now()
      throw error
    }
  }

  async sync(alone = false): Promise<void> {
    try {
      await this.#journal.sync(alone)
    } catch (error) {
      this.#acknowledge()
      // Where another has taken over, it is said who.
      if (!(error instanceof NotWritten)) this.#lock.assertOurs()
      throw error
    }
    this.#acknowledge()
  }

  /** What was told late costs the readers something, too: until the disk takes what it is given, it is found out at once. */
  takeBack(): void {
    this.#journal.takeBack()
    for (const { lines } of this.#written.splice(0).reverse()) this.#copies.unexpect(lines)
    this.helped = !this.#journal.handTo()
    this.#refused = performance.now()
  }

  /**
   * Where much is recorded at a time another thread is asked to write; from the first moment when nothing is under way, it does. Where
   * little is, the way to it and back takes longer than what it does.
   */
  #askForHelp(lines: number): void {
    const now = performance.now()
    if (now - this.#counted.since > WHILE_MS) {
      if (this.helped && !isMuch(this.#counted)) this.helped = !this.#journal.handTo()
      this.#counted = { since: now, batches: 0, lines: 0 }
    }
    this.#counted.batches++
    this.#counted.lines += lines
    if (this.helped || !this.#sit || !isMuch(this.#counted)) return
    try {
      this.#asked ??= new ThreadHand(this.#sit)
    } catch {
      this.#sit = undefined // There may be no more threads: then we write ourselves.
      return
    }
    const isWell = now - this.#refused > SECOND_MS
    if (this.#asked.ready && isWell) this.helped = this.#journal.handTo(this.#asked)
  }

  /** What is durable by now goes on to its files, and what follows it is told its hashes. */
  #acknowledge(): void {
    while (this.#written.length > 0 && (this.#written[0] as { printed: Printed }).printed.batch <= this.#journal.come) {
      const { lines, printed } = this.#written.shift() as { lines: readonly Line[]; printed: Printed }
      noteHashes(lines, printed)
      this.#copies.add(lines, printed)
      this.#journal.letGo(printed.batch)
      this.#known = printed.batch
    }
  }

  settle(): void {
    for (const _ of this.settling());
  }

  settling(): Iterable<void> {
    return this.#copies.settling()
  }

  copySome(): boolean {
    return this.#copies.copySome()
  }

  since(lsn: number): Iterable<readonly JournalLine[]> | undefined {
    return this.#journal.since(lsn)
  }

  get damaged(): ReadonlyMap<string, string> {
    return this.#copies.damaged
  }

  names(): Iterable<string> {
    return this.#files.names()
  }

  read(log: string, offset: number, length: number, room?: Buffer): Buffer {
    try {
      return this.#copies.read(log, offset, length, room)
    } catch (error) {
      if (codeOf(error) === '') throw error
      throw new Refusal('unavailable', 'log-damaged', `The log cannot be read (${codeOf(error)}).`)
    }
  }

  async checkpoint({ batches, views }: Between): Promise<void> {
    const old = await batches(() => this.#journal.rotate())
    await this.#copies.harden(() => this.#journal.linesIn(old))
    await views()
    await this.#journal.drop(old)
  }

  /** Says to processes of the same owner how the holder can be reached; returns the token that proves them. */
  announce(url: string): string {
    const token = randomBytes(32).toString('base64url')
    this.#lock.announce(url, token)
    return token
  }

  close(): void {
    this.#copies.close()
    this.#journal.close()
    this.#asked?.close()
    this.#lock.release()
  }
}
