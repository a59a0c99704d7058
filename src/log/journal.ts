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
import type { JournalLine, Line, Report } from '../core/log.ts'
import { NotWritten, SyncFailed } from '../core/log.ts'
import { keepAside } from './aside.ts'
import { codeOf, type Disk, readAll, withFile, writeAll } from './disk.ts'
import {
  type Frames,
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
} from './frame.ts'

/** A start that would lose something which had been acknowledged. It says what, and how to go on. */
export class JournalDamaged extends Error {}

/** How far ahead of need zeros are written: a sync that need not move the file's end is more than twice as fast. */
const AHEAD = Buffer.alloc(512 * 1024)
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
  #allocated: number
  /** The last line in order that is durable. */
  durable: number
  /** Which file the current segment is. */
  #identity: number | undefined

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
    this.#allocated = end
    this.#identity = disk.identity(fd)
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

  /** Returns what was written: whoever keeps lines keeps one buffer for all of them. */
  write(lines: readonly Line[]): Printed {
    const printed = printFrames(lines, this.#current.header.segment, this.#lsn + 1, this.#synced)
    const { bytes } = printed
    try {
      this.#allocate(this.#end + bytes.length)
      writeAll(this.#disk, this.#fd, bytes, this.#end)
    } catch (error) {
      this.#cutBack()
      throw new NotWritten(`the journal could not be written (${codeOf(error)})`, isFull(error))
    }
    this.#end += bytes.length
    this.#lsn += lines.length
    return printed
  }

  /** A failed sync is not caught: nobody knows what the disk holds now, and only reading it anew can tell. */
  async sync(): Promise<void> {
    const [end, lsn] = [this.#end, this.#lsn]
    await this.#disk.sync(this.#fd)
    this.#assertOurs()
    this.#synced = end
    this.durable = lsn
  }

  /** Another recorder removes this segment when it starts. Then what was just written is not in the journal that counts. */
  #assertOurs(): void {
    if (this.#disk.identity(this.#current.path) !== this.#identity) throw new SyncFailed('another recorder has taken over the data')
  }

  #allocate(until: number): void {
    while (this.#allocated < until) {
      writeAll(this.#disk, this.#fd, AHEAD, this.#allocated)
      this.#allocated += AHEAD.length
    }
  }

  /** Takes back what a failed write left, durably: it was refused, so it must not reappear after a crash. */
  #cutBack(): void {
    uncertain(() => {
      this.#disk.truncate(this.#fd, this.#end)
      this.#disk.syncNow(this.#fd)
    })
    this.#allocated = this.#end
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
    const { segment, fd, end } = make(this.#disk, this.#folder, header, [])
    const old = this.#segments
    this.#disk.close(this.#fd)
    this.#segments = [...old, segment]
    this.#fd = fd
    this.#end = end
    this.#synced = end
    this.#allocated = end
    this.#identity = this.#disk.identity(fd)
    return old
  }

  /** The lines in segments that are about to be dropped. */
  *linesIn(old: readonly Segment[]): Generator<JournalLine> {
    for (const segment of old) yield* read(this.#disk, segment).lines
  }

  drop(old: Segment[]): void {
    // Where the folder cannot be opened now, nothing is removed yet.
    this.#disk.syncFolderNow(this.#folder)
    // The oldest first, each for good before the next: what a power loss leaves has no gap in it.
    for (const { path } of old) {
      this.#disk.remove(path)
      this.#disk.syncFolderNow(this.#folder)
    }
    this.#segments = this.#segments.filter((segment) => !old.includes(segment))
  }

  close(): void {
    this.#disk.close(this.#fd)
  }

  get #current(): Segment {
    return this.#segments.at(-1) as Segment
  }
}

export const isFull = (error: unknown) => ['ENOSPC', 'EDQUOT', 'EFBIG'].includes(codeOf(error))

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

/** Whatever fails here leaves the disk in a state that only a new start can read. */
function uncertain(work: () => void): void {
  try {
    work()
  } catch (error) {
    throw error instanceof SyncFailed
      ? error
      : new SyncFailed(`the journal is in an unknown state (${codeOf(error)})`, { cause: error })
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
    const { bytes: frames } = printFrames(lines.slice(from, to), header.segment, header.first + from, HEADER)
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
