// The logs of a data directory, to read: for every process that does not hold the lock, and the ground of the one that does.

import { join } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { isOpaqueId } from '../core/ids.ts'
import { CHUNK, type Shelf } from '../core/log.ts'
import { codeOf, type Disk, isOutOfDescriptors, readInto, realDisk } from './disk.ts'
import { realHome } from './way.ts'

export const logsOf = (home: string) => join(home, 'logs')
export const journalOf = (home: string) => join(home, 'logs', '.journal')
export const projectionOf = (home: string) => join(home, 'projections', 'sessile.db')
/** Where views are filled beside the live ones. */
export const freshOf = (projection: string) => `${projection}.fresh`
export const fileOf = (home: string, log: string) => join(home, 'logs', `${log}.jsonl`)

/** So many bytes of what lies in a file for its first `whole` bytes; and where that goes so far, elsewhere in what follows. */
export function readOn(read: (length: number) => Buffer, whole: number, length: number, rest: Buffer): Buffer {
  const bytes = read(Math.min(length, whole))
  return bytes.length < whole ? bytes : Buffer.concat([bytes, rest.subarray(0, length - whole)])
}

export class FileShelf implements Shelf {
  readonly home: string
  readonly #disk: Disk

  /** Where what is read is put, turn by turn; none where each reading keeps what it got. */
  readonly #ring: Buffer[]
  #turn = 0

  /** `reuse`: what was read is good until a few more readings, for whoever goes through everything once. */
  constructor(home: string, { reuse = false, disk = realDisk }: { reuse?: boolean; disk?: Disk } = {}) {
    this.home = realHome(home)
    this.#disk = disk
    // Whoever is at a line still has the one before it, which may be in the piece before: with four neither is ever written over.
    this.#ring = reuse ? Array.from({ length: 4 }, () => Buffer.allocUnsafeSlow(CHUNK)) : []
  }

  *names(): Generator<string> {
    yield* this.#jsonl('accounts')
    yield* this.#jsonl('audit')
    for (const user of this.#folder('users')) {
      if (!isOpaqueId(user)) continue
      if (this.has(`users/${user}/user`)) yield `users/${user}/user`
      yield* this.#jsonl(`users/${user}/sessions`)
    }
  }

  /** The folders of logs that lead elsewhere: what is there is not read. */
  *astray(): Generator<string> {
    const users = this.#folder('users').flatMap((user) => [`users/${user}`, `users/${user}/sessions`])
    for (const folder of ['accounts', 'audit', 'users', ...users]) if (this.#leads(folder) === 'elsewhere') yield folder
  }

  /** Is there a file for this log, at its own place? */
  has(log: string): boolean {
    return this.#leads(`${log}.jsonl`) === 'there'
  }

  #leads(path: string) {
    return this.#disk.leads(join(this.home, 'logs', path))
  }

  read(log: string, offset: number, length: number, room?: Buffer): Buffer {
    let fd: number
    try {
      fd = this.#disk.openToRead(fileOf(this.home, log))
    } catch (error) {
      if (codeOf(error) === 'ENOENT') return Buffer.alloc(0)
      if (isOutOfDescriptors(error)) throw new Refusal('unavailable', 'overloaded', 'Too many files are open. Ask again.')
      throw error
    }
    try {
      // No larger than what there is: most logs are small, and a rebuild reads all of them.
      const bytes = this.#room(Math.max(0, Math.min(length, this.#disk.size(fd) - offset)), room)
      return readInto(this.#disk, fd, bytes, offset)
    } finally {
      this.#disk.close(fd)
    }
  }

  #room(length: number, lent: Buffer | undefined): Buffer {
    if (lent && length <= lent.length) return lent.subarray(0, length)
    const next = length > 0 && length <= CHUNK ? this.#ring[this.#turn++ % this.#ring.length] : undefined
    return next ? next.subarray(0, length) : Buffer.allocUnsafe(length)
  }

  size(log: string): number {
    return this.#disk.sizeAt(fileOf(this.home, log))
  }

  *#jsonl(folder: string): Generator<string> {
    for (const name of this.#folder(folder)) if (name.endsWith('.jsonl')) yield `${folder}/${name.slice(0, -'.jsonl'.length)}`
  }

  #folder(folder: string): string[] {
    return this.#disk.list(join(this.home, 'logs', folder))
  }
}

/** The first so many bytes of any file, some at a time. */
export function* partsOf(path: string, length: number): Generator<Buffer> {
  for (let at = 0; at < length; at += CHUNK) yield readPart(path, at, Math.min(CHUNK, length - at))
}

/** A part of any file; fewer bytes at its end. */
export function readPart(path: string, offset: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(Math.max(0, length))
  const fd = realDisk.openToRead(path)
  try {
    return readInto(realDisk, fd, bytes, offset)
  } finally {
    realDisk.close(fd)
  }
}
