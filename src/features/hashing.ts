// Passwords: hashed with Argon2id, a few at a time, and taken only where they are long enough and nobody's first guess.
// There are no rules of composition: length and rarity are what counts.

import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import * as z from 'zod'
import { Refusal } from '../core/errors.ts'

const SHORTEST = 12
const LONGEST = 128

export const password = z
  .string()
  .min(SHORTEST)
  .max(LONGEST)
  .describe(`${SHORTEST} to ${LONGEST} characters of any kind; common ones, and such as hold the account’s name, are refused`)

/** What somebody states as their password: it may have been set under other rules. */
export const statedPassword = z.string().min(1).max(1024)

/** Argon2id at what OWASP asks for at least: 19 MiB, two passes, one lane. */
const COST = { algorithm: 2, memoryCost: 19_456, timeCost: 2, parallelism: 1 }
const PHC = `$argon2id$v=19$m=${COST.memoryCost},t=${COST.timeCost},p=${COST.parallelism}$`
/** The hash of nobody's password: comparing with it takes as long as with any other. */
const NOBODYS = `${PHC}${'A'.repeat(22)}$${'A'.repeat(43)}`

export const passwordHash = z
  .string()
  .regex(/^\$argon2id\$v=19\$m=[0-9]{1,7},t=[0-9]{1,2},p=[0-9]{1,2}\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}$/)

const normal = (text: string) => text.normalize('NFKC')

/** Threads are few, and syncs of the journal need them too. */
const AT_ONCE = 2
const MOST_WAITING = 64
let busy = 0
const waiting: (() => void)[] = []

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (busy >= AT_ONCE) {
    if (waiting.length >= MOST_WAITING)
      throw new Refusal('unavailable', 'overloaded', 'Too many passwords are being checked. Ask again.')
    await new Promise<void>((resolve) => waiting.push(resolve))
  } else busy++
  try {
    return await work()
  } finally {
    const next = waiting.shift()
    if (next) next()
    else busy--
  }
}

/** Loaded when the first password is: few commands ever see one. */
const argon2 = () => createRequire(import.meta.url)('@node-rs/argon2') as typeof import('@node-rs/argon2')

export const hashOf = (password: string) => inTurn(() => argon2().hash(normal(password), COST))

/** Is this the password? Where there is no hash, it is not, and that takes as long. */
export async function isPassword(kept: string | null | undefined, stated: string): Promise<boolean> {
  const same = await inTurn(() => argon2().verify(kept ?? NOBODYS, normal(stated)))
  return same && typeof kept === 'string'
}

let common: Set<string> | undefined

/** Why a password is not taken for an account of this name; undefined where it is. */
export function weakness(password: string, name: string): string | undefined {
  const plain = normal(password)
  if (plain.length < SHORTEST) return `A password has ${SHORTEST} characters or more.`
  const folded = plain.toLowerCase()
  common ??= new Set(readFileSync(new URL('./common-passwords.txt', import.meta.url), 'utf8').split('\n'))
  if (common.has(folded) || new Set(folded).size < 4) return 'This password is among those that are guessed first.'
  const own = [name, name.split('@')[0] as string].filter((part) => part.length >= 4)
  if (own.some((part) => folded.includes(part))) return 'A password does not hold the name of its account.'
  return undefined
}
