// Reading a body: bytes and depth are bounded before anything is parsed, and what cannot be read is refused with the
// place where it went wrong.

import { invalid, Refusal } from '../core/errors.ts'

const MOST_BYTES = 4 * 1024 * 1024
const DEEPEST = 32

const decoder = new TextDecoder('utf-8', { fatal: true })

const tooLarge = () => new Refusal('too-large', 'body-too-large', `A body is at most ${MOST_BYTES} bytes.`)

export function mediaType(request: Request): string {
  if (request.headers.has('content-encoding')) {
    throw new Refusal('invalid', 'unsupported-media-type', 'Bodies are taken as they are, not compressed.')
  }
  return (request.headers.get('content-type') ?? '').split(';')[0]?.trim().toLowerCase() ?? ''
}

export async function readJson(request: Request): Promise<unknown> {
  const type = mediaType(request)
  if (type !== 'application/json') {
    throw new Refusal(
      'invalid',
      'unsupported-media-type',
      `The body must be application/json${type ? `, not ${type.slice(0, 100)}` : ''}.`,
    )
  }
  if (Number(request.headers.get('content-length') ?? 0) > MOST_BYTES) throw tooLarge()
  const bytes = request.headers.has('content-length') ? new Uint8Array(await request.arrayBuffer()) : await gather(request)
  return parseJson(bytes)
}

/** A body of unstated length, read no further than the limit. */
async function gather(request: Request): Promise<Uint8Array> {
  const chunks: Uint8Array[] = []
  let length = 0
  for await (const chunk of request.body ?? []) {
    length += chunk.length
    if (length > MOST_BYTES) throw tooLarge()
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
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
