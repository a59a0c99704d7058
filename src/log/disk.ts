// The disk, as far as the log needs it. The only file of this project that opens anything under `logs/` for writing;
// a simulated disk that fails in every way has the same shape.

import * as fs from 'node:fs'
import { dirname } from 'node:path'
import { SyncFailed } from '../core/log.ts'
import { openDatabase } from '../core/tables.ts'
import { checkFile, checkOpened, checkWay, checkWayTo, type Way, wayOf } from './way.ts'

export interface Disk {
  /** Opens for reading and writing; makes the file where `make` is set. */
  open(path: string, make: boolean): number
  openToRead(path: string): number
  write(fd: number, bytes: Buffer, position: number): number
  read(fd: number, bytes: Buffer, position: number): number
  truncate(fd: number, length: number): void
  size(fd: number): number
  close(fd: number): void
  /** Resolves when the file's bytes and size are on the disk. `here`: by this thread, which then does nothing else meanwhile. */
  sync(fd: number, here?: boolean): Promise<void>
  syncNow(fd: number): void
  /** Makes the names in a directory durable. */
  syncFolder(path: string): Promise<void>
  syncFolderNow(path: string): void
  makeFolder(path: string): void
  rename(from: string, to: string): void
  remove(path: string): void
  /** The same of a large file, which takes a while: resolves when it is gone. */
  removeLarge(path: string): Promise<void>
  list(path: string): string[]
  /** Where this path leads: to what is there, elsewhere, or to nothing. */
  leads(path: string): Way
  exists(path: string): boolean
  /** The length of the file at this path; 0 where there is none. */
  sizeAt(path: string): number
  /** Which file it is that has this path; undefined for none. */
  identity(path: string): number | undefined
  /** Has so many bytes of the disk in a file that can be given up; false, and no file, where there are not so many. */
  keepRoom?(path: string, bytes: number): boolean
  /** Holds the file at this path against every other process until it is let go, or we end; undefined where it is held. */
  hold(path: string): (() => void) | undefined
}

const ZEROS = Buffer.alloc(64 * 1024)

export const realDisk: Disk = {
  open: (path, make) => {
    // A link planted under `logs/` leads nowhere: neither as a folder on the way nor as the file itself.
    checkWay(dirname(path))
    return fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NOFOLLOW | (make ? fs.constants.O_CREAT : 0), 0o600)
  },
  openToRead: (path) => {
    try {
      checkFile(path)
      const fd = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK)
      try {
        checkOpened(fd, path)
      } catch (error) {
        fs.closeSync(fd)
        throw error
      }
      return fd
    } catch (error) {
      // Not there because it was never made, and not because a link leads to where it is not.
      if (codeOf(error) === 'ENOENT') checkWayTo(path)
      throw error
    }
  },
  write: (fd, bytes, position) => fs.writeSync(fd, bytes, 0, bytes.length, position),
  read: (fd, bytes, position) => fs.readSync(fd, bytes, 0, bytes.length, position),
  truncate: (fd, length) => fs.ftruncateSync(fd, length),
  size: (fd) => fs.fstatSync(fd).size,
  close: (fd) => fs.closeSync(fd),
  sync: (fd, here = false) =>
    new Promise((resolve, reject) => {
      if (here) resolve(orFailed(() => fs.fdatasyncSync(fd)))
      else fs.fdatasync(fd, (error) => (error ? reject(failed(error)) : resolve()))
    }),
  syncNow,
  syncFolder: async (path) => {
    // A folder that was put away keeps no names: of each file in it, it is told that it is damaged.
    if (wayOf(path) !== 'there') return
    const fd = fs.openSync(path, 'r')
    try {
      await realDisk.sync(fd)
    } finally {
      fs.closeSync(fd)
    }
  },
  syncFolderNow: (path) => {
    const fd = fs.openSync(path, 'r')
    try {
      syncNow(fd)
    } finally {
      fs.closeSync(fd)
    }
  },
  makeFolder: (path) => {
    checkWayTo(path)
    makeFolder(path)
  },
  rename: (from, to) => fs.renameSync(from, to),
  remove: (path) => fs.rmSync(path, { force: true }),
  removeLarge: (path) =>
    new Promise((resolve, reject) => {
      fs.rm(path, { force: true }, (error) => (error ? reject(error) : resolve()))
    }),
  list: (path) => (wayOf(path) === 'there' ? fs.readdirSync(path).sort() : []),
  leads: wayOf,
  exists: (path) => fs.existsSync(path),
  sizeAt: (path) => {
    checkWayTo(dirname(path))
    return fs.lstatSync(path, { throwIfNoEntry: false })?.size ?? 0
  },
  identity: (path) => fs.lstatSync(path, { throwIfNoEntry: false })?.ino,
  keepRoom: (path, bytes) => {
    if (realDisk.sizeAt(path) === bytes) return true
    try {
      withFile(realDisk, path, true, (fd) => {
        for (let at = 0; at < bytes; at += ZEROS.length) writeAll(realDisk, fd, ZEROS.subarray(0, bytes - at), at)
      })
      return true
    } catch {
      realDisk.remove(path)
      return false
    }
  },
  hold: (path) => {
    checkFile(path)
    const db = openDatabase(path, { timeout: 200 })
    try {
      db.exec('PRAGMA journal_mode = MEMORY')
      db.exec('BEGIN EXCLUSIVE')
      return () => void db.close()
    } catch (error) {
      db.close()
      if (codeOf(error) === 'SQLITE_BUSY') return undefined
      throw error
    }
  },
}

/** For whoever may look and not touch. */
export const readingDisk: Disk = {
  ...realDisk,
  open: (path) => fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW),
}

/** Removes a folder and all that is in it. */
export const removeTree = (path: string) => fs.rmSync(path, { recursive: true, force: true })

/** With the folders that lead to it. Not Node's own way of doing so: it tells most failures of the disk as a path that does not exist. */
function makeFolder(path: string): void {
  try {
    fs.mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (codeOf(error) === 'ENOENT' && dirname(path) !== path) {
      makeFolder(dirname(path))
      makeFolder(path)
    } else if (codeOf(error) !== 'EEXIST' || !fs.statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw error
  }
}

function syncNow(fd: number): void {
  orFailed(() => fs.fsyncSync(fd))
}

function orFailed(sync: () => void): void {
  try {
    sync()
  } catch (error) {
    throw failed(error as Error)
  }
}

const failed = (error: Error) => new SyncFailed(`a sync failed (${codeOf(error)})`, { cause: error })

export const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : ''

/** How many files and connections this process may have open at a time, and how many it has; undefined where nobody says. */
export function descriptors(): { most: number; open: number } | undefined {
  try {
    const most = Number(/^Max open files +(\d+)/m.exec(fs.readFileSync('/proc/self/limits', 'latin1'))?.[1])
    return Number.isNaN(most) ? undefined : { most, open: fs.readdirSync('/proc/self/fd').length }
  } catch {
    return undefined
  }
}

/** Too many files are open: a trouble that passes. */
export const isOutOfDescriptors = (error: unknown): boolean => ['EMFILE', 'ENFILE'].includes(codeOf(error))

/** The whole file, at most `most` bytes of it. */
export function readAll(disk: Disk, fd: number, from = 0, most = Number.POSITIVE_INFINITY): Buffer {
  return readInto(disk, fd, Buffer.allocUnsafe(Math.max(0, Math.min(disk.size(fd) - from, most))), from)
}

/** Reads as many bytes as there is room for, or as there are. */
export function readInto(disk: Disk, fd: number, bytes: Buffer, position: number): Buffer {
  let read = 0
  while (read < bytes.length) {
    const n = disk.read(fd, bytes.subarray(read), position + read)
    if (n === 0) break
    read += n
  }
  return bytes.subarray(0, read)
}

/** Writes all the bytes, however many writes that takes. */
export function writeAll(disk: Disk, fd: number, bytes: Buffer, position: number): void {
  let written = 0
  while (written < bytes.length) written += disk.write(fd, bytes.subarray(written), position + written)
}

/** Opens a file, uses it, and closes it whatever comes. */
export function withFile<T>(disk: Disk, path: string, make: boolean, use: (fd: number) => T): T {
  const fd = disk.open(path, make)
  try {
    return use(fd)
  } finally {
    disk.close(fd)
  }
}

const AT_ONCE = 4

/** Does this work for each, a few at a time, or one, once that is in somebody's way. Where one fails no other is begun. */
export async function each<T>(items: readonly T[], work: (item: T) => Promise<void>, inTheWay = () => false): Promise<void> {
  let next = 0
  const errors: unknown[] = []
  const worker = async (_: unknown, nth: number) => {
    while (next < items.length && errors.length === 0) {
      if (nth > 0 && inTheWay()) return
      await work(items[next++] as T).catch((error: unknown) => void errors.push(error))
    }
  }
  // Those under way are waited for: a sync that failed after something else did, and was not heard of, would be tried again.
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  if (errors.length > 0) throw errors.find((error) => error instanceof SyncFailed) ?? errors[0]
}
