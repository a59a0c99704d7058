// The manifest of a backup: what was saved, file by file, and that it is whole. It is written last, under another name,
// synced and renamed: the backup is what its manifest says, and what lies beside that does not count.
//
//   {"format":"sessile backup","v":1,"number":7,"made":"…","until":"…","files":2}
//   {"name":"logs/users/ada/sessions/sess_….jsonl","bytes":812,"sha256":"…","lines":3,"hash":"…","seen":"…"}
//   …
//   {"sha256":"…"}                                         of all the bytes before this line
//
// One JSON object a line, so that a person finds a file with `grep`. `number` counts the backups made into this folder.

import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Refusal } from '../core/errors.ts'
import { parsed } from '../core/record.ts'

/** A file of a backup. */
export interface Saved {
  /** Its path in the data directory, and in the backup. */
  name: string
  bytes: number
  sha256: string
  /** Of a log: how many lines it has, and the hash that stands in its last one. */
  lines?: number
  hash?: string
  /** How the file looked in the data directory: while it looks so, it need not be read again. */
  seen?: string
  /** What was wrong with the log in the data directory. It was saved as it was found. */
  damaged?: string
}

export interface Manifest {
  number: number
  made: string
  /** All that was recorded up to this moment is in the backup, and nothing that was recorded after it. */
  until: string
  files: Map<string, Saved>
}

const FORMAT = 'sessile backup'
export const manifestOf = (to: string) => join(to, 'manifest.jsonl')
/** Files that take the place of others once this manifest counts. */
export const replacedOf = (to: string, number: number) => join(to, `replaced.${number}`)

export const notWhole = (what: string) => new Refusal('refused', 'backup-damaged', `The backup is not whole: ${what}.`)

const sha256 = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex')

export function printManifest({ number, made, until, files }: Manifest): Buffer {
  const head = JSON.stringify({ format: FORMAT, v: 1, number, made, until, files: files.size })
  const lines = [head, ...[...files.values()].map((file) => JSON.stringify(file))]
  const text = `${lines.join('\n')}\n`
  return Buffer.from(`${text}${JSON.stringify({ sha256: sha256(text) })}\n`)
}

/** The manifest that counts; undefined where there is none. */
export function readManifest(to: string): Manifest | undefined {
  let bytes: Buffer
  try {
    bytes = readFileSync(manifestOf(to))
  } catch (error) {
    if ((error as { code?: string }).code === 'ENOENT') return undefined
    throw error
  }
  const damaged = (what: string) => notWhole(`${manifestOf(to)} ${what}`)
  const last = bytes.lastIndexOf(10, bytes.length - 2) + 1
  const seal = bytes.toString('latin1', last)
  if (seal !== `${JSON.stringify({ sha256: sha256(bytes.subarray(0, last)) })}\n`)
    throw damaged('does not end in the SHA-256 of what stands in it')
  const [head, ...files] = bytes
    .toString('utf8', 0, last)
    .trimEnd()
    .split('\n')
    .map((line) => parsed(Buffer.from(line)) as object)
  if (!isHead(head)) throw damaged('was not written by this version of Sessile: a newer one may read it')
  const strange = files.findIndex((file) => !isSaved(file))
  if (strange >= 0) throw damaged(`names something in line ${strange + 2} that does not belong in a data directory`)
  const known = new Map((files as Saved[]).map((file) => [file.name, file]))
  if (known.size !== head.files) throw damaged(`names ${known.size} files and should name ${head.files}`)
  return { number: head.number, made: head.made, until: head.until, files: known }
}

type Head = Omit<Manifest, 'files'> & { files: number }

const isHead = (head: object | undefined): head is Head =>
  head !== undefined &&
  'format' in head &&
  head.format === FORMAT &&
  'v' in head &&
  head.v === 1 &&
  'number' in head &&
  Number.isSafeInteger(head.number)

/** Nothing but what a data directory holds: a manifest leads to no other place. */
const isSaved = (file: object | undefined): file is Saved =>
  file !== undefined && 'name' in file && typeof file.name === 'string' && isBelow(file.name)

const ID = '[A-Za-z0-9][A-Za-z0-9._-]{0,199}'
const LOG = new RegExp(`^logs/((?:accounts/${ID}|audit/${ID}|users/${ID}/user|users/${ID}/sessions/${ID}))\\.jsonl$`)
const OTHER = new RegExp(`^logs/(?:users/${ID}/artifacts/${ID}|\\.journal/quarantine/[A-Za-z0-9._~-]{1,250}@\\d{1,15}\\.lines)$`)

/** May a backup hold a file of this name? */
export const isBelow = (name: string) => LOG.test(name) || OTHER.test(name)

/** The log that lies in this file; undefined for bytes of other kinds. */
export const logIn = (name: string): string | undefined => LOG.exec(name)?.[1]
