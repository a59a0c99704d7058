// What an id looks like, and how new ones are made. Threads that write and read need this, and no more than this: nothing large is
// asked for here.

import { hash, randomBytes } from 'node:crypto'
import { monotonicFactory } from 'ulid'
import { draw } from './random.ts'

export const OPAQUE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

export const isOpaqueId = (text: string) => OPAQUE.test(text)

/** Names in which Sessile itself, the owner of the files, and whoever has not proved who they are do things. */
export const reservedIds = ['system', 'operator', 'anonymous']

/** What is kept of a secret that is long and random: enough to know it again. */
export const digest = (secret: string) => hash('sha256', secret, 'hex')

/** What each letter of base64url stands for; more than six bits for what is none. */
export const SIX_BITS = new Uint8Array(256).fill(64)
for (const [i, c] of [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].entries())
  SIX_BITS[c.charCodeAt(0)] = i

/** Where new ids and the time come from; tests and simulations put their own in its place. */
export interface Source {
  now: () => number
  /** How many milliseconds have passed, whatever the clock is set to meanwhile; where this is missing, only the clock tells. */
  passed?: () => number
  uuid: () => string
  /** A ULID of this moment, later in order than those before it. */
  ulid: (at: number) => string
  secret: () => string
}

const HEX = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0')).join(''))
const random = Buffer.alloc(16)
const printed = Buffer.from('00000000-0000-0000-0000-000000000000')
/** Where the two digits of each byte stand. */
const DIGITS = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34]

/** A UUID of version 4. It is printed in place: the one of node:crypto makes twenty strings on its way to one. */
export function uuid(): string {
  draw(random)
  random[6] = ((random[6] as number) & 0x0f) | 0x40
  random[8] = ((random[8] as number) & 0x3f) | 0x80
  for (let i = 0; i < 16; i++) {
    const digits = 2 * (random[i] as number)
    const at = DIGITS[i] as number
    printed[at] = HEX[digits] as number
    printed[at + 1] = HEX[digits + 1] as number
  }
  return printed.toString('latin1')
}

export function systemSource(): Source {
  const next = monotonicFactory()
  return { now: Date.now, passed: () => performance.now(), uuid, ulid: next, secret: () => randomBytes(32).toString('base64url') }
}
