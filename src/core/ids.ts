// What an id looks like, and how new ones are made. Every pattern is linear: no input can make one slow.

import { randomBytes, randomUUID } from 'node:crypto'
import { monotonicFactory } from 'ulid'
import { z } from 'zod'

const OPAQUE = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/

/** The id of a user, an account or a device: opaque to Sessile, safe as a file name. */
export const opaqueId = z.string().regex(OPAQUE, 'must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit')

/** An instant on somebody else's clock: ISO 8601 with its offset. */
export const instant = z.iso
  .datetime({
    offset: true,
    error: 'must be an ISO 8601 instant with its offset, such as 2031-05-02T09:30:00Z',
  })
  .max(40)

export const day = z.iso.date('must be a date such as 2031-05-02')

export const isOpaqueId = (text: string) => OPAQUE.test(text)

/** Where new ids and the time come from; tests and simulations put their own in its place. */
export interface Source {
  now: () => number
  uuid: () => string
  ulid: () => string
  secret: () => string
}

export function systemSource(): Source {
  const next = monotonicFactory()
  return { now: Date.now, uuid: randomUUID, ulid: () => next(), secret: () => randomBytes(32).toString('base64url') }
}
