// A record: its envelope, how it is printed as one line, and how a line is read again. The fields always stand in the
// same order, so that the envelope of a line can be scanned without parsing its data.

import { SEAL_LENGTH, stands } from './seal.ts'

export interface Envelope {
  record_id: string
  seq: number
  type: string
  v: number
  source: string
  user_id: string
  session_id?: string
  performer_id: string
  timestamp: string
  command_id?: string
}

export interface Recorded<D = unknown> extends Envelope {
  data: D
}

/** What is left of a record whose content was erased. */
export interface Erased {
  seq: number
  commit: string
  hash: string
  erased_by: string
}

/** The largest line, its seal and its newline included. */
export const LARGEST_LINE = 512 * 1024

/** The line up to its seal. Every envelope field is of a kind that JSON prints as it is; `data` is printed by JSON, if it was not before. */
export function contentOf(record: Recorded, data = JSON.stringify(record.data)): string {
  const session = record.session_id === undefined ? '' : `"session_id":"${record.session_id}",`
  const command = record.command_id === undefined ? '' : `"command_id":"${record.command_id}",`
  return (
    `{"record_id":"${record.record_id}","seq":${record.seq},"type":"${record.type}","v":${record.v},` +
    `"source":"${record.source}","user_id":"${record.user_id}",${session}"performer_id":"${record.performer_id}",` +
    `"timestamp":"${record.timestamp}",${command}"data":${data}`
  )
}

// The envelope as bytes: what stands before each field, and of which letters and how many it is. Walking it byte by byte
// takes a third of the time of a pattern over text, and a rebuild walks every line there is.

const letters = (pattern: RegExp) => Uint8Array.from({ length: 256 }, (_, byte) => Number(pattern.test(String.fromCharCode(byte))))
const DIGITS = letters(/[0-9]/)
const NAME = letters(/[A-Za-z0-9._-]/)

interface Field {
  before: Buffer
  letters: Uint8Array
  least: number
  most: number
  optional: boolean
}
const field = (before: string, letters: Uint8Array, least: number, most: number, optional = false): Field => ({
  before: Buffer.from(before),
  letters,
  least,
  most,
  optional,
})
const FIELDS = [
  field('{"record_id":"', letters(/[0-9a-f-]/), 36, 36),
  field('","seq":', DIGITS, 1, 15),
  field(',"type":"', letters(/[a-z0-9._-]/), 1, 128),
  field('","v":', DIGITS, 1, 6),
  field(',"source":"', NAME, 1, 64),
  field('","user_id":"', NAME, 1, 64),
  field('","session_id":"', letters(/[A-Za-z0-9_]/), 1, 64, true),
  field('","performer_id":"', NAME, 1, 64),
  field('","timestamp":"', letters(/[0-9TZ:.-]/), 24, 24),
  field('","command_id":"', NAME, 1, 128, true),
]
const AFTER = Buffer.from('","data":')
const [RECORD_ID, SEQ, TYPE, V, SOURCE, USER_ID, SESSION_ID, PERFORMER_ID, TIMESTAMP, COMMAND_ID] =
  FIELDS.keys() as unknown as number[]

/** Where the fields of the line that was walked last begin and end; both are 0 for one that is absent. */
const begins = new Uint32Array(FIELDS.length)
const ends = new Uint32Array(FIELDS.length)

/** What stood in each field when it was read last, and whether it stands there in the line that was walked last: in one log most of that stays the same. */
const lately = FIELDS.map(({ most }) => ({ bytes: Buffer.alloc(most), length: 0, text: '', again: false }))
type Lately = (typeof lately)[number]

/** Walks the envelope; returns where the data begins, or -1 where this is not the line of a record. */
function walk(line: Buffer): number {
  let at = 0
  for (let i = 0; i < FIELDS.length; i++) {
    const { before, letters, least, most, optional } = FIELDS[i] as Field
    if (!stands(before, line, at)) {
      if (!optional) return -1
      begins[i] = ends[i] = 0
      continue
    }
    const from = at + before.length
    const last = lately[i] as Lately
    let known = 0
    while (known < last.length && line[from + known] === last.bytes[known]) known++
    at = from + known
    while (letters[line[at] as number] === 1) at++
    if (at - from < least || at - from > most) return -1
    last.again = at - from === last.length && known === last.length
    begins[i] = from
    ends[i] = at
  }
  return stands(AFTER, line, at) ? at + AFTER.length : -1
}

const textOf = (line: Buffer, field: number | undefined) => line.toString('latin1', begins[field as number], ends[field as number])

/** The same, for a field that often has what it had in the line before: then it need not be made anew. */
function sameText(line: Buffer, field: number | undefined): string {
  const last = lately[field as number] as Lately
  if (last.again) return last.text
  const [from, to] = [begins[field as number] as number, ends[field as number] as number]
  // Byte by byte: to copy a part of a buffer makes a view of that part first.
  for (let i = from; i < to; i++) last.bytes[i - from] = line[i] as number
  last.length = to - from
  last.text = line.toString('latin1', from, to)
  last.again = true
  return last.text
}

const isThere = (field: number | undefined) => begins[field as number] !== 0

/** A field of digits alone. */
function numberOf(line: Buffer, field: number | undefined): number {
  let number = 0
  for (let i = begins[field as number] as number; i < (ends[field as number] as number); i++)
    number = 10 * number + (line[i] as number) - ZERO
  return number
}
const ZERO = 0x30

/** The envelope that was walked last. An object made by a class has room within for what is not always there, and for its data. */
class Walked implements Envelope {
  declare record_id: string
  declare seq: number
  declare type: string
  declare v: number
  declare source: string
  declare user_id: string
  declare session_id?: string
  declare performer_id: string
  declare timestamp: string
  declare command_id?: string
  declare data: unknown

  constructor(line: Buffer) {
    this.record_id = textOf(line, RECORD_ID)
    this.seq = numberOf(line, SEQ)
    this.type = sameText(line, TYPE)
    this.v = numberOf(line, V)
    this.source = sameText(line, SOURCE)
    this.user_id = sameText(line, USER_ID)
    if (isThere(SESSION_ID)) this.session_id = sameText(line, SESSION_ID)
    this.performer_id = sameText(line, PERFORMER_ID)
    this.timestamp = sameText(line, TIMESTAMP)
    if (isThere(COMMAND_ID)) this.command_id = sameText(line, COMMAND_ID)
  }
}

export interface Scanned {
  envelope: Envelope
  /** Where the data begins. */
  data: number
}

/** The envelope of a line, without parsing the data; undefined if it is not such a line. */
export function scan(line: Buffer): Scanned | undefined {
  const data = walk(line)
  return data < 0 ? undefined : { envelope: new Walked(line), data }
}

/** What decides whether a line is of interest: its type, and whether its request was named; and the how-manieth it says it is. */
export function skim(line: Buffer): { seq: number; type: string; command_id: string | undefined } | undefined {
  if (walk(line) < 0) return undefined
  const command_id = isThere(COMMAND_ID) ? sameText(line, COMMAND_ID) : undefined
  return { seq: numberOf(line, SEQ), type: sameText(line, TYPE), command_id }
}

/** Reads one line (without its newline). What is not a record is an erased one; anything else is not from the recorder. */
export function parseLine(line: Buffer): Recorded | Erased {
  const at = walk(line)
  return at < 0 ? parseErased(line) : recorded(line, at)
}

/** The same of a line that holds a record of this type; of any other nothing is read but that. */
export function parseOf(type: string, line: Buffer): Recorded | undefined {
  const at = walk(line)
  return at < 0 || sameText(line, TYPE) !== type ? undefined : recorded(line, at)
}

/** The record of the line that was walked last. */
function recorded(line: Buffer, at: number): Recorded {
  const record = new Walked(line)
  record.data = parsed(line, at, line.length - SEAL_LENGTH)
  if (record.data === undefined) throw new Error('not a record')
  return record
}

function parseErased(line: Buffer): Erased {
  const value = parsed(line)
  if (!isErased(value)) throw new Error('not a record')
  return value
}

/** The JSON of a line, or of a part of one. What the parser says of a bad one quotes it, so nobody is told. */
export function parsed(line: Buffer, from = 0, to = line.length): unknown {
  try {
    return JSON.parse(line.toString('utf8', from, to))
  } catch {
    return undefined
  }
}

export const isErased = (value: unknown): value is Erased =>
  typeof value === 'object' && value !== null && 'erased_by' in value && 'commit' in value && 'hash' in value && 'seq' in value

/** The record as one flat object, the data's fields beside the envelope's: what a caller who recorded it is told. */
export function flat({
  record_id,
  seq,
  type,
  v,
  source,
  user_id,
  session_id,
  performer_id,
  timestamp,
  data,
}: Recorded): Record<string, unknown> {
  const told: Record<string, unknown> =
    session_id === undefined
      ? { record_id, seq, type, v, source, user_id, performer_id, timestamp }
      : { record_id, seq, type, v, source, user_id, session_id, performer_id, timestamp }
  const fields = data as Record<string, unknown>
  for (const name of Object.keys(fields)) {
    // No field of the data can pose as one of the envelope, or be anything but a field.
    if (name === '__proto__') Object.defineProperty(told, name, { value: fields[name], enumerable: true })
    else if (!Object.hasOwn(told, name)) told[name] = fields[name]
  }
  return told
}

/** What no field of the data can pose as. */
const TOLD = new Set(['record_id', 'seq', 'type', 'v', 'source', 'user_id', 'session_id', 'performer_id', 'timestamp'])

/** The same as JSON, cut from its line up to the seal: what has been printed need not be once more. */
export function flatText(record: Recorded, content: string): string {
  for (const name in record.data as object) if (TOLD.has(name)) return JSON.stringify(flat(record))
  const { envelope, data } = cut(content)
  return data === '{}' ? `${envelope}}` : `${envelope},${data.slice(1)}`
}

const [NAMED, DATA] = [',"command_id":', ',"data":']

/** What a line has up to its seal: the envelope, but for the name of its request, and the data. */
export function cut(content: string): { envelope: string; data: string } {
  // Nothing in an envelope needs quoting: the first of each is its own.
  const at = content.indexOf(DATA)
  const named = content.lastIndexOf(NAMED, at)
  return { envelope: content.slice(0, named < 0 ? at : named), data: content.slice(at + DATA.length) }
}
