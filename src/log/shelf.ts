// The logs of a data directory, to read: for every process that does not hold the lock, and the ground of the one that does.

import { closeSync, existsSync, fstatSync, openSync, readdirSync, readSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { isOpaqueId } from '../core/ids.ts'
import type { Shelf } from '../core/log.ts'

export const logsOf = (home: string) => join(home, 'logs')
export const journalOf = (home: string) => join(home, 'logs', '.journal')
export const projectionOf = (home: string) => join(home, 'projections', 'sessile.db')
/** Where views are filled beside the live ones. */
export const freshOf = (projection: string) => `${projection}.fresh`
export const fileOf = (home: string, log: string) => join(home, 'logs', `${log}.jsonl`)

export class FileShelf implements Shelf {
  readonly home: string

  constructor(home: string) {
    this.home = home
  }

  *names(): Generator<string> {
    yield* this.#jsonl('accounts')
    yield* this.#jsonl('audit')
    for (const user of this.#folder('users')) {
      if (!isOpaqueId(user)) continue
      if (existsSync(fileOf(this.home, `users/${user}/user`))) yield `users/${user}/user`
      yield* this.#jsonl(`users/${user}/sessions`)
    }
  }

  read(log: string, offset: number, length: number): Buffer {
    let fd: number
    try {
      fd = openSync(fileOf(this.home, log), 'r')
    } catch (error) {
      if ((error as { code?: string }).code === 'ENOENT') return Buffer.alloc(0)
      throw error
    }
    try {
      // No larger than what there is: most logs are small, and a rebuild reads all of them.
      const bytes = Buffer.allocUnsafe(Math.max(0, Math.min(length, fstatSync(fd).size - offset)))
      return bytes.length === 0 ? bytes : bytes.subarray(0, readSync(fd, bytes, 0, bytes.length, offset))
    } finally {
      closeSync(fd)
    }
  }

  size(log: string): number {
    return statSync(fileOf(this.home, log), { throwIfNoEntry: false })?.size ?? 0
  }

  *#jsonl(folder: string): Generator<string> {
    for (const name of this.#folder(folder)) if (name.endsWith('.jsonl')) yield `${folder}/${name.slice(0, -'.jsonl'.length)}`
  }

  #folder(folder: string): string[] {
    const path = join(this.home, 'logs', folder)
    return existsSync(path) ? readdirSync(path).sort() : []
  }
}
