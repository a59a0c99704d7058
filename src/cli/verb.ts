// What a verb of the command line is, and how each of them speaks: data on stdout, everything else on stderr.

import { type ParseArgsConfig, parseArgs } from 'node:util'
import type { Config } from '../config.ts'

/** The exit codes, the same for every verb. */
export const exit = {
  done: 0,
  /** It ran, and something is wrong: what, is on stdout or stderr. */
  found: 1,
  /** The call's words are off. */
  usage: 2,
  /** Something that had been acknowledged is lost or damaged: what, is on stdout. */
  lost: 3,
  /** The data directory is held by another process. */
  held: 4,
  /** The journal is damaged, or the log cannot be read or written. */
  damaged: 5,
  /** A sync failed: what the disk holds is unknown until it is read anew. */
  untrusted: 70,
} as const

export type Options = NonNullable<ParseArgsConfig['options']>
export type Values = Record<string, string | boolean | undefined>

export interface Verb {
  does: string
  usage: string
  options: Options
  /** How many words it takes beside its options: none, unless it says so. */
  words?: number
  /** The data directory that it makes, where that is not the one that it is called for. */
  makes?: (values: Values) => string | undefined
  run(on: { config: Config; values: Values; words: string[] }): Promise<number> | number
}

export class Usage extends Error {}

export function parse(verb: Verb, args: string[]): { values: Values; words: string[] } {
  const { values, positionals } = parsed(verb, args)
  const extra = positionals[verb.words ?? 0]
  if (extra !== undefined) throw new Usage(`there is no place for the word ${extra}: ${verb.usage}`)
  return { values: values as Values, words: positionals }
}

function parsed(verb: Verb, args: string[]) {
  try {
    return parseArgs({ args, options: verb.options, allowPositionals: true, strict: true })
  } catch (error) {
    throw new Usage((error as Error).message)
  }
}

export const say = (text: string) => void process.stderr.write(`${text}\n`)

/** Writes to stdout and waits where the reader is slower; ends quietly where the reader has gone. */
export async function put(text: string | Uint8Array): Promise<void> {
  if (!process.stdout.write(text)) await new Promise<void>((resolve) => process.stdout.once('drain', resolve))
}

const TOGETHER = 64 * 1024
const NEWLINE = 10

/** Lines for stdout, many at a time: to write one takes as long as to find it. */
export class Printout {
  #room = Buffer.allocUnsafeSlow(TOGETHER)
  #filled = 0

  /** Takes one more; what it returns is to be waited for. */
  add(line: Uint8Array): Promise<void> | undefined {
    const written = this.#filled + line.length < this.#room.length ? undefined : this.flush()
    if (line.length >= this.#room.length) this.#room = Buffer.allocUnsafeSlow(line.length + 1)
    this.#room.set(line, this.#filled)
    this.#filled += line.length + 1
    this.#room[this.#filled - 1] = NEWLINE
    return written
  }

  /** Whoever reads slowly has what was written until they come to it. */
  flush(): Promise<void> {
    const written = this.#room.subarray(0, this.#filled)
    this.#room = Buffer.allocUnsafeSlow(TOGETHER)
    this.#filled = 0
    return put(written)
  }
}

export const putJson = (value: unknown) => put(`${JSON.stringify(value)}\n`)

export const text = (value: string | boolean | undefined) => (typeof value === 'string' ? value : undefined)

// biome-ignore lint/suspicious/noControlCharactersInRegex: it is control characters that are made visible
const CONTROLS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g

/** What was said may hold anything; a terminal must not obey it. */
export const visible = (text: string) => text.replace(CONTROLS, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)

/** An instant given as an option, in milliseconds. */
export function instant(name: string, value: string | boolean | undefined): number | undefined {
  if (typeof value !== 'string') return undefined
  const at = Date.parse(value)
  if (Number.isNaN(at)) throw new Usage(`--${name} must be a time such as 2031-05-02T09:30:00Z, not ${value}`)
  return at
}

const paint = (code: number) => (text: string, colour: boolean) => (colour ? `\u001b[${code}m${text}\u001b[0m` : text)
export const dim = paint(2)
export const red = paint(31)
export const green = paint(32)
