// Reading a body: bytes and depth are bounded before anything is parsed, and what cannot be read is refused with the
// place where it went wrong.

import type { IncomingMessage } from 'node:http'
import { invalid, Refusal } from '../core/errors.ts'

const MOST_BYTES = 4 * 1024 * 1024
const DEEPEST = 32

const decoder = new TextDecoder('utf-8', { fatal: true })

const tooLarge = () => new Refusal('too-large', 'body-too-large', `A body is at most ${MOST_BYTES} bytes.`)

const tooSlow = () => new Refusal('invalid', 'body-too-slow', 'The body took too long to come.')

export function mediaType({ headers }: IncomingMessage): string {
  if (headers['content-encoding'] !== undefined) {
    throw new Refusal('invalid', 'unsupported-media-type', 'Bodies are taken as they are, not compressed.')
  }
  return (headers['content-type'] ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
}

export async function readJson(incoming: IncomingMessage, patience: number): Promise<unknown> {
  const type = mediaType(incoming)
  if (type !== 'application/json') {
    throw new Refusal(
      'invalid',
      'unsupported-media-type',
      `The body must be application/json${type ? `, not ${type.slice(0, 100)}` : ''}.`,
    )
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
    const chunks: Buffer[] = []
    let length = 0
    const give = (work: () => void) => {
      reading.delete(incoming)
      work()
    }
    reading.set(incoming, { until: performance.now() + patience, giveUp: () => give(() => reject(tooSlow())) })
    incoming.on('data', (chunk: Buffer) => {
      length += chunk.length
      if (length <= MOST_BYTES) chunks.push(chunk)
      else give(() => reject(tooLarge()))
    })
    incoming.on('end', () => give(() => resolve(chunks.length === 1 ? (chunks[0] as Buffer) : Buffer.concat(chunks))))
    incoming.on('error', (error) => give(() => reject(error)))
    incoming.on('close', () => {
      if (!incoming.complete) give(() => reject(new Refusal('invalid', 'invalid', 'The body broke off.')))
    })
  })
}

export function parseJson(bytes: Uint8Array): unknown {
  const text = decode(bytes)
  const deep = tooDeep(text)
  if (deep >= 0) throw invalid([{ path: '', message: `is nested more than ${DEEPEST} deep at character ${deep}` }])
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    // The parser's own words quote the body; only the place is told.
    const place = /position (\d+)/.exec((error as Error).message)?.[1]
    throw invalid([{ path: '', message: `is not JSON${place === undefined ? '' : ` at character ${place}`}` }])
  }
}

function decode(bytes: Uint8Array): string {
  try {
    return decoder.decode(bytes)
  } catch {
    throw invalid([{ path: '', message: 'is not UTF-8' }])
  }
}

/** Where the text goes deeper than allowed; -1 where it does not. Brackets within strings do not count. */
function tooDeep(text: string): number {
  let depth = 0
  let quoted = false
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i)
    if (quoted) {
      if (c === 0x5c) i++
      else if (c === 0x22) quoted = false
    } else if (c === 0x22) quoted = true
    else if (c === 0x7b || c === 0x5b) {
      if (++depth > DEEPEST) return i
    } else if (c === 0x7d || c === 0x5d) depth--
  }
  return -1
}
