// Database servers of the benchmark's own: each on a fresh data folder, reached by a socket in a folder of its own, and
// gone with whoever started it. Their settings of durability are their defaults, or stricter.

import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

export interface Running {
  /** The folder of its socket, or the socket itself. */
  readonly socket: string
  stop(): Promise<void>
}

const PATIENCE_MS = 20_000

/** Where a program lies: on the path, or where Debian keeps PostgreSQL's, the newest first. */
function find(program: string): string | undefined {
  const debian = '/usr/lib/postgresql'
  const kept = existsSync(debian) ? readdirSync(debian).sort((a, b) => Number(b) - Number(a)) : []
  const folders = [...(process.env.PATH ?? '').split(delimiter), ...kept.map((version) => join(debian, version, 'bin'))]
  return folders.map((folder) => join(folder, program)).find((file) => existsSync(file))
}

/** What a program says of its version; nothing where it is not installed. */
export function versionOf(program: 'postgres' | 'redis-server' | 'strace'): string | undefined {
  const file = find(program)
  if (file === undefined) return undefined
  return /\d+(\.\d+)+/.exec(execFileSync(file, ['--version']).toString())?.[0]
}

/** A folder for a socket: its path must stay short, so it does not lie beside the data. */
const socketFolder = () => mkdtempSync(join(tmpdir(), 'sessile-bench-'))

function running(
  child: ChildProcess,
  { socket, folder, gently }: { socket: string; folder: string; gently: NodeJS.Signals },
): Running {
  const abandon = () => void child.kill('SIGQUIT')
  process.once('exit', abandon)
  return {
    socket,
    async stop() {
      process.off('exit', abandon)
      if (child.exitCode === null && child.signalCode === null) {
        const gone = once(child, 'exit')
        child.kill(gently)
        await gone
      }
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

export async function startRedis(data: string): Promise<Running | string> {
  const program = find('redis-server')
  if (program === undefined) return 'Redis is not installed'
  mkdirSync(data)
  const folder = socketFolder()
  const socket = join(folder, 'redis.sock')
  const settings = { port: '0', unixsocket: socket, dir: data, save: '', appendonly: 'yes', appendfsync: 'always' }
  const words = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, value])
  const child = spawn(program, words, { stdio: 'ignore' })
  const server = running(child, { socket, folder, gently: 'SIGTERM' })
  return (await until(() => existsSync(socket), child)) ? server : broke('Redis', server)
}

/** PostgreSQL refuses to be run by root; root lends it another user. */
function otherUser(): SpawnOptions | undefined {
  if (process.getuid?.() !== 0) return {}
  for (const name of ['postgres', 'nobody']) {
    try {
      const id = (what: '-u' | '-g') => Number(execFileSync('id', [what, name], { stdio: ['ignore', 'pipe', 'ignore'] }))
      return { uid: id('-u'), gid: id('-g') }
    } catch {}
  }
  return undefined
}

export async function startPostgres(data: string): Promise<Running | string> {
  const program = find('postgres')
  const init = program && join(dirname(program), 'initdb')
  if (!program || !init || !existsSync(init)) return 'PostgreSQL is not installed'
  const user = otherUser()
  if (user === undefined) return 'PostgreSQL needs a user other than root'
  mkdirSync(data)
  chmodSync(dirname(data), 0o711)
  const folder = socketFolder()
  for (const own of [data, folder]) if (user.uid !== undefined) chownSync(own, user.uid, user.gid as number)
  const options: SpawnOptions = { ...user, cwd: data, env: { ...process.env, LC_ALL: 'C' }, stdio: 'ignore' }
  const cluster = join(data, 'cluster')
  const made = spawn(init, ['-D', cluster, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'], options)
  const [code] = await once(made, 'exit')
  if (code !== 0) return `PostgreSQL could not make a data folder (initdb ended with ${code})`
  const child = spawn(program, ['-D', cluster, '-k', folder, '-c', 'listen_addresses='], options)
  const server = running(child, { socket: folder, folder, gently: 'SIGINT' })
  const status = join(cluster, 'postmaster.pid')
  const ready = () => existsSync(status) && /^ready/m.test(readFileSync(status, 'latin1'))
  return (await until(ready, child)) ? server : broke('PostgreSQL', server)
}

async function until(ready: () => boolean, child: ChildProcess): Promise<boolean> {
  for (const began = performance.now(); performance.now() - began < PATIENCE_MS; await pause(20)) {
    if (child.exitCode !== null || child.signalCode !== null) return false
    if (ready()) return true
  }
  return false
}

async function broke(name: string, server: Running): Promise<string> {
  await server.stop()
  return `${name} did not start`
}
