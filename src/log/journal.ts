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
import { type Disk, readAll, withFile, writeAll } from './disk.ts'
import {
  type Frames,
  finish,
  HEADER,
  type Header,
  isSegment,
  lengthOf,
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

/** A start that would lose something which had been acknowledged. It says what, and how to go on. */
export class JournalDamaged extends Error {}

const COPY_AT_ONCE = 4 * 1024 * 1024

interface Segment {
  header: Header
  path: string
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

  /** Reads what is there and begins a new epoch with it. `survived`: the lines that were durable and not yet checkpointed. */
  static open(disk: Disk, folder: string, report: Report): { journal: Journal; survived: JournalLine[] } {
    disk.makeFolder(folder)
    const { segments, stale, survived } = surviving(disk, folder, (segment, frames) =>
      setAside(disk, folder, segment, frames, report),
    )
    const newest = segments.at(-1)?.header
    const first = segments[0]?.header.first ?? 1
    const header: Header = {
      epoch: (newest?.epoch ?? 0) + 1,
      number: 1,
      first,
      journal: newest?.journal ?? randomBytes(16).toString('hex'),
      segment: randomBytes(16).toString('hex'),
      copied: HEADER + lengthOf(survived),
    }
    const { segment, fd, end } = make(disk, folder, header, survived)
    for (const path of [...stale, ...segments.map(({ path }) => path)]) disk.remove(path)
    disk.syncFolderNow(folder)
    return { journal: new Journal(disk, folder, segment, fd, end, first + survived.length - 1), survived }
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

  /** A start goes through all of it, and holds it in memory. */
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

  since(lsn: number): JournalLine[] | undefined {
    if (lsn === this.#lsn) return []
    const first = this.#segments[0]?.header.first ?? 1
    if (lsn > this.#lsn || lsn < first - 1) return undefined
    return [...this.linesIn(this.#segments)].filter((line) => line.lsn > lsn)
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

  /** The lines in segments that are about to be dropped. */
  *linesIn(old: readonly Segment[]): Generator<JournalLine> {
    for (const segment of old) yield* read(this.#disk, segment).lines
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
    return { fd: this.#fd, path, identity: this.#disk.identity(this.#fd), seed: seedOf(header.segment), end: this.#end }
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

/** What a start finds here: the lines that it counts as recorded, in order. Nothing is changed. */
export function surviving(
  disk: Disk,
  folder: string,
  torn: (segment: Segment, frames: Frames) => void = () => {},
): { segments: Segment[]; stale: string[]; survived: JournalLine[] } {
  const { segments, stale } = find(disk, folder)
  const survived: JournalLine[] = []
  segments.forEach((segment, i) => {
    const frames = read(disk, segment)
    const last = i === segments.length - 1
    if (frames.damaged || (frames.torn && !last)) throw damaged(segment, frames, segments, folder)
    const next = segments[i + 1]
    if (next && next.header.first !== segment.header.first + frames.lines.length) throw damaged(segment, frames, segments, folder)
    for (const line of frames.lines) survived.push(line)
    if (frames.torn) torn(segment, frames)
  })
  return { segments, stale, survived }
}

const read = (disk: Disk, { path, header }: Segment): Frames =>
  withFile(disk, path, false, (fd) => readFrames(readAll(disk, fd), header))

/** Makes a segment with these lines in it; it gets its name only when they are on the disk. */
function make(disk: Disk, folder: string, header: Header, lines: JournalLine[]): { segment: Segment; fd: number; end: number } {
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
function fillSegment(disk: Disk, fd: number, header: Header, lines: JournalLine[]): number {
  disk.truncate(fd, 0)
  writeAll(disk, fd, printHeader(header), 0)
  let end = HEADER
  let from = 0
  while (from < lines.length) {
    // All copied frames are one batch: none is acknowledged in this segment before all are synced.
    let [to, bytes] = [from, 0]
    while (to < lines.length && bytes < COPY_AT_ONCE) bytes += lines[to++]?.bytes.length ?? 0
    const { bytes: frames } = printFrames(lines.slice(from, to), { first: header.first + from, synced: HEADER })
    finish(frames, seedOf(header.segment), () => frames)
    writeAll(disk, fd, frames, end)
    end += frames.length
    from = to
  }
  return end
}

function setAside(disk: Disk, folder: string, { path, header }: Segment, { torn, end, lines }: Frames, report: Report): void {
  const aside = keepAside(disk, folder, `torn-${nameOf(header)}`, torn as Buffer)
  report('the torn end of the journal was put aside: it had not been acknowledged', {
    segment: path,
    after_lsn: header.first + lines.length - 1,
    at: end,
    bytes: torn?.length,
    aside,
  })
}

function damaged({ path, header }: Segment, frames: Frames, segments: Segment[], folder: string): JournalDamaged {
  const lsn = frames.damaged?.lsn ?? header.first + frames.lines.length
  const at = frames.damaged?.at ?? frames.end
  return new JournalDamaged(
    `The journal is damaged in ${path} at byte ${at} (record ${lsn} in order), before records that had been acknowledged. ` +
      `Starting would lose them, so Sessile does not start. The journal spans ${segments.length} segment(s). ${wayOn(folder)}`,
  )
}

const wayOn = (folder: string) =>
  `Copy the whole data directory first. Then either restore a backup, or accept the loss of what was not yet copied from the ` +
  `journal to the session files: move every .wal file out of ${folder} and start again; the views are then rebuilt from the logs.`
