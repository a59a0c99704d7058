// What a text must be before it is parsed: bounded in every direction, and JSON of which any two readers understand the
// same (RFC 7493). One pass over the bytes says so; the parser would take 100,000 brackets, and drop or bend the rest in silence.

import { isAscii } from 'node:buffer'
import { invalid, Refusal } from '../core/errors.ts'
import { LARGEST_LINE } from '../core/record.ts'
import { Unread } from '../core/waiting.ts'

export const DEEPEST = 32
/** Fields of one object, or items of one array. */
export const MOST_ENTRIES = 10_000
/** No record could hold a longer one. */
export const LONGEST_STRING = LARGEST_LINE

const decoder = new TextDecoder('utf-8', { fatal: true })

/** What is shorter takes no less room before it is read: as bytes it is a buffer of its own. */
const SMALL = 4096

/** What is read as JSON: at once, or when its turn comes. */
export function asJson(bytes: Uint8Array): Unread {
  if (bytes.length > SMALL) return new Unread(() => parseJson(bytes))
  const value = parseJson(bytes)
  return new Unread(() => value)
}

function parseJson(bytes: Uint8Array): unknown {
  const names = survey(bytes)
  const text = decode(bytes)
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    // The parser's own words quote the body; only the place is told.
    const place = /position (\d+)/.exec((error as Error).message)?.[1]
    throw unfit(`is not JSON${place === undefined ? '' : ` at character ${place}`}`)
  }
  // The parser keeps the last of two fields with one name, and another reader might keep the first.
  if (namesIn(value) !== names) throw unfit('names a field twice in one object')
  return value
}

const unfit = (message: string) => invalid([{ path: '', message }])

function decode(bytes: Uint8Array): string {
  // What is mostly sent, and several times faster to read.
  if (isAscii(bytes)) return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')
  try {
    return decoder.decode(bytes)
  } catch {
    throw unfit('is not UTF-8')
  }
}

/** How many names of fields there are. All numbers, texts and empty things have none. */
function namesIn(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 0
  let names = 0
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) names += namesIn(value[i])
    return names
  }
  for (const name in value) names += 1 + namesIn((value as Record<string, unknown>)[name])
  return names
}

const [QUOTE, ESCAPE, COMMA, COLON] = [0x22, 0x5c, 0x2c, 0x3a]
/** What a byte outside of a string begins: nothing of note, what opens, what closes, a number. */
const [OPENS, CLOSES, NUMBER] = [1, 2, 3]
const begins = new Uint8Array(256)
for (const c of '{[') begins[c.charCodeAt(0)] = OPENS
for (const c of '}]') begins[c.charCodeAt(0)] = CLOSES
for (const c of '-0123456789') begins[c.charCodeAt(0)] = NUMBER

/** How many commas there were at each depth of where the pass has come. */
const commas = new Int32Array(DEEPEST + 1)

/**
 * Goes over the bytes once and refuses what is beyond a bound or would not be kept as it is; returns how many names of
 * fields were written. What is not JSON at all is left to the parser.
 */
function survey(bytes: Uint8Array): number {
  let [depth, names] = [0, 0]
  commas[0] = 0
  for (let i = 0; i < bytes.length; i++) {
    const c = bytes[i] as number
    if (c === QUOTE) i = endOfString(bytes, i)
    else if (c === COLON) names++
    else if (c === COMMA) {
      if ((commas[depth] as number) + 2 > MOST_ENTRIES)
        throw unfit(`holds more than ${MOST_ENTRIES} things side by side at byte ${i}`)
      ;(commas[depth] as number)++
    } else if (begins[c] === NUMBER) i = endOfNumber(bytes, i)
    else if (begins[c] === OPENS) {
      if (++depth > DEEPEST) throw unfit(`is nested more than ${DEEPEST} deep at byte ${i}`)
      commas[depth] = 0
    } else if (begins[c] === CLOSES && depth > 0) depth--
  }
  return names
}

/** Where the quote stands that ends the string which begins here. */
function endOfString(bytes: Uint8Array, from: number): number {
  let i = from + 1
  for (; i < bytes.length; i++) {
    const c = bytes[i]
    if (c === QUOTE) break
    if (c === ESCAPE) i = endOfEscape(bytes, i)
  }
  if (i - from - 1 > LONGEST_STRING) {
    throw new Refusal('too-large', 'record-too-large', `A string is at most ${LONGEST_STRING} bytes: no record could hold it.`)
  }
  return i
}

/** Where the escape ends that begins here. One half of a pair of surrogates has no UTF-8: whoever writes it changes it. */
function endOfEscape(bytes: Uint8Array, at: number): number {
  const first = unitAt(bytes, at)
  if ((first & 0xf800) !== 0xd800) return at + 1
  if (first >= 0xdc00 || (unitAt(bytes, at + 6) & 0xfc00) !== 0xdc00) throw unfit(`holds half a surrogate pair at byte ${at}`)
  return at + 11
}

/** The code unit that `\uXXXX` stands for; 0 where no such escape stands here. */
function unitAt(bytes: Uint8Array, at: number): number {
  if (bytes[at] !== ESCAPE || bytes[at + 1] !== 0x75) return 0
  let unit = 0
  for (let i = at + 2; i < at + 6; i++) unit = unit * 16 + digitOf(bytes[i] as number)
  return unit
}

const digitOf = (c: number) => (c >= 0x30 && c <= 0x39 ? c - 0x30 : ((c | 0x20) - 0x57) & 15)

/** So many characters of a whole number are safe without a look, and of one with a point in it. */
const [SHORT, SHORT_WITH_POINT] = [15, 300]

/** Where the last character stands of the number that begins here. */
function endOfNumber(bytes: Uint8Array, from: number): number {
  let [i, point, exponent] = [from + 1, false, false]
  for (; i < bytes.length; i++) {
    const c = bytes[i] as number
    if (c === 0x2e) point = true
    else if (c === 0x65 || c === 0x45) exponent = true
    else if ((c < 0x30 || c > 0x39) && c !== 0x2b && c !== 0x2d) break
  }
  if (exponent || i - from > (point ? SHORT_WITH_POINT : SHORT))
    weigh(Buffer.from(bytes.subarray(from, i)).toString('latin1'), from)
  return i - 1
}

/** A fraction is kept as near as a double comes to it; what would become another whole number, nothing or `null` is refused. */
function weigh(number: string, at: number): void {
  const value = Number(number)
  const bent = /[.e]/i.test(number)
    ? value === Number.POSITIVE_INFINITY ||
      value === Number.NEGATIVE_INFINITY ||
      (value === 0 && /[1-9]/.test(number.split(/e/i)[0] ?? ''))
    : !Number.isSafeInteger(value)
  if (bent) throw unfit(`holds a number that would not be kept as it is at byte ${at}: send it as a string`)
}
