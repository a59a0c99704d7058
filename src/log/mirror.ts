// The folder of a backup, to write: what stands in it counts only once its manifest says so, whatever happens before.
//
// A CRASH at any moment leaves the last backup whole. Files are appended to beyond the length that the manifest in force
// names, which harms nothing; a file that replaces another waits in `replaced.<number>/` until the manifest of that number
// counts. One rename decides. `under-way` lies there as long as there may be bytes that no manifest names: the next backup
// takes them away before it begins.

import { createHash } from 'node:crypto'
import { basename, dirname, join } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { CHUNK } from '../core/log.ts'
import { gathering, hardened } from './bulk.ts'
import { type Disk, readAll, removeTree, withFile, writeAll } from './disk.ts'
import { Lock } from './lock.ts'
import { type Manifest, manifestOf, notWhole, printManifest, readManifest, replacedOf, type Saved } from './manifest.ts'
import { filesBelow, underWayOf } from './saved.ts'

const README = `This is a backup that Sessile made. It holds personal data: keep it as safe as the original.

Each log under logs/ is a text file with one JSON object a line, in the order in which they were recorded; a session is
logs/users/USER/sessions/SESSION.jsonl. manifest.jsonl names every file with its length and its SHA-256.

  sessile restore FOLDER --check          checks every file and every seal
  sessile restore FOLDER --to HOME        makes a data directory of it, in a new folder

Without Sessile: logs/ is all there is to it, and a copy of it is a data directory.
`

/** What may lie in a folder into which nothing was ever saved. */
const NOTHING = ['lock', 'holder.json', 'holder.json.new', 'lost+found']

/** What is known of a file before its bytes are counted. */
type Rest = Omit<Saved, 'bytes' | 'sha256'>

export class Mirror {
  readonly to: string
  readonly number: number
  /** The backup that counts so far. */
  readonly before: Manifest | undefined
  readonly #disk: Disk
  readonly #lock: Lock
  readonly #touched = new Set<string>()
  written = 0

  private constructor(disk: Disk, to: string, lock: Lock) {
    this.#disk = disk
    this.to = to
    this.#lock = lock
    this.before = readManifest(to)
    this.number = (this.before?.number ?? 0) + 1
  }

  /** Takes a folder for a backup: a new one, an empty one, or one with a backup, which is brought to where it was whole. */
  static open(disk: Disk, to: string, now: number): Mirror {
    const isOurs = disk.exists(manifestOf(to)) || disk.exists(underWayOf(to))
    if (!isOurs && disk.list(to).some((name) => !NOTHING.includes(name)))
      throw new Refusal('refused', 'not-a-backup', `${to} is neither empty nor a backup: name a folder of its own.`)
    disk.makeFolder(to)
    const lock = Lock.take({ disk, home: to, journal: to, now })
    try {
      const mirror = new Mirror(disk, to, lock)
      mirror.#settle(mirror.before)
      mirror.#writeWhole('under-way', Buffer.from('A backup is being made, or was interrupted.\n'))
      disk.syncFolderNow(to)
      return mirror
    } catch (error) {
      lock.release()
      throw error
    }
  }

  /** From here on, these files are the backup. */
  async count(files: Manifest['files'], { made, until }: Pick<Manifest, 'made' | 'until'>, sure: () => void): Promise<void> {
    if (!this.#disk.exists(join(this.to, 'README.txt'))) this.#writeWhole('README.txt', Buffer.from(README))
    await hardened(this.#disk, this.#touched, this.to)
    const manifest = { number: this.number, made, until, files }
    const name = `${basename(manifestOf(this.to))}.new`
    this.#writeWhole(name, printManifest(manifest))
    sure()
    this.#disk.rename(join(this.to, name), manifestOf(this.to))
    this.#disk.syncFolderNow(this.to)
    this.#settle(manifest)
  }

  /** What counts is what the manifest on the disk says: it may have got its name just before something failed. */
  undo(): void {
    this.#settle(readManifest(this.to))
  }

  close(): void {
    this.#lock.release()
  }

  /** Brings to its place what counts by this manifest, and takes away what does not. */
  #settle(manifest: Manifest | undefined): void {
    const [disk, to] = [this.#disk, this.to]
    const counting = manifest && basename(replacedOf(to, manifest.number))
    for (const folder of disk.list(to).filter((name) => /^replaced\.\d+$/.test(name))) {
      for (const name of folder === counting ? filesBelow(join(to, folder), 'logs') : []) {
        disk.rename(join(to, folder, name), join(to, name))
        disk.syncFolderNow(dirname(join(to, name)))
      }
      removeTree(join(to, folder))
    }
    disk.remove(`${manifestOf(to)}.new`)
    if (!disk.exists(underWayOf(to))) return
    for (const name of filesBelow(to, 'logs')) this.#cut(name, manifest?.files.get(name))
    disk.remove(underWayOf(to))
    disk.syncFolderNow(to)
  }

  /** Takes from a file what no manifest names. */
  #cut(name: string, saved: Saved | undefined): void {
    const [disk, path] = [this.#disk, join(this.to, name)]
    if (!saved) {
      disk.remove(path)
      disk.syncFolderNow(dirname(path))
    } else if (disk.sizeAt(path) > saved.bytes) {
      withFile(disk, path, false, (fd) => {
        disk.truncate(fd, saved.bytes)
        disk.syncNow(fd)
      })
    }
  }

  /** Appends to the file that was saved before, which is checked on the way, or makes one; returns what it is then. */
  append(rest: { name: string; before: Saved | undefined }, work: (write: (bytes: Buffer) => void) => Rest): Saved {
    return this.#writing(join(this.to, rest.name), rest.before, work)
  }

  /** Makes a file that takes the place of the one that was saved. */
  replace(name: string, work: (write: (bytes: Buffer) => void) => Rest): Saved {
    const path = join(replacedOf(this.to, this.number), name)
    try {
      return this.#writing(path, undefined, work)
    } catch (error) {
      // A part of it must not take the place of the whole.
      this.#disk.remove(path)
      this.#touched.delete(path)
      throw error
    }
  }

  #writing(path: string, before: Saved | undefined, work: (write: (bytes: Buffer) => void) => Rest): Saved {
    const disk = this.#disk
    disk.makeFolder(dirname(path))
    this.#touched.add(path)
    return withFile(disk, path, true, (fd) => {
      const sha = createHash('sha256')
      let end = before?.bytes ?? 0
      for (let at = 0; at < end; at += CHUNK) sha.update(readAll(disk, fd, at, CHUNK))
      if (disk.size(fd) !== end || (before && sha.copy().digest('hex') !== before.sha256))
        throw notWhole(`${path} is not what was saved there. Back up to a new folder, and keep this one until that is done`)
      let rest: Rest = { name: '' }
      const from = end
      end = gathering(disk, fd, from, (write) => {
        rest = work((bytes) => {
          sha.update(bytes)
          write(bytes)
        })
      })
      this.written += end - from
      const { name, ...more } = rest
      return { name, bytes: end, sha256: sha.digest('hex'), ...more }
    })
  }

  #writeWhole(name: string, bytes: Buffer): void {
    withFile(this.#disk, join(this.to, name), true, (fd) => {
      this.#disk.truncate(fd, 0)
      writeAll(this.#disk, fd, bytes, 0)
      this.#disk.syncNow(fd)
    })
  }
}
