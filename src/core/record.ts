// A record: its envelope, how it is printed as one line, and how a line is read again. The fields always stand in the
// same order, so that the envelope of a line can be scanned without parsing its data.

import { SEAL_LENGTH } from './seal.ts'

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

/** The line up to its seal. Every envelope field is of a kind that JSON prints as it is; `data` is printed by JSON. */
export function contentOf(record: Recorded): string {
  const session = record.session_id === undefined ? '' : `"session_id":"${record.session_id}",`
  const command = record.command_id === undefined ? '' : `"command_id":"${record.command_id}",`
  return (
    `{"record_id":"${record.record_id}","seq":${record.seq},"type":"${record.type}","v":${record.v},` +
    `"source":"${record.source}","user_id":"${record.user_id}",${session}"performer_id":"${record.performer_id}",` +
    `"timestamp":"${record.timestamp}",${command}"data":${JSON.stringify(record.data)}`
  )
}

const ENVELOPE =
  /^\{"record_id":"([0-9a-f-]{36})","seq":(\d{1,15}),"type":"([a-z0-9._-]{1,128})","v":(\d{1,6}),"source":"([A-Za-z0-9._-]{1,64})","user_id":"([A-Za-z0-9._-]{1,64})",(?:"session_id":"([A-Za-z0-9_]{1,64})",)?"performer_id":"([A-Za-z0-9._-]{1,64})","timestamp":"([0-9TZ:.-]{24})",(?:"command_id":"([A-Za-z0-9_.-]{1,128})",)?"data":/

const LONGEST_ENVELOPE = 800

/** The envelope of a line and where its data begins, without parsing the data; undefined if it is not such a line. */
export function scan(line: Buffer): { envelope: Envelope; data: number } | undefined {
  const found = ENVELOPE.exec(line.toString('latin1', 0, Math.min(line.length, LONGEST_ENVELOPE)))
  if (!found) return undefined
  const [all, record_id, seq, type, v, source, user_id, session_id, performer_id, timestamp, command_id] = found
  const envelope = { record_id, seq: Number(seq), type, v: Number(v), source, user_id } as Envelope
  if (session_id !== undefined) envelope.session_id = session_id
  envelope.performer_id = performer_id as string
  envelope.timestamp = timestamp as string
  if (command_id !== undefined) envelope.command_id = command_id
  return { envelope, data: all.length }
}

/** Reads one line (without its newline). What is not a record is an erased one; anything else is not from the recorder. */
export function parseLine(line: Buffer): Recorded | Erased {
  const scanned = scan(line)
  if (!scanned) return parseErased(line)
  const data = parsed(line.subarray(scanned.data, line.length - SEAL_LENGTH))
  if (data === undefined) throw new Error('not a record')
  return Object.assign(scanned.envelope, { data })
}

function parseErased(line: Buffer): Erased {
  const value = parsed(line)
  if (!isErased(value)) throw new Error('not a record')
  return value
}

/** The JSON of a line, or of a part of one. What the parser says of a bad one quotes it, so nobody is told. */
export function parsed(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString())
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
