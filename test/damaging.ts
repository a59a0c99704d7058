// A data directory that is damaged on purpose, one bit or one cut at a time, and what is asked of it afterwards: whatever
// is told must be what was recorded, or a plain word that it cannot be.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { expect } from 'vitest'
import { lastName } from '../src/core/log.ts'
import { Schemas } from '../src/core/schemas.ts'
import { type Finding, verify } from '../src/core/verify.ts'
import { features } from '../src/features/index.ts'
import { FileShelf, journalOf } from '../src/log/shelf.ts'
import { openLog } from '../src/open.ts'
import { Chance } from './chance.ts'
import { Client, cli, clockAt, configOf, crashedCopy, filesUnder, type Json, makeHome, type Running, run, said } from './harness.ts'
import { SimulatedDisk } from './simulated/disk.ts'
import { Loop } from './simulated/loop.ts'

const isOfHolder = (file: string) => /\.journal\/(lock|holder|room)/.test(file)

/** Every file of a data directory as a start would find it; what names a holder is left out, and the room kept for a full disk. */
export type Files = ReadonlyMap<string, Buffer>

export function filesOf(home: string): Files {
  const names = filesUnder(home).filter((file) => !isOfHolder(file))
  return new Map(names.map((file) => [file, readFileSync(join(home, file))]))
}

/** A new data directory with these files, which nobody else may read, as it makes them itself. */
export function homeWith(files: Files): string {
  const home = makeHome()
  for (const [file, bytes] of files) {
    mkdirSync(dirname(join(home, file)), { recursive: true, mode: 0o700 })
    writeFileSync(join(home, file), bytes, { mode: 0o600 })
  }
  return home
}

export const without = (files: Files, ...prefixes: string[]): Files =>
  new Map([...files].filter(([file]) => !prefixes.some((prefix) => file.startsWith(prefix))))

export const withFile = (files: Files, file: string, bytes: Buffer): Files => new Map([...files, [file, bytes]])

export function flipped(bytes: Buffer, bit: number): Buffer {
  const harmed = Buffer.from(bytes)
  harmed[bit >> 3] = (harmed[bit >> 3] as number) ^ (1 << (bit & 7))
  return harmed
}

/** So many numbers below `most`, all of them where there are no more: spread evenly, each moved a little by chance. */
export function sampleOf(most: number, count: number, seed: number): number[] {
  if (count >= most) return Array.from({ length: most }, (_, i) => i)
  let state = seed
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state / 2 ** 32
  }
  return Array.from({ length: count }, (_, i) => Math.min(most - 1, Math.floor(((i + random()) * most) / count)))
}

// --- a scene ----------------------------------------------------------------------------------------------------------

export interface Scene {
  /** As a clean stop left it. */
  stopped: Files
  /** As kill -9 left it, with every line in its file; and the one journal segment among them. */
  crashed: Files
  segment: string
  /** Sessions of ada: one that has ended, and the last one, which goes on; and one of bob. */
  ended: string
  active: string
  bobs: string
  /** Keys of a device, and one that was revoked. */
  device: string
  revoked: string
  /** The frames of the journal's one segment. */
  frames: Frame[]
  truth: Told
}

export interface Frame {
  log: string
  line: string
  at: number
  end: number
  /** Does the next frame belong to the same command? */
  more: boolean
  /** How far the journal was durable when this was written. */
  synced: number
}

export const logOf = (user: string, session: string) => `users/${user}/sessions/${session}`
export const fileFor = (log: string) => `logs/${log}.jsonl`
export const clock = () => clockAt('2031-05-02T09:10:00Z')

const downstream = (type: string, source: string, data: object) => ({ ...said(''), type, source, data })

/** A request that is named, and sent more than once. */
async function twice(client: Client, session: string) {
  const { status, body } = await client.append(session, [said('two'), said('three')], { 'idempotency-key': 'twice' })
  return { status, body }
}

export async function makeScene(): Promise<Scene> {
  const time = clockAt('2031-05-02T09:00:00Z')
  const running = await run(undefined, {}, time)
  const { admin } = running
  const device = await admin.device({ users: ['ada'] })
  const other = await admin.post('/api/v1/keys', { account_id: 'device-9', users: 'all' })
  await admin.post(`/api/v1/keys/${other.body.key_id}/revoke`, {})
  const started = async (client: Client, more: object) => {
    time.move(1)
    const { status, body } = await client.start(more)
    expect(status).toBe(201)
    return body.session_id as string
  }
  const ended = await started(device, { session_notes: 'by the window' })
  await device.append(ended, said('one ✓'))
  await twice(admin, ended)
  await device.append(ended, downstream('crisis.flagged', 'classifier', { note: 'heard it' }))
  time.move(1)
  await device.append(ended, downstream('x.acme.note', 'acme', { n: 1 }))
  await device.end({ session_id: ended, reason: 'disconnected' })
  const bobs = await started(admin, { user_id: 'bob' })
  await admin.append(bobs, said('hello', { user_id: 'bob' }))
  const active = await started(device, { kind: 'voice' })
  await device.append(active, said('four'))
  running.sessile.log.settle()
  // Before anybody reads: what is recorded of that would be the last in the journal.
  const crashed = filesOf(crashedCopy(running.home))
  const truth = await tell(running, { ended, active, bobs })
  truth.twice = await twice(admin, ended)
  await running.stop()
  const [segment] = [...crashed.keys()].filter((file) => file.endsWith('.wal'))
  return {
    stopped: filesOf(running.home),
    crashed,
    segment: segment as string,
    ended,
    active,
    bobs,
    device: device.key as string,
    revoked: other.body.secret,
    frames: framesIn(crashed.get(segment as string) as Buffer),
    truth,
  }
}

/** The frames of a segment, read off its bytes as log/frame.ts describes them. */
function framesIn(segment: Buffer): Frame[] {
  const frames: Frame[] = []
  let at = HEADER
  while (at + FRAME <= segment.length && segment.toString('latin1', at, at + 4) === 'FRAM') {
    const name = at + FRAME
    const line = name + segment.readUInt16LE(at + 12)
    const end = line + segment.readUInt32LE(at + 8)
    frames.push({
      log: segment.toString('latin1', name, line),
      line: segment.toString('utf8', line, end),
      at,
      end,
      more: (segment.readUInt16LE(at + 14) & 1) === 1,
      synced: Number(segment.readBigUInt64LE(at + 32)),
    })
    at = end
  }
  return frames
}
export const HEADER = 80
const FRAME = 40

/** What the logs hold when so much of the journal is whole, and nothing but the journal is left: whole commands. */
export function logsUpTo(frames: readonly Frame[], whole: (frame: Frame) => boolean): Map<string, string> {
  const bad = frames.findIndex((frame) => !whole(frame))
  const good = bad < 0 ? [...frames] : frames.slice(0, bad)
  while (good.at(-1)?.more) good.pop()
  const logs = new Map<string, string>()
  for (const { log, line } of good) logs.set(log, (logs.get(log) ?? '') + line)
  return logs
}

export const segmentsOf = (home: string) => readdirSync(journalOf(home)).filter((name) => name.endsWith('.wal'))

// --- what is told -----------------------------------------------------------------------------------------------------

export type Told = Record<string, { status: number; body: Json }>

/** What the service tells of three sessions, by every way of reading that there is. */
export async function tell(
  { admin }: { admin: Client },
  { ended, active, bobs }: Pick<Scene, 'ended' | 'active' | 'bobs'>,
): Promise<Told> {
  const told: Told = {}
  for (const path of ['/api/v1/sessions', '/api/v1/users/ada/sessions', '/api/v1/users/bob/sessions']) {
    told[path] = await ask(admin, path)
  }
  for (const session of [ended, active, bobs]) Object.assign(told, await tellSession(admin, session))
  return told
}

export async function tellSession(admin: Client, session: string): Promise<Told> {
  const told: Told = {}
  for (const part of ['', '/records', '/records?after=2', '/timeline']) {
    const path = `/api/v1/sessions/${session}${part}`
    told[path] = await ask(admin, path)
  }
  const records = `/api/v1/sessions/${session}/records`
  told[`lines of ${session}`] = await ask(admin, records, { accept: 'application/x-ndjson' })
  return told
}

async function ask(client: Client, path: string, headers: Record<string, string> = {}) {
  const reply = await client.raw('GET', path, { headers })
  const text = await reply.text()
  const body = reply.headers.get('content-type') === 'application/x-ndjson' ? text : JSON.parse(text)
  return { status: reply.status, body }
}

export const isRefused = ({ status, body }: Told[string]) => status === 503 && body.reason === 'log-damaged'

/** Everything that reads the lines of this session is refused with a plain word. */
export async function allRefused(admin: Client, session: string): Promise<void> {
  for (const [path, told] of Object.entries(await tellSession(admin, session))) {
    expect({ path, status: told.status, reason: told.body.reason }).toEqual({ path, status: 503, reason: 'log-damaged' })
  }
}

/** What verify finds in a data directory, and in how many logs that it looked at. */
export function findingsIn(home: string): { findings: Finding[]; logs: number } {
  const shelf = new FileShelf(home)
  const findings: Finding[] = []
  let logs = 0
  for (const log of shelf.names()) {
    verify({ shelf, events: features.events, schemas }, log, (finding) => findings.push(finding))
    logs++
  }
  return { findings, logs }
}
const schemas = new Schemas()

/** The line of a file in which a byte stands, its newline included. */
export const lineOf = (bytes: Buffer, at: number) => bytes.subarray(0, at).filter((byte) => byte === 10).length + 1

// --- checks -----------------------------------------------------------------------------------------------------------

/** The paths of which the answer has nothing to do with this session. */
export const elsewhere = (truth: Told, session: string, user: string) =>
  Object.keys(truth).filter((path) => !path.includes(session) && path !== '/api/v1/sessions' && !path.includes(`/users/${user}/`))

export const same = (told: Told, truth: Told, paths: string[]) => {
  for (const path of paths) expect({ path, ...told[path] }).toEqual({ path, ...truth[path] })
}

/** A bit of a session's file is flipped while it rests: whoever reads it is told, and nothing else is told otherwise. */
export async function flipWhileRunning(running: Running, scene: Scene, session: string, bit: number): Promise<void> {
  const file = join(running.home, fileFor(logOf('ada', session)))
  const whole = readFileSync(file)
  const harmed = flipped(whole, bit)
  writeFileSync(file, harmed)
  try {
    await allRefused(running.admin, session)
    // Whoever follows is given what stands before the damage, and then told.
    const following = await running.admin.raw('GET', `/api/v1/sessions/${session}/records?follow=1`)
    const events = (await following.text()).match(/(?<=^event: )\w+|(?<="reason":")[\w-]+(?="\}$)/gm)
    expect(events).toEqual([...Array(lineOf(whole, bit >> 3) - 1).fill('record'), 'problem', 'log-damaged'])
    const others = ['/api/v1/sessions', `/api/v1/sessions/${scene.bobs}`]
    for (const path of others) expect({ path, ...(await ask(running.admin, path)) }).toEqual({ path, ...scene.truth[path] })
    const again = await twice(running.admin, scene.ended)
    if (!isRefused(again)) expect(again).toEqual(scene.truth.twice)
    expect(readFileSync(file).equals(harmed)).toBe(true)
  } finally {
    writeFileSync(file, whole)
  }
}

/** A bit of a log is flipped and the views are gone: what is made anew of the logs tells the truth, or that it cannot. */
export async function flipAndRebuild(scene: Scene, log: string, bit: number): Promise<void> {
  const whole = scene.stopped.get(fileFor(log)) as Buffer
  const home = homeWith(without(withFile(scene.stopped, fileFor(log), flipped(whole, bit)), 'projections/'))
  const running = await run(home, {}, clock())
  const { admin } = running
  const session = lastName(log)
  const device = new Client(running.url, scene.device)
  const asked = await device.post('/session_manager/sessions.validate', { user_id: 'ada', session_id: 'none' })
  expect(asked.status).toBe(log === 'accounts/device-7' ? 401 : 200)
  expect((await new Client(running.url, scene.revoked).get('/api/v1/sessions')).status).toBe(401)
  expect((await admin.get('/api/v1/keys')).status).toBe(log === 'accounts/admin' ? 401 : 200)
  if (log === 'accounts/admin')
    same(
      await tellSession(await anotherAdmin(running, home), scene.ended),
      scene.truth,
      Object.keys(scene.truth).filter((path) => path.includes(scene.ended)),
    )
  else await toldAnew(running, scene, session)
  expect(readFileSync(join(home, fileFor(log))).equals(flipped(whole, bit))).toBe(true)
  await running.stop()
}

/** An admin whose key the owner of the files has just made, where the keys of the first one open nothing. */
async function anotherAdmin({ url }: Running, home: string): Promise<Client> {
  const made = await cli(home, ['keys', 'create', '--account', 'second', '--role', 'admin', '--json'])
  return new Client(url, (JSON.parse(made.out) as { secret: string }).secret)
}

async function toldAnew(running: Running, scene: Scene, session: string): Promise<void> {
  const { admin } = running
  const { truth } = scene
  const told = await tell(running, scene)
  same(
    told,
    truth,
    elsewhere(truth, session, 'ada').filter((path) => path !== 'twice'),
  )
  if (session.startsWith('sess_')) await allRefused(admin, session)
  const list = '/api/v1/users/ada/sessions'
  const rowsIn = (answers: Told): Json[] => (answers[list] as Told[string]).body.sessions
  const rows = rowsIn(told)
  for (const was of rowsIn(truth)) {
    const row = rows.find(({ session_id }) => session_id === was.session_id)
    // A row that says less than was recorded says so; and only a log that cannot be read has none.
    if (row?.damaged) expect(row.session_id).toBe(session)
    else if (row) expect(row).toEqual(was)
    else expect(was.session_id).toBe(session)
  }
  const again = await twice(admin, scene.ended)
  if (!isRefused(again)) expect(again).toEqual(truth.twice)
  // Numbers go on where they were, and no time is taken from a line that does not hold.
  const next = await admin.start({ kind: 'therapy' })
  expect(next).toMatchObject({ status: 201, body: { session_number: 3, timestamp: '2031-05-02T09:10:00.000Z' } })
  expect((await admin.append(scene.bobs, said('more', { user_id: 'bob' }))).status).toBe(201)
}

// --- the journal ------------------------------------------------------------------------------------------------------

/** What stands in the journal's segment from a place on, in the stead of what was written there. */
export const cuts: Record<string, (segment: Buffer, at: number, chance: Chance) => Buffer> = {
  ends: (segment, at) => segment.subarray(0, at),
  'is zeros': (segment, at) => Buffer.concat([segment.subarray(0, at), Buffer.alloc(4096)]),
  'is what looks like a frame': (segment, at) =>
    Buffer.concat([segment.subarray(0, at), Buffer.from(`FRAM${'\u0007~'.repeat(30)}`), Buffer.alloc(99)]),
  'is noise': (segment, at, chance) => Buffer.concat([segment.subarray(0, at), noise(chance, segment.length - at + 99)]),
}

const noise = (chance: Chance, length: number) => Buffer.from(Array.from({ length }, () => chance.below(256)))

/** Some bytes of noise in the midst of what was written. */
export function scribbled(segment: Buffer, at: number, chance: Chance): Buffer {
  const length = Math.min(segment.length - at, 1 + chance.below(300))
  return Buffer.concat([segment.subarray(0, at), noise(chance, length), segment.subarray(at + length)])
}

/** What is left: everything that a crash leaves, or, as a power loss may, nothing but the journal. */
export const leftovers: Record<string, (files: Files) => Files> = {
  'everything else': (files) => files,
  'nothing else': (files) => without(files, 'logs/users', 'logs/accounts', 'projections/'),
}

/** What is set aside of a segment of which these lines are good: what stands after them, up to the zeros. */
function tornOf({ frames }: Scene, segment: Buffer, good: Map<string, string>): string[] {
  const lines = [...good.values()].join('').split('\n').length - 1
  const rest = segment.toString('latin1', lines === 0 ? HEADER : (frames[lines - 1] as Frame).end).replace(/\0+$/, '')
  return rest === '' ? [] : [rest]
}

/** What a start must make of a segment that is cut here. */
export const expectedOfCut = ({ frames }: Scene, how: string, at: number): Map<string, string> | 'refused' =>
  // The last four bytes of the header say nothing.
  at < (how === 'ends' ? HEADER : HEADER - 4) ? 'refused' : logsUpTo(frames, ({ end }) => end <= at)

/** What a start must make of a segment in which some bytes are others than were written. */
export function expectedOfHarm({ frames, crashed, segment }: Scene, harmed: Buffer): Map<string, string> | 'refused' {
  const whole = crashed.get(segment) as Buffer
  const isGood = (from: number, to: number) => whole.subarray(from, to).equals(harmed.subarray(from, to))
  if (!isGood(0, HEADER - 4)) return 'refused'
  const good = frames.filter(({ at, end }) => isGood(at, end))
  const bad = frames.find((frame) => !good.includes(frame))
  const proven = bad && good.some((frame) => frame.at > bad.at && frame.synced > bad.at)
  return proven ? 'refused' : logsUpTo(frames, (frame) => good.includes(frame))
}

/** A disk with files on it, and a log to be opened there. */
interface Place {
  open(): void
  files(): Files
}

/** On the real one. */
function onDisk(files: Files): Place {
  const home = homeWith(files)
  return { open: () => openLog({ config: configOf(home) }).close(), files: () => filesOf(home) }
}

/** In memory, for what is done a hundred thousand times. */
export function inMemory(files: Files): Place {
  const home = '/in memory'
  const chance = new Chance(0)
  // Room for the day the disk is full is four megabytes of zeros, each time.
  const disk = Object.assign(new SimulatedDisk(chance, new Loop(chance)), { keepRoom: () => true })
  for (const [file, bytes] of files) disk.prepareFile(join(home, file), bytes)
  const ours = ([file]: [string, Buffer]) => !isOfHolder(file)
  return { open: () => openLog({ config: configOf(home), disk }).close(), files: () => new Map([...disk.files(home)].filter(ours)) }
}

/**
 * A start on this journal, without a network. Either it refuses, with a word on where and how to go on, and changes nothing;
 * or every log holds what it held before, and of the journal every whole command before the bad place, and no half of one.
 */
export function startOnJournal(
  scene: Scene,
  left: string,
  segment: Buffer,
  expected: Map<string, string> | 'refused',
  on: (files: Files) => Place = onDisk,
): void {
  const files = withFile((leftovers[left] as (files: Files) => Files)(scene.crashed), scene.segment, segment)
  const place = on(files)
  if (expected === 'refused') {
    expect(place.open).toThrow(/damaged[\s\S]*Copy the whole data directory first/)
    expectSame(place.files(), files)
    return
  }
  place.open()
  const now = place.files()
  const aside = [...now].filter(([file]) => file.includes('/quarantine/torn-'))
  expect(aside.map(([, bytes]) => bytes.toString('latin1'))).toEqual(tornOf(scene, segment, expected))
  // Where a file has more than the journal tells, what the journal tells of it lies there, too: it stands in the file already.
  for (const [file, bytes] of now) {
    const [, log, at] = /quarantine\/(.+)@(\d+)\.lines$/.exec(file) ?? []
    if (log === undefined) continue
    const there = now.get(fileFor(log.replaceAll('~', '/'))) as Buffer
    expect(there.subarray(Number(at), Number(at) + bytes.length).equals(bytes), file).toBe(true)
  }
  const made = new Map([...expected].map(([log, lines]) => [fileFor(log), Buffer.from(lines)]))
  expectSame(logsAmong(now), left === 'nothing else' ? made : logsAmong(files))
}

const logsAmong = (files: Files) => new Map([...files].filter(([file]) => /^logs\/(users|accounts)\//.test(file)))

/** Compared byte by byte first: to tell how they differ takes far longer. */
function expectSame(files: Files, others: Files): void {
  const same = ([file, bytes]: [string, Buffer]) => others.get(file)?.equals(bytes)
  if (files.size === others.size && [...files].every(same)) return
  const told = (all: Files) => Object.fromEntries([...all].map(([file, bytes]) => [file, bytes.toString('latin1')]))
  expect(told(files)).toEqual(told(others))
}
