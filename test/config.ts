// A configuration for a data directory, for whoever opens one without a command line.

import type { Config } from '../src/config.ts'
import type { Settings } from '../src/core/settings.ts'

export const ADMIN = 'an-admin-key-of-thirty-two-letters-or-more'

export const settingsOf = (more: Partial<Settings> = {}): Settings => ({
  conceal: false,
  idle: {},
  longest: {},
  signUp: false,
  passwords: true,
  secondFactor: 'off',
  identity: undefined,
  ...more,
})

export const configOf = (home: string, more: Partial<Config> = {}): Config => ({
  home,
  host: '127.0.0.1',
  port: 0,
  adminKey: ADMIN,
  patience: 30_000,
  reached: { url: undefined, secure: false, origins: [] },
  limits: { requests: 0, signIn: 0, keys: 0 },
  proxies: [],
  logLevel: 'silent',
  settings: settingsOf(),
  colour: false,
  ...more,
})
