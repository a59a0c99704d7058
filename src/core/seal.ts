// The seal: what makes a log tamper-evident and still erasable.
//
//   content = the line's bytes up to the seal          (… "data":{…})
//   commit  = SHA-256(salt ‖ content)                   salt: 16 random bytes, so that erased content cannot be guessed
//   hash    = SHA-256(hash of the line before ‖ commit) the first line follows SHA-256("sessile log v1\n" ‖ log's name)
//
// The chain runs over commits, not over contents. So content and salt can be taken away (erasure) while `commit` and
// `hash` stay, and every later line still verifies. Nothing is canonicalised: the bytes that were written are the
// bytes that are hashed, and because `salt` and `hash` have fixed lengths, the seal is a suffix of fixed length.

import { hash, randomFillSync } from 'node:crypto'

const SALT_FIELD = ',"salt":"'
const HASH_FIELD = '","hash":"'
const SALT_TEXT = 22
const HASH_TEXT = 43

/** `,"salt":"…22…","hash":"…43…"}` */
export const SEAL_LENGTH = SALT_FIELD.length + SALT_TEXT + HASH_FIELD.length + HASH_TEXT + 2

const sha256 = (bytes: Buffer): Buffer => hash('sha256', bytes, 'buffer')

/** What the first line of a log is chained to. The name is the session's id, or the log's path where there is none. */
export function genesis(log: string): Buffer {
  const [top, , folder, session] = log.split('/')
  const name = top === 'users' && folder === 'sessions' && session !== undefined ? session : log
  return sha256(Buffer.from(`sessile log v1\n${name}`))
}

// Random bytes are drawn 256 salts at a time: one call to the generator per record would cost as much as the hash.
const pool = Buffer.allocUnsafe(16 * 256)
let drawn = pool.length
function salt(into: Buffer): void {
  if (drawn === pool.length) {
    randomFillSync(pool)
    drawn = 0
  }
  pool.copy(into, 0, drawn, drawn + 16)
  pool.fill(0, drawn, drawn + 16)
  drawn += 16
}

const link = Buffer.allocUnsafe(64)
function chain(previous: Buffer, commit: Buffer): Buffer {
  previous.copy(link, 0)
  commit.copy(link, 32)
  return sha256(link)
}

/** Seals content into a whole line, newline included. */
export function seal(previous: Buffer, content: string): { line: Buffer; hash: Buffer } {
  const length = Buffer.byteLength(content)
  const bytes = Buffer.allocUnsafe(16 + length + SEAL_LENGTH + 1)
  salt(bytes)
  bytes.write(content, 16, 'utf8')
  const next = chain(previous, sha256(bytes.subarray(0, 16 + length)))
  const suffix = `${SALT_FIELD}${bytes.toString('base64url', 0, 16)}${HASH_FIELD}${next.toString('base64url')}"}\n`
  bytes.write(suffix, 16 + length, 'latin1')
  return { line: bytes.subarray(16), hash: next }
}

export type Checked = { ok: true; hash: Buffer; erased: boolean } | { ok: false; why: string }

/** Checks one line (without its newline) against the hash of the line before it. */
export function check(previous: Buffer, line: Buffer): Checked {
  const at = line.length - SEAL_LENGTH
  const suffix = at > 0 ? line.toString('latin1', at) : ''
  if (!suffix.startsWith(SALT_FIELD)) return checkErased(previous, line)
  const saltText = suffix.slice(SALT_FIELD.length, SALT_FIELD.length + SALT_TEXT)
  const hashText = suffix.slice(-HASH_TEXT - 2, -2)
  const salted = Buffer.from(saltText, 'base64url')
  const stated = Buffer.from(hashText, 'base64url')
  // Decoding forgives stray bits in the last character; printing the seal again does not.
  const reprinted = `${SALT_FIELD}${salted.toString('base64url')}${HASH_FIELD}${stated.toString('base64url')}"}`
  if (reprinted !== suffix || salted.length !== 16 || stated.length !== 32) return { ok: false, why: 'the seal is malformed' }
  const next = chain(previous, sha256(Buffer.concat([salted, line.subarray(0, at)])))
  if (!next.equals(stated)) return { ok: false, why: 'the hash does not follow from the line and the one before it' }
  return { ok: true, hash: next, erased: false }
}

const ERASED = /^\{"seq":\d{1,15},"commit":"([A-Za-z0-9_-]{43})","hash":"([A-Za-z0-9_-]{43})","erased_by":"[0-9a-f-]{36}"\}$/

function checkErased(previous: Buffer, line: Buffer): Checked {
  const found = line.length < 400 ? ERASED.exec(line.toString('latin1')) : null
  if (!found) return { ok: false, why: 'there is no seal' }
  const commit = Buffer.from(found[1] as string, 'base64url')
  const stated = Buffer.from(found[2] as string, 'base64url')
  if (commit.toString('base64url') !== found[1] || stated.toString('base64url') !== found[2]) {
    return { ok: false, why: 'the seal is malformed' }
  }
  if (!chain(previous, commit).equals(stated)) {
    return { ok: false, why: 'the hash does not follow from the commitment and the line before it' }
  }
  return { ok: true, hash: stated, erased: true }
}
