// A journal on disk: segments, each a header and then frames.
//
//   segment   "SESSILE1" · epoch · number · first LSN · journal id · segment id · copied · CRC-32  (80 bytes)
//   frame     mark · CRC-32 · line length · name length · flags · LSN · offset · synced · name · line
//
// A frame's CRC is seeded with its segment's id, so that bytes left over from another file never look like a frame of
// this one. `synced`: everything before that place in the segment had been synced, and may have been acknowledged, when
// the frame was written. That is what tells a torn tail from damage (see `readFrames`). `copied` is where the frames end
// that a start copied from older segments: they were synced before the segment got its name. The space after the last
// frame is zeros, allocated ahead of need.

import { crc32 } from 'node:zlib'
import type { JournalLine, Line } from '../core/log.ts'
import { HASH_LENGTH, hashBefore, putUnsealed, SEAL_LENGTH, sealIn } from '../core/seal.ts'

const MAGIC = Buffer.from('SESSILE1')
export const HEADER = 80
const FRAME = 40
/** Ends the frames of a command: what stands before a missing one was never acknowledged. */
const MORE = 1
const MARK = 0x4d415246

export interface Header {
  epoch: number
  number: number
  first: number
  journal: string
  segment: string
  /** Where the frames end that were in the segment, and synced, before it got its name. */
  copied: number
}

/** The file of a segment; in the order of their names, segments are in their own. */
export const nameOf = ({ epoch, number }: Header) => `${String(epoch).padStart(8, '0')}-${String(number).padStart(6, '0')}.wal`

export const isSegment = (name: string) => /^\d{8}-\d{6}\.wal$/.test(name)

export function printHeader({ epoch, number, first, journal, segment, copied }: Header): Buffer {
  const bytes = Buffer.alloc(HEADER)
  MAGIC.copy(bytes, 0)
  bytes.writeBigUInt64LE(BigInt(epoch), 8)
  bytes.writeBigUInt64LE(BigInt(number), 16)
  bytes.writeBigUInt64LE(BigInt(first), 24)
  bytes.write(journal, 32, 16, 'hex')
  bytes.write(segment, 48, 16, 'hex')
  writeWide(bytes, copied, 64)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 72)), 72)
  return bytes
}

export function readHeader(bytes: Buffer): Header | undefined {
  if (bytes.length < HEADER || !bytes.subarray(0, 8).equals(MAGIC)) return undefined
  if (bytes.readUInt32LE(72) !== crc32(bytes.subarray(0, 72))) return undefined
  return {
    epoch: Number(bytes.readBigUInt64LE(8)),
    number: Number(bytes.readBigUInt64LE(16)),
    first: Number(bytes.readBigUInt64LE(24)),
    journal: bytes.toString('hex', 32, 48),
    segment: bytes.toString('hex', 48, 64),
    copied: readWide(bytes, 64),
  }
}

/** How long the frames of these lines are. */
const lengthOf = (lines: readonly Line[]) => lines.reduce((sum, { log, length }) => sum + FRAME + log.length + length, 0)

export const seedOf = (segment: string) => crc32(Buffer.from(segment, 'hex'))

/** Frames as they go to the disk in one write, and where among them each line stands. */
export interface Printed {
  /** Which batch it is, of those that one process writes. */
  batch: number
  bytes: Buffer
  at: number[]
}

interface Printing {
  first: number
  synced: number
  batch?: number
  /** Where so many bytes may be printed. */
  room?: (length: number) => Buffer
}

/** The frames of a batch, but for what `finish` adds; all before `synced` is durable by now. */
export function printFrames(
  lines: readonly Line[],
  { first, synced, batch = 0, room = Buffer.allocUnsafeSlow }: Printing,
): Printed {
  const bytes = room(lengthOf(lines))
  const places: number[] = []
  let at = 0
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] as Line
    const { log, offset, bytes: content, length, more, follows } = line
    const start = at + FRAME + log.length
    const end = start + length
    bytes.writeUInt32LE(MARK, at)
    bytes.writeUInt32LE(length, at + 8)
    bytes.writeUInt16LE(log.length, at + 12)
    bytes.writeUInt16LE(more ? MORE : 0, at + 14)
    writeWide(bytes, first + i, at + 16)
    writeWide(bytes, offset, at + 24)
    writeWide(bytes, synced, at + 32)
    bytes.write(log, at + FRAME, 'latin1')
    if (typeof content === 'string') putUnsealed(content, length, bytes, start)
    else content.copy(bytes, start)
    if (follows !== undefined) {
      noteBefore(bytes, end, follows)
      line.place = { batch, end }
      // It lies here now, and need not be kept twice.
      line.bytes = ''
    }
    places.push(start)
    at = end
  }
  return { batch, bytes, at: places }
}

// A line that has yet to be sealed says in the room for its seal what it follows: a hash, or where one will stand by then.
const HERE = 1
const THERE = 2

function noteBefore(bytes: Buffer, end: number, follows: string | Line): void {
  const at = end - 1 - SEAL_LENGTH
  const hash = typeof follows === 'string' ? follows : follows.hash
  if (hash !== undefined) {
    bytes[at] = HERE
    bytes.write(hash, at + 1, 'latin1')
    return
  }
  const { batch, end: there } = (follows as Line).place as NonNullable<Line['place']>
  bytes[at] = THERE
  bytes.writeUInt32LE(batch, at + 1)
  bytes.writeUInt32LE(there, at + 5)
}

function hashToFollow(bytes: Buffer, end: number, batchOf: (batch: number) => Buffer): string {
  const at = end - 1 - SEAL_LENGTH
  if (bytes[at] === HERE) return bytes.toString('latin1', at + 1, at + 1 + HASH_LENGTH)
  return hashBefore(batchOf(bytes.readUInt32LE(at + 1)), bytes.readUInt32LE(at + 5))
}

/** Seals those lines that are not, and puts each frame's checksum: all that is left to do before a batch can be written. */
export function finish(bytes: Buffer, seed: number, batchOf: (batch: number) => Buffer): void {
  for (let at = 0; at < bytes.length; ) {
    const start = at + FRAME + bytes.readUInt16LE(at + 12)
    const end = start + bytes.readUInt32LE(at + 8)
    if (bytes[end - 1] === 0) sealIn(bytes.subarray(start, end), hashToFollow(bytes, end, batchOf))
    bytes.writeUInt32LE(crc32(bytes.subarray(at + 8, end), seed), at + 4)
    at = end
  }
}

/** Tells lines their hashes, now that they have been sealed among these frames. */
export function noteHashes(lines: readonly Line[], { bytes, at }: Printed): void {
  for (let i = 0; i < lines.length; i++) {
    const line = lines[i] as Line
    if (line.follows === undefined) continue
    line.hash = hashBefore(bytes, (at[i] as number) + line.length)
    line.follows = undefined
    line.place = undefined
  }
}

export interface Frame extends JournalLine {
  end: number
  synced: number
}

/** The frame at this place, if it is a good one. Without a seed, which only salvage has to do without, its CRC is not checked. */
export function readFrame(bytes: Buffer, at: number, seed: number | undefined): Frame | undefined {
  if (at + FRAME > bytes.length || bytes.readUInt32LE(at) !== MARK) return undefined
  const name = at + FRAME
  const line = name + bytes.readUInt16LE(at + 12)
  const end = line + bytes.readUInt32LE(at + 8)
  if (end > bytes.length) return undefined
  if (seed !== undefined && bytes.readUInt32LE(at + 4) !== crc32(bytes.subarray(at + 8, end), seed)) return undefined
  return {
    log: bytes.toString('latin1', name, line),
    bytes: bytes.subarray(line, end),
    length: end - line,
    more: (bytes.readUInt16LE(at + 14) & MORE) !== 0,
    lsn: readWide(bytes, at + 16),
    offset: readWide(bytes, at + 24),
    synced: readWide(bytes, at + 32),
    end,
  }
}

/** What a segment turned out to hold, when all of its frames had been read. */
export interface Ending {
  lines: number
  /** Where the last whole command ends: from here on there is nothing, or a torn tail. */
  end: number
  /** Bytes after `end` that are not zero: what a crash left of a batch that nobody was told about. */
  torn: Buffer | undefined
  /** Set where a frame is bad although what came after it proves that it had been synced. */
  damaged: { at: number; lsn: number } | undefined
}

/** A part of a segment's file, fewer bytes where it ends. Whoever gives it may use its room again for the next. */
export type Part = (from: number, length: number) => Buffer

/**
 * Reads the frames of a segment, so many bytes at a time, and tells the lines of whole commands: what is told together is there
 * until the next is asked for.
 *
 * The first bad frame ends the reading. It is either where a crash tore the last writes, which the disk may have
 * made durable in any order and any part, or damage to something that had been acknowledged. The difference: if any
 * good frame further on says that more than the bad place had been synced when it was written, that is damage.
 * So it is where the bad place lies among the copied frames. Otherwise it is a torn tail: writes of which nobody
 * was told. (Damage that strikes the very last ones after they were acknowledged looks the same. Their lines are then in
 * the session files, unless the machine lost power in the same moment.)
 */
export function* readFrames(part: Part, header: Header, atOnce: number): Generator<JournalLine[], Ending> {
  const seed = seedOf(header.segment)
  let [end, lines, length] = [HEADER, 0, atOnce]
  for (;;) {
    const bytes = part(end, length)
    const { frames, whole, bad } = framesIn(bytes, header.first + lines, seed)
    if (whole > 0) {
      end += frames[whole - 1]?.end as number
      lines += whole
      yield frames.slice(0, whole)
      length = atOnce
    } else if (bytes.length === length) {
      // A command that goes on behind what was read, or a bad place: more of it tells.
      length *= 2
    } else {
      const torn = bytes.subarray(0, lastByte(bytes))
      const at = end + bad
      const synced = at < header.copied || provesSync(torn, bad, end, seed)
      const damaged = synced ? { at, lsn: header.first + lines + frames.length } : undefined
      return { lines, end, torn: torn.length > 0 ? torn : undefined, damaged }
    }
  }
}

/** The good frames here, and how many of them are of whole commands; where the first bad one is. */
function framesIn(bytes: Buffer, first: number, seed: number): { frames: Frame[]; whole: number; bad: number } {
  const frames: Frame[] = []
  let [whole, bad] = [0, 0]
  for (;;) {
    const frame = readFrame(bytes, bad, seed)
    if (!frame || frame.lsn !== first + frames.length) return { frames, whole, bad }
    frames.push(frame)
    bad = frame.end
    if (!frame.more) whole = frames.length
  }
}

/** Does any good frame behind the bad place say that more than that had been synced? `from`: where in the segment these bytes begin. */
function provesSync(bytes: Buffer, bad: number, from: number, seed: number): boolean {
  for (const at of marks(bytes, bad, bytes.length)) {
    const frame = readFrame(bytes, at, seed)
    if (frame && frame.synced > from + bad) return true
  }
  return false
}

const PRINTED_MARK = Buffer.alloc(4)
PRINTED_MARK.writeUInt32LE(MARK)

/** Where between these places a frame may begin. */
export function* marks(bytes: Buffer, from: number, to: number): Generator<number> {
  for (let at = bytes.indexOf(PRINTED_MARK, from); at >= 0 && at < to; at = bytes.indexOf(PRINTED_MARK, at + 1)) yield at
}

const ZEROS = Buffer.alloc(64 * 1024)

/** Where the bytes end that are not zero. */
export function lastByte(bytes: Buffer): number {
  let end = bytes.length
  while (end >= ZEROS.length && bytes.compare(ZEROS, 0, ZEROS.length, end - ZEROS.length, end) === 0) end -= ZEROS.length
  while (end > 0 && bytes[end - 1] === 0) end--
  return end
}

// 64-bit numbers in two halves: BigInt would make an object for each.
function writeWide(bytes: Buffer, value: number, at: number): void {
  bytes.writeUInt32LE(value % 0x1_0000_0000, at)
  bytes.writeUInt32LE(Math.floor(value / 0x1_0000_0000), at + 4)
}
const readWide = (bytes: Buffer, at: number) => bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 0x1_0000_0000
