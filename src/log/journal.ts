// The write-ahead journal: every line is durable here first, in one sequential file for all logs, with one sync for
// however many callers.
//
// RECOVERY. A start reads the segments of the highest epoch (older ones are leftovers of a start that was itself cut
// off). Frames are good up to the first bad one. What follows a torn tail is set aside in `quarantine/` and reported;
// damage to something that had been acknowledged refuses the start, because going on would quietly lose it. Then what
// survived is copied into one new segment of the next epoch and synced before anything else happens. Why not simply go
// on in the old segment? Because its last bytes may be in the page cache only: the process before us may have died
// between the write and the sync, or of a failed sync, after which the cache cannot be believed. Nothing is ever
// appended to an old segment.
//
// A segment gets its final name only when its header and first content are synced, so a segment that has its name is whole.

import { randomBytes } from 'node:crypto'
import { join } from 'node:path'
import { bounds } from '../core/bounds.ts'
import { assert } from '../core/errors.ts'
import type { JournalLine, Line, Report } from '../core/log.ts'
import { keepAside } from './aside.ts'
import { type Disk, readAll, readInto, withFile, writeAll } from './disk.ts'
import {
  type Ending,
  finish,
  HEADER,
  type Header,
  isSegment,
  nameOf,
  type Printed,
  printFrames,
  printHeader,
  readFrames,
  readHeader,
  seedOf,
} from './frame.ts'
import { type Hand, OwnHand } from './hand.ts'
import { type Sheet, uncertain } from './pen.ts'
import { Extents } from './portions.ts'

/** A start that would lose something which had been acknowledged. It says what, and how to go on. */
export class JournalDamaged extends Error {}

interface Segment {
  header: Header
  path: string
  /** Where what counts of it ends, once it has been gone over: one who was taken over may write on. */
  end?: number
}

/** What a start counts as recorded, of what it finds in a journal. */
export interface Surviving {
  segments: Segment[]
  /** Paths of what an interrupted start or checkpoint left lying. */
  stale: string[]
  /** How many lines there are, and how long their frames. */
  count: number
  bytes: number
  extents: Extents
}

export class Journal {
  readonly id: string
  readonly epoch: number
  readonly #disk: Disk
  readonly #folder: string
  #lsn: number
  #segments: Segment[]
  #fd: number
  #end: number
  /** Everything before this place is durable. */
  #synced: number
  /** The last line in order that is durable. */
  durable: number
  #hand: Hand
  /** The last batch that was written; where each ends that is not durable yet, in the file and in order. */
  #batch = 0
  readonly #underWay: { batch: number; end: number; lsn: number }[] = []

  private constructor(disk: Disk, folder: string, current: Segment, fd: number, end: number, lsn: number) {
    this.#disk = disk
    this.#folder = folder
    this.id = current.header.journal
    this.epoch = current.header.epoch
    this.#lsn = lsn
    this.durable = lsn
    this.#segments = [current]
    this.#fd = fd
    this.#end = end
    this.#synced = end
    this.#hand = new OwnHand(disk, this.#sheet)
  }

  /** Reads what is there and begins a new epoch with it. `survived`: what was durable and not yet checkpointed. */
  static open(disk: Disk, folder: string, report: Report): { journal: Journal; survived: Surviving } {
    disk.makeFolder(folder)
    const survived = surviving(disk, folder, (segment, ending) => setAside(disk, folder, segment, ending, report))
    const { segments, stale } = survived
    const newest = segments.at(-1)?.header
    const first = segments[0]?.header.first ?? 1
    const header: Header = {
      epoch: (newest?.epoch ?? 0) + 1,
      number: 1,
      first,
      journal: newest?.journal ?? randomBytes(16).toString('hex'),
      segment: randomBytes(16).toString('hex'),
      copied: HEADER + survived.bytes,
    }
    const { segment, fd, end } = make(disk, folder, header, linesIn(disk, segments))
    for (const path of [...stale, ...segments.map(({ path }) => path)]) disk.remove(path)
    disk.syncFolderNow(folder)
    return { journal: new Journal(disk, folder, segment, fd, end, first + survived.count - 1), survived }
  }

  get lsn(): number {
    return this.#lsn
  }

  /** How many bytes a start would have to go through. */
  get length(): number {
    return this.#end - HEADER
  }

  get due(): boolean {
    return this.#end > bounds.segment
  }

  /** A start goes through all of it. */
  get overfull(): boolean {
    return this.#end > 2 * bounds.segment
  }

  /**
   * Returns what was written: whoever keeps lines keeps one buffer for all of them. `known`: the hashes of all batches up to this
   * one stand in their lines.
   */
  write(lines: readonly Line[], known: number): Printed {
    const batch = ++this.#batch
    const room = (length: number) => this.#hand.room(length)
    const printed = printFrames(lines, { first: this.#lsn + 1, synced: this.#synced, batch, room })
    this.#hand.write(printed, known)
    this.#end += printed.bytes.length
    this.#lsn += lines.length
    this.#underWay.push({ batch, end: this.#end, lsn: this.#lsn })
    return printed
  }

  async sync(alone: boolean): Promise<void> {
    try {
      await this.#hand.sync(this.#batch, alone)
    } finally {
      this.#note()
    }
  }

  /** The bytes of this batch, which is durable, are needed by nobody else any more. */
  letGo(batch: number): void {
    this.#hand.letGo(batch)
  }

  /** The last batch that is durable. */
  get come(): number {
    return this.#hand.durable
  }

  #note(): void {
    while (this.#underWay.length > 0 && (this.#underWay[0] as { batch: number }).batch <= this.come) {
      const { end, lsn } = this.#underWay.shift() as { end: number; lsn: number }
      this.#synced = end
      this.durable = lsn
    }
  }

  /** What is not durable was not written after all. */
  takeBack(): void {
    this.#underWay.length = 0
    this.#end = this.#synced
    this.#lsn = this.durable
    this.#hand.goOn()
  }

  /** From the next batch on another hand writes, or our own; false where something is under way yet. */
  handTo(hand: Hand = new OwnHand(this.#disk, this.#sheet)): boolean {
    if (this.#underWay.length > 0) return false
    this.#hand = hand
    hand.durable = this.#batch
    hand.turn(this.#sheet)
    return true
  }

  since(lsn: number): Iterable<JournalLine[]> | undefined {
    if (lsn === this.#lsn) return []
    const first = this.#segments[0]?.header.first ?? 1
    return lsn > this.#lsn || lsn < first - 1 ? undefined : this.#after(lsn)
  }

  *#after(lsn: number): Generator<JournalLine[]> {
    for (const lines of this.linesIn()) yield lines.filter((line) => line.lsn > lsn)
  }

  /** Goes on in a new segment; returns the ones that a checkpoint may drop when it is done. */
  rotate(): Segment[] {
    const { number } = this.#current.header
    const header = {
      ...this.#current.header,
      number: number + 1,
      first: this.#lsn + 1,
      segment: randomBytes(16).toString('hex'),
      copied: HEADER,
    }
    assert(this.#underWay.length === 0, 'the journal goes on in a new segment while it is written to')
    const { segment, fd, end } = make(this.#disk, this.#folder, header, [])
    const old = this.#segments
    this.#disk.close(this.#fd)
    this.#segments = [...old, segment]
    this.#fd = fd
    this.#end = end
    this.#synced = end
    this.#hand.turn(this.#sheet)
    return old
  }

  /** The lines in these segments, such as are about to be dropped; in all, where none are named. */
  linesIn(segments: readonly Segment[] = this.#segments): Iterable<JournalLine[]> {
    return linesIn(this.#disk, segments)
  }

  /** Recording goes on meanwhile: to give up what a large file holds takes a disk longer than many syncs. */
  async drop(old: readonly Segment[]): Promise<void> {
    // Where the folder cannot be opened now, nothing is removed yet.
    this.#disk.syncFolderNow(this.#folder)
    // The oldest first, each for good before the next: what a power loss leaves has no gap in it.
    for (const segment of old) {
      // Nobody is to read what is on its way out.
      this.#segments = this.#segments.filter((kept) => kept !== segment)
      await this.#disk.removeLarge(segment.path).catch((error: unknown) => {
        this.#segments = [segment, ...this.#segments]
        throw error
      })
      this.#disk.syncFolderNow(this.#folder)
    }
  }

  close(): void {
    this.#hand.close()
    this.#disk.close(this.#fd)
  }

  get #sheet(): Sheet {
    const { header, path } = this.#current
    return { fd: this.#fd, path, seed: seedOf(header.segment), end: this.#end }
  }

  get #current(): Segment {
    return this.#segments.at(-1) as Segment
  }
}

/** The segments of the highest epoch in order, and the paths of what an interrupted start or checkpoint left lying. */
function find(disk: Disk, folder: string): { segments: Segment[]; stale: string[] } {
  const names = disk.list(folder)
  const stale = names.filter((name) => name.endsWith('.wal.new')).map((name) => join(folder, name))
  const wals = names.filter(isSegment)
  const epoch = wals.at(-1)?.slice(0, 8)
  for (const name of wals) if (name.slice(0, 8) !== epoch) stale.push(join(folder, name))
  const segments = wals
    .filter((name) => name.slice(0, 8) === epoch)
    .map((name) => {
      const path = join(folder, name)
      const header = withFile(disk, path, false, (fd) => readHeader(readAll(disk, fd, 0, HEADER)))
      if (!header || nameOf(header) !== name) {
        throw new JournalDamaged(`The header of ${path} is damaged. ${wayOn(folder)}`)
      }
      return { header, path }
    })
  return { segments, stale }
}

/** What a start finds here. Nothing is changed. */
export function surviving(disk: Disk, folder: string, torn: (segment: Segment, ending: Ending) => void = () => {}): Surviving {
  const { segments, stale } = find(disk, folder)
  const extents = new Extents()
  let [count, bytes] = [0, 0]
  segments.forEach((segment, i) => {
    const ending = gone(read(disk, segment), (line) => extents.note(line))
    const last = i === segments.length - 1
    if (ending.damaged || (ending.torn && !last)) throw damaged(segment, ending, segments, folder)
    const next = segments[i + 1]
    if (next && next.header.first !== segment.header.first + ending.lines) throw damaged(segment, ending, segments, folder)
    count += ending.lines
    bytes += ending.end - HEADER
    segment.end = ending.end
    if (ending.torn) torn(segment, ending)
  })
  return { segments, stale, count, bytes, extents }
}

/** The lines in these segments, in order. They are not all held at a time: those told together are there until the next are asked for. */
export function* linesIn(disk: Disk, segments: readonly Segment[]): Generator<JournalLine[]> {
  for (const segment of segments) yield* read(disk, segment)
}

function* read(disk: Disk, { path, header, end = Number.POSITIVE_INFINITY }: Segment): Generator<JournalLine[], Ending> {
  const fd = disk.open(path, false)
  let room = Buffer.alloc(0)
  const part = (from: number, length: number) => {
    const most = Math.max(0, Math.min(length, end - from, disk.size(fd) - from))
    if (room.length < most) room = Buffer.allocUnsafeSlow(most)
    return readInto(disk, fd, room.subarray(0, most), from)
  }
  try {
    return yield* readFrames(part, header, bounds.journalRead)
  } finally {
    disk.close(fd)
  }
}

/** Goes to the end of these lines, and tells what is there. */
function gone(lines: Generator<JournalLine[], Ending>, each: (line: JournalLine) => void): Ending {
  for (;;) {
    const next = lines.next()
    if (next.done) return next.value
    next.value.forEach(each)
  }
}

/** Makes a segment with these lines in it; it gets its name only when they are on the disk. */
function make(
  disk: Disk,
  folder: string,
  header: Header,
  lines: Iterable<JournalLine[]>,
): { segment: Segment; fd: number; end: number } {
  const path = join(folder, nameOf(header))
  const fd = disk.open(`${path}.new`, true)
  try {
    const end = fillSegment(disk, fd, header, lines)
    disk.syncNow(fd)
    // Where the folder cannot be opened now, it is found out before there is no going back.
    disk.syncFolderNow(folder)
    disk.rename(`${path}.new`, path)
    // From here on a start would count on this segment: there is no going on in the old one.
    uncertain(() => disk.syncFolderNow(folder))
    return { segment: { header, path }, fd, end }
  } catch (error) {
    disk.close(fd)
    throw error
  }
}

/** Writes the header and the lines; returns where they end. */
function fillSegment(disk: Disk, fd: number, header: Header, lines: Iterable<JournalLine[]>): number {
  disk.truncate(fd, 0)
  writeAll(disk, fd, printHeader(header), 0)
  let [end, first] = [HEADER, header.first]
  // All copied frames are one batch: none is acknowledged in this segment before all are synced.
  for (const some of lines) {
    const { bytes } = printFrames(some, { first, synced: HEADER })
    finish(bytes, seedOf(header.segment), () => bytes)
    writeAll(disk, fd, bytes, end)
    end += bytes.length
    first += some.length
  }
  assert(end === header.copied, 'what was to be copied of the journal read otherwise the second time')
  return end
}

function setAside(disk: Disk, folder: string, { path, header }: Segment, { torn, end, lines }: Ending, report: Report): void {
  const aside = keepAside(disk, folder, `torn-${nameOf(header)}`, torn as Buffer)
  report('the torn end of the journal was put aside: it had not been acknowledged', {
    segment: path,
    after_lsn: header.first + lines - 1,
    at: end,
    bytes: torn?.length,
    aside,
  })
}

function damaged({ path, header }: Segment, ending: Ending, segments: Segment[], folder: string): JournalDamaged {
  const lsn = ending.damaged?.lsn ?? header.first + ending.lines
  const at = ending.damaged?.at ?? ending.end
  return new JournalDamaged(
    `The journal is damaged in ${path} at byte ${at} (record ${lsn} in order), before records that had been acknowledged. ` +
      `Starting would lose them, so Sessile does not start. The journal spans ${segments.length} segment(s). ${wayOn(folder)}`,
  )
}

const wayOn = (folder: string) =>
  `Copy the whole data directory first. Then either restore a backup, or accept the loss of what was not yet copied from the ` +
  `journal to the session files: move every .wal file out of ${folder} and start again; the views are then rebuilt from the logs.`
