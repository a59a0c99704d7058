// What the process opens for writing, as the kernel sees it: nothing outside of its data directory. Needs strace.

import { spawn, spawnSync } from 'node:child_process'
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { contentOf, type Recorded } from '../src/core/record.ts'
import { genesis, seal } from '../src/core/seal.ts'
import { fileOf } from '../src/log/shelf.ts'
import { ADMIN, Client, cli, copyHome, later, makeHome, said } from './harness.ts'

const root = fileURLToPath(new URL('../', import.meta.url))
const BIN = join(root, 'src', 'sessile.cjs')

/** Every call by which a name comes to be, goes, or is opened. */
const CALLS =
  'open,openat,openat2,creat,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,link,linkat,symlink,symlinkat,mknod,mknodat,truncate,chmod,fchmodat,chown,fchownat,lchown,utimensat,setxattr,chdir'

interface Call {
  name: string
  /** The paths that it names. */
  paths: string[]
  text: string
}

/** A verb of the command line under strace, run to its end; `during` while it serves. */
async function traced(home: string, args: string[], during?: (client: Client) => Promise<void>): Promise<Call[]> {
  const out = join(makeHome(), 'trace')
  const child = spawn(
    'strace',
    ['-f', '-qq', '--seccomp-bpf', '-s', '4096', '-e', `trace=${CALLS}`, '-o', out, process.execPath, BIN, ...args],
    {
      cwd: root,
      env: { ...process.env, SESSILE_HOME: home, SESSILE_PORT: '0', SESSILE_ADMIN_KEY: ADMIN },
    },
  )
  let err = ''
  child.stderr.on('data', (data) => {
    err += data
  })
  child.stdout.resume()
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve))
  later(() => void child.kill('SIGKILL'))
  if (during) {
    await expect.poll(() => /on (http:\/\/\S+) \(documentation/.exec(err)?.[1], { timeout: 60_000 }).toBeDefined()
    const url = /on (http:\/\/\S+) \(documentation/.exec(err)?.[1] as string
    const { pid } = JSON.parse(readFileSync(join(home, 'logs', '.journal', 'holder.json'), 'utf8'))
    await during(new Client(url, ADMIN))
    process.kill(pid, 'SIGTERM')
  }
  expect([await ended, err]).toEqual([0, err])
  return callsIn(readFileSync(out, 'utf8'))
}

/** The calls of a trace that succeeded and could change something: all but those that open for reading alone. */
function callsIn(trace: string): Call[] {
  const unfinished = new Map<string, string>()
  return trace.split('\n').flatMap((line) => {
    const [, thread = '', rest = ''] = /^(\d+) +(.*)$/.exec(line) ?? []
    // A call that others came in between of is written in two halves.
    if (rest.endsWith('<unfinished ...>')) {
      unfinished.set(thread, rest.slice(0, -'<unfinished ...>'.length))
      return []
    }
    const resumed = /^<\.\.\. \w+ resumed>(.*)$/.exec(rest)
    const text = resumed ? `${unfinished.get(thread)}${resumed[1]}` : rest
    const name = /^\w+/.exec(text)?.[0] ?? ''
    if (!/\) += \d+/.test(text) || name === 'chdir') return []
    if (name.startsWith('open') && !/O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND|O_TMPFILE/.test(text)) return []
    return [{ name, paths: [...text.matchAll(/"((?:[^"\\]|\\.)*)"/g)].map(([, path = '']) => resolve(root, path)), text }]
  })
}

const isIn = (folder: string, path: string) => path === folder || path.startsWith(`${folder}/`)
const outside = (folder: string, calls: Call[]) =>
  calls.filter(({ paths }) => !paths.every((path) => isIn(folder, path) || path === '/dev/null')).map(({ text }) => text)

/** As many sessions as SQLite cannot sort in its memory. They share a log, which nobody who folds it minds. */
function manySessions(home: string): void {
  const user_id = 'u'.repeat(64)
  const log = `users/${user_id}/sessions/sess_${'0'.repeat(26)}`
  let last = genesis(log)
  const lines = Array.from({ length: 160_000 }, (_, i) => {
    const session_id = `sess_${String(i).padStart(26, '0')}`
    const record = {
      record_id: `00000000-0000-4000-8000-${String(i).padStart(12, '0')}`,
      seq: i + 1,
      type: 'session.started',
      v: 1,
      source: 'session_manager',
      user_id,
      session_id,
      performer_id: 'd',
      timestamp: new Date(Date.parse('2031-01-01T00:00:00Z') + ((i * 7919) % 160_000) * 1000).toISOString(),
      data: { kind: 'therapy', session_number: i + 1 },
    } as Recorded
    const { line, hash } = seal(last, contentOf(record))
    last = hash
    return line
  })
  const file = fileOf(home, log)
  mkdirSync(dirname(file), { recursive: true })
  writeFileSync(file, Buffer.concat(lines))
}

/** Has each verb made, and kept, what it is started from: that happens once, and not in the data directory. */
async function compiled(home: string): Promise<void> {
  const verbs = readdirSync(new URL('../src/verbs/', import.meta.url)).map((file) => file.replace('.ts', ''))
  for (const verb of [...verbs, 'help']) expect((await cli(home, [verb, '--help'])).code).toBe(0)
}

describe('no file outside of the data directory is opened for writing', () => {
  it('has strace to see it with', () => {
    expect(spawnSync('strace', ['-V']).error, 'strace is missing: apt-get install strace').toBeUndefined()
  })

  it('from a first start over records, reads and a rebuild to the end, and at the next start', async () => {
    const home = makeHome()
    await compiled(home)
    const round = async (client: Client) => {
      const { session_id } = (await client.start()).body
      for (let i = 0; i < 50; i++) expect((await client.append(session_id, said(`word ${i}`))).status).toBe(201)
      const device = await client.device({ users: ['ada'] })
      for (const path of [
        '/api/v1/sessions',
        `/api/v1/sessions/${session_id}`,
        `/api/v1/sessions/${session_id}/timeline`,
        '/api/v1/keys',
        '/docs',
      ])
        expect((await client.raw('GET', path)).status).toBe(200)
      expect((await client.post(`/api/v1/keys/${device.key_id}/revoke`, {})).status).toBe(200)
      expect((await client.start({ user_id: '../x' })).status).toBe(400)
      expect((await client.end({ session_id })).status).toBe(200)
      expect(outside(home, await traced(home, ['rebuild']))).toEqual([])
    }
    const calls = [...(await traced(home, ['serve'], round)), ...(await traced(home, ['serve'], round))]
    expect(outside(home, calls)).toEqual([])
    // It did see what is written.
    for (const part of ['/logs/.journal/', '/logs/users/ada/sessions/', '/logs/accounts/', '/projections/'])
      expect(calls.filter(({ paths }) => paths.some((path) => path.startsWith(join(home, part)))).length).toBeGreaterThan(0)
    expect(new Set(calls.map(({ name }) => name))).toEqual(new Set(['openat', 'mkdir', 'rename', 'unlink']))
    for (const args of [
      ['verify'],
      ['info'],
      ['cat', '--user', 'ada', '--says'],
      ['replay'],
      ['keys', 'list'],
      ['rebuild', '--check'],
    ])
      expect([args, outside(home, await traced(home, args))]).toEqual([args, []])
  }, 300_000)

  it('nor outside of the one folder that each tool for a bad day is there to write to', async () => {
    const home = makeHome()
    await compiled(home)
    const place = makeHome()
    const [saved, crashed] = [join(place, 'saved'), join(place, 'crashed')]
    /** How many calls changed something in this folder; none may have changed anything elsewhere. */
    const changes = async (from: string, folder: string, ...args: string[]) => {
      const calls = await traced(from, args)
      expect([args, outside(folder, calls)]).toEqual([args, []])
      return calls.filter(({ paths }) => paths.some((path) => isIn(folder, path))).length
    }
    const looks = (from: string) => changes(from, join(from, 'projections'), 'doctor', '--least-free', '0')
    await traced(home, ['serve'], async (client) => {
      const { session_id } = (await client.start()).body
      expect((await client.append(session_id, said('one'))).status).toBe(201)
      expect(await changes(home, saved, 'backup', saved)).toBeGreaterThan(0)
      await looks(home)
      expect((await client.append(session_id, said('two'))).status).toBe(201)
      copyHome(home, crashed)
      for (const name of ['lock', 'holder.json']) rmSync(join(crashed, 'logs', '.journal', name))
    })
    for (const from of [home, crashed]) {
      const [restored, recovered] = ['restored', 'recovered'].map((name) => join(makeHome(), name)) as [string, string]
      expect(await looks(from)).toBeGreaterThan(0)
      expect(await changes(from, saved, 'backup', saved)).toBeGreaterThan(0)
      expect(await changes(from, saved, 'restore', saved, '--check')).toBe(0)
      expect(await changes(from, restored, 'restore', saved, '--to', restored)).toBeGreaterThan(0)
      expect(await changes(from, recovered, 'recover', '--to', recovered)).toBeGreaterThan(0)
    }
  }, 300_000)

  it('also where there is more to sort than fits in memory', async () => {
    const home = makeHome()
    manySessions(home)
    const calls = await traced(home, ['rebuild'])
    expect(outside(home, calls)).toEqual([])
    expect(calls.some(({ text }) => text.includes('etilqs'))).toBe(true)
  }, 300_000)

  it('tells a write from a read, and what is outside', () => {
    const trace = `1 openat(AT_FDCWD, "/home/a", O_RDONLY|O_CLOEXEC) = 3
1 openat(AT_FDCWD, "/home/b", O_WRONLY|O_CREAT, 0600) = -1 EACCES (Permission denied)
1 openat(AT_FDCWD, "/home/c", O_RDWR <unfinished ...>
2 mkdir("/other", 0700) = 0
1 <... openat resumed>) = 4
2 rename("/home/d", "/other/d") = 0
`
    const calls = callsIn(trace)
    expect(calls.map(({ name, paths }) => [name, ...paths])).toEqual([
      ['mkdir', '/other'],
      ['openat', '/home/c'],
      ['rename', '/home/d', '/other/d'],
    ])
    expect(outside('/home', calls)).toHaveLength(2)
  })
})
