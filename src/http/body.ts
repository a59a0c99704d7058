// Reading a body: its bytes are bounded while they come, and held once however they come.

import type { IncomingMessage } from 'node:http'
import { Refusal } from '../core/errors.ts'
import type { Hold } from './burden.ts'
import { parseJson } from './json.ts'
import { Looking } from './looking.ts'
import { Pieces } from './pieces.ts'
import { mediaType, unsupported } from './request.ts'

export const MOST_BYTES = 4 * 1024 * 1024

const tooLarge = () => new Refusal('too-large', 'body-too-large', `A body is at most ${MOST_BYTES} bytes.`)

const tooSlow = () => new Refusal('invalid', 'body-too-slow', 'The body took too long to come.')

/** What is read is held by `hold`, which its owner lets go when it is done with. */
export async function readJson(incoming: IncomingMessage, patience: number, hold: Hold): Promise<unknown> {
  const type = mediaType(incoming)
  if (type !== 'application/json') {
    throw unsupported(`The body must be application/json${type ? `, not ${type.slice(0, 100)}` : ''}.`)
  }
  if (Number(incoming.headers['content-length'] ?? 0) > MOST_BYTES) throw tooLarge()
  return parseJson(await gather(incoming, patience, hold))
}

/** Bodies that are being read: until when, and how their reading is given up. */
const reading = new Map<IncomingMessage, { until: number; giveUp: () => void }>()

const looking = new Looking((now, busy) => {
  for (const body of reading.values()) {
    body.until += busy
    if (now > body.until) body.giveUp()
  }
  if (reading.size === 0) looking.end()
})

/** The body, read no further than the limit and no longer than there is patience; what comes beyond it is let go. */
function gather(incoming: IncomingMessage, patience: number, hold: Hold): Promise<Uint8Array> {
  return new Promise<Uint8Array>((resolve, reject) => {
    const pieces = new Pieces()
    let over = false
    const give = (work: () => void) => {
      over = true
      reading.delete(incoming)
      work()
    }
    looking.begin()
    reading.set(incoming, { until: performance.now() + patience, giveUp: () => give(() => reject(tooSlow())) })
    let length = 0
    incoming.on('data', (chunk: Buffer) => {
      if (over) return
      length += chunk.length
      try {
        if (length > MOST_BYTES) throw tooLarge()
        hold.take(chunk.length)
        pieces.add(chunk)
      } catch (error) {
        give(() => reject(error))
      }
    })
    incoming.on('end', () => give(() => resolve(pieces.take())))
    // A caller who is gone is no mistake of ours.
    const brokeOff = () => give(() => reject(new Refusal('invalid', 'invalid', 'The body broke off.')))
    incoming.on('error', brokeOff)
    incoming.on('close', () => {
      if (!incoming.complete) brokeOff()
    })
  })
}
