// A disk in memory that does what real ones do at their worst. What was not synced is lost at a power cut, in any part and
// order: each write by itself, and torn at any byte; each name by itself, where its folder was not synced. A kill loses
// nothing of that, but leaves it unsynced. Writes can come back short, and everything can fail, once or for ever, or of one
// file for ever; after a failed sync the bytes are still to be read, and will never reach the disk. Where it was names that
// could not be synced, nobody gets on without mounting the disk anew, as file systems are that keep a journal: what they tell
// then is what the disk holds.

import { dirname } from 'node:path'
import { SyncFailed } from '../../src/core/log.ts'
import type { Disk } from '../../src/log/disk.ts'
import type { Chance } from '../chance.ts'
import type { Loop } from './loop.ts'

/** Thrown by everything that a dead machine or a killed process was about to do. */
export class Dead extends Error {}

type Change = { at: number; bytes: Buffer } | { length: number }

class File {
  readonly id: number
  bytes: Buffer = Buffer.alloc(0)
  size = 0
  /** What the disk itself holds. */
  onDisk: Buffer = Buffer.alloc(0)
  unsynced: Change[] = []
  /** How many changes there were before those. */
  gone = 0
  /** What can no longer be done with it. */
  lost: 'everything' | 'writing' | undefined

  constructor(id: number) {
    this.id = id
  }

  change(change: Change): void {
    this.unsynced.push(change)
    const changed = changing({ bytes: this.bytes, size: this.size }, change)
    this.bytes = changed.bytes
    this.size = changed.size
  }

  /** The changes up to this one have reached the disk. */
  synced(upTo = this.gone + this.unsynced.length): void {
    const changes = this.unsynced.splice(0, Math.max(0, upTo - this.gone))
    this.gone += changes.length
    let disk = { bytes: this.onDisk, size: this.onDisk.length }
    for (const change of changes) disk = changing(disk, change)
    this.onDisk = disk.bytes.subarray(0, disk.size)
  }

  /** The power is cut. */
  cut(chance: Chance): void {
    let disk = { bytes: this.onDisk, size: this.onDisk.length }
    const unsynced = chance.oneIn(3) ? shuffled(this.unsynced, chance) : this.unsynced
    const kept = chance.pick([0, 0.5, 0.9, 1])
    for (const change of unsynced) if (chance.next() < kept) disk = changing(disk, torn(change, chance))
    this.onDisk = disk.bytes.subarray(0, disk.size)
    this.bytes = Buffer.from(this.onDisk)
    this.size = this.bytes.length
    this.unsynced = []
  }
}

class Folder {
  readonly id: number
  names = new Map<string, File | Folder>()
  onDisk = new Map<string, File | Folder>()
  /** Each is done as a whole or not at all: a rename takes one name away and gives another. */
  unsynced: [string, File | Folder | undefined][][] = []
  gone = 0

  constructor(id: number) {
    this.id = id
  }

  change(...change: [string, File | Folder | undefined][]): void {
    this.unsynced.push(change)
    naming(this.names, change)
  }

  synced(upTo = this.gone + this.unsynced.length): void {
    const changes = this.unsynced.splice(0, Math.max(0, upTo - this.gone))
    this.gone += changes.length
    for (const change of changes) naming(this.onDisk, change)
  }

  cut(chance: Chance): void {
    const kept = chance.pick([0, 0.5, 1])
    for (const change of this.unsynced) if (chance.next() < kept) naming(this.onDisk, change)
    this.unsynced = []
    this.names = new Map(this.onDisk)
    for (const node of this.names.values()) node.cut(chance)
  }
}

function changing({ bytes, size }: { bytes: Buffer; size: number }, change: Change): { bytes: Buffer; size: number } {
  if ('length' in change) {
    if (change.length < size) bytes.fill(0, change.length, size)
    return { bytes: withRoom(bytes, change.length), size: change.length }
  }
  const end = change.at + change.bytes.length
  const room = withRoom(bytes, end)
  change.bytes.copy(room, change.at)
  return { bytes: room, size: Math.max(size, end) }
}

function withRoom(bytes: Buffer, length: number): Buffer {
  if (bytes.length >= length) return bytes
  const room = Buffer.alloc(Math.max(length, 2 * bytes.length))
  bytes.copy(room)
  return room
}

function naming(names: Map<string, File | Folder>, change: [string, File | Folder | undefined][]): void {
  for (const [name, node] of change) node ? names.set(name, node) : names.delete(name)
}

function shuffled<T>(of: readonly T[], chance: Chance): T[] {
  const all = [...of]
  for (let i = all.length - 1; i > 0; i--) {
    const j = chance.below(i + 1)
    ;[all[i], all[j]] = [all[j] as T, all[i] as T]
  }
  return all
}

/** A part of a write, from any byte to any other, or all of it. */
function torn(change: Change, chance: Chance): Change {
  if ('length' in change || chance.oneIn(2)) return change
  const { at, bytes } = change
  const from = chance.oneIn(2) ? 0 : chance.below(bytes.length)
  const to = chance.oneIn(2) ? bytes.length : from + chance.below(bytes.length - from + 1)
  return { at: at + from, bytes: bytes.subarray(from, to) }
}

export type Operation = 'open' | 'write' | 'truncate' | 'sync' | 'makeFolder' | 'rename' | 'remove' | 'list'

const trouble = (code: string, what: string) => Object.assign(new Error(`${code}: ${what}`), { code, syscall: what })

export class SimulatedDisk implements Disk {
  readonly #chance: Chance
  #loop: Loop
  #ids = 0
  readonly #root = new Folder(0)
  readonly #open = new Map<number, File | Folder>()
  #descriptors = 10
  #held = new Set<string>()
  #dead = false
  /** How many operations are left to whoever runs. */
  #left = Number.POSITIVE_INFINITY
  #failing: { operation: Operation; code: string; chance: number; once: boolean } | undefined
  #short = false
  #troubled = false
  /** What was done, in order: two runs of a seed do the same. */
  done = 0
  trace = 0
  /** Called at the moment of death. */
  died: () => void = () => {}
  /** What a sync failed of: the same process may not ask for another. */
  readonly #failed = new Set<File | Folder>()
  /** Must it be mounted anew? */
  #shut = false
  syncsAfterFailure = 0

  constructor(chance: Chance, loop: Loop) {
    this.#chance = chance
    this.#loop = loop
  }

  get dead(): boolean {
    return this.#dead
  }

  /** The next one to run dies after so many operations. */
  dieAfter(operations: number): void {
    this.#left = operations
  }

  failAt(operation: Operation, code: string, { once = false, chance = 1 } = {}): void {
    this.#troubled = true
    this.#failing = { operation, code, chance, once }
  }

  /** From now on and for ever the disk refuses this file; what of it has reached the disk is still there. */
  lose(path: string): void {
    const file = this.#find(path)
    if (file instanceof File) file.lost = this.#chance.pick(['everything', 'writing'])
  }

  hasLost(path: string): boolean {
    const file = this.#find(path)
    return file instanceof File && file.lost !== undefined
  }

  /** What a file would tell if the disk let itself be read. */
  within(path: string): Buffer {
    const file = this.#find(path)
    return file instanceof File ? Buffer.from(file.bytes.subarray(0, file.size)) : Buffer.alloc(0)
  }

  /** Was anything to fail, in this life, beside what fails for ever? */
  get troubled(): boolean {
    return this.#troubled
  }

  shorten(): void {
    this.#short = true
  }

  mend(): void {
    this.#failing = undefined
    this.#short = false
  }

  /** A folder that has been there for long. */
  prepare(path: string): void {
    this.makeFolder(path)
    for (let folder = path; folder !== '/'; folder = dirname(folder)) this.#folder(folder).synced()
    this.#root.synced()
  }

  get shut(): boolean {
    return this.#shut
  }

  /** A file that has been there for long. */
  prepareFile(path: string, bytes: Buffer): void {
    const folder = dirname(path)
    if (!this.exists(folder)) this.prepare(folder)
    const file = new File(++this.#ids)
    file.change({ at: 0, bytes })
    file.synced()
    this.#folder(folder).change([path.slice(folder.length + 1), file])
    this.#folder(folder).synced()
  }

  /** Every file below a folder, by its path from there. */
  *files(path: string, under = ''): Generator<[string, Buffer]> {
    for (const [name, node] of this.#folder(path).names) {
      if (node instanceof Folder) yield* this.files(`${path}/${name}`, `${under}${name}/`)
      else yield [under + name, node.bytes.subarray(0, node.size)]
    }
  }

  /** Nothing runs any more; with the power, or the mount, goes what was not synced. Then somebody else may come. */
  end(power: boolean, loop: Loop): void {
    if (power) this.#root.cut(this.#chance)
    this.#shut = false
    this.#open.clear()
    this.#held.clear()
    this.#dead = false
    this.#left = Number.POSITIVE_INFINITY
    this.#failed.clear()
    this.mend()
    this.#troubled = false
    this.#loop = loop
  }

  /** From here on nothing that runs can change anything. */
  kill(): void {
    if (!this.#dead) this.died()
    this.#dead = true
  }

  /** To be called by whatever touches the disk. */
  #touch(operation: Operation, what: string, weight = 0): void {
    if (this.#dead) throw new Dead('dead')
    this.done++
    this.trace = (Math.imul(this.trace, 31) + what.length + weight) | 0
    if (this.#left-- <= 0) {
      this.kill()
      throw new Dead('dead')
    }
    const failing = this.#failing
    if (failing?.operation === operation && this.#chance.next() < failing.chance) {
      if (failing.once) this.#failing = undefined
      throw trouble(failing.code, operation)
    }
  }

  #folder(path: string): Folder {
    const node = this.#find(path)
    if (!node) throw trouble('ENOENT', path)
    if (node instanceof File) throw trouble('ENOTDIR', path)
    return node
  }

  #find(path: string): File | Folder | undefined {
    let node: File | Folder | undefined = this.#root
    for (const name of path.split('/')) {
      if (name === '') continue
      if (node instanceof File) throw trouble('ENOTDIR', path)
      node = node?.names.get(name)
      if (!node) return undefined
    }
    return node
  }

  #file(fd: number): File {
    const file = this.#open.get(fd)
    if (!(file instanceof File)) throw trouble('EBADF', String(fd))
    return file
  }

  #must(node: File | Folder | undefined, what: File['lost']): void {
    if (node instanceof File && node.lost !== undefined && (node.lost === what || node.lost === 'everything'))
      throw trouble('EIO', 'any')
  }

  #opened(node: File | Folder): number {
    this.#open.set(++this.#descriptors, node)
    return this.#descriptors
  }

  open(path: string, make: boolean): number {
    this.#touch('open', path)
    const node = this.#find(path)
    if (node instanceof Folder) throw trouble('EISDIR', path)
    this.#must(node, 'everything')
    if (node) return this.#opened(node)
    if (!make) throw trouble('ENOENT', path)
    const folder = this.#folder(dirname(path))
    const file = new File(++this.#ids)
    folder.change([path.slice(path.lastIndexOf('/') + 1), file])
    return this.#opened(file)
  }

  openToRead(path: string): number {
    if (this.#dead) throw new Dead('dead')
    const node = this.#find(path)
    if (!node) throw trouble('ENOENT', path)
    this.#must(node, 'everything')
    return this.#opened(node)
  }

  write(fd: number, bytes: Buffer, position: number): number {
    const file = this.#file(fd)
    this.#must(file, 'writing')
    const change = (length: number) => file.change({ at: position, bytes: Buffer.from(bytes.subarray(0, length)) })
    const dead = this.#dead
    try {
      this.#touch('write', 'write', position + bytes.length)
    } catch (error) {
      // A disk that fills up takes a part before it takes nothing.
      if (error instanceof Error && 'code' in error && error.code === 'ENOSPC') change(this.#chance.below(bytes.length + 1))
      // Of what the process was about to write when it died, a part may be there.
      if (!dead && error instanceof Dead) change(this.#chance.below(bytes.length + 1))
      throw error
    }
    const length = this.#short && bytes.length > 1 ? 1 + this.#chance.below(bytes.length) : bytes.length
    change(length)
    return length
  }

  read(fd: number, bytes: Buffer, position: number): number {
    if (this.#dead) throw new Dead('dead')
    const file = this.#file(fd)
    this.#must(file, 'everything')
    return file.bytes.copy(bytes, 0, position, Math.min(file.size, position + bytes.length))
  }

  truncate(fd: number, length: number): void {
    this.#touch('truncate', 'truncate', length)
    this.#file(fd).change({ length })
  }

  size(fd: number): number {
    return this.#file(fd).size
  }

  close(fd: number): void {
    this.#open.delete(fd)
  }

  sync(fd: number): Promise<void> {
    return this.#syncing(this.#open.get(fd))
  }

  syncNow(fd: number): void {
    const file = this.#file(fd)
    this.#sync(file)
    file.synced()
  }

  async syncFolder(path: string): Promise<void> {
    await this.#syncing(this.#folder(path))
  }

  syncFolderNow(path: string): void {
    const folder = this.#folder(path)
    this.#sync(folder)
    folder.synced()
  }

  /** What was changed before it was asked for is on the disk when it ends, and perhaps before; what comes meanwhile need not be. */
  #syncing(node: File | Folder | undefined): Promise<void> {
    if (!node) throw trouble('EBADF', 'sync')
    this.#sync(node)
    const upTo = node.gone + node.unsynced.length
    return new Promise((resolve, reject) => {
      this.#loop.after(this.#chance.next() * 3, () => {
        if (this.#dead) reject(new Dead('dead'))
        else {
          node.synced(upTo)
          resolve()
        }
      })
    })
  }

  #sync(node: File | Folder): void {
    if (this.#failed.has(node)) this.syncsAfterFailure++
    try {
      this.#touch('sync', 'sync', node.id)
    } catch (error) {
      if (error instanceof Dead) throw error
      this.#failed.add(node)
      this.#shut ||= node instanceof Folder
      // The bytes can still be read; nothing will ever write them to the disk.
      node.gone += node.unsynced.length
      node.unsynced = []
      throw new SyncFailed('a sync failed (EIO)', { cause: error })
    }
  }

  makeFolder(path: string): void {
    this.#touch('makeFolder', path)
    let folder = this.#root
    for (const name of path.split('/')) {
      if (name === '') continue
      const known = folder.names.get(name)
      if (known instanceof File) throw trouble('ENOTDIR', path)
      if (!known) folder.change([name, new Folder(++this.#ids)])
      folder = folder.names.get(name) as Folder
    }
  }

  rename(from: string, to: string): void {
    this.#touch('rename', to)
    const folder = this.#folder(dirname(from))
    if (dirname(from) !== dirname(to)) throw trouble('EXDEV', to)
    const node = this.#find(from)
    if (!node) throw trouble('ENOENT', from)
    folder.change([from.slice(from.lastIndexOf('/') + 1), undefined], [to.slice(to.lastIndexOf('/') + 1), node])
  }

  remove(path: string): void {
    this.#touch('remove', path)
    if (this.#find(path)) this.#folder(dirname(path)).change([path.slice(path.lastIndexOf('/') + 1), undefined])
  }

  /** Others go on while it takes its time. */
  removeLarge(path: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#loop.after(this.#chance.next() * 3, () => {
        try {
          resolve(this.remove(path))
        } catch (error) {
          reject(error)
        }
      })
    })
  }

  list(path: string): string[] {
    if (this.#dead) throw new Dead('dead')
    const node = this.#find(path)
    return node instanceof Folder ? [...node.names.keys()].sort() : []
  }

  leads(path: string): 'there' | 'nowhere' {
    return this.exists(path) ? 'there' : 'nowhere'
  }

  exists(path: string): boolean {
    return this.#find(path) !== undefined
  }

  sizeAt(path: string): number {
    const node = this.#find(path)
    this.#must(node, 'everything')
    return node instanceof File ? node.size : 0
  }

  identity(file: number | string): number | undefined {
    return (typeof file === 'number' ? this.#open.get(file) : this.#find(file))?.id
  }

  keepRoom(path: string, bytes: number): boolean {
    if (this.sizeAt(path) === bytes) return true
    try {
      const fd = this.open(path, true)
      this.write(fd, Buffer.alloc(bytes), 0)
      this.close(fd)
      return true
    } catch (error) {
      if (error instanceof Dead) throw error
      this.remove(path)
      return false
    }
  }

  hold(path: string): (() => void) | undefined {
    if (this.#held.has(path)) return undefined
    this.#held.add(path)
    return () => void this.#held.delete(path)
  }
}
