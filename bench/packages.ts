// The packages that only these benchmarks need. They are no dependencies of Sessile, so they are installed beside the
// benchmark when it first asks for them; where that fails, what needs them is left out.

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { versionOf } from './servers.ts'

const here = new URL('./', import.meta.url)
const manifest = JSON.parse(readFileSync(new URL('package.json', here), 'utf8')) as { devDependencies: Record<string, string> }
const fileOf = (name: string) => new URL(`node_modules/${name}/package.json`, here)
const missing = () => Object.keys(manifest.devDependencies).filter((name) => !existsSync(fileOf(name)))

let tried = false

/** A package of the benchmark's own; nothing where it is not there and cannot be installed. */
export async function load<T>(name: string): Promise<T | undefined> {
  if (missing().length > 0 && !tried) {
    tried = true
    console.error(`Installing ${missing().join(', ')} for the benchmark; this happens once and can take two minutes.`)
    spawnSync('npm', ['install', '--no-save', '--fetch-retries=1'], {
      cwd: fileURLToPath(here),
      stdio: ['ignore', 2, 2],
      shell: process.platform === 'win32',
    })
  }
  try {
    const { from } = (await import(new URL('import.mjs', here).href)) as { from: (name: string) => Promise<T> }
    return await from(name)
  } catch {
    return undefined
  }
}

/** The versions of everything that has a part in the figures: Node, packages, and servers that are installed. */
export function versions(): Record<string, string> {
  const { dependencies } = JSON.parse(readFileSync(new URL('../package.json', here), 'utf8')) as { dependencies: object }
  const files = [
    ...Object.keys(dependencies).map((name) => [name, new URL(`../node_modules/${name}/package.json`, here)] as const),
    ...Object.keys(manifest.devDependencies).map((name) => [name, fileOf(name)] as const),
  ]
  const there = files.filter(([, file]) => existsSync(file))
  const sqlite = new Database(':memory:').prepare('SELECT sqlite_version()').pluck().get() as string
  const servers = { postgresql: versionOf('postgres'), redis: versionOf('redis-server'), strace: versionOf('strace') }
  return {
    node: process.version,
    sqlite,
    ...Object.fromEntries(Object.entries(servers).map(([name, version]) => [name, version ?? 'not installed'])),
    ...Object.fromEntries(there.map(([name, file]) => [name, JSON.parse(readFileSync(file, 'utf8')).version as string])),
  }
}
