// What may befall the views' database, each by its name: cut, overwritten, replaced, made by another version, or beside
// files that belong to another life of it.

import { spawn } from 'node:child_process'
import { copyFileSync, mkdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, vi } from 'vitest'
import { openDatabase } from '../src/core/tables.ts'
import { projectionOf } from '../src/log/shelf.ts'
import { rebuildVerb } from '../src/verbs/rebuild.ts'
import { clock, filesOf, homeWith, type Scene, type Told, tell } from './damaging.ts'
import { cli, configOf, later, makeHome, type Running, run } from './harness.ts'

/** As a clean stop left them, or as kill -9 did, with a write-ahead file of their own. */
export type After = 'stopped' | 'crashed'
/** What is done to the file; returns what must hold afterwards, where there is such a thing. */
// biome-ignore lint/suspicious/noConfusingVoidType: most return nothing
export type Harm = (file: string) => (() => void) | void

const doing =
  (sql: string): Harm =>
  (file) => {
    const db = openDatabase(file)
    db.exec(sql)
    db.close()
  }

/** The names of the guards of law 8 and of numbers. */
const dropGuards: Harm = (file) => {
  const db = openDatabase(file)
  const names = db.prepare("SELECT name FROM sqlite_master WHERE type = 'index' AND sql LIKE '%UNIQUE%'").pluck().all() as string[]
  expect(names.length).toBeGreaterThan(1)
  for (const name of names) db.exec(`DROP INDEX "${name}"`)
  db.close()
}

const fileOf = (scene: Scene, after: After, name: string) => scene[after].get(`projections/sessile.db${name}`) as Buffer

/** Everything that is cured by making the views anew, or needs no cure. `other` is another life of the data. */
export const harms = (scene: () => Scene, other: () => Scene): [string, After, Harm][] => [
  ...['sessions', 'keys', 'logs', 'commands', 'meta', 'damaged'].map((table): [string, After, Harm] => [
    `without the table ${table}`,
    'stopped',
    doing(`DROP TABLE ${table}`),
  ]),
  ['without the indexes that guard', 'stopped', dropGuards],
  [
    'replaced by a link to elsewhere',
    'stopped',
    (file) => {
      const elsewhere = join(makeHome(), 'sessile.db')
      copyFileSync(file, elsewhere)
      const bytes = readFileSync(elsewhere)
      rmSync(file)
      symlinkSync(elsewhere, file)
      return () => expect(readFileSync(elsewhere).equals(bytes)).toBe(true)
    },
  ],
  [
    'replaced by a link to nowhere',
    'stopped',
    (file) => {
      rmSync(file)
      symlinkSync(join(makeHome(), 'nowhere'), file)
    },
  ],
  ['beside a write-ahead file of noise', 'stopped', (file) => writeFileSync(`${file}-wal`, Buffer.alloc(9000, 7))],
  ['beside an index of that file of noise', 'stopped', (file) => writeFileSync(`${file}-shm`, Buffer.alloc(32_768, 7))],
  ['beside another life’s write-ahead file', 'stopped', (file) => writeFileSync(`${file}-wal`, fileOf(other(), 'crashed', '-wal'))],
  [
    'beside its own write-ahead file of before',
    'stopped',
    (file) => writeFileSync(`${file}-wal`, fileOf(scene(), 'crashed', '-wal')),
  ],
  ['of another life', 'stopped', (file) => writeFileSync(file, fileOf(other(), 'stopped', ''))],
  ['crashed, of another life', 'crashed', (file) => writeFileSync(file, fileOf(other(), 'crashed', ''))],
  [
    'crashed, with another life’s write-ahead file',
    'crashed',
    (file) => writeFileSync(`${file}-wal`, fileOf(other(), 'crashed', '-wal')),
  ],
  ['crashed, without their write-ahead file', 'crashed', (file) => rmSync(`${file}-wal`)],
  ['crashed, with half of it', 'crashed', (file) => truncateSync(`${file}-wal`, statSync(`${file}-wal`).size >> 1)],
]

/** What stands in the way and is not removed: it may be somebody's. */
export const obstacles: [string, (file: string) => string][] = [
  [
    'a folder in their place',
    (file) => {
      rmSync(file)
      mkdirSync(file)
      return file
    },
  ],
  [
    'a folder where their write-ahead file goes',
    (file) => {
      writeFileSync(file, 'noise')
      mkdirSync(`${file}-wal`)
      return `${file}-wal`
    },
  ],
  [
    'a file in the place of their folder',
    (file) => {
      const folder = join(file, '..')
      rmSync(folder, { recursive: true })
      writeFileSync(folder, 'somebody’s')
      return folder
    },
  ],
]

const logsIn = (home: string) => [...filesOf(home)].filter(([file]) => /^logs\/(users|accounts)\//.test(file))

export const plainTruth = ({ truth }: Scene): Told => Object.fromEntries(Object.entries(truth).filter(([path]) => path !== 'twice'))

/** A start on views in this state: without being asked it tells the truth, and changes no log. */
export async function startOnViews(scene: Scene, after: After, harm: Harm): Promise<void> {
  const home = homeWith(scene[after])
  const before = logsIn(home)
  const holds = harm(projectionOf(home))
  await comesUp(home, scene)
  expect(logsIn(home)).toEqual(before)
  holds?.()
}

/** Starts, is asked, and stops; afterwards a rebuild gives the same rows. */
export async function comesUp(home: string, scene: Scene): Promise<void> {
  const running = await run(home, {}, clock())
  await tellsTruth(running, scene)
  await running.stop()
  expect(await rebuild(home, true)).toBe(0)
}

/** Views that turn out to be damaged are made anew, and whoever asks meanwhile is told to wait; nobody is told anything else. */
export async function tellsTruth(running: Running, scene: Scene): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const told = await tell(running, scene)
    const waits = Object.entries(told).filter(([, { status, body }]) => status === 503 && body.reason === 'rebuilding')
    for (const [path] of waits) delete told[path]
    const truth = plainTruth(scene)
    for (const [path] of waits) delete truth[path]
    expect(told).toEqual(truth)
    if (waits.length === 0) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('the views did not come back')
}

/** The verb, in this process; its exit code. */
export async function rebuild(home: string, check: boolean): Promise<number> {
  const out = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  try {
    return await rebuildVerb.run({ config: configOf(home), values: { check, json: true }, words: [] })
  } finally {
    out.mockRestore()
  }
}

/** Another process locks the views for so long, or until the test is over. */
export async function holdViews(home: string, ms: number): Promise<void> {
  const script = `
    const db = new (require('better-sqlite3'))(process.argv[1])
    db.exec('BEGIN EXCLUSIVE; CREATE TABLE held (x)')
    console.log('held')
    setTimeout(() => {}, Number(process.argv[2]))`
  const child = spawn(process.execPath, ['-e', script, projectionOf(home), String(ms)], {
    cwd: new URL('..', import.meta.url).pathname,
  })
  later(() => void child.kill('SIGKILL'))
  const held = await new Promise((resolve) => child.stdout.once('data', (text) => resolve(String(text))))
  expect(held).toBe('held\n')
}

/** A start that finds this in its way says what it is, and changes nothing; when it has gone, all is well. */
export async function startInTheWay(scene: Scene, put: (file: string) => string): Promise<void> {
  const home = homeWith(scene.stopped)
  const obstacle = put(projectionOf(home))
  const before = logsIn(home)
  const { code, err } = await cli(home, ['serve'], { SESSILE_PORT: '0' })
  expect(code).toBe(5)
  expect(err).toContain(obstacle)
  expect(err).toContain('The views cannot be put into')
  expect(logsIn(home)).toEqual(before)
  rmSync(obstacle, { recursive: true })
  await comesUp(home, scene)
}
