// The environment, read here and nowhere else, and checked before anything starts.

import { resolve } from 'node:path'
import type { Settings } from './core/settings.ts'
import { kindNames } from './features/kinds.ts'

export interface Config {
  home: string
  host: string
  port: number
  /** An admin key that the operator chose. */
  adminKey: string | undefined
  /** How long a sender may take for its headers, and for a body, in milliseconds. */
  patience: number
  logLevel: string
  settings: Settings
  colour: boolean
}

export class BadConfig extends Error {}

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']

export function readConfig(env: NodeJS.ProcessEnv = process.env): Config {
  const port = Number(env.SESSILE_PORT || 8787)
  if (!Number.isInteger(port) || port < 0 || port > 65_535)
    throw new BadConfig(`SESSILE_PORT must be a port number, not ${env.SESSILE_PORT}.`)
  const adminKey = env.SESSILE_ADMIN_KEY
  if (adminKey !== undefined && adminKey.length < 32) throw new BadConfig('SESSILE_ADMIN_KEY must have 32 characters or more.')
  const logLevel = env.SESSILE_LOG_LEVEL ?? 'info'
  if (!LEVELS.includes(logLevel)) throw new BadConfig(`SESSILE_LOG_LEVEL must be one of ${LEVELS.join(', ')}.`)
  return {
    home: resolve(env.SESSILE_HOME ?? '.'),
    host: env.SESSILE_HOST ?? '127.0.0.1',
    port,
    adminKey,
    patience: patience(env.SESSILE_PATIENCE_SECONDS || '30'),
    logLevel,
    settings: {
      idle: perKind('SESSILE_IDLE_SECONDS', env.SESSILE_IDLE_SECONDS),
      longest: perKind('SESSILE_LONGEST_SECONDS', env.SESSILE_LONGEST_SECONDS),
    },
    colour: env.NO_COLOR === undefined && process.stdout.isTTY === true,
  }
}

/**
 * Where SQLite puts what it sorts beyond its memory: in this folder, and not where every program puts its own, since it is
 * people's data. It counts for the databases of this process, if none has been opened yet.
 */
export function sortIn(folder: string): void {
  process.env.SQLITE_TMPDIR = folder
}

function patience(text: string): number {
  if (/^\d{1,5}$/.test(text) && Number(text) > 0) return Number(text) * 1000
  throw new BadConfig(`SESSILE_PATIENCE_SECONDS must be seconds, at least 1; it is ${text}.`)
}

/** `600` for every kind, or `capture=600,voice=0` for some. */
function perKind(name: string, text: string | undefined): Record<string, number> {
  if (text === undefined || text === '') return {}
  const bad = () => new BadConfig(`${name} must be seconds, or kinds with theirs such as capture=600,voice=0; it is ${text}.`)
  const seconds = (value: string | undefined) => {
    if (!/^\d{1,9}$/.test(value ?? '')) throw bad()
    return Number(value)
  }
  if (!text.includes('=')) return Object.fromEntries(kindNames.map((kind) => [kind, seconds(text)]))
  return Object.fromEntries(
    text.split(',').map((part) => {
      const [kind, value] = part.split('=')
      if (!kindNames.some((known) => known === kind)) throw bad()
      return [kind, seconds(value)]
    }),
  )
}
