// The seal: what makes a log tamper-evident and still erasable.
//
//   content = the line's bytes up to the seal          (… "data":{…})
//   commit  = SHA-256(salt ‖ content)                   salt: 16 random bytes, so that erased content cannot be guessed
//   hash    = SHA-256(hash of the line before ‖ commit) the first line follows SHA-256("sessile log v1\n" ‖ log's name)
//
// The chain runs over commits, not over contents. So content and salt can be taken away (erasure) while `commit` and
// `hash` stay, and every later line still verifies. Nothing is canonicalised: the bytes that were written are the
// bytes that are hashed, and because `salt` and `hash` have fixed lengths, the seal is a suffix of fixed length.

import { hash } from 'node:crypto'
import { SIX_BITS } from './ids.ts'
import { draw } from './random.ts'

const SALT_FIELD = ',"salt":"'
const HASH_FIELD = '","hash":"'
const SALT = 16
const SALT_TEXT = 22
export const HASH_LENGTH = 43

/** `,"salt":"…22…","hash":"…43…"}` */
export const SEAL_LENGTH = SALT_FIELD.length + SALT_TEXT + HASH_FIELD.length + HASH_LENGTH + 2

// A hash is kept as it stands in a line, 43 letters of base64url. Text costs less than a buffer of 32 bytes, which would
// be made outside of the heap for each. In between, bytes are carried as latin1: one letter each.

/** What the first line of a log is chained to. The name is the session's id, or the log's path where there is none. */
export function genesis(log: string): string {
  const [top, , folder, session] = log.split('/')
  const name = top === 'users' && folder === 'sessions' && session !== undefined ? session : log
  return hash('sha256', `sessile log v1\n${name}`, 'base64url')
}

const link = Buffer.allocUnsafe(64)
/** `commit` as latin1. */
function chain(previous: string, commit: string): string {
  // What has no hash has none of the line that was chained before it either.
  if (link.write(previous, 0, 32, 'base64url') < 32) link.fill(0, 0, 32)
  link.write(commit, 32, 'latin1')
  return hash('sha256', link, 'base64url')
}

/** Where a salt and the content after it are put side by side; and its beginnings of each length that was asked for. */
let room = Buffer.allocUnsafeSlow(64 * 1024)
let beginnings: (Buffer | undefined)[] = []
const MOST_KEPT = 4096

/** Puts a line behind the place of its salt. All of it, where its content would do: copying a part makes a view of that first. */
function putSalted(line: Buffer): void {
  if (room.length < SALT + line.length) {
    room = Buffer.allocUnsafeSlow(SALT + line.length)
    beginnings = []
  }
  line.copy(room, SALT)
}

/** The first so many bytes of the room. Most lines are short, and many have the same length: each view is made once. */
function roomTo(length: number): Buffer {
  if (length > MOST_KEPT) return room.subarray(0, length)
  beginnings[length] ??= room.subarray(0, length)
  return beginnings[length]
}

/** How many bytes the line has that holds this, with its seal and its newline. */
export const sealedLength = (content: string): number => Buffer.byteLength(content) + SEAL_LENGTH + 1

/** Puts content where its line will stand that has this length: until it is sealed, the line ends in a zero. */
export function putUnsealed(content: string, length: number, into: Buffer, at: number): void {
  // What has a byte for each letter need not be looked through for others once more.
  into.write(content, at, content.length + SEAL_LENGTH + 1 === length ? 'latin1' : 'utf8')
  into[at + length - 1] = 0
}

/** Seals such a line where it lies, to the hash of the line before it; returns its own. */
export function sealIn(line: Buffer, previous: string): string {
  const at = line.length - 1 - SEAL_LENGTH
  putSalted(line)
  draw(room)
  const next = chain(previous, hash('sha256', roomTo(SALT + at), 'binary'))
  line.write(`${SALT_FIELD}${room.toString('base64url', 0, SALT)}${HASH_FIELD}${next}"}\n`, at, 'latin1')
  return next
}

/** Seals content into a whole line, newline included. */
export function seal(previous: string, content: string): { line: Buffer; hash: string } {
  const line = Buffer.allocUnsafe(sealedLength(content))
  putUnsealed(content, line.length, line, 0)
  return { line, hash: sealIn(line, previous) }
}

/** The hash that stands in a line (without its newline), whatever it is worth. */
export const hashIn = (line: Buffer): string => line.toString('latin1', Math.max(0, line.length - HASH_LENGTH - 2), line.length - 2)

/** The hash of the line that ends here among others, newline included. */
export const hashBefore = (bytes: Buffer, end: number): string => bytes.toString('latin1', end - HASH_LENGTH - 3, end - 3)

const [SALT_BYTES, HASH_BYTES, END_BYTES] = [SALT_FIELD, HASH_FIELD, '"}'].map((text) => Buffer.from(text)) as [
  Buffer,
  Buffer,
  Buffer,
]

/** Does this text, or the beginning of it, stand here in a line? */
export function stands(text: Buffer, line: Buffer, at: number, length = text.length): boolean {
  for (let i = 0; i < length; i++) if (line[at + i] !== text[i]) return false
  return true
}

/** Does a line end the way one ends that has its content? */
const isSealed = (line: Buffer): boolean => line.length > SEAL_LENGTH && stands(SALT_BYTES, line, line.length - SEAL_LENGTH)

export type Checked = { ok: true; hash: string; erased: boolean } | { ok: false; why: string }

/** The hash of a line (without its newline) that has its content and whose seal follows from the hash of the line before it. */
export function following(previous: string, line: Buffer): string | undefined {
  const at = line.length - SEAL_LENGTH
  const saltAt = at + SALT_FIELD.length
  if (at <= 0 || !stands(SALT_BYTES, line, at) || !stands(HASH_BYTES, line, saltAt + SALT_TEXT)) return undefined
  putSalted(line)
  const hashAt = saltAt + SALT_TEXT + HASH_BYTES.length
  if (!readSalt(line, saltAt) || !stands(END_BYTES, line, hashAt + HASH_LENGTH)) return undefined
  const next = chain(previous, hash('sha256', roomTo(SALT + at), 'binary'))
  return says(next, line, hashAt) ? next : undefined
}

/** Checks one line (without its newline) against the hash of the line before it. */
export function check(previous: string, line: Buffer): Checked {
  const next = following(previous, line)
  if (next !== undefined) return { ok: true, hash: next, erased: false }
  if (!isSealed(line)) return checkErased(previous, line)
  const at = line.length - SEAL_LENGTH
  const saltAt = at + SALT_FIELD.length
  const suffix = line.toString('latin1', at)
  const saltText = line.toString('latin1', saltAt, saltAt + SALT_TEXT)
  const printed = `${SALT_FIELD}${reprint(saltText)}${HASH_FIELD}${reprint(hashIn(line))}"}`
  const follows = 'the hash does not follow from the line and the one before it'
  return { ok: false, why: printed === suffix && reprint(saltText) === saltText ? follows : 'the seal is malformed' }
}

/** Puts the salt that is printed here before what it belongs to; false where it is not what we would have printed. */
function readSalt(line: Buffer, from: number): boolean {
  let [bits, wrong, to] = [0, 0, 0]
  for (let i = 0; i < SALT_TEXT; i++) {
    const six = SIX_BITS[line[from + i] as number] as number
    wrong |= six & 64
    bits = (bits << 6) | (six & 63)
    // Every four letters are three bytes, and of the last two one: the bits that are left of these are zeros.
    if (i % 4 === 3) {
      room[to++] = bits >>> 16
      room[to++] = bits >>> 8
      room[to++] = bits
      bits = 0
    }
  }
  room[to] = bits >>> 4
  return wrong === 0 && (bits & 15) === 0
}

/** Does this text of one byte for each letter stand here? */
function says(text: string, line: Buffer, at: number): boolean {
  for (let i = 0; i < text.length; i++) if (line[at + i] !== text.charCodeAt(i)) return false
  return true
}

/**
 * The hash that the next line has to follow from: where a seal does not hold, the one that the line claims to have. Three
 * walk along a chain by this, and each on its own, since a break means another thing to each: who verifies goes on and tells
 * all of them (verify.ts), who reads ends there (sound.ts), and a backup keeps the first in mind (log/saved.ts).
 */
export const hashAfter = (sealed: Checked, line: Buffer): string => (sealed.ok ? sealed.hash : statedHash(line))

const ERASED_END = '","erased_by":"'.length + 36 + 2

/** The hash that a line (without its newline) claims to have, as far as it can still be told where that stood. */
export function statedHash(line: Buffer): string {
  const erased = !isSealed(line) && (line.toString('latin1', 0, 7) === '{"seq":' || line.includes('","erased_by":"'))
  const end = line.length - (erased ? ERASED_END : 2)
  return line.toString('latin1', Math.max(0, end - HASH_LENGTH), Math.max(0, end))
}

const reprint = (text: string) => Buffer.from(text, 'base64url').toString('base64url')

const ERASED = /^\{"seq":\d{1,15},"commit":"([A-Za-z0-9_-]{43})","hash":"([A-Za-z0-9_-]{43})","erased_by":"[0-9a-f-]{36}"\}$/

function checkErased(previous: string, line: Buffer): Checked {
  const found = line.length < 400 ? ERASED.exec(line.toString('latin1')) : null
  if (!found) return { ok: false, why: 'there is no seal' }
  const [, commit, stated] = found as unknown as [string, string, string]
  if (reprint(commit) !== commit || reprint(stated) !== stated) return { ok: false, why: 'the seal is malformed' }
  if (chain(previous, Buffer.from(commit, 'base64url').toString('latin1')) !== stated) {
    return { ok: false, why: 'the hash does not follow from the commitment and the line before it' }
  }
  return { ok: true, hash: stated, erased: true }
}
