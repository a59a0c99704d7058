// Makes a backup: brings what is new in a data directory to a copy of it, and says in a manifest what the copy is.
//
// THE FORMAT is a mirror: the same files under the same names, to be read by anyone. Logs only grow, so one copy holds every
// earlier moment as well, as the lines up to it. A copy is only ever appended to, and only where the original still has the
// last line that was saved: whatever becomes of the original, what was saved stays. The one exception is what law 11 asks
// for: a log in which lines were erased takes the place of the one that still has their content.
//
// WHAT IS SAVED is a beginning of the order of recording. A running recorder names a moment that parts it in two (see
// `Deciding.moment`) and brings the lines up to it to their files; each log is then saved up to its last line of that time
// or an earlier one, in whatever order and however long that takes. The records of a command share one time, so that no
// command is saved in part.

import { createHash } from 'node:crypto'
import { lstatSync } from 'node:fs'
import { join } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { CHUNK, linesOf, type Shelf, SyncFailed } from '../core/log.ts'
import { scan } from '../core/record.ts'
import { check, genesis, hashAfter } from '../core/seal.ts'
import { codeOf, type Disk, realDisk } from './disk.ts'
import { isBelow, notWhole, type Saved } from './manifest.ts'
import { Mirror } from './mirror.ts'
import { isFull } from './pen.ts'
import { besidesIn, Chain, hashing, isAside } from './saved.ts'
import { readPart } from './shelf.ts'

/** What is to be saved. */
export interface Original {
  home: string
  shelf: Shelf
  /** Where logs end whose files lack lines that the shelf has. */
  end?: (log: string) => number | undefined
  /** What is to be saved beside the files that are there. */
  misfits?: ReadonlyMap<string, Buffer>
}

export interface Asked {
  /** Lines recorded later than this are left for the next backup; without it, every line is saved. */
  until?: string | undefined
  /** Artifacts that are gone from the original go from the backup, too. */
  forget?: boolean
  /** Asked before it counts: a recorder that has begun meanwhile may have changed what was read. */
  stillSo?: () => boolean
}

export interface Told {
  number: number
  until: string
  files: number
  bytes: number
  records: number
  /** How many files are new, have grown, were replaced, went, or are as they were. */
  made: number
  grown: number
  replaced: number
  gone: number
  unchanged: number
  /** How many bytes were read from the original, and written. */
  read: number
  written: number
  findings: { name: string; what: string }[]
}

/** The recorder was started anew while it was saved: what was read may be of two lives. */
export class Restarted extends Error {}

export async function save(to: string, original: Original, asked: Asked = {}, disk: Disk = realDisk): Promise<Told> {
  let mirror: Mirror | undefined
  try {
    mirror = Mirror.open(disk, to, Date.now())
    return await new Saving(mirror, original, asked).run()
  } catch (error) {
    throw isFull(error) ? new Refusal('unavailable', 'backup-full', `There is no space left in ${to}${SO}`) : inWords(error, to)
  } finally {
    mirror?.close()
  }
}

const SO = ': this backup was given up, and the last one that counts is whole.'
const inWords = (error: unknown, to: string) =>
  error instanceof SyncFailed
    ? new SyncFailed(`The disk of ${to} cannot be trusted, ${error.message}${SO}`, { cause: error })
    : error

/** How much of the end of what was saved is compared with what stands there now. */
const TAIL = 256

class Saving {
  readonly #mirror: Mirror
  readonly #original: Original
  readonly #asked: Asked
  readonly #files = new Map<string, Saved>()
  readonly #told = { made: 0, grown: 0, replaced: 0, gone: 0, unchanged: 0, read: 0 }
  readonly #findings: Told['findings'] = []
  #latest: string

  constructor(mirror: Mirror, original: Original, asked: Asked) {
    this.#mirror = mirror
    this.#original = original
    this.#asked = asked
    this.#latest = mirror.before?.until ?? ''
  }

  async run(): Promise<Told> {
    const { home, shelf, misfits = [] } = this.#original
    let until = ''
    try {
      for (const log of shelf.names()) this.#guarded(`logs/${log}.jsonl`, () => this.#saveLog(log))
      for (const name of besidesIn(home)) this.#guarded(name, () => this.#saveFile(name))
      for (const [name, bytes] of misfits) this.#saveBytes(`logs/.journal/quarantine/${name}`, bytes)
      this.#goneOnes()
      const made = new Date().toISOString()
      until = this.#asked.until ?? (this.#latest || made)
      await this.#mirror.count(this.#files, { made, until }, () => {
        if (this.#asked.stillSo?.() === false) throw new Restarted()
      })
    } catch (error) {
      // After a failed sync only the next opening, which reads the disk, may settle it: it is still said to be under way.
      if (!(error instanceof SyncFailed)) this.#mirror.undo()
      throw error
    }
    const files = [...this.#files.values()]
    const sum = (of: (file: Saved) => number) => files.reduce((sum, file) => sum + of(file), 0)
    const all = { files: files.length, bytes: sum(({ bytes }) => bytes), records: sum(({ lines = 0 }) => lines) }
    return { number: this.#mirror.number, until, ...all, ...this.#told, written: this.#mirror.written, findings: this.#findings }
  }

  #before(name: string): Saved | undefined {
    return this.#mirror.before?.files.get(name)
  }

  // --- a log --------------------------------------------------------------------------------------------------------

  #saveLog(log: string): void {
    const name = `logs/${log}.jsonl`
    const before = this.#before(name)
    const look = this.#look(name, this.#original.end?.(log))
    if (!look || !isBelow(name)) {
      this.#found(name, look ? 'no log is called so: it was not saved' : 'it is not a file: it was not saved')
      if (before) this.#files.set(name, before)
    } else if (!before) this.#appendTo(name, log, undefined, look.seen)
    else if (look.size === before.bytes && look.seen === before.seen) this.#keep(before)
    else this.#goOn(before, log, look)
  }

  /** A log that was saved, and does not look as it did then. */
  #goOn(before: Saved, log: string, { size, seen }: Look): void {
    const sameEnd = size >= before.bytes && this.#endsAlike(before, log)
    const grew = sameEnd && size > before.bytes && before.seen?.split('@')[0] === seen.split('@')[0]
    const became = grew ? 'the same' : this.#compare(before, log)
    if (became === 'erased') this.#replaceLog(before, log, seen)
    else {
      if (became !== 'the same') this.#found(before.name, `${became}: the saved one is kept`)
      // What follows the seal of the last line saved belongs to it, whatever became of the lines before.
      if (sameEnd && size > before.bytes) this.#appendTo(before.name, log, before, seen)
      else this.#keep(became === 'the same' ? { ...before, seen } : before)
    }
  }

  /** Erased lines are shorter than they were, so that in a log with any of them what was saved does not end at the same byte. */
  #endsAlike({ name, bytes }: Saved, log: string): boolean {
    const from = Math.max(0, bytes - TAIL)
    return this.#read(log, from, bytes - from).equals(readPart(join(this.#mirror.to, name), from, bytes - from))
  }

  /** What a log has become since it was saved: the same so far, the same with lines erased, or what else. */
  #compare({ name, bytes: length, lines, sha256 }: Saved, log: string): 'the same' | 'erased' | string {
    const [sha, path] = [createHash('sha256'), join(this.#mirror.to, name)]
    const saved = hashing(sha, (_, offset, length) => readPart(path, offset, length))
    const present = linesOf(this.#shelf, log)
    let [hash, number, became] = [genesis(log), 0, 'the same']
    for (const { bytes } of linesOf(saved, log, 0, length)) {
      number++
      const kept = check(hash, bytes)
      if (became === 'the same' || became === 'erased') {
        const next = present.next()
        if (next.done) became = `it ends after line ${number - 1}, and ${lines} lines were saved`
        else if (!next.value.bytes.equals(bytes)) {
          const sealed = check(hash, next.value.bytes)
          const isErasure = sealed.ok && sealed.erased && kept.ok && !kept.erased && kept.hash === sealed.hash
          became = isErasure ? 'erased' : `its line ${number} is not the one that was saved`
        }
      }
      hash = hashAfter(kept, bytes)
    }
    if (sha.digest('hex') !== sha256) throw notWhole(`${path}: its SHA-256 is not that of what was saved`)
    return became
  }

  /** The log as it is now, whole, takes the place of the one that was saved. */
  #replaceLog({ name }: Saved, log: string, seen: string): void {
    const lines = this.#linesOf(log, name)
    this.#files.set(
      name,
      this.#mirror.replace(name, (write) => this.#write(new Chain(log), { name, seen }, lines, write)),
    )
    this.#told.replaced++
  }

  /** Appends what follows what was saved; makes no file where nothing does. */
  #appendTo(name: string, log: string, before: Saved | undefined, seen: string): void {
    const lines = this.#linesOf(log, name, before?.bytes ?? 0)
    const first = lines.next()
    if (!first.done) {
      const chain = new Chain(log, before)
      const all = (function* () {
        yield first.value
        yield* lines
      })()
      this.#files.set(
        name,
        this.#mirror.append({ name, before }, (write) => this.#write(chain, { name, seen }, all, write)),
      )
      this.#told[before ? 'grown' : 'made']++
    } else if (before) this.#keep(before)
  }

  #write(chain: Chain, { name, seen }: { name: string; seen: string }, lines: Iterable<Buffer>, write: (bytes: Buffer) => void) {
    const known = chain.damaged
    for (const line of lines) {
      chain.take(line.subarray(0, -1))
      write(line)
    }
    const { lines: number, hash, damaged } = chain
    if (damaged !== known) this.#found(name, `${damaged}: it was saved as it is`)
    return { name, lines: number, hash, seen, ...(damaged === undefined ? {} : { damaged }) }
  }

  /**
   * The lines from an offset on, else all of them or none, that were recorded up to the moment. An erased one tells no
   * time: it goes with those before it.
   */
  *#linesOf(log: string, name: string, from?: number): Generator<Buffer, void> {
    const { until } = this.#asked
    try {
      for (const { bytes } of linesOf(this.#shelf, log, from ?? 0)) {
        const timestamp = scan(bytes)?.envelope.timestamp ?? ''
        if (until !== undefined && timestamp > until) return
        if (timestamp > this.#latest) this.#latest = timestamp
        yield Buffer.concat([bytes, NEWLINE])
      }
    } catch (error) {
      if (!(error instanceof Unreadable) || from === undefined) throw error
      this.#found(name, `${error.message}: what follows was not saved`)
    }
  }

  get #shelf(): Shelf {
    return { names: () => this.#original.shelf.names(), read: (log, offset, length) => this.#read(log, offset, length) }
  }

  #read(log: string, offset: number, length: number): Buffer {
    const bytes = reading(offset, () => this.#original.shelf.read(log, offset, length))
    this.#told.read += bytes.length
    return bytes
  }

  // --- other files --------------------------------------------------------------------------------------------------

  /** Bytes of any kind. An artifact never changes; what the recorder set aside may grow. */
  #saveFile(name: string): void {
    const before = this.#before(name)
    const look = this.#look(name)
    if (!look || !isBelow(name)) this.#found(name, 'it is not a file of an artifact: it was not saved')
    else if (before && look.size === before.bytes && look.seen === before.seen) this.#keep(before)
    else {
      const path = join(this.#original.home, name)
      const pieces = function* (): Generator<Buffer> {
        for (let at = 0; at < look.size; at += CHUNK) yield reading(at, () => readPart(path, at, Math.min(CHUNK, look.size - at)))
      }
      if (!before) this.#put(name, pieces(), look.seen)
      else this.#putAgain(before, pieces, look.seen)
    }
  }

  #saveBytes(name: string, bytes: Buffer): void {
    const before = this.#before(name)
    if (!before) this.#put(name, [bytes])
    else this.#putAgain(before, () => [bytes])
  }

  #putAgain(before: Saved, pieces: () => Iterable<Buffer>, seen?: string): void {
    const sha = createHash('sha256')
    for (const piece of pieces()) sha.update(piece)
    if (sha.digest('hex') === before.sha256) this.#keep(seen === undefined ? before : { ...before, seen })
    else if (isAside(before.name)) this.#put(before.name, pieces(), seen, 'replaced')
    else {
      this.#found(before.name, 'it is not the one that was saved, and artifacts never change: the saved one is kept')
      this.#keep(before)
    }
  }

  #put(name: string, pieces: Iterable<Buffer>, seen?: string, how: 'made' | 'replaced' = 'made'): void {
    const work = (write: (bytes: Buffer) => void) => {
      for (const piece of pieces) {
        this.#told.read += piece.length
        write(piece)
      }
      return { name, ...(seen === undefined ? {} : { seen }) }
    }
    const saved = how === 'made' ? this.#mirror.append({ name, before: undefined }, work) : this.#mirror.replace(name, work)
    this.#files.set(name, saved)
    this.#told[how]++
  }

  /** What was saved and is gone. A log never goes, and an artifact only where somebody wanted that. */
  #goneOnes(): void {
    for (const before of this.#mirror.before?.files.values() ?? []) {
      if (this.#files.has(before.name)) continue
      const isLog = before.lines !== undefined
      if (!isLog && this.#asked.forget) this.#told.gone++
      else {
        const way = isLog ? '' : ' (with --forget, it goes)'
        this.#found(before.name, `it is gone from the data directory: the saved one is kept${way}`)
        this.#files.set(before.name, before)
      }
    }
  }

  // --- small things -------------------------------------------------------------------------------------------------

  #keep(saved: Saved): void {
    this.#files.set(saved.name, saved)
    this.#told.unchanged++
  }

  #found(name: string, what: string): void {
    this.#findings.push({ name, what })
  }

  /** How a file looks from outside; undefined where it is none. The end that the journal knows is seen anew each time. */
  #look(name: string, end?: number): Look | undefined {
    const stat = lstatSync(join(this.#original.home, name), { throwIfNoEntry: false, bigint: true })
    if (end !== undefined) return { size: end, seen: `${stat?.ino ?? 0}@` }
    return stat?.isFile() ? { size: Number(stat.size), seen: `${stat.ino}@${stat.mtimeNs}` } : undefined
  }

  /** One file that cannot be read must not keep the others from being saved. */
  #guarded(name: string, work: () => void): void {
    try {
      work()
    } catch (error) {
      if (!(error instanceof Unreadable)) throw error
      this.#found(name, `${error.message}: what was saved before is kept`)
      const before = this.#before(name)
      if (before) this.#files.set(name, before)
    }
  }
}

interface Look {
  size: number
  seen: string
}

const NEWLINE = Buffer.from('\n')

/** The original cannot be read at some place: that is its trouble, and no reason to save nothing. */
class Unreadable extends Error {}

function reading(at: number, read: () => Buffer): Buffer {
  try {
    return read()
  } catch (error) {
    throw new Unreadable(`it cannot be read from byte ${at} on (${codeOf(error)})`, { cause: error })
  }
}
