// What lies under `logs/`: the logs and artifacts, and whatever nobody accounts for. It follows no symbolic link and
// trusts no name, so that it can be asked of a directory in which others have been at work.

import { type Dirent, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { isOpaqueId } from '../core/ids.ts'
import { codeOf } from './disk.ts'
import { logsOf } from './shelf.ts'

export interface Strange {
  path: string
  why: string
}

export interface Inventory {
  /** The names of all logs, in their order. */
  logs: string[]
  /** Paths under `logs/` of the bytes beside logs. */
  artifacts: string[]
  strange: Strange[]
}

/** What a folder may hold: for each name, what it is to be. */
type Expect = (name: string) => Expected | undefined
type Expected = { file: 'log' | 'artifact' | 'own' } | { folder: Expect }

const DAY = /^\d{4}-\d\d-\d\d$/
const log = (name: string, fits: (stem: string) => boolean): Expected | undefined =>
  name.endsWith('.jsonl') && fits(name.slice(0, -'.jsonl'.length)) ? { file: 'log' } : undefined

const inSessions: Expect = (name) => log(name, isOpaqueId)
const inArtifacts: Expect = (name) => (isOpaqueId(name) ? { file: 'artifact' } : undefined)
const inUser: Expect = (name) => {
  if (name === 'sessions') return { folder: inSessions }
  return name === 'artifacts' ? { folder: inArtifacts } : log(name, (stem) => stem === 'user')
}
const inUsers: Expect = (name) => (isOpaqueId(name) ? { folder: inUser } : undefined)
const inAccounts: Expect = (name) => log(name, isOpaqueId)
const inAudit: Expect = (name) => log(name, (stem) => DAY.test(stem))
const inQuarantine: Expect = (name) => (/^(?:torn-.*\.wal|.*@\d+\.lines)(?:\.new)?$/.test(name) ? { file: 'own' } : undefined)
const inJournal: Expect = (name) => {
  if (name === 'quarantine') return { folder: inQuarantine }
  return /^(?:lock(?:\.new|\.over)?|room|holder\.json(?:\.new)?|\d{8}-\d{6}\.wal(?:\.new)?)$/.test(name)
    ? { file: 'own' }
    : undefined
}
const top: Record<string, Expect> = { users: inUsers, accounts: inAccounts, audit: inAudit, '.journal': inJournal }

export function inventoryOf(home: string): Inventory {
  const found: Inventory = { logs: [], artifacts: [], strange: [] }
  const root = logsOf(home)
  const walk = (under: string, expect: Expect) => {
    for (const entry of entriesOf(join(root, under), found.strange)) {
      const path = under === '' ? entry.name : `${under}/${entry.name}`
      const expected = expect(entry.name)
      const why = strangeness(entry, expected)
      if (why !== undefined) found.strange.push({ path: join(root, path), why })
      else if (expected && 'folder' in expected) walk(path, expected.folder)
      else if (expected?.file === 'log') found.logs.push(path.slice(0, -'.jsonl'.length))
      else if (expected?.file === 'artifact') found.artifacts.push(path)
    }
  }
  walk('', (name) => (Object.hasOwn(top, name) ? { folder: top[name] as Expect } : undefined))
  return found
}

function entriesOf(folder: string, strange: Strange[]): Dirent[] {
  try {
    return readdirSync(folder, { withFileTypes: true }).sort((a, b) => (a.name < b.name ? -1 : 1))
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') strange.push({ path: folder, why: `it cannot be read (${codeOf(error)})` })
    return []
  }
}

function strangeness(entry: Dirent, expected: Expected | undefined): string | undefined {
  if (entry.isSymbolicLink()) return 'it is a symbolic link, and Sessile follows none here'
  if (!expected) return 'Sessile gives nothing such a name'
  if ('folder' in expected) return entry.isDirectory() ? undefined : 'it stands where a folder belongs'
  if (entry.isFile()) return undefined
  return entry.isDirectory() ? 'it is a folder, where a file belongs' : 'it is no ordinary file'
}
