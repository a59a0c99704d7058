// Writing a data directory anew, for what was salvaged from another: logs under `logs/`, and what could not go there under
// `salvage/`, byte for byte. It writes only where nothing was before, and everything is on the disk when it is done.

import { existsSync, readdirSync, realpathSync, statSync } from 'node:fs'
import { basename, dirname, join, resolve, sep } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { filled, hardened } from './bulk.ts'
import { type Disk, realDisk } from './disk.ts'
import { fileOf, logsOf, partsOf } from './shelf.ts'

export class Salvage {
  readonly home: string
  readonly #disk: Disk
  readonly #touched = new Set<string>()

  private constructor(home: string, disk: Disk) {
    this.home = home
    this.#disk = disk
  }

  /** Begins a new data directory, where there is none and nothing else either. */
  static begin(from: string, to: string, disk: Disk = realDisk): Salvage {
    const [source, target] = [placeOf(from), placeOf(to)]
    if (within(source, target) || within(target, source))
      throw new Refusal('refused', 'not-apart', `${to} and ${from} lie within each other: recover into a directory of its own.`)
    if (existsSync(target) && !statSync(target).isDirectory())
      throw new Refusal('refused', 'not-empty', `${to} is not a directory.`)
    if (existsSync(target) && readdirSync(target).length > 0)
      throw new Refusal('refused', 'not-empty', `${to} is not empty: recover into a new directory.`)
    const salvage = new Salvage(target, disk)
    disk.makeFolder(logsOf(target))
    return salvage
  }

  /** Writes a whole log. */
  log(name: string, pieces: Iterable<Buffer>): void {
    this.#write(fileOf(this.home, name), pieces)
  }

  /** Copies the bytes beside a log, as they are. */
  artifact(path: string, from: string): void {
    this.#write(join(logsOf(this.home), path), partsOf(from, statSync(from).size))
  }

  /** Keeps what could not go into a log; returns where. */
  aside(name: string, pieces: Iterable<Buffer>): string {
    const path = join(this.home, 'salvage', name)
    this.#write(path, pieces)
    return path
  }

  /** Takes a log that was written out of sight, or brings it back. */
  withhold(name: string): void {
    this.#disk.rename(fileOf(this.home, name), `${fileOf(this.home, name)}.held`)
  }

  bringBack(name: string): void {
    this.#disk.rename(`${fileOf(this.home, name)}.held`, fileOf(this.home, name))
  }

  remove(name: string): void {
    const path = fileOf(this.home, name)
    this.#disk.remove(path)
    this.#disk.syncFolderNow(dirname(path))
    this.#touched.delete(path)
  }

  /** Makes durable what was written: until then it is a new directory that nobody counts on. */
  finish(): Promise<void> {
    return hardened(this.#disk, this.#touched, this.home)
  }

  #write(path: string, pieces: Iterable<Buffer>): void {
    this.#touched.add(path)
    filled(this.#disk, path, pieces)
  }
}

/** Where a path really is, whether or not all of it is there already. */
function placeOf(path: string): string {
  const whole = resolve(path)
  if (existsSync(whole)) return realpathSync(whole)
  const above = dirname(whole)
  return above === whole ? whole : join(placeOf(above), basename(whole))
}

const within = (inner: string, outer: string) => inner === outer || inner.startsWith(outer.endsWith(sep) ? outer : outer + sep)
