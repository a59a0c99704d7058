// Tells what is in a data directory, without holding it.

import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { holder } from '../cli/reach.ts'
import { exit, put, putJson, say, type Verb } from '../cli/verb.ts'
import { Tables } from '../core/tables.ts'
import { quarantineOf } from '../log/aside.ts'
import { journalOf, projectionOf } from '../log/shelf.ts'

interface Info {
  home: string
  held_by: { pid: number; since: string; url?: string } | null
  journal: { segments: number; bytes: number; quarantined: number }
  views: { bytes: number; lsn: number; last_record: string | null } | null
  users: number
  sessions: { kind: string; status: string; n: number }[]
  records: number
  bytes: number
}

export const infoVerb: Verb = {
  does: 'Tell what is in this data directory.',
  usage: 'sessile info [--json]',
  options: { json: { type: 'boolean' } },
  async run({ config, values }) {
    if (!existsSync(join(config.home, 'logs'))) {
      say(`There is no data in ${config.home}.`)
      return exit.found
    }
    const running = holder(config)
    const info: Info = {
      home: config.home,
      held_by: running ? { pid: running.pid, since: running.since, ...(running.url ? { url: running.url } : {}) } : null,
      journal: journalInfo(journalOf(config.home)),
      ...viewsInfo(projectionOf(config.home)),
    }
    await (values.json ? putJson(info) : put(print(info)))
    return exit.done
  },
}

function journalInfo(folder: string): Info['journal'] {
  const names = existsSync(folder) ? readdirSync(folder) : []
  const segments = names.filter((name) => name.endsWith('.wal'))
  const bytes = segments.reduce((sum, name) => sum + (statSync(join(folder, name), { throwIfNoEntry: false })?.size ?? 0), 0)
  const quarantine = quarantineOf(folder)
  return { segments: segments.length, bytes, quarantined: existsSync(quarantine) ? readdirSync(quarantine).length : 0 }
}

function viewsInfo(file: string): Pick<Info, 'views' | 'users' | 'sessions' | 'records' | 'bytes'> {
  const nothing = { views: null, users: 0, sessions: [], records: 0, bytes: 0 }
  if (!existsSync(file)) return nothing
  const tables = new Tables(file, { readonly: true })
  try {
    const meta = Object.fromEntries(tables.sql('SELECT key, value FROM meta').raw().all() as [string, string][])
    const logs = tables.sql('SELECT coalesce(sum(seq), 0) AS records, coalesce(sum(size), 0) AS bytes FROM logs').get() as {
      records: number
      bytes: number
    }
    const users = tables.sql('SELECT count(DISTINCT user_id) AS n FROM sessions').get() as { n: number }
    const sessions = tables
      .sql('SELECT kind, status, count(*) AS n FROM sessions GROUP BY kind, status ORDER BY kind, status')
      .all() as Info['sessions']
    const latest = Number(meta.timestamp ?? 0)
    return {
      views: {
        bytes: statSync(file).size,
        lsn: Number(meta.lsn ?? 0),
        last_record: latest > 0 ? new Date(latest).toISOString() : null,
      },
      users: users.n,
      sessions,
      ...logs,
    }
  } catch (error) {
    say(`The views cannot be read (${(error as Error).message}); a start or \`sessile rebuild\` makes them anew.`)
    return nothing
  } finally {
    tables.close()
  }
}

function print({ home, held_by, journal, views, users, sessions, records, bytes }: Info): string {
  const lines = [
    ['data', home],
    ['held by', held_by ? `process ${held_by.pid} since ${held_by.since}${held_by.url ? ` on ${held_by.url}` : ''}` : 'nobody'],
    ['records', `${records} (${size(bytes)})`],
    ['users', String(users)],
    ['sessions', sessions.length === 0 ? 'none' : sessions.map(({ kind, status, n }) => `${n} ${kind} ${status}`).join(', ')],
    ['views', views ? `${size(views.bytes)}, last record ${views.last_record ?? 'none'}` : 'none'],
    [
      'journal',
      `${journal.segments} segment${journal.segments === 1 ? '' : 's'} (${size(journal.bytes)})${journal.quarantined > 0 ? `, ${journal.quarantined} in quarantine` : ''}`,
    ],
  ]
  return `${lines.map(([name = '', value]) => `${name.padEnd(9)} ${value}`).join('\n')}\n`
}

function size(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  const units = ['KiB', 'MiB', 'GiB', 'TiB']
  let [n, unit] = [bytes / 1024, 0]
  while (n >= 1024 && unit < units.length - 1) {
    n /= 1024
    unit++
  }
  return `${n.toFixed(1)} ${units[unit]}`
}
