// What several verbs look at alike: a log beside what the views remember of its end, and the views of a data directory
// that may be in use, damaged, or not to be touched.

import { constants, copyFileSync, existsSync, mkdtempSync, rmSync, statfsSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { Shelf } from '../core/log.ts'
import type { Envelope } from '../core/record.ts'
import { Tables } from '../core/tables.ts'
import { type Contract, type Finding, type Verified, verify } from '../core/verify.ts'
import { type Come, markOf } from '../core/views.ts'
import type { Acknowledged } from '../log/sift.ts'

/** Where the views last saw a log end. */
export interface KnownEnd {
  seq: number
  size: number
  hash: string
}

export const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`

/** Verifies a log, and says where it is whole in itself, and yet not what the views saw. */
export function lookAt(
  on: Contract & { shelf: Shelf },
  log: string,
  known: KnownEnd | undefined,
  see?: (envelope: Envelope, line: Buffer) => void,
): { findings: Finding[]; verified: Verified } {
  const findings: Finding[] = []
  const verified = readable(log, findings, () => verify(on, log, (finding) => findings.push(finding), see))
  if (known && findings.length === 0 && known.size > verified.bytes) {
    findings.push({
      log,
      line: verified.records + 1,
      what: `the log ends after ${count(verified.records, 'record')}, and it had ${known.seq}`,
    })
  }
  if (known && findings.length === 0 && known.size === verified.bytes && known.hash !== verified.hash) {
    findings.push({ log, line: verified.records, what: 'the log is whole in itself, but not the one that was recorded' })
  }
  return { findings, verified }
}

/** A log that cannot be read is a finding, and keeps no other from being looked at. */
function readable(log: string, findings: Finding[], look: () => Verified): Verified {
  try {
    return look()
  } catch (error) {
    if (!(error instanceof Error && 'syscall' in error)) throw error
    findings.push({ log, line: 0, what: `it cannot be read: ${error.message}` })
    return { records: 0, bytes: 0, hash: '' }
  }
}

export interface Glimpse {
  tables: Tables
  close(): void
}

/**
 * Opens the views to look at them. SQLite makes files beside a database even for a reader; where no recorder is at work that
 * would change the directory that is looked at, so that a copy is opened. Says why it cannot.
 */
export function glimpse(file: string, running: boolean): Glimpse | { why: string } {
  if (!existsSync(file)) return { why: 'there are none' }
  let tables: Tables | undefined
  let folder: string | undefined
  const close = () => {
    tables?.close()
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  }
  try {
    if (!running) folder = copyOf(file)
    tables = new Tables(folder === undefined ? file : join(folder, basename(file)), { readonly: true, fileMustExist: true })
    // As of one moment, and some damage shows with the first question only.
    tables.db.exec('BEGIN')
    tables.sql('SELECT count(*) FROM logs').get()
    return { tables, close }
  } catch (error) {
    close()
    return { why: (error as Error).message }
  }
}

function copyOf(file: string): string {
  const files = [file, `${file}-wal`].filter((path) => existsSync(path))
  const { bavail, bsize } = statfsSync(tmpdir())
  const needed = files.reduce((sum, path) => sum + statSync(path).size, 0)
  if (needed > bavail * bsize) throw new Error(`there is no room for a copy of them in ${tmpdir()}; TMPDIR names another place`)
  const folder = mkdtempSync(join(tmpdir(), 'sessile-views-'))
  for (const path of files) copyFileSync(path, join(folder, basename(path)), constants.COPYFILE_FICLONE)
  return folder
}

/** What the views prove to have been acknowledged: they are committed after a sync only. */
export function acknowledgedIn(views: Glimpse | { why: string }): (Acknowledged & Come) | undefined {
  try {
    return 'tables' in views ? markOf(views.tables) : undefined
  } catch {
    return undefined
  }
}

/** Where the views saw each log end. */
export function endsIn(views: Glimpse | { why: string }): Map<string, KnownEnd> {
  try {
    if (!('tables' in views)) return new Map()
    const rows = views.tables.sql('SELECT log, seq, size, hash FROM logs').all() as ({ log: string } & KnownEnd)[]
    return new Map(rows.map(({ log, ...end }) => [log, end]))
  } catch {
    return new Map()
  }
}
