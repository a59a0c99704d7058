// Sessile on a disk that can be told to fail: the real one, whose writes and syncs refuse on demand.

import { SyncFailed } from '../src/core/log.ts'
import { type Disk, realDisk } from '../src/log/disk.ts'
import { type Running, run } from './harness.ts'

export class FailingDisk implements Disk {
  #code: string | undefined
  #syncFails = false
  #held: Promise<void> | undefined
  #asked = () => {}
  syncAsked: Promise<void> | undefined
  /** How many syncs were asked for. */
  syncs = 0

  /** Every write refuses from now on. */
  fail(code: string): void {
    this.#code = code
  }

  failSync(): void {
    this.#syncFails = true
  }

  mend(): void {
    this.#code = undefined
    this.#syncFails = false
  }

  write(fd: number, bytes: Buffer, position: number): number {
    if (this.#code !== undefined) throw Object.assign(new Error(`${this.#code}: write`), { code: this.#code })
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
    this.syncs++
    this.#asked()
    await this.#held
    return this.#syncFails ? Promise.reject(new SyncFailed('a sync failed (EIO)')) : realDisk.sync(fd)
  }

  syncNow(fd: number): void {
    this.syncs++
    if (this.#syncFails) throw new SyncFailed('a sync failed (EIO)')
    realDisk.syncNow(fd)
  }

  open = realDisk.open
  openToRead = realDisk.openToRead
  read = realDisk.read
  truncate = realDisk.truncate
  size = realDisk.size
  close = realDisk.close
  syncFolder = realDisk.syncFolder
  syncFolderNow = realDisk.syncFolderNow
  makeFolder = realDisk.makeFolder
  rename = realDisk.rename
  remove = realDisk.remove
  list = realDisk.list
  leads = realDisk.leads
  exists = realDisk.exists
  sizeAt = realDisk.sizeAt
  identity = realDisk.identity
  hold = realDisk.hold
}

/** Sessile on such a disk, and what it gave as the reason of its end. */
export async function runOnFailingDisk(): Promise<{ running: Running; disk: FailingDisk; fatal: Error[] }> {
  const disk = new FailingDisk()
  const fatal: Error[] = []
  const running = await run(undefined, {}, undefined, { disk, fatal: (error) => void fatal.push(error) })
  return { running, disk, fatal }
}
