// The environment, read here and nowhere else, and checked before anything starts.

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { type SecondFactor, type Settings, secondFactors } from './core/settings.ts'
import { kindNames } from './features/kinds.ts'
import { type Network, networkOf } from './http/address.ts'
import type { Reached } from './http/headers.ts'
import type { Rates } from './http/limits.ts'

export interface Config {
  home: string
  host: string
  port: number
  /** An admin key that the operator chose. */
  adminKey: string | undefined
  /** How long a sender may take for its headers, and for a body, in milliseconds. */
  patience: number
  /** How the world reaches it. */
  reached: Reached
  limits: Rates
  /** The addresses and networks of those who may say where a request comes from. */
  proxies: readonly Network[]
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
  const adminKey = secret(env, 'SESSILE_ADMIN_KEY')
  if (adminKey !== undefined && adminKey.length < 32) throw new BadConfig('SESSILE_ADMIN_KEY must have 32 characters or more.')
  const logLevel = env.SESSILE_LOG_LEVEL ?? 'info'
  if (!LEVELS.includes(logLevel)) throw new BadConfig(`SESSILE_LOG_LEVEL must be one of ${LEVELS.join(', ')}.`)
  const host = env.SESSILE_HOST ?? '127.0.0.1'
  const way = reached(host, env.SESSILE_PUBLIC_URL, env.SESSILE_ORIGINS)
  const identity = provider(env, way.url ?? `http://${host}:${port}`)
  const passwords = isOn('SESSILE_PASSWORDS', env.SESSILE_PASSWORDS || 'on')
  if (!passwords && !identity)
    throw new BadConfig('SESSILE_PASSWORDS is off, and no SESSILE_OIDC_ISSUER is named: nobody could sign in.')
  return {
    home: resolve(env.SESSILE_HOME ?? '.'),
    host,
    port,
    adminKey,
    patience: patience(env.SESSILE_PATIENCE_SECONDS || '30'),
    reached: way,
    limits: {
      requests: rate('SESSILE_LIMIT_REQUESTS', env.SESSILE_LIMIT_REQUESTS, 100),
      signIn: rate('SESSILE_LIMIT_SIGN_IN', env.SESSILE_LIMIT_SIGN_IN, 5),
      keys: rate('SESSILE_LIMIT_KEYS', env.SESSILE_LIMIT_KEYS, 0),
    },
    proxies: listed(env.SESSILE_TRUSTED_PROXIES).map(network),
    logLevel,
    settings: {
      conceal: isOn('SESSILE_CONCEAL', env.SESSILE_CONCEAL || 'off'),
      idle: perKind('SESSILE_IDLE_SECONDS', env.SESSILE_IDLE_SECONDS),
      longest: perKind('SESSILE_LONGEST_SECONDS', env.SESSILE_LONGEST_SECONDS),
      signUp: isOn('SESSILE_SIGN_UP', env.SESSILE_SIGN_UP || 'off'),
      passwords,
      secondFactor: secondFactor(env.SESSILE_SECOND_FACTOR || 'off'),
      identity,
    },
    colour: env.NO_COLOR === undefined && process.stdout.isTTY === true,
  }
}

/** A secret as it is, or from the file that `<name>_FILE` names: what stands in the environment, more can see. */
function secret(env: NodeJS.ProcessEnv, name: string): string | undefined {
  const file = env[`${name}_FILE`] || undefined
  const given = env[name]
  if (file === undefined) return given
  if (given !== undefined) throw new BadConfig(`${name} and ${name}_FILE are both set: one of them is enough.`)
  try {
    return readFileSync(file, 'utf8').trim()
  } catch (error) {
    throw new BadConfig(`${name}_FILE cannot be read: ${(error as Error).message}.`)
  }
}

function secondFactor(text: string): SecondFactor {
  const known = secondFactors.find((one) => one === text)
  if (known) return known
  throw new BadConfig(`SESSILE_SECOND_FACTOR must be one of ${secondFactors.join(', ')}, not ${text}.`)
}

/** The identity provider, where one is named. */
function provider(env: NodeJS.ProcessEnv, url: string): Settings['identity'] {
  const { SESSILE_OIDC_ISSUER: issuer = '', SESSILE_OIDC_CLIENT_ID: clientId = '' } = env
  const clientSecret = secret(env, 'SESSILE_OIDC_CLIENT_SECRET')
  if (issuer === '' && clientId === '') return undefined
  const { protocol, hostname } = URL.canParse(issuer) ? new URL(issuer) : { protocol: '', hostname: '' }
  if (protocol !== 'https:' && !(protocol === 'http:' && isLoopback(hostname)))
    throw new BadConfig(`SESSILE_OIDC_ISSUER must be an https: address; it is ${issuer}.`)
  if (clientId === '') throw new BadConfig('SESSILE_OIDC_CLIENT_ID is missing: by what name does the provider know Sessile?')
  return { issuer, clientId, clientSecret, redirect: `${url}/welcome` }
}

function isOn(name: string, text: string): boolean {
  if (['on', '1', 'off', '0'].includes(text)) return text === 'on' || text === '1'
  throw new BadConfig(`${name} must be on (1) or off (0), not ${text}.`)
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

/** Does only this machine reach that host? */
export const isLoopback = (host: string) => host === 'localhost' || host === '::1' || /^127(?:\.\d{1,3}){3}$/.test(host)

const listed = (text = '') =>
  text
    .split(',')
    .map((one) => one.trim())
    .filter((one) => one !== '')

/** So many a minute; 0 for any number. */
function rate(name: string, text: string | undefined, otherwise: number): number {
  if (text === undefined || text === '') return otherwise
  if (/^\d{1,9}$/.test(text)) return Number(text)
  throw new BadConfig(`${name} must be a number of requests a minute, or 0 for any number; it is ${text}.`)
}

function network(text: string): Network {
  const found = networkOf(text)
  if (found) return found
  throw new BadConfig(`SESSILE_TRUSTED_PROXIES names addresses and networks such as 10.0.0.0/8; ${text} is neither.`)
}

function reached(host: string, publicUrl: string | undefined, origins: string | undefined): Reached {
  const url = publicUrl ? originOf('SESSILE_PUBLIC_URL', publicUrl) : undefined
  return {
    url,
    // Where nobody says otherwise, whatever leaves this machine is meant to leave it over TLS.
    secure: url === undefined ? !isLoopback(host) : url.startsWith('https:'),
    origins: listed(origins).map((text) => originOf('SESSILE_ORIGINS', text)),
  }
}

/** An origin, one and no more, which nobody else can be taken for: over TLS, or on this machine. */
function originOf(name: string, text: string): string {
  const { origin, protocol, hostname } = URL.canParse(text) ? new URL(text) : { origin: undefined, protocol: '', hostname: '' }
  const bare = (text === origin || text === `${origin}/`) && !text.includes('*')
  const proven = protocol === 'https:' || (protocol === 'http:' && isLoopback(hostname.replace(/^\[|\]$/g, '')))
  if (origin !== undefined && bare && proven) return origin
  throw new BadConfig(`${name} names https://host, or http:// on this machine, and no path; ${text} is not that.`)
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
