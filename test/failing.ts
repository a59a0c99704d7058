// Sessile on a disk that can be told to fail: the real one, whose writes and syncs refuse on demand, and which loses files.

import { fstatSync } from 'node:fs'
import { SyncFailed } from '../src/core/log.ts'
import { type Disk, realDisk } from '../src/log/disk.ts'
import { type Running, run } from './harness.ts'

export class FailingDisk implements Disk {
  #code: string | undefined
  #refused: number | undefined
  #lost: string | undefined
  #syncFails: (nth: number) => boolean = () => false
  #held: Promise<void> | undefined
  #asked = () => {}
  syncAsked: Promise<void> | undefined
  /** How many syncs were asked for. */
  syncs = 0

  /** Every write refuses from now on. */
  fail(code: string): void {
    this.#code = code
  }

  /** Every write to the file with this identity refuses from now on. */
  refuse(identity: number, code: string): void {
    this.#refused = identity
    this.#code = code
  }

  /** Every sync fails from now on, or those that are named by their number, from 1. */
  failSync(which: (nth: number) => boolean = () => true): void {
    this.#syncFails = which
  }

  mend(): void {
    this.#code = undefined
    this.#refused = undefined
    this.#syncFails = () => false
  }

  /** The disk has lost this file: whatever is to be done with it fails, from now on and for ever. */
  lose(path: string): void {
    this.#lost = path
  }

  /** It was not lost after all. */
  bringBack(): void {
    this.#lost = undefined
  }

  #must(have: string | number): void {
    const lost = this.#lost
    if (lost === undefined || (typeof have === 'string' ? have !== lost : fstatSync(have).ino !== realDisk.identity(lost))) return
    throw Object.assign(new Error('EIO: i/o error'), { code: 'EIO', syscall: 'any' })
  }

  open(path: string, make: boolean): number {
    this.#must(path)
    return realDisk.open(path, make)
  }

  openToRead(path: string): number {
    this.#must(path)
    return realDisk.openToRead(path)
  }

  read(fd: number, bytes: Buffer, position: number): number {
    this.#must(fd)
    return realDisk.read(fd, bytes, position)
  }

  sizeAt(path: string): number {
    this.#must(path)
    return realDisk.sizeAt(path)
  }

  write(fd: number, bytes: Buffer, position: number): number {
    this.#must(fd)
    const refuses = this.#refused === undefined || this.#refused === fstatSync(fd).ino
    if (this.#code !== undefined && refuses) throw Object.assign(new Error(`${this.#code}: write`), { code: this.#code })
    return realDisk.write(fd, bytes, position)
  }

  /** Syncs wait from now on, until the returned function is called. `syncAsked` resolves when one does. */
  holdSync(): () => void {
    let release = () => {}
    this.#held = new Promise((resolve) => {
      release = resolve
    })
    this.syncAsked = new Promise((resolve) => {
      this.#asked = resolve
    })
    return release
  }

  async sync(fd: number): Promise<void> {
    const nth = ++this.syncs
    this.#asked()
    await this.#held
    this.#orFail(nth)
    return realDisk.sync(fd)
  }

  syncNow(fd: number): void {
    this.#orFail(++this.syncs)
    realDisk.syncNow(fd)
  }

  async syncFolder(path: string): Promise<void> {
    this.#orFail(++this.syncs)
    return realDisk.syncFolder(path)
  }

  syncFolderNow(path: string): void {
    this.#orFail(++this.syncs)
    realDisk.syncFolderNow(path)
  }

  #orFail(nth: number): void {
    if (this.#syncFails(nth)) throw new SyncFailed('a sync failed (EIO)')
  }

  truncate = realDisk.truncate
  size = realDisk.size
  close = realDisk.close
  makeFolder = realDisk.makeFolder
  rename = realDisk.rename
  remove = realDisk.remove
  removeLarge = async (path: string) => this.remove(path)
  list = realDisk.list
  leads = realDisk.leads
  exists = realDisk.exists
  identity = realDisk.identity
  hold = realDisk.hold
}

/** Sessile on such a disk, and what it gave as the reason of its end. */
export async function runOnFailingDisk(
  home?: string,
  disk = new FailingDisk(),
): Promise<{ running: Running; disk: FailingDisk; fatal: Error[] }> {
  const fatal: Error[] = []
  const running = await run(home, {}, undefined, { disk, fatal: (error) => void fatal.push(error) })
  return { running, disk, fatal }
}
