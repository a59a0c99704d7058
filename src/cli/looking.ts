// What several verbs look at alike: a log beside what the views remember of its end, and the views of a data directory
// that may be in use, damaged, or not to be touched.

import { constants, copyFileSync, linkSync, lstatSync, mkdirSync, rmSync } from 'node:fs'
import { basename, join } from 'node:path'
import type { Shelf } from '../core/log.ts'
import type { Envelope } from '../core/record.ts'
import { isSqlite, Tables } from '../core/tables.ts'
import { type Contract, type Finding, type Verified, verify } from '../core/verify.ts'
import { type Come, lookOf, markOf } from '../core/views.ts'
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

/** Why there is nothing to look at: nothing is there, it cannot be read, or there was no way to look. */
export interface Unseen {
  is: 'absent' | 'damaged' | 'out of reach'
  why: string
}

/**
 * Opens the views to look at them. SQLite makes files beside a database even for a reader. Where no recorder is at work, that
 * is in a folder of its own, which is gone again before anything is read: `aside` is where it may be. There they are given
 * second names, since a copy takes time and room, and there may be none; or copied, where they belong to somebody else's directory.
 */
export function glimpse(file: string, aside?: { folder: string; by: 'name' | 'copy' }): Glimpse | Unseen {
  const stat = lstatSync(file, { throwIfNoEntry: false })
  if (!stat) return { is: 'absent', why: 'there are none' }
  // Nothing is followed to where SQLite should put nothing.
  if (!stat.isFile()) return { is: 'damaged', why: 'what stands in their place is no file' }
  const folder = aside && lookOf(join(aside.folder, basename(file)))
  let tables: Tables | undefined
  try {
    const path = folder === undefined ? file : namesIn(folder, file, aside?.by === 'name' ? giveName : copy)
    tables = new Tables(path, { readonly: true, fileMustExist: true })
    // As of one moment, and some damage shows with the first question only.
    tables.db.exec('BEGIN')
    tables.sql('SELECT count(*) FROM logs').get()
    return { tables, close: () => tables?.close() }
  } catch (error) {
    tables?.close()
    return { is: isOutOfReach(error) ? 'out of reach' : 'damaged', why: (error as Error).message }
  } finally {
    // What is open stays open: nothing is left, however the process ends.
    if (folder !== undefined) rmSync(folder, { recursive: true, force: true })
  }
}

const isOutOfReach = (error: unknown) =>
  !isSqlite(error) || /^SQLITE_(BUSY|CANTOPEN|FULL|PERM|READONLY|IOERR_(ACCESS|LOCK|SHM|WRITE))/.test(error.code)

function namesIn(folder: string, file: string, put: (from: string, to: string) => void): string {
  rmSync(folder, { recursive: true, force: true })
  mkdirSync(folder, { mode: 0o700 })
  for (const path of [file, `${file}-wal`])
    if (lstatSync(path, { throwIfNoEntry: false })?.isFile()) put(path, join(folder, basename(path)))
  return join(folder, basename(file))
}

const copy = (from: string, to: string) => copyFileSync(from, to, constants.COPYFILE_FICLONE)

/** Some file systems give a file one name only. */
function giveName(from: string, to: string): void {
  try {
    linkSync(from, to)
  } catch {
    copy(from, to)
  }
}

/** What the views prove to have been acknowledged: they are committed after a sync only. */
export function acknowledgedIn(views: Glimpse | Unseen): (Acknowledged & Come) | undefined {
  try {
    return 'tables' in views ? markOf(views.tables) : undefined
  } catch {
    return undefined
  }
}

/** Where the views saw each log end. */
export function endsIn(views: Glimpse | Unseen): Map<string, KnownEnd> {
  try {
    if (!('tables' in views)) return new Map()
    const rows = views.tables.sql('SELECT log, seq, size, hash FROM logs').all() as ({ log: string } & KnownEnd)[]
    return new Map(rows.map(({ log, ...end }) => [log, end]))
  } catch {
    return new Map()
  }
}
