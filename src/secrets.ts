// The secrets that no log holds: the keys that sign tokens, and the key that seals what only Sessile may read. They lie in
// `secrets/` of the data directory, for its owner alone, and in no backup. Where they are lost, everybody signs in again,
// and second factors are set up anew.

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

/** What is kept of a key. */
interface Kept {
  kid: string
  made_at: string
  jwk: JWK
}

export class Secrets implements Vault {
  readonly #folder: string
  readonly #issuer: string
  #signing: Promise<SigningKey[]> | undefined
  #sealing: Buffer | undefined
  /** What the tokens of late say, by their digest, so that the many requests of one caller are checked once. */
  readonly #lately = new Map<string, { claims: Claims; until: number }>()

  constructor(home: string, issuer: string) {
    this.#folder = join(home, 'secrets')
    this.#issuer = issuer
  }

  /** Reads the keys, and makes those that are missing. */
  async ready(now: number): Promise<void> {
    await this.#keys(now)
    this.#sealingKey()
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
    const keys = await Promise.all(this.#files('signing').map((name) => signingKey(this.#read<Kept>(name))))
    if (keys.length === 0) keys.push(await this.#makeKey(now))
    return keys.sort((a, b) => b.made_at - a.made_at || (a.kid < b.kid ? 1 : -1))
  }

  async #makeKey(now: number): Promise<SigningKey> {
    const pair = await generateKeyPair(ALGORITHM, { extractable: true })
    const kid = ulid(now)
    const kept = { kid, made_at: new Date(now).toISOString(), jwk: await exportJWK(pair.privateKey) }
    this.#write(`signing-${kid}.json`, kept)
    return signingKey(kept)
  }

  async rotate(now: number): Promise<ShownKey[]> {
    const keys = await this.#keys(now)
    const made = await this.#makeKey(Math.max(now, (keys[0] as SigningKey).made_at + 1))
    const all = [made, ...keys]
    for (const key of keys) {
      if (checksUntil(all, key) <= now) rmSync(join(this.#folder, `signing-${key.kid}.json`))
    }
    this.#signing = Promise.resolve(all.filter((key) => checksUntil(all, key) > now))
    this.#lately.clear()
    return this.list(now)
  }

  async list(now: number): Promise<ShownKey[]> {
    const keys = await this.#keys(now)
    this.#sealingKey()
    const signing = keys.map((key, i): ShownKey => {
      const [use, until] =
        i === 0 ? (['signs', null] as const) : (['checks', new Date(checksUntil(keys, key)).toISOString()] as const)
      return { kid: key.kid, made_at: new Date(key.made_at).toISOString(), use, until }
    })
    const sealing = this.#files('sealing').map((name): ShownKey => {
      const { kid, made_at } = this.#read<Kept>(name)
      return { kid, made_at, use: 'seals', until: null }
    })
    return [...signing, ...sealing]
  }

  // --- what only Sessile may read -------------------------------------------------------------------------------------

  seal(text: string, about: string): string {
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', this.#sealingKey(), nonce).setAAD(Buffer.from(about))
    const sealed = Buffer.concat([cipher.update(text, 'utf8'), cipher.final()])
    return Buffer.concat([nonce, cipher.getAuthTag(), sealed]).toString('base64url')
  }

  unseal(sealed: string, about: string): string | undefined {
    const bytes = Buffer.from(sealed, 'base64url')
    if (bytes.length < 28) return undefined
    try {
      const cipher = createDecipheriv('aes-256-gcm', this.#sealingKey(), bytes.subarray(0, 12), { authTagLength: 16 })
      cipher.setAAD(Buffer.from(about)).setAuthTag(bytes.subarray(12, 28))
      return Buffer.concat([cipher.update(bytes.subarray(28)), cipher.final()]).toString('utf8')
    } catch {
      return undefined
    }
  }

  #sealingKey(): Buffer {
    if (this.#sealing) return this.#sealing
    const [name] = this.#files('sealing')
    if (name === undefined) {
      const kid = ulid()
      const jwk = { kty: 'oct', k: randomBytes(32).toString('base64url') }
      this.#write(`sealing-${kid}.json`, { kid, made_at: new Date().toISOString(), jwk })
      return this.#sealingKey()
    }
    this.#sealing = Buffer.from(this.#read<Kept>(name).jwk.k as string, 'base64url')
    return this.#sealing
  }

  // --- the folder -----------------------------------------------------------------------------------------------------

  #files(use: 'signing' | 'sealing'): string[] {
    mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
    checkMode(this.#folder)
    return readdirSync(this.#folder)
      .filter((name) => name.startsWith(`${use}-`) && name.endsWith('.json'))
      .sort()
  }

  #read<T>(name: string): T {
    const path = join(this.#folder, name)
    checkMode(path)
    return JSON.parse(readFileSync(path, 'utf8')) as T
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
