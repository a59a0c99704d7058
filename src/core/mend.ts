// A line in which one byte is wrong can be had again: every line that differs from it in one byte is tried, and the seal
// tells which of them was recorded. Nothing is guessed: what does not follow from the line before it is not taken.

import { check } from './seal.ts'

/** Beyond these lengths, trying every bit, or every byte, would take more than about a second. */
const MOST_FOR_BITS = 8 * 1024
const MOST_FOR_BYTES = 1024

export interface Mended {
  /** As it was recorded, without its newline. */
  line: Buffer
  /** Which byte was wrong. */
  at: number
  /** How many bytes it takes up where it stands, its newline included. */
  taken: number
}

/**
 * The line that stood at the beginning of this text, if one byte of it is wrong. That byte may be the newline at its end,
 * so that the next line seems to belong to it, or none follows it, or have become one, so that it seems to be two.
 */
export function mend(previous: string, text: Buffer): Mended | undefined {
  const end = text.indexOf(10)
  const line = end < 0 ? text : text.subarray(0, end)
  if (end < 0 && check(previous, text).ok) return { line: text, at: text.length, taken: text.length }
  return split(previous, line) ?? (end < 0 ? undefined : joined(previous, text, end)) ?? changed(previous, line)
}

const END = Buffer.from('"}')

function split(previous: string, line: Buffer): Mended | undefined {
  for (let at = line.indexOf(END); at >= 0; at = line.indexOf(END, at + 1)) {
    const first = line.subarray(0, at + END.length)
    if (first.length < line.length && check(previous, first).ok) return { line: first, at: first.length, taken: first.length + 1 }
  }
  return undefined
}

function joined(previous: string, text: Buffer, at: number): Mended | undefined {
  const end = text.indexOf(10, at + 1)
  if (end < 0) return undefined
  const line = Buffer.from(text.subarray(0, end))
  return tried(previous, line, at) ? { line, at, taken: end + 1 } : undefined
}

function changed(previous: string, text: Buffer): Mended | undefined {
  if (text.length > MOST_FOR_BITS) return undefined
  const line = Buffer.from(text)
  const mended = (at: number) => ({ line, at, taken: line.length + 1 })
  for (let at = 0; at < line.length; at++) {
    const byte = line[at] as number
    for (let bit = 1; bit < 256; bit *= 2) {
      line[at] = byte ^ bit
      if (check(previous, line).ok) return mended(at)
    }
    line[at] = byte
  }
  if (line.length <= MOST_FOR_BYTES) for (let at = 0; at < line.length; at++) if (tried(previous, line, at)) return mended(at)
  return undefined
}

/** Puts every other byte at this place, and leaves the one with which the seal holds. */
function tried(previous: string, line: Buffer, at: number): boolean {
  const byte = line[at] as number
  for (let other = 0; other < 256; other++) {
    line[at] = other
    if (other !== byte && other !== 10 && check(previous, line).ok) return true
  }
  line[at] = byte
  return false
}
