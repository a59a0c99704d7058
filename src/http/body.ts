// Reading a body: its bytes are bounded while they come, and held once however they come.

import type { IncomingMessage } from 'node:http'
import { Refusal } from '../core/errors.ts'
import { parseJson } from './json.ts'
import { Pieces } from './pieces.ts'
import { mediaType, unsupported } from './request.ts'

export const MOST_BYTES = 4 * 1024 * 1024

const tooLarge = () => new Refusal('too-large', 'body-too-large', `A body is at most ${MOST_BYTES} bytes.`)

const tooSlow = () => new Refusal('invalid', 'body-too-slow', 'The body took too long to come.')

export async function readJson(incoming: IncomingMessage, patience: number): Promise<unknown> {
  const type = mediaType(incoming)
  if (type !== 'application/json') {
    throw unsupported(`The body must be application/json${type ? `, not ${type.slice(0, 100)}` : ''}.`)
  }
  if (Number(incoming.headers['content-length'] ?? 0) > MOST_BYTES) throw tooLarge()
  return parseJson(await gather(incoming, patience))
}

/** Bodies that are being read: since when, and how their reading is given up. Looked through now and then, since a timer for each would cost more. */
const reading = new Map<IncomingMessage, { until: number; giveUp: () => void }>()
setInterval(() => {
  if (reading.size === 0) return
  const now = performance.now()
  for (const { until, giveUp } of reading.values()) if (now > until) giveUp()
}, 250).unref()

/** The body, read no further than the limit and no longer than there is patience; what comes beyond it is let go. */
function gather(incoming: IncomingMessage, patience: number): Promise<Uint8Array> {
  return new Promise<Uint8Array>((resolve, reject) => {
    const pieces = new Pieces()
    const give = (work: () => void) => {
      reading.delete(incoming)
      work()
    }
    reading.set(incoming, { until: performance.now() + patience, giveUp: () => give(() => reject(tooSlow())) })
    let length = 0
    incoming.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length <= MOST_BYTES) pieces.add(chunk)
      else give(() => reject(tooLarge()))
    })
    incoming.on('end', () => give(() => resolve(pieces.take())))
    incoming.on('error', (error) => give(() => reject(error)))
    incoming.on('close', () => {
      if (!incoming.complete) give(() => reject(new Refusal('invalid', 'invalid', 'The body broke off.')))
    })
  })
}
