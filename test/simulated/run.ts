// A simulation: lives of the recorder, one after the other, on one disk; after each all promises are looked at again. What
// happens follows from the seed alone.

import { cpSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { bounds } from '../../src/core/bounds.ts'
import { fill } from '../../src/core/fold.ts'
import { isSessionLog, type Log, lastName, linesOf, type Shelf } from '../../src/core/log.ts'
import { Schemas } from '../../src/core/schemas.ts'
import type { Sessile } from '../../src/core/sessile.ts'
import { verify } from '../../src/core/verify.ts'
import { Views } from '../../src/core/views.ts'
import { features } from '../../src/features/index.ts'
import { type Kind, kinds } from '../../src/features/kinds.ts'
import { asideIn, quarantineOf } from '../../src/log/aside.ts'
import { fileOf, journalOf, projectionOf } from '../../src/log/shelf.ts'
import { Chance } from '../chance.ts'
import { configOf } from '../config.ts'
import { SimulatedDisk } from './disk.ts'
import { Broken, Ledger } from './ledger.ts'
import { type Asked, Life, type World } from './life.ts'
import { Loop } from './loop.ts'

export interface Outcome {
  seed: number
  crashes: number
  acknowledged: number
  refused: number
  records: number
  operations: number
  /** The same for two runs of a seed. */
  trace: number
}

/** The views are real files; where there is memory to be had as a disk, that is faster. */
const scratch = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
const schemas = new Schemas()

const usual = { ...bounds }
/** What is rare comes often. */
const small: typeof bounds = {
  batch: 9,
  busy: 3,
  busyAtOnce: 1,
  names: 5,
  heads: 3,
  rowsAStep: 3,
  rowsAtLeast: 2,
  rowsOwed: 5,
  endsAtOnce: 2,
  endsInTurn: 1,
  knownHeads: 4,
  mergedRuns: 2,
  smallestRun: 3,
  namesInChunk: 2,
  filterBits: 2 ** 10,
  openFiles: 2,
  knownEnds: 3,
  filesInTurn: 2,
  knownCallers: 3,
  sharedQuotas: 2,
  keysAtOnce: 2,
  fewLogs: 1000,
  room: 4096,
  segment: 20_000,
  journalRead: 1000,
  journalHeld: 2000,
}

export async function simulate(seed: number, lives = 6): Promise<Outcome> {
  const chance = new Chance(seed)
  Object.assign(bounds, chance.oneIn(3) ? usual : small)
  const home = mkdtempSync(join(scratch, 'sessile-simulated-'))
  const kept = join(home, 'hardened')
  const disk = new SimulatedDisk(chance, new Loop(chance))
  const world: World = {
    config: configOf(home, { adminKey: undefined }),
    disk,
    chance,
    ledger: new Ledger(),
    clock: { now: Date.parse('2031-05-02T09:30:00Z') },
    sequence: { n: 0, ulid: 0 },
    sessions: [],
    named: [],
    lost: undefined,
    reports: [],
  }
  // When the views have just been made durable by themselves, this is the least that will ever be found of them.
  const { harden } = Views.prototype
  Views.prototype.harden = function (mark) {
    harden.call(this, mark)
    if (!disk.dead && this.file === projectionOf(home)) replace(join(home, 'projections'), kept)
  }
  // What the views' files are at that moment is what will be found.
  disk.died = () => replace(join(home, 'projections'), join(home, 'found'))
  disk.prepare(home)
  const outcome = { seed, crashes: 0, acknowledged: 0, refused: 0, records: 0, operations: 0, trace: 0 }
  try {
    for (let n = 0; n < lives; n++) if (await live(world, n === lives - 1)) outcome.crashes++
    const { acknowledged, refused } = world.ledger
    return { ...outcome, acknowledged, refused, records: recordsOf(world), operations: disk.done, trace: disk.trace }
  } catch (error) {
    if (error instanceof Error) error.message = `seed ${seed}: ${error.message}`
    if (process.env.SESSILE_TEST_TELL !== undefined) console.error(world.reports.join('\n'))
    throw error
  } finally {
    Loop.uninstall()
    Views.prototype.harden = harden
    Object.assign(bounds, usual)
    rmSync(home, { recursive: true, force: true })
  }
}

const BEGINS = '--- a life begins'

const totals = new WeakMap<World, number>()
const recordsOf = (world: World) => totals.get(world) ?? 0

/** One life; true where it ended in a crash. The last one begins on a sound disk, and ends as it should. */
async function live(world: World, last: boolean): Promise<boolean> {
  const { chance, disk, ledger } = world
  const loop = new Loop(chance)
  loop.install()
  const life = new Life(world, loop)
  disk.end(false, loop)
  world.reports.push(BEGINS)
  if (!last) {
    // Some die while they start, most at their work.
    disk.dieAfter(chance.oneIn(4) ? chance.below(40) : chance.below(chance.pick([100, 400, 2000])))
    if (chance.oneIn(12)) life.trouble()
  }
  let crashed = true
  try {
    crashed = !(await lived(world, life, loop, last))
    if (life.broken) throw life.broken
    promisesOfTheDisk(world)
  } finally {
    disk.kill()
    await loop.rest()
    ledger.end()
    end(world, life, (crashed && chance.oneIn(2)) || disk.shut, loop)
  }
  return crashed
}

/** Starts, looks at everything, works; true where it came to an end that it chose. */
async function lived(world: World, life: Life, loop: Loop, last: boolean): Promise<boolean> {
  const { chance, disk } = world
  if (!(await life.begin().catch((error: Error) => startFailed(world, error)))) return false
  await check(world, life, loop)
  if (life.over) return false
  if (world.lost === undefined && chance.oneIn(5)) loseFile(world, life.sessile as Sessile)
  for (let waves = last ? 3 : chance.below(12); waves >= 0 && !life.over; waves--) await life.wave()
  if (life.over || !(last || chance.oneIn(3))) return false
  disk.mend()
  await life.close()
  return !life.over
}

/** From now on the disk refuses the file of one session. Who asked for records of it by name does not ask once more. */
function loseFile(world: World, { log }: Sessile): void {
  const { chance, config, disk, ledger } = world
  const logs = [...log.names()].filter(isSessionLog)
  if (logs.length === 0) return
  world.lost = chance.pick(logs)
  const session_id = lastName(world.lost)
  const within = new Set(recordsIn(shelfOf(world, log), world.lost).map(({ performer_id }) => performer_id))
  const isOfIt = ({ performer, path, body }: Asked) =>
    within.has(performer) || path?.session_id === session_id || ('session_id' in body && body.session_id === session_id)
  world.named = world.named.filter((asked) => !isOfIt(asked))
  disk.lose(fileOf(config.home, world.lost))
  ledger.lose(session_id)
}

function promisesOfTheDisk({ disk, reports, lost }: World): void {
  if (disk.syncsAfterFailure > 0) throw new Broken('a sync was asked for after one had failed')
  const elsewhere = (report: string) => lost === undefined || !report.includes(lastName(lost))
  const damage = reports.find((report) => report.includes('damaged') && elsewhere(report))
  if (damage) throw new Broken(`a report says: ${damage}`)
  const kept = reports.slice(reports.lastIndexOf(BEGINS)).find((report) => /checkpoint failed.*EIO/.test(report))
  if (kept && !disk.dead && !disk.troubled) throw new Broken(`nothing was in the way of it, and ${kept}`)
}

/** Only the disk may keep it from starting, and one lost file does not. */
function startFailed({ disk }: World, error: Error): false {
  const isOfDisk = 'cause' in error || 'syscall' in error || /journal could not be written|a sync failed/.test(error.message)
  if (disk.dead || (isOfDisk && disk.troubled)) return false
  throw error
}

/** The process is gone, and with it its connections. */
function end({ config, chance, disk }: World, life: Life, power: boolean, loop: Loop): void {
  const folder = join(config.home, 'projections')
  const found = join(config.home, 'found')
  const kept = join(config.home, 'hardened')
  life.sessile?.recorder.views.close()
  replace(found, folder)
  disk.end(power, loop)
  if (!power || !existsSync(folder)) return
  // Commits since the last one that was synced may be lost, from any one on, and files that were never synced altogether.
  const fate = chance.below(6)
  const wal = `${projectionOf(config.home)}-wal`
  if (fate === 0) rmSync(folder, { recursive: true })
  if (fate === 1) replace(kept, folder)
  if (fate === 2 && existsSync(wal)) {
    const least = sureOf(wal, wal.replace(folder, kept))
    truncateSync(wal, least + chance.below(statSync(wal).size - least + 1))
  }
}

/** How much of a write-ahead file was synced when the views were last made durable: all that it had then, unless it was begun anew. */
function sureOf(wal: string, hardened: string): number {
  if (!existsSync(hardened)) return 0
  // Each time it is begun anew its head bears other salts.
  const [now, then] = [wal, hardened].map((file) => readFileSync(file))
  return now?.subarray(0, 32).equals(then?.subarray(0, 32) as Buffer) ? (then as Buffer).length : 0
}

function replace(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true })
  if (!existsSync(from)) return
  mkdirSync(to)
  for (const name of readdirSync(from)) if (!name.endsWith('-shm')) cpSync(join(from, name), join(to, name))
}

// --- the promises -----------------------------------------------------------------------------------------------------

// biome-ignore lint/suspicious/noExplicitAny: records are looked into, whose shape other tests assert
type Any = any

/** Looks at everything that was promised, just after a start. */
async function check(world: World, life: Life, loop: Loop): Promise<void> {
  const { ledger, chance } = world
  const sessile = life.sessile as Sessile
  const records: Any[] = []
  const shelf = shelfOf(world, sessile.log)
  for (const log of shelf.names()) {
    const own = recordsIn(shelf, log)
    own.forEach((record, i) => {
      if (record.seq !== i + 1) throw new Broken(`line ${i + 1} of ${log} has the seq ${record.seq}`)
      if (i > 0 && record.timestamp < own[i - 1].timestamp)
        throw new Broken(`line ${i + 1} of ${log} is earlier than the one before`)
    })
    verify({ shelf, events: features.events, schemas }, log, ({ line, what }) => {
      throw new Broken(`${log}:${line}: ${what}`)
    })
    for (const record of own) records.push(record)
  }
  totals.set(world, records.length)
  ledger.check(grouped(records))
  numbered(records)
  exclusive(records, world.lost)
  if (chance.oneIn(3)) await rebuilds(world, life, loop)
}

/** The logs; of the one whose file is lost, what is in it together with what was set aside: nothing of that may be missing. */
function shelfOf({ disk, config, lost }: World, log: Log): Shelf {
  const whole = () => {
    let bytes = disk.within(fileOf(config.home, lost as string))
    const quarantine = quarantineOf(journalOf(config.home))
    const pieces = disk.list(quarantine).flatMap((name) => {
      const aside = asideIn(name)
      return aside && aside.log === lost ? [{ offset: aside.offset, piece: disk.within(join(quarantine, name)) }] : []
    })
    // Not in the order of their names: a crash may have set more aside from further ahead.
    for (const { offset, piece } of pieces.sort((one, other) => one.offset - other.offset)) {
      if (offset > bytes.length) throw new Broken(`${lost} has ${bytes.length} bytes, and then a piece from byte ${offset} on`)
      bytes = Buffer.concat([bytes.subarray(0, offset), piece, bytes.subarray(offset + piece.length)])
    }
    return bytes
  }
  return {
    names: () => log.names(),
    read: (name, offset, length) => (name === lost ? whole().subarray(offset, offset + length) : log.read(name, offset, length)),
  }
}

const recordsIn = (shelf: Shelf, log: string): Any[] => [...linesOf(shelf, log)].map(({ bytes }) => JSON.parse(bytes.toString()))

function grouped(records: Any[]): Map<string, Any[]> {
  const by = new Map<string, Any[]>()
  for (const record of records) by.set(record.performer_id, [...(by.get(record.performer_id) ?? []), record])
  return by
}

/** Law 8 and section 4, as the records have it. */
function numbered(records: Any[]): void {
  const numbers = new Map<string, Set<number>>()
  for (const { type, user_id, data } of records) {
    if (type !== 'session.started') continue
    const own = numbers.get(user_id) ?? new Set()
    if (own.has(data.session_number)) throw new Broken(`the number ${data.session_number} of ${user_id} was given twice`)
    numbers.set(user_id, own.add(data.session_number))
  }
  for (const [user, own] of numbers)
    for (let n = 1; n <= own.size; n++)
      if (!own.has(n)) throw new Broken(`${user} has ${own.size} sessions, and none with the number ${n}`)
}

function exclusive(records: Any[], lost: string | undefined): void {
  const ended = new Set(records.filter(({ type }) => type === 'session.ended').map(({ session_id }) => session_id))
  // Nothing more can be recorded in it, and where its views are lost as well nobody can give it up.
  if (lost !== undefined) ended.add(lastName(lost))
  const active = new Set<string>()
  for (const { type, session_id, user_id, data } of records) {
    if (type !== 'session.started' || ended.has(session_id) || !kinds[data.kind as Kind].exclusive) continue
    const place = `${user_id} ${data.kind}`
    if (active.has(place)) throw new Broken(`${place} has two active sessions`)
    active.add(place)
  }
}

/** Law 7: a rebuild gives the rows that are there. */
async function rebuilds({ config, disk, lost }: World, life: Life, loop: Loop): Promise<void> {
  // What fails may keep lines from their files, and them only.
  disk.mend()
  const { recorder, log } = life.sessile as Sessile
  if (
    (await loop.until(
      recorder.settle().then(() => true),
      () => life.over,
    )) === undefined
  )
    return
  const lived = tables(recorder.views, lost)
  const fresh = Views.create(join(config.home, 'compared.db'), features)
  for (const _ of fill(fresh, { events: features.events, shelf: log }));
  fresh.flushNames()
  fresh.commit({ journal: '', lsn: 0, timestamp: 0 })
  const rebuilt = tables(fresh, lost)
  fresh.close()
  for (const [table, rows] of rebuilt) {
    if (lived.get(table) !== rows)
      throw new Broken(`a rebuild gives other rows in ${table}: ${rows}, and there were ${lived.get(table)}`)
  }
}

/** What is in the tables of the views; where a log is lost, in those of the features, beside what is of that log. */
function tables(views: Views, lost: string | undefined): Map<string, string> {
  if (lost === undefined) return new Map(views.digests().map(({ table, rows, digest }) => [table, `${rows} rows ${digest}`]))
  const others = features.views.map((view): [string, string] => {
    const rows = views.read(view).find(`ORDER BY ${view.key.join(', ')}`)
    return [view.name, JSON.stringify(rows.filter(({ session_id }) => view.name === 'abandoned' || session_id !== lastName(lost)))]
  })
  return new Map(others)
}
