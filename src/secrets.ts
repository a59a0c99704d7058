// The secrets that no log holds: the keys that sign tokens, and the key that seals what only Sessile may read. They lie in
// `secrets/` of the data directory, for its owner alone, and in no backup. Where they are lost, everybody signs in again,
// and second factors are set up anew. Of each kind there may be several: the newest makes, the older ones check and open.

import { createCipheriv, createDecipheriv, hash, randomBytes } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { type CryptoKey, exportJWK, generateKeyPair, importJWK, type JWK, jwtVerify, SignJWT } from 'jose'
import { ulid } from 'ulid'
import * as z from 'zod'
import { BadConfig } from './config.ts'
import { notRecorded } from './core/errors.ts'
import type { Claims, ShownKey, TokenKind, Vault } from './core/vault.ts'

/** The one algorithm of our tokens: whatever a token says of itself, it is checked by this one. */
const ALGORITHM = 'ES256'
const AUDIENCE = 'sessile'
const TYPES: Record<TokenKind, string> = { access: 'at+jwt', refresh: 'rt+jwt' }
/** No token is good for longer, so that a key that signs no more is of no use after that. */
const LONGEST_MS = 7 * 24 * 3600 * 1000

interface SigningKey {
  kid: string
  made_at: number
  secret: CryptoKey
  open: CryptoKey
}

interface SealingKey {
  kid: string
  made_at: number
  secret: Buffer
}

/** What is kept of a key: 256 bits, and of those that sign the two that anybody may know. */
const keptOf = <J extends z.ZodType<JWK>>(jwk: J) =>
  z.strictObject({ kid: z.string().regex(/^[0-9A-Z]{26}$/), made_at: z.iso.datetime(), jwk })
const bits = z.string().regex(/^[A-Za-z0-9_-]{43}$/)
const keptSigning = keptOf(z.strictObject({ kty: z.literal('EC'), crv: z.literal('P-256'), x: bits, y: bits, d: bits }))
const keptSealing = keptOf(z.strictObject({ kty: z.literal('oct'), k: bits }))
type Kept = z.infer<typeof keptSigning>

export class Secrets implements Vault {
  readonly #folder: string
  readonly #issuer: string
  #signing: Promise<SigningKey[]> | undefined
  #sealing: SealingKey[] | undefined
  /** What the tokens of late say, by their digest, so that the many requests of one caller are checked once. */
  readonly #lately = new Map<string, { claims: Claims; until: number }>()

  constructor(home: string, issuer: string) {
    this.#folder = join(home, 'secrets')
    this.#issuer = issuer
  }

  /** Reads the keys, and makes those that are missing. */
  async ready(now: number): Promise<void> {
    await this.#keys(now)
    this.#sealingKeys(now)
  }

  // --- tokens ---------------------------------------------------------------------------------------------------------

  async sign(kind: TokenKind, { account_id, signin_id, until }: Claims, now: number): Promise<string> {
    const { kid, secret } = (await this.#keys(now))[0] as SigningKey
    const at = Math.floor(now / 1000)
    return new SignJWT({ sid: signin_id })
      .setProtectedHeader({ alg: ALGORITHM, kid, typ: TYPES[kind] })
      .setIssuer(this.#issuer)
      .setAudience(AUDIENCE)
      .setSubject(account_id)
      .setJti(randomBytes(16).toString('base64url'))
      .setIssuedAt(at)
      .setNotBefore(at)
      .setExpirationTime(Math.floor(until / 1000))
      .sign(secret)
  }

  async verify(kind: TokenKind, token: string, now: number): Promise<Claims | undefined> {
    const digest = digestOf(kind, token)
    const known = this.#lately.get(digest)
    if (known && now < known.until) return known.claims
    const keys = await this.#keys(now)
    try {
      const { payload, key } = await jwtVerify(token, ({ kid }) => keyNamed(keys, kid, now).open, {
        algorithms: [ALGORITHM],
        issuer: this.#issuer,
        audience: AUDIENCE,
        typ: TYPES[kind],
        requiredClaims: ['sub', 'sid', 'jti', 'iat', 'nbf', 'exp'],
        currentDate: new Date(now),
      })
      const { sub, sid, exp } = payload as { sub: string; sid: string; exp: number }
      const claims = { account_id: sub, signin_id: sid, until: exp * 1000 }
      if (this.#lately.size >= MOST_LATELY) this.#lately.clear()
      // Known for no longer than its key checks, whatever it says of itself.
      const until = Math.min(claims.until, ...keys.filter(({ open }) => open === key).map((one) => checksUntil(keys, one)))
      this.#lately.set(digest, { claims, until })
      return claims
    } catch {
      // Why it is no token of ours is nobody's business.
      return undefined
    }
  }

  #keys(now: number): Promise<SigningKey[]> {
    this.#signing ??= this.#readKeys(now).catch((error) => {
      this.#signing = undefined
      throw error
    })
    return this.#signing
  }

  /** The signing keys, newest first. */
  async #readKeys(now: number): Promise<SigningKey[]> {
    const read = (name: string) => signingKey(this.#read(name, keptSigning)).catch(() => this.#noKey(name))
    const keys = await Promise.all(this.#files('signing').map(read))
    if (keys.length === 0) keys.push(await this.#makeKey(now))
    return keys.sort(newestFirst)
  }

  async #makeKey(now: number): Promise<SigningKey> {
    const pair = await generateKeyPair(ALGORITHM, { extractable: true })
    const kid = ulid(now)
    const kept = { kid, made_at: timeOf(now), jwk: (await exportJWK(pair.privateKey)) as Kept['jwk'] }
    this.#write(`signing-${kid}.json`, kept)
    return signingKey(kept)
  }

  async rotate(now: number): Promise<ShownKey[]> {
    // One after the other: each knows of the keys that the one before it has made.
    const before = this.#keys(now)
    const rotated = before.then((keys) => this.#rotateSigning(keys, now))
    this.#signing = rotated.catch(() => before)
    await rotated
    this.#lately.clear()
    const sealing = this.#sealingKeys(now)
    this.#sealing = [this.#makeSealing(after(sealing, now)), ...sealing]
    return this.list(now)
  }

  async #rotateSigning(keys: SigningKey[], now: number): Promise<SigningKey[]> {
    const all = [await this.#makeKey(after(keys, now)), ...keys]
    for (const key of keys) {
      if (checksUntil(all, key) <= now) rmSync(join(this.#folder, `signing-${key.kid}.json`))
    }
    return all.filter((key) => checksUntil(all, key) > now)
  }

  async list(now: number): Promise<ShownKey[]> {
    const keys = await this.#keys(now)
    const shown = ({ kid, made_at }: SigningKey | SealingKey, use: ShownKey['use'], until: string | null = null) => ({
      ...{ kid, made_at: timeOf(made_at), use },
      until,
    })
    return [
      ...keys.map((key, i) => (i === 0 ? shown(key, 'signs') : shown(key, 'checks', timeOf(checksUntil(keys, key))))),
      ...this.#sealingKeys(now).map((key, i) => shown(key, i === 0 ? 'seals' : 'opens')),
    ]
  }

  // --- what only Sessile may read -------------------------------------------------------------------------------------

  seal(text: string, about: string): string {
    const nonce = randomBytes(12)
    const { secret } = this.#sealingKeys()[0] as SealingKey
    const cipher = createCipheriv('aes-256-gcm', secret, nonce).setAAD(Buffer.from(about))
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
    return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url')
  }

  unseal(sealed: string, about: string): string | undefined {
    const bytes = Buffer.from(sealed, 'base64url')
    if (bytes.length < 28) return undefined
    for (const { secret } of this.#sealingKeys()) {
      const text = opened(bytes, secret, about)
      if (text !== undefined) return text
    }
    return undefined
  }

  /** The sealing keys, newest first. What an older one has sealed it opens for as long as it is kept. */
  #sealingKeys(now = Date.now()): SealingKey[] {
    if (this.#sealing) return this.#sealing
    const keys = this.#files('sealing').map((name) => sealingKey(this.#read(name, keptSealing)))
    if (keys.length === 0) keys.push(this.#makeSealing(now))
    this.#sealing = keys.sort(newestFirst)
    return this.#sealing
  }

  #makeSealing(now: number): SealingKey {
    const kept = {
      ...{ kid: ulid(now), made_at: timeOf(now) },
      jwk: { kty: 'oct' as const, k: randomBytes(32).toString('base64url') },
    }
    this.#write(`sealing-${kept.kid}.json`, kept)
    return sealingKey(kept)
  }

  // --- the folder -----------------------------------------------------------------------------------------------------

  #files(use: 'signing' | 'sealing'): string[] {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    checkMode(this.#folder)
    return readdirSync(this.#folder)
      .filter((name) => name.startsWith(`${use}-`) && name.endsWith('.json'))
      .sort()
  }

  #read<T>(name: string, kept: z.ZodType<T>): T {
    const path = join(this.#folder, name)
    checkMode(path)
    const text = readFileSync(path, 'utf8')
    try {
      return kept.parse(JSON.parse(text))
    } catch {
      return this.#noKey(name)
    }
  }

  /** Without a word of what stands there, which may be most of a key. */
  #noKey(name: string): never {
    const path = join(this.#folder, name)
    throw new BadConfig(`${path} holds no whole key: put back what you have kept of it, or put it away; a new one is then made.`)
  }

  /** Whole and durable, or not at all: whoever is told of a token must find its key again. */
  #write(name: string, value: unknown): void {
    const path = join(this.#folder, name)
    const part = `${path}.part`
    try {
      rmSync(part, { force: true })
      writeFileSync(part, `${JSON.stringify(value)}\n`, { flag: 'wx', mode: 0o600, flush: true })
      renameSync(part, path)
      const folder = openSync(this.#folder, 'r')
      fsyncSync(folder)
      closeSync(folder)
    } catch (error) {
      const { message, code } = error as NodeJS.ErrnoException
      throw notRecorded(`a key could not be kept: ${message}`, code === 'ENOSPC')
    }
  }
}

const MOST_LATELY = 4096

const digestOf = (kind: TokenKind, token: string) => hash('sha256', `${kind} ${token}`, 'base64url')

function opened(bytes: Buffer, secret: Buffer, about: string): string | undefined {
  try {
    const cipher = createDecipheriv('aes-256-gcm', secret, bytes.subarray(0, 12), { authTagLength: 16 })
    cipher.setAAD(Buffer.from(about)).setAuthTag(bytes.subarray(12, 28))
    return Buffer.concat([cipher.update(bytes.subarray(28)), cipher.final()]).toString('utf8')
  } catch {
    return undefined
  }
}

const timeOf = (ms: number) => new Date(ms).toISOString()

/** A time for a new key: now, and yet later than that of every other. */
const after = (keys: readonly { made_at: number }[], now: number) => Math.max(now, ...keys.map(({ made_at }) => made_at + 1))

const newestFirst = (a: { made_at: number; kid: string }, b: { made_at: number; kid: string }) =>
  b.made_at - a.made_at || (a.kid < b.kid ? 1 : -1)

const sealingKey = ({ kid, made_at, jwk }: z.infer<typeof keptSealing>): SealingKey => ({
  ...{ kid, made_at: Date.parse(made_at) },
  secret: Buffer.from(jwk.k, 'base64url'),
})

async function signingKey({ kid, made_at, jwk }: Kept): Promise<SigningKey> {
  const { d: _, ...open } = jwk
  return {
    kid,
    made_at: Date.parse(made_at),
    secret: (await importJWK(jwk, ALGORITHM)) as CryptoKey,
    open: (await importJWK(open, ALGORITHM)) as CryptoKey,
  }
}

/** Until when a key checks: what it signed last has run out by then. The newest has no end. */
function checksUntil(keys: readonly SigningKey[], key: SigningKey): number {
  const next = keys[keys.indexOf(key) - 1]
  return next === undefined ? Number.POSITIVE_INFINITY : next.made_at + LONGEST_MS
}

function keyNamed(keys: readonly SigningKey[], kid: unknown, now: number): SigningKey {
  const key = keys.find((key) => key.kid === kid)
  if (!key || checksUntil(keys, key) <= now) throw new Error('no such key')
  return key
}

/** Secrets that others can read are none. */
function checkMode(path: string): void {
  if ((statSync(path).mode & 0o077) !== 0)
    throw new BadConfig(`Others can read or change ${path}: take their rights away (chmod go= ${path}).`)
}
