// Data directories to damage: a small one that was stopped or left by a crash, what was acknowledged in it, and ways to do
// harm that are drawn from a seed, so that any of them can be done again.

import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, realpathSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parse, type Verb } from '../src/cli/verb.ts'
import { Chance } from './chance.ts'
import { configOf, copyHome, filesUnder, type Json, later, makeHome, type Ran, run, said } from './harness.ts'

export interface Recorded {
  /** After a clean stop. */
  stopped: string
  /** As a crash left it: the journal holds every line, and the files hold most of them. */
  crashed: string
  ada: string
  next: string
  bob: string
  /** Of a key that was revoked. */
  secret: string
  /** The lines of each log, by its path under `logs/`. */
  truth: Map<string, string[]>
  remove: () => void
}

/** In a place of its own, which outlasts a test. Two users, a session that ended, one after it that is active, one of another kind, and a key that was revoked. */
export async function recordedForDamage(): Promise<Recorded> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'sessile-')))
  const running = await run(join(folder, 'stopped'))
  const { admin } = running
  const device = await admin.device()
  await admin.post(`/api/v1/keys/${device.key_id}/revoke`, {})
  const ada = (await admin.start()).body.session_id as string
  for (const text of ['one', 'two ✓', 'three']) await admin.append(ada, said(text))
  await admin.end({ session_id: ada })
  const next = (await admin.start()).body.session_id as string
  await admin.append(next, [said('four'), said('five')])
  await admin.get('/api/v1/sessions')
  const bob = (await admin.start({ user_id: 'bob', kind: 'therapy' })).body.session_id as string
  await admin.append(bob, said('six', { user_id: 'bob' }))
  running.sessile.log.settle()
  // What the views know of had been acknowledged, also where it is the last that the journal holds.
  await running.sessile.recorder.settled()
  const crashed = join(folder, 'crashed')
  copyHome(running.home, crashed)
  for (const name of ['lock', 'holder.json']) rmSync(join(crashed, 'logs', '.journal', name))
  await running.stop()
  const truth = new Map(
    filesUnder(join(running.home, 'logs'))
      .filter((file) => file.endsWith('.jsonl'))
      .map((file) => [
        file,
        readFileSync(join(running.home, 'logs', file), 'utf8')
          .split('\n')
          .slice(0, -1),
      ]),
  )
  // The newest line of bob's had not reached its file.
  const file = join(crashed, 'logs', 'users', 'bob', 'sessions', `${bob}.jsonl`)
  truncateSync(file, readFileSync(file).indexOf(10) + 1)
  return {
    stopped: running.home,
    crashed,
    ada,
    next,
    bob,
    secret: device.key as string,
    truth,
    remove: () => rmSync(folder, { recursive: true }),
  }
}

export function copyOf(home: string): string {
  const copy = makeHome()
  copyHome(home, copy)
  return copy
}

/** A place for a new directory that is not there yet. */
export function place(): string {
  const path = join(makeHome(), 'new')
  later(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Every byte and every name in a directory. */
export function everyByte(home: string): string {
  const digest = createHash('sha256')
  for (const file of filesUnder(home)) digest.update(`${file}\n`).update(readFileSync(join(home, file)))
  return digest.digest('hex')
}

/** Numbers that follow from a seed. */
export function drawing(seed: number): (below: number) => number {
  const chance = new Chance(seed)
  return (below) => chance.below(below)
}

export interface Harm {
  /** Under the data directory. */
  file: string
  /** The first byte that is not as it was. */
  at: number
  how: string
}

/** Harms one file of a data directory, somewhere; files are chosen by what they are, so that none is spared. */
export function harm(home: string, draw: (below: number) => number, only?: 'byte'): Harm {
  const files = filesUnder(home).filter(
    (file) => !/\.journal\/(lock|holder)/.test(file) && readFileSync(join(home, file)).length > 0,
  )
  const sorts = [/\.jsonl$/, /\.wal$/, /\.jsonl$/, /\.db/]
  const some = files.filter((file) => sorts[draw(sorts.length)]?.test(file))
  const file = (some.length > 0 ? some : files)[draw(some.length || files.length)] as string
  const path = join(home, file)
  const bytes = readFileSync(path)
  // Behind what is written a journal is zeros, in which nothing can be harmed.
  let used = bytes.length
  while (used > 1 && bytes[used - 1] === 0) used--
  const at = draw(used)
  const length = Math.min(used - at, 1 + draw(300))
  const ways: [string, () => Buffer | undefined][] = [
    [
      'a byte changed',
      () => Buffer.concat([bytes.subarray(0, at), Buffer.of(otherThan(bytes[at] as number, draw)), bytes.subarray(at + 1)]),
    ],
    [
      'bytes overwritten',
      () =>
        Buffer.concat([bytes.subarray(0, at), Buffer.from(Array.from({ length }, () => draw(256))), bytes.subarray(at + length)]),
    ],
    ['bytes zeroed', () => Buffer.concat([bytes.subarray(0, at), Buffer.alloc(length), bytes.subarray(at + length)])],
    ['cut off', () => bytes.subarray(0, at)],
    ['bytes taken out', () => Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + length)])],
    ['bytes put in', () => Buffer.concat([bytes.subarray(0, at), Buffer.from('scribble\n{"x":1}\n'), bytes.subarray(at)])],
    ['removed', () => undefined],
  ]
  const [how, make] = (only === 'byte' ? ways[0] : ways[draw(ways.length)]) as (typeof ways)[number]
  const after = make()
  if (after === undefined) rmSync(path)
  else writeFileSync(path, after)
  return { file, at: how === 'removed' ? 0 : at, how }
}

/** Zeros in a file are what a crash may leave; another byte is harm. */
function otherThan(byte: number, draw: (below: number) => number): number {
  const other = 1 + draw(254)
  return other >= byte ? other + 1 : other
}

export const filesAfter = (home: string) =>
  new Map(
    filesUnder(join(home, 'logs'))
      .filter((file) => file.endsWith('.jsonl'))
      .map((file) => [
        file,
        readFileSync(join(home, 'logs', file), 'utf8')
          .split('\n')
          .slice(0, -1),
      ]),
  )

/** Runs a verb as the command line does, without a process of its own: for what is run many times. */
export async function verb(verb: Verb, home: string, args: string[]): Promise<Ran> {
  const ran = { out: '', err: '' }
  const { stdout, stderr } = { stdout: process.stdout.write, stderr: process.stderr.write }
  const into = (to: 'out' | 'err') => (text: string | Uint8Array) => {
    ran[to] += typeof text === 'string' ? text : Buffer.from(text).toString()
    return true
  }
  process.stdout.write = into('out')
  process.stderr.write = into('err')
  try {
    return { code: await verb.run({ config: configOf(home), ...parse(verb, args) }), ...ran }
  } finally {
    process.stdout.write = stdout
    process.stderr.write = stderr
  }
}

export const jsonLines = (out: string): Json[] =>
  out
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Json)
