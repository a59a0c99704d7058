// A backup, to read: where its files lie, what is wrong with it, and its logs as a shelf. Nothing is written here, so that
// a backup on a medium that cannot be written is read as well.

import { createHash, type Hash } from 'node:crypto'
import { existsSync, lstatSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { linesOf, type Shelf } from '../core/log.ts'
import { check, genesis, hashAfter } from '../core/seal.ts'
import { isHeld } from './lock.ts'
import { logIn, type Manifest, readManifest, replacedOf, type Saved } from './manifest.ts'
import { partsOf, readPart } from './shelf.ts'

/** While it lies there, files may be longer than the manifest says, and there may be more of them: they do not count. */
export const underWayOf = (to: string) => join(to, 'under-way')

/** The seals of a log from some line on, one after the other. */
export class Chain {
  lines: number
  hash: string
  /** The first line that does not follow, and why. */
  damaged: string | undefined

  constructor(log: string, { lines = 0, hash = genesis(log), damaged }: Pick<Saved, 'lines' | 'hash' | 'damaged'> = {}) {
    this.lines = lines
    this.hash = hash
    this.damaged = damaged
  }

  /** What follows a broken line is checked against what that line claims to be. */
  take(line: Buffer): void {
    const sealed = check(this.hash, line)
    this.lines++
    this.hash = hashAfter(sealed, line)
    if (!sealed.ok) this.damaged ??= `line ${this.lines}: ${sealed.why}`
  }
}

export class Backup implements Shelf {
  readonly to: string
  readonly manifest: Manifest

  private constructor(to: string, manifest: Manifest) {
    this.to = to
    this.manifest = manifest
  }

  static open(to: string): Backup {
    const manifest = readManifest(to)
    if (!manifest) throw new Refusal('not-found', 'no-backup', `There is no backup in ${to}.`)
    if (isHeld(to))
      throw new Refusal('refused', 'backup-under-way', `A backup is just being made into ${to}: try again when it is done.`)
    return new Backup(to, manifest)
  }

  /** Where a file lies: until a backup that replaces it has come to its end, its new form lies aside. */
  pathOf(name: string): string {
    const aside = join(replacedOf(this.to, this.manifest.number), name)
    return existsSync(aside) ? aside : join(this.to, name)
  }

  *names(): Generator<string> {
    for (const name of this.manifest.files.keys()) {
      const log = logIn(name)
      if (log !== undefined) yield log
    }
  }

  read(log: string, offset: number, length: number): Buffer {
    const name = `logs/${log}.jsonl`
    const bytes = this.manifest.files.get(name)?.bytes ?? 0
    return readPart(this.pathOf(name), offset, Math.min(length, bytes - offset))
  }

  /** Every way in which the files are not what the manifest says, each by its name. */
  *faults(): Generator<{ name: string; what: string }> {
    for (const file of this.manifest.files.values()) {
      const what = this.#fault(file)
      if (what !== undefined) yield { name: file.name, what }
    }
    if (existsSync(underWayOf(this.to))) return
    for (const name of filesBelow(this.to, 'logs'))
      if (!this.manifest.files.has(name)) yield { name, what: 'it was not saved there: the manifest does not name it' }
  }

  #fault(file: Saved): string | undefined {
    const path = this.pathOf(file.name)
    const stat = lstatSync(path, { throwIfNoEntry: false })
    if (!stat) return 'it is missing'
    if (!stat.isFile()) return 'it is not a file'
    if (stat.size < file.bytes) return `it has ${stat.size} bytes, and ${file.bytes} were saved`
    if (stat.size > file.bytes && !existsSync(underWayOf(this.to)))
      return `it has ${stat.size} bytes, and only its first ${file.bytes} were saved`
    const sha = createHash('sha256')
    const log = logIn(file.name)
    if (log === undefined) {
      for (const bytes of partsOf(path, file.bytes)) sha.update(bytes)
      return sha.digest('hex') === file.sha256 ? undefined : 'its SHA-256 is not that of what was saved'
    }
    const chain = chained(this, log, sha)
    if (sha.digest('hex') !== file.sha256) return 'its SHA-256 is not that of what was saved'
    if (chain.damaged !== undefined && file.damaged === undefined) return chain.damaged
    return chain.lines === file.lines && chain.hash === file.hash
      ? undefined
      : 'it does not end in the line that the manifest names'
  }
}

/** What is read of a log from its beginning on, to a digest on the way. */
export function hashing(sha: Hash, read: Shelf['read']): Shelf {
  let hashed = 0
  return {
    names: () => [],
    read: (log, offset, length) => {
      const bytes = read(log, offset, length)
      // The beginning of a line may be read twice.
      sha.update(bytes.subarray(hashed - offset))
      hashed = offset + bytes.length
      return bytes
    },
  }
}

/** The seals of a whole log, and its bytes to a digest on the way. */
function chained(shelf: Shelf, log: string, sha: Hash): Chain {
  const chain = new Chain(log)
  for (const { bytes } of linesOf(
    hashing(sha, (...part) => shelf.read(...part)),
    log,
  ))
    chain.take(bytes)
  return chain
}

/** The files below a folder, as paths from the root on. What is no folder is one, whatever it is. */
export function* filesBelow(root: string, under: string): Generator<string> {
  if (!existsSync(join(root, under))) return
  for (const entry of readdirSync(join(root, under), { withFileTypes: true })) {
    const path = `${under}/${entry.name}`
    if (entry.isDirectory()) yield* filesBelow(root, path)
    else yield path
  }
}

const ASIDE = 'logs/.journal/quarantine'
export const isAside = (name: string) => name.startsWith(`${ASIDE}/`)

/** What belongs to a data directory beside its logs: artifacts, and lines that the recorder had to set aside. */
export function* besidesIn(home: string): Generator<string> {
  const users = join(home, 'logs', 'users')
  for (const user of existsSync(users) ? readdirSync(users).sort() : []) {
    // What begins with a dot is on its way to becoming one.
    for (const name of filesBelow(home, `logs/users/${user}/artifacts`)) if (!name.includes('/.')) yield name
  }
  for (const name of filesBelow(home, ASIDE)) if (name.endsWith('.lines')) yield name
}
