// Verifying a log: the seals, the order, the schemas, and that each record is where it belongs. Needs nothing but the
// lines themselves and the published schemas.

import type { Events } from './event.ts'
import { linesOf, type Shelf } from './log.ts'
import { type Envelope, parsed, scan } from './record.ts'
import type { Schemas } from './schemas.ts'
import { check, genesis, hashAfter } from './seal.ts'

export interface Finding {
  log: string
  line: number
  what: string
}

export interface Verified {
  records: number
  bytes: number
  hash: string
}

/** Where the checking of a log has come: what its next line must follow from. */
export interface Place {
  readonly seq: number
  readonly hash: string
  readonly latest: string
}

export const firstPlace = (log: string): Place => ({ seq: 0, hash: genesis(log), latest: '' })

/** What lines are checked by. */
export interface Contract {
  events: Events
  schemas: Schemas
}

/** Every line of a log, checked. What follows a broken line is checked against what that line claims to be. */
export function verify(
  { shelf, ...contract }: Contract & { shelf: Shelf },
  log: string,
  tell: (finding: Finding) => void,
  see: (envelope: Envelope, line: Buffer) => void = () => {},
): Verified {
  let place = firstPlace(log)
  let bytes = 0
  for (const line of linesOf(shelf, log)) {
    bytes = line.end
    const number = place.seq + 1
    place = checkLine(contract, log, place, line.bytes, (what) => tell({ log, line: number, what }), see)
  }
  const rest = shelf.read(log, bytes, 1)
  if (rest.length > 0) tell({ log, line: place.seq + 1, what: 'the last line has no end' })
  return { records: place.seq, bytes, hash: place.hash }
}

/** Checks one line, and tells where the checking has come with it. `see` is shown what the line says where its seal holds. */
export function checkLine(
  contract: Contract,
  log: string,
  { seq, hash, latest }: Place,
  line: Buffer,
  found: (what: string) => void,
  see: (envelope: Envelope, line: Buffer) => void = () => {},
): Place {
  const number = seq + 1
  const sealed = check(hash, line)
  const after = { seq: number, hash: hashAfter(sealed, line), latest }
  if (!sealed.ok) found(sealed.why)
  if (sealed.ok && sealed.erased) {
    if (!line.toString().startsWith(`{"seq":${number},`)) found(`its seq is not ${number}`)
    return after
  }
  const envelope = checkRecord(contract, log, number, line, latest, found)
  // What a broken line says of its time is not held against the lines after it.
  if (!sealed.ok || !envelope) return after
  see(envelope, line)
  return envelope.timestamp > latest ? { ...after, latest: envelope.timestamp } : after
}

function checkRecord(
  { events, schemas }: Contract,
  log: string,
  number: number,
  line: Buffer,
  latest: string,
  found: (what: string) => void,
): Envelope | undefined {
  const scanned = scan(line)
  const value = parsed(line) as { data: unknown } | undefined
  if (!scanned || value === undefined) {
    found(value === undefined ? 'it is not JSON' : 'its envelope is not that of a record')
    return undefined
  }
  const { envelope } = scanned
  const fault = schemas.fault('record', 1, value, '')
  if (fault) found(`${fault.path} ${fault.message}`)
  if (envelope.seq !== number) found(`its seq is ${envelope.seq}, not ${number}`)
  if (envelope.timestamp < latest) found(`its timestamp ${envelope.timestamp} is earlier than the one before it`)
  const home = homeOf(log)
  if (home.user !== undefined && envelope.user_id !== home.user) found(`it belongs to the user ${envelope.user_id}`)
  if (envelope.session_id !== home.session) found(`it belongs to the session ${envelope.session_id ?? '(none)'}`)
  const event = events.named(envelope.type)
  if (!event) found(`${envelope.type} is not a registered event`)
  else {
    const bad = knows(event, envelope.v)
      ? schemas.fault(event.type, envelope.v, value.data)
      : { path: 'v', message: `is not a version of ${envelope.type}` }
    if (bad) found(`${bad.path} ${bad.message}`)
  }
  return envelope
}

const knows = (event: { v: number; older: readonly { v: number }[] }, v: number) =>
  v === event.v || event.older.some((older) => older.v === v)

/** Whose records a log may hold, by its name. */
function homeOf(log: string): { user?: string; session?: string } {
  const [top, user, , session] = log.split('/')
  if (top === 'accounts') return { user: user as string }
  if (top !== 'users') return {}
  return session === undefined ? { user: user as string } : { user: user as string, session }
}
