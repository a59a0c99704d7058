// Verifying a log: the seals, the order, the schemas, and that each record is where it belongs. Needs nothing but the
// lines themselves and the published schemas.

import type { Events } from './event.ts'
import { linesOf, type Shelf } from './log.ts'
import { parsed, scan } from './record.ts'
import type { Schemas } from './schemas.ts'
import { check, genesis, hashIn } from './seal.ts'

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

/** Every line of a log, checked. What follows a broken line is checked against what that line claims to be. */
export function verify(
  { shelf, events, schemas }: { shelf: Shelf; events: Events; schemas: Schemas },
  log: string,
  tell: (finding: Finding) => void,
): Verified {
  let hash = genesis(log)
  let latest = ''
  let [number, bytes] = [0, 0]
  for (const line of linesOf(shelf, log)) {
    number++
    bytes = line.end
    const sealed = check(hash, line.bytes)
    const found = (what: string) => tell({ log, line: number, what })
    if (sealed.ok) hash = sealed.hash
    else {
      found(sealed.why)
      hash = hashIn(line.bytes)
    }
    if (sealed.ok && sealed.erased) {
      if (!line.bytes.toString().startsWith(`{"seq":${number},`)) found(`its seq is not ${number}`)
      continue
    }
    const timestamp = checkRecord({ events, schemas }, log, number, line.bytes, latest, found)
    // What a broken line says of its time is not held against the lines after it.
    if (sealed.ok) latest = timestamp
  }
  const rest = shelf.read(log, bytes, 1)
  if (rest.length > 0) tell({ log, line: number + 1, what: 'the last line has no end' })
  return { records: number, bytes, hash }
}

function checkRecord(
  { events, schemas }: { events: Events; schemas: Schemas },
  log: string,
  number: number,
  line: Buffer,
  latest: string,
  found: (what: string) => void,
): string {
  const scanned = scan(line)
  const value = parsed(line) as { data: unknown } | undefined
  if (!scanned || value === undefined) {
    found(value === undefined ? 'it is not JSON' : 'its envelope is not that of a record')
    return latest
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
  return envelope.timestamp > latest ? envelope.timestamp : latest
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
