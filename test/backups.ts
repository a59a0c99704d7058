// What the tests of backups share: how to make one and restore it, what stands in a folder, and data to save.

import { spawn, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect } from 'vitest'
import { type Client, cli, filesUnder, type Json, later, linesIn, makeHome, type Ran, type Running, run, said } from './harness.ts'

export const backup = async (
  home: string,
  to: string,
  ...args: string[]
): Promise<{ code: number | null; err: string; told: Json }> => {
  const { code, out, err } = await cli(home, ['backup', to, '--json', ...args])
  return { code, err, told: out === '' ? undefined : JSON.parse(out) }
}
export const restore = (from: string, to: string, ...args: string[]) => cli(to, ['restore', from, '--to', to, ...args])
export const checked = (from: string) => cli(from, ['restore', from, '--check'])

/** A folder for a backup, and one to restore into, neither of which is there yet. */
export const folders = () => {
  const place = makeHome()
  return { to: join(place, 'saved'), back: join(place, 'back') }
}

/** A session with what was said in it. */
export async function talk(client: Client, user_id: string, ...texts: string[]): Promise<string> {
  const { body } = await client.start({ user_id })
  for (const text of texts) expect((await client.append(body.session_id, said(text, { user_id }))).status).toBe(201)
  return body.session_id
}

export const nameOf = (session_id: string, user_id = 'ada') => `logs/users/${user_id}/sessions/${session_id}.jsonl`
export const sha256 = (bytes: Buffer | string) => createHash('sha256').update(bytes).digest('hex')

/**
 * Every file below a folder with its digest, but for a recorder's lock: whoever closes it within the process that holds it
 * lets go of it.
 */
export const treeOf = (home: string, under = ''): Record<string, string> =>
  Object.fromEntries(
    filesUnder(join(home, under))
      .map((path) => join(under, path))
      .filter((name) => !/\.journal\/(lock|holder)/.test(name))
      .map((name) => [name, sha256(readFileSync(join(home, name)))]),
  )

/** All records of a data directory or a backup. */
export const recordsIn = (home: string): Json[] =>
  filesUnder(join(home, 'logs'))
    .filter((path) => path.endsWith('.jsonl'))
    .flatMap((path) => linesIn(join(home, 'logs', path)))

/** Callers who append three records at a time to sessions of theirs, until they are told to stop. */
export async function load(
  client: Client,
  callers: number,
  tag = 'user',
): Promise<{ acknowledged: Set<string>; stop: () => Promise<void> }> {
  const acknowledged = new Set<string>()
  let going = true
  const calls = Array.from({ length: callers }, async (_, i) => {
    const user_id = `${tag}-${i}`
    const kinds = ['therapy', 'workflow', 'voice']
    const sessions = await Promise.all(kinds.map(async (kind) => (await client.start({ user_id, kind })).body.session_id))
    for (let n = 0; going; n++) {
      const three = ['a', 'b', 'c'].map((part) => said(`${n}${part}`, { user_id }))
      const { status, body } = await client.append(sessions[n % 3], three)
      expect(status).toBe(201)
      for (const { record_id } of body) acknowledged.add(record_id)
    }
  })
  return {
    acknowledged,
    stop: async () => {
      going = false
      await Promise.all(calls)
    },
  }
}

/**
 * What was saved is a beginning of the order of recording: all that had been acknowledged before it began, all up to a
 * moment and nothing after it, and whole commands.
 */
export function expectBeginning(restored: Json[], all: Json[], early: ReadonlySet<string>, until: string): void {
  const ids = new Set(restored.map(({ record_id }) => record_id))
  expect([...early].filter((id) => !ids.has(id))).toEqual([])
  const upTo = all.filter(({ timestamp }) => timestamp <= until).map(({ record_id }) => record_id)
  expect([...ids].sort()).toEqual(upTo.sort())
  const spoken = new Map<string, number>()
  for (const { type, session_id } of restored)
    if (type === 'transcript.said') spoken.set(session_id, (spoken.get(session_id) ?? 0) + 1)
  expect([...spoken.values()].filter((n) => n % 3 !== 0)).toEqual([])
}

/** A log in which the content of one line was erased. */
export function erase(log: string, at: number): string {
  const lines = log.split('\n')
  const line = Buffer.from(lines[at] as string)
  const { seq, salt, hash } = JSON.parse(line.toString())
  const salted = Buffer.concat([Buffer.from(salt, 'base64url'), line.subarray(0, -86)])
  const commit = createHash('sha256').update(salted).digest('base64url')
  lines[at] = JSON.stringify({ seq, commit, hash, erased_by: '0a9c3c1e-5a4e-4b4f-9d6c-3d2f0f1e8f6b' })
  return lines.join('\n')
}

/** Sessile stopped, with two sessions in its data. */
export async function stopped(): Promise<{ home: string; first: string; second: string; running: Running }> {
  const running = await run()
  const first = await talk(running.admin, 'ada', 'one', 'two')
  const second = await talk(running.admin, 'bob', 'three')
  await running.stop()
  return { home: running.home, first, second, running }
}

export function flip(path: string, at: number): void {
  const bytes = readFileSync(path)
  bytes[at] = (bytes[at] as number) ^ 1
  writeFileSync(path, bytes)
}

export const BIN = new URL('../src/sessile.cjs', import.meta.url).pathname

/** Begins a backup, stops it while it writes, and sends it this signal when something else is done; tells what it said. */
export async function paused<T>(
  home: string,
  to: string,
  meanwhile: () => Promise<T>,
  then: NodeJS.Signals,
): Promise<{ done: T; out: string }> {
  for (;;) {
    const child = spawn(process.execPath, [BIN, 'backup', to, '--json'], { env: { ...process.env, SESSILE_HOME: home } })
    let out = ''
    child.stdout.on('data', (data) => {
      out += data
    })
    const end = new Promise<void>((resolve) => child.on('close', () => resolve()))
    while (child.exitCode === null && !existsSync(join(to, 'under-way'))) await new Promise((resolve) => setImmediate(resolve))
    child.kill('SIGSTOP')
    // On a busy machine it may have come to its end first.
    if (child.exitCode === null && existsSync(join(to, 'under-way'))) {
      const done = await meanwhile()
      child.kill(then)
      await end
      return { done, out }
    }
    child.kill('SIGKILL')
    await end
  }
}

/** More than fits on a small disk. */
export async function talkMuch(client: Client): Promise<void> {
  const { body } = await client.start({ user_id: 'eve' })
  const long = said('x '.repeat(40_000), { user_id: 'eve' })
  for (let i = 0; i < 20; i++) expect((await client.append(body.session_id, long)).status).toBe(201)
}

/**
 * A disk of a megabyte, and how to run a verb that writes to it. Where no disk may be mounted, no file may grow beyond half a
 * megabyte instead, which is refused in the same place.
 */
export function smallDisk(): { disk: string; ran: (home: string, args: string[]) => Promise<Ran> } {
  const disk = join(makeHome(), 'disk')
  mkdirSync(disk)
  const mounted = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', disk]).status === 0
  if (!mounted) return { disk, ran: limited }
  later(() => void spawnSync('umount', [disk]))
  return { disk, ran: cli }
}

function limited(home: string, args: string[]): Promise<Ran> {
  const child = spawn('bash', ['-c', 'ulimit -f 512; exec "$0" "$@"', process.execPath, BIN, ...args], {
    env: { ...process.env, SESSILE_HOME: home },
  })
  const ran = { out: '', err: '' }
  child.stdout.on('data', (data) => {
    ran.out += data
  })
  child.stderr.on('data', (data) => {
    ran.err += data
  })
  return new Promise((resolve) => child.on('close', (code) => resolve({ code, ...ran })))
}
