// The fields that many inputs have, and what each must look like. Every pattern is linear: no input can make one slow.

import * as z from 'zod'
import { OPAQUE } from './ids.ts'

/** The id of a user, an account or a device: opaque to Sessile, safe as a file name. */
export const opaqueId = z.string().regex(OPAQUE, 'must be 1 to 64 of A-Z a-z 0-9 . _ - and begin with a letter or digit')

/** The id of a thing that the server names: what it is, and a ULID. */
export function numbered(what: string) {
  return z.string().regex(new RegExp(`^${what}_[0-9A-HJKMNP-TV-Z]{26}$`))
}

/** The id of a session, as the server gives it. */
export const sessionId = numbered('sess')

/** A digest as it is kept: SHA-256, printed. */
export const sha256 = z.string().regex(/^[0-9a-f]{64}$/)

/** An instant on somebody else's clock: ISO 8601 with its offset. */
export const instant = z.iso
  .datetime({
    offset: true,
    error: 'must be an ISO 8601 instant with its offset, such as 2031-05-02T09:30:00Z',
  })
  .max(40)

export const day = z.iso.date('must be a date such as 2031-05-02')
