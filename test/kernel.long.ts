// The real process on the real kernel: killed at every system call that touches its data, and refused there by the kernel,
// once and for ever, while it recovers, records, checkpoints and rebuilds. What was acknowledged must be there after the
// next start, what was refused must not, and after a failed sync nothing is acknowledged and that file not synced again.
//
//   npm run torture:kernel                              a sample of some minutes, drawn by SESSILE_TEST_SEED
//   SESSILE_TEST_KERNEL=all npm run torture:kernel      every call that there is (an hour or two)
//   SESSILE_TEST_CASE='pwrite64:error=EIO:when=31' …    one case alone

import { execFileSync } from 'node:child_process'
import { appendFileSync, existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { type Client, cli, copyHome, later, said, serveApart } from './harness.ts'
import { audit, begun, Ledger, work } from './ledger.ts'
import { type Call, callsOf, needs, ONE_THREAD, pathIn, strace } from './strace.ts'

const SIZE = process.env.SESSILE_TEST_KERNEL ?? '24'
const SEED = Number(process.env.SESSILE_TEST_SEED ?? 1)
const AT_ONCE = 2
const HOURS = 6 * 3600_000
/** How long a process that was told to stop may take. */
const PATIENCE_MS = 30_000

// Not in the folder of temporary files where that is in memory: a sync must be one.
const folder = mkdtempSync(join(tmpdir(), 'sessile-kernel-'))
let template: Awaited<ReturnType<typeof begun>>

// Every life goes on where the same few records were left, however many hours ago that was.
process.env.SESSILE_IDLE_SECONDS = '0'

beforeAll(async () => {
  needs('strace', 'apt-get install -y strace')
  needs('cc', 'apt-get install -y gcc libc6-dev')
  template = await begun()
  // The command line is translated once, and what that opens is none of the data.
  for (const verb of ['help', 'serve', 'rebuild', 'verify', 'doctor', 'recover'])
    expect(await cli(template.home, [verb, '--help'])).toMatchObject({ code: 0 })
  copyHome(template.home, join(folder, 'template'))
  return () => rmSync(folder, { recursive: true, force: true })
})

let homes = 0
/** The template once more, in a place of its own. */
function anew(): { home: string; ledger: Ledger } {
  const home = join(folder, String(homes++))
  copyHome(join(folder, 'template'), home)
  return { home, ledger: Ledger.after(template.ledger) }
}

/** What ran, phase by phase, until it ended or was told to. */
interface Life {
  home: string
  ledger: Ledger
  /** When each phase began, in seconds. */
  began: { start: number; work: number; stop: number }
  code: number | string | null
  err: string
  calls: Call[]
}

const seconds = () => Date.now() / 1000

interface Doing {
  /** What strace is told beside what it is told anyway. */
  inject?: (home: string) => string[]
  env?: Record<string, string>
  /** What goes on between the start and the stop. */
  during?: (home: string, client: Client, ledger: Ledger) => Promise<unknown>
}

/** A start on the template, some work and a stop, under strace. */
async function live({
  inject = () => [],
  env = {},
  during = (_, client, ledger) => work(client, ledger),
}: Doing = {}): Promise<Life> {
  const { home, ledger } = anew()
  const trace = `${home}.trace`
  const began = { start: seconds(), work: Number.POSITIVE_INFINITY, stop: Number.POSITIVE_INFINITY }
  let [code, err]: [number | string | null, string] = [null, '']
  try {
    const apart = await serveApart(home, { ...ONE_THREAD, ...env }, [], strace(trace, inject(home)))
    began.work = seconds()
    await during(home, apart.admin, ledger)
    began.stop = seconds()
    apart.child.kill('SIGTERM')
    const tooLong = setTimeout(() => {
      ledger.wrong.push('it did not stop when it was told to')
      apart.child.kill('SIGKILL')
    }, PATIENCE_MS)
    code = await apart.ended
    clearTimeout(tooLong)
    err = apart.err()
  } catch (error) {
    const [, ended = '', text = ''] = /^serve ended with (\w+): ([\s\S]*)$/.exec((error as Error).message) ?? []
    if (ended === '') throw error
    code = /^\d+$/.test(ended) ? Number(ended) : ended
    err = text
  }
  const calls = callsOf(trace)
  rmSync(trace)
  return { home, ledger, began, code, err, calls }
}

// --- which cases there are ------------------------------------------------------------------------------------------------

type Phase = 'start' | 'work' | 'stop'
interface Case {
  phase: Phase
  call: Call
  /** The file that it is about, under the data directory. */
  file: string
}

const phaseOf = ({ began }: Life, { at }: Call): Phase => (at >= began.stop ? 'stop' : at >= began.work ? 'work' : 'start')

/** Every call of a life that touches its data. */
const candidates = (life: Life): Case[] =>
  life.calls.flatMap((call) => {
    const path = pathIn(life.home, call)
    return path === undefined ? [] : [{ phase: phaseOf(life, call), call, file: path.slice(life.home.length) }]
  })

const groupOf = ({ phase, call }: Case) => `${phase} ${call.name}`

/** A random number from 0 to 1, the same for the same seed. */
function randomOf(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** So many of them, from every group in turn. */
function sample<T>(all: T[], group: (one: T) => string, seed: number, size = Number(SIZE)): T[] {
  if (SIZE === 'all') return all
  const random = randomOf(seed)
  const groups = new Map<string, T[]>()
  for (const one of all) groups.set(group(one), [...(groups.get(group(one)) ?? []), one])
  const left = [...groups.values()]
  const drawn: T[] = []
  while (drawn.length < size && left.some((ones) => ones.length > 0)) {
    for (const ones of left) if (ones.length > 0) drawn.push(...ones.splice(Math.floor(random() * ones.length), 1))
  }
  return drawn.slice(0, size)
}

const only = process.env.SESSILE_TEST_CASE

/** Runs every case, a few at a time, and gathers what was found wrong, named so that it can be run again. */
async function each<T>(cases: T[], nameOf: (one: T) => string, check: (one: T) => Promise<string[]>): Promise<string[]> {
  const chosen = cases.filter((one) => only === undefined || nameOf(one) === only)
  const wrong: string[] = []
  let next = 0
  const worker = async () => {
    while (next < chosen.length) {
      const one = chosen[next++] as T
      const found = await check(one).catch((error: Error) => [error.stack ?? String(error)])
      wrong.push(...found.map((what) => `SESSILE_TEST_CASE='${nameOf(one)}': ${what}`))
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, worker))
  return wrong
}

// --- killed ---------------------------------------------------------------------------------------------------------------

/**
 * What tells strace to strike at this call. Where several threads make calls of a name, the file tells them apart; a file
 * whose name is another in each life is told by the count alone.
 */
function strike({ call, file }: Case, all: Case[], what: string): { name: string; words: (home: string) => string[] } {
  const others = all.filter((other) => other.call.name === call.name)
  const apart = others.some(({ call: { thread } }) => thread !== call.thread) && others.some((other) => other.file === file)
  if (!apart || !isSame(file)) {
    const name = `${call.name}:${what}:when=${call.nth}`
    return { name, words: () => ['-e', `inject=${name}`] }
  }
  const nth =
    others
      .filter((other) => other.file === file && other.call.thread === call.thread)
      .indexOf(others.find((other) => other.call === call) as Case) + 1
  const name = `${call.name}:${what}:when=${nth}`
  return { name: `${name} ${file}`, words: (home) => ['-P', join(home, file), '-e', `inject=${name}`] }
}

/** Has the file this name in every life? */
const isSame = (file: string) => !file.includes('/sess_') || file.includes(template.ledger.sessions[0] as string)

function struck(cases: Case[], all: Case[], what: string) {
  return cases.map((one) => ({ ...one, ...strike(one, all, what) }))
}

/** How many of the cases came to what they were meant for: a suite that misses its aim proves nothing. */
function tally(what: string, cases: { phase: Phase; call: Call }[], hits: number): void {
  const groups = new Map<string, number>()
  for (const one of cases) groups.set(`${one.phase} ${one.call.name}`, (groups.get(`${one.phase} ${one.call.name}`) ?? 0) + 1)
  console.info(`${what}: ${cases.length} cases, ${hits} hit (${[...groups].map(([name, n]) => `${n} ${name}`).join(', ')})`)
}

describe('kill -9 at a system call', () => {
  it(
    'while it starts, records and stops loses nothing that was acknowledged, and doubles nothing',
    async () => {
      const whole = await live()
      expect(await audit(whole.home, whole.ledger)).toEqual([])
      expect(whole.code).toBe(0)
      const all = candidates(whole)
      const cases = struck(sample(all, groupOf, SEED), all, 'signal=SIGKILL')
      let hits = 0
      const wrong = await each(
        cases,
        ({ name }) => name,
        async ({ words }) => {
          const life = await live({ inject: words })
          if (life.code === 'SIGKILL') hits++
          return audit(life.home, life.ledger)
        },
      )
      tally('killed', cases, hits)
      expect(wrong).toEqual([])
      expect(only === undefined ? hits / cases.length : 1).toBeGreaterThan(0.9)
    },
    HOURS,
  )

  it(
    'of a rebuild, alone or taken on by a server, leaves views that are right, and all records',
    async () => {
      const beside = (home: string, client: Client, ledger: Ledger) =>
        ledger
          .append(client, 'w-before', ledger.sessions[0] as string, ['before'])
          .then(() => cli(home, ['rebuild']))
          .then(() => ledger.append(client, 'w-after', ledger.sessions[0] as string, ['after']))
      const whole = await live({ during: beside })
      expect(await audit(whole.home, whole.ledger)).toEqual([])
      const all = candidates(whole)
      const taken = struck(
        sample(
          all.filter(({ phase }) => phase === 'work'),
          groupOf,
          SEED,
          Math.ceil(Number(SIZE) / 2),
        ),
        all,
        'signal=SIGKILL',
      )
      const { home } = anew()
      expect(await cli(home, ['rebuild'], ONE_THREAD, strace(`${home}.trace`))).toMatchObject({ code: 0 })
      const calls = callsOf(`${home}.trace`).filter((call) => pathIn(home, call) !== undefined)
      const alone = struck(
        sample(
          calls.map((call): Case => ({ phase: 'start', call, file: (pathIn(home, call) as string).slice(home.length) })),
          groupOf,
          SEED,
          Math.ceil(Number(SIZE) / 2),
        ),
        [],
        'signal=SIGKILL',
      )
      let hits = 0
      const wrong = [
        ...(await each(
          taken,
          ({ name }) => `beside ${name}`,
          async ({ words }) => {
            const life = await live({ inject: words, during: beside })
            if (life.code === 'SIGKILL') hits++
            return audit(life.home, life.ledger)
          },
        )),
        ...(await each(
          alone,
          ({ name }) => `alone ${name}`,
          async ({ words }) => {
            const { home, ledger } = anew()
            const { code } = await cli(home, ['rebuild'], ONE_THREAD, strace(`${home}.trace`, words(home)))
            if (code === null) hits++
            return audit(home, ledger)
          },
        )),
      ]
      tally('killed in a rebuild', [...taken, ...alone], hits)
      expect(wrong).toEqual([])
      expect(only === undefined ? hits / (taken.length + alone.length) : 1).toBeGreaterThan(0.9)
    },
    HOURS,
  )
})

// --- refused by the kernel --------------------------------------------------------------------------------------------------

const isSync = ({ name }: Call) => name === 'fsync' || name === 'fdatasync'
/** Of the views nothing is believed after a failed sync: they are made anew, in files of their own. */
const isLog = (home: string, call: Call) => pathIn(home, call)?.startsWith(join(home, 'logs')) || pathIn(home, call) === home

const VIEWS = ['projections/sessile.db', 'projections/sessile.db-wal']

/** Views whose sync failed while they were in use are made anew: now, or by the next start. */
function afterFailedViews({ home, calls, err }: Pick<Life, 'home' | 'calls' | 'err'>): string[] {
  const paths = VIEWS.map((file) => join(home, file))
  const failed = calls.some((call) => call.injected && isSync(call) && paths.includes(pathIn(home, call) ?? ''))
  if (!failed || err.includes('the views are rebuilt') || !existsSync(join(home, 'projections/sessile.db'))) return []
  return [`a sync of the views failed, and they are believed: ${err}`]
}

/** What a failed sync must lead to, seen in the trace: nothing more is acknowledged, that file is not synced again, exit 70. */
function afterFailedSync({ home, ledger, calls, code, err }: Life): string[] {
  const failed = calls.find((call) => call.injected && isSync(call) && isLog(home, call))
  if (!failed) return afterFailedViews({ home, calls, err })
  const again = calls.filter((call) => call.at > failed.at && isSync(call) && pathIn(home, call) === pathIn(home, failed))
  const late = ledger.asked.filter(({ sent, outcome }) => sent > failed.at && outcome === 'recorded')
  return [
    ...(again.length > 0 ? [`synced ${pathIn(home, failed)} again after it had failed`] : []),
    ...late.map(({ key }) => `acknowledged ${key} after a sync had failed`),
    ...(code === 70 ? [] : [`a sync failed, and it ended with ${code}: ${err}`]),
  ]
}

/** It ended as it was told to, or because of the fault, and in that case said so in words and not in a stack. */
function endedWell({ code, err }: Life): string[] {
  const wrong: string[] = []
  if (code !== 0 && code !== 70 && code !== 5) wrong.push(`ended with ${code}: ${err}`)
  for (const line of err.split('\n')) if (line.includes('"msg":"broken"')) wrong.push(line)
  if (/^ {4}at /m.test(err)) wrong.push(`a stack on stderr: ${err}`)
  if (code !== 0 && !/^sessile: .+/m.test(err)) wrong.push(`ended with ${code} and did not say why: ${err}`)
  return wrong
}

describe('a system call that the kernel refuses', () => {
  it(
    'once or for ever, is answered with what is true; a failed sync is the end; a start without faults finds everything',
    async () => {
      const whole = await live()
      expect(await audit(whole.home, whole.ledger)).toEqual([])
      const all = candidates(whole)
      const drawn = sample(
        ['EIO', 'ENOSPC'].flatMap((error) =>
          ['', '+'].flatMap((ever) =>
            all.map((one) => ({ ...one, name: `${one.call.name}:error=${error}:when=${one.call.nth}${ever}` })),
          ),
        ),
        groupOf,
        SEED + 1,
      )
      // Always: what Node tells as a folder that is not there, and is a disk that fails.
      const folders = all.filter(({ phase, call }) => phase === 'work' && call.name === 'mkdir')
      drawn.push(...folders.map((one) => ({ ...one, name: `mkdir:error=EIO:when=${one.call.nth}` })))
      let hits = 0
      const wrong = await each(
        drawn,
        ({ name }) => name,
        async ({ name }) => {
          const life = await live({ inject: () => ['-e', `inject=${name}`] })
          if (life.calls.some(({ injected }) => injected)) hits++
          return [...endedWell(life), ...afterFailedSync(life), ...(await audit(life.home, life.ledger))]
        },
      )
      tally('refused', drawn, hits)
      expect(wrong).toEqual([])
      expect(only === undefined ? hits / drawn.length : 1).toBeGreaterThan(0.9)
    },
    HOURS,
  )
})

// --- short writes -----------------------------------------------------------------------------------------------------------

/** Stands before the kernel: writes part of what was asked for, and ends the process in the middle of the Nth write. */
const SHORT = `#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

typedef ssize_t (*writing)(int, const void *, size_t, off_t);
static unsigned long state, count;

static ssize_t shorter(const char *name, int fd, const void *bytes, size_t length, off_t at) {
  static unsigned long until;
  if (state == 0) {
    state = strtoul(getenv("SHORT_SEED"), 0, 10) * 2654435761UL + 1;
    until = strtoul(getenv("SHORT_KILL"), 0, 10);
  }
  writing real = (writing)dlsym(RTLD_NEXT, name);
  state = state * 6364136223846793005UL + 1442695040888963407UL;
  unsigned long drawn = state >> 33;
  count++;
  size_t part = length > 1 && (drawn % 2 || count == until) ? 1 + drawn % (length - 1) : length;
  ssize_t written = real(fd, bytes, part, at);
  if (count == until) kill(getpid(), SIGKILL);
  return written;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return shorter("pwrite", fd, bytes, length, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return shorter("pwrite64", fd, bytes, length, at); }
`

function shim(): string {
  const library = join(folder, 'short.so')
  writeFileSync(join(folder, 'short.c'), SHORT)
  execFileSync('cc', ['-shared', '-fPIC', '-O1', '-o', library, join(folder, 'short.c'), '-ldl'])
  return library
}

describe('a write that is cut short', () => {
  it(
    'is gone on with; and where the process is killed in its middle, nothing acknowledged is lost',
    async () => {
      const library = shim()
      const random = randomOf(SEED + 2)
      const cases = Array.from({ length: SIZE === 'all' ? 400 : Math.ceil(Number(SIZE) / 3) }, (_, i) => ({
        seed: SEED + i,
        // Some are not killed at all; the others anywhere in what a life writes.
        kill: i % 4 === 0 ? 0 : 1 + Math.floor(random() * 400),
      }))
      const ends = new Map<string, number>()
      const wrong = await each(
        cases,
        ({ seed, kill }) => `short:${seed}:${kill}`,
        async ({ seed, kill }) => {
          const life = await live({ env: { LD_PRELOAD: library, SHORT_SEED: String(seed), SHORT_KILL: String(kill) } })
          ends.set(String(life.code), (ends.get(String(life.code)) ?? 0) + 1)
          const told = life.ledger.asked.some(({ outcome }) => outcome === 'refused')
            ? ['a short write was taken for a failed one']
            : []
          return [...told, ...(life.code === 'SIGKILL' ? [] : endedWell(life)), ...(await audit(life.home, life.ledger))]
        },
      )
      console.info(`short writes: ${cases.length} cases, ended with ${[...ends].map(([code, n]) => `${code}: ${n}`).join(', ')}`)
      expect(wrong).toEqual([])
      if (only === undefined) for (const code of ['0', 'SIGKILL']) expect(ends.get(code)).toBeGreaterThan(0)
    },
    HOURS,
  )

  it(
    'because a file may grow no further, is refused with 507 and taken back',
    async () => {
      const { home, ledger } = anew()
      // Blocks of 512 bytes: less than the journal makes room for ahead.
      const limited = ['sh', '-c', 'ulimit -f 600; exec "$@"', 'sh']
      const apart = await serveApart(home, { SESSILE_LOG_LEVEL: 'silent' }, [], limited)
      for (let i = 0; i < 4; i++) await ledger.append(apart.admin, `f-${i}`, ledger.sessions[0] as string, [`f ${i}`])
      expect(ledger.asked.slice(-4).map(({ outcome, answer }) => [outcome, answer.status])).toEqual(
        Array.from({ length: 4 }, () => ['refused', 507]),
      )
      apart.child.kill('SIGTERM')
      expect(await apart.ended).toBe(0)
      expect(await audit(home, ledger)).toEqual([])
    },
    HOURS,
  )
})

// --- a full disk ------------------------------------------------------------------------------------------------------------

/** A disk of so many megabytes, in memory, for this test alone. */
function smallDisk(megabytes: number): string {
  const home = join(folder, `disk-${homes++}`)
  mkdirSync(home)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m,nr_inodes=200,mode=700`, 'tmpfs', home], { stdio: 'pipe' })
  } catch (error) {
    throw new Error(`a small disk could not be mounted: run this as root, or under unshare -rm (${(error as Error).message})`)
  }
  later(() => void execFileSync('umount', ['-l', home]))
  return home
}

/** Takes all the space there is, but for less than a page; returns what gives it back. */
function fill(home: string): () => void {
  const file = join(home, 'filler')
  for (let piece = 1024 * 1024; piece >= 4096; ) {
    try {
      appendFileSync(file, Buffer.alloc(piece, 1))
    } catch {
      piece /= 2
    }
  }
  return () => rmSync(file)
}

/** Takes every name that the disk can give to a file; returns what gives them back. */
function takeNames(home: string): () => void {
  const names: string[] = []
  try {
    for (;;) {
      const name = join(home, `name-${names.length}`)
      writeFileSync(name, '')
      names.push(name)
    }
  } catch {
    return () => {
      for (const name of names) rmSync(name)
    }
  }
}

const LONG = 'so much that a few of these fill the room which the journal has ahead. '.repeat(100)

describe('a full disk', () => {
  it(
    'refuses with 507 what it cannot take, reads where that cannot be written down as well, and takes more when there is space, without a restart',
    async () => {
      const home = smallDisk(12)
      copyHome(join(folder, 'template'), home)
      const ledger = Ledger.after(template.ledger)
      const [session = ''] = ledger.sessions
      const apart = await serveApart(home)
      await work(apart.admin, ledger)
      const free = fill(home)
      let full = 0
      for (let i = 0; full < 6; i++) {
        const body = { user_id: `user-${i}`, performer_id: 'device-7' }
        await ledger.ask(apart.admin, `s-${i}`, '/session_manager/sessions.start', body)
        await ledger.append(
          apart.admin,
          `d-${i}`,
          session,
          Array.from({ length: 20 }, (_, n) => `${i}.${n} ${LONG}`),
        )
        const { outcome, answer } = ledger.asked.at(-1) as (typeof ledger.asked)[number]
        if (outcome === 'refused') full++
        if (outcome === 'refused') expect(answer).toMatchObject({ status: 507, reason: 'not-recorded' })
        const read = await apart.admin.get(`/api/v1/sessions/${session}`)
        // What is written down of a read is little, and may find room where a record does not.
        expect([i, read.body.reason]).toEqual([i, read.status === 200 ? undefined : 'not-recorded'])
        expect([200, 507]).toContain(read.status)
        expect([i < 60, ledger.wrong]).toEqual([true, []])
      }
      free()
      await expect.poll(async () => (await apart.admin.append(session, [said('room again')])).status).toBe(201)
      expect((await apart.admin.get(`/api/v1/sessions/${session}/records?limit=10000`)).status).toBe(200)
      expect((await apart.admin.get('/api/v1/users/ada/sessions')).body.sessions).toHaveLength(1)
      apart.child.kill('SIGTERM')
      expect(await apart.ended).toBe(0)
      expect(await audit(home, ledger)).toEqual([])
    },
    HOURS,
  )

  it(
    'that can make no folder for a while keeps nobody’s log from being completed when it can',
    async () => {
      const home = smallDisk(12)
      copyHome(join(folder, 'template'), home)
      const ledger = Ledger.after(template.ledger)
      const apart = await serveApart(home)
      const free = takeNames(home)
      const body = { user_id: 'dora', performer_id: 'device-7' }
      const started = await ledger.ask(apart.admin, 'n-start', '/session_manager/sessions.start', body)
      // Long enough for lines to be on their way to their files.
      await new Promise((resolve) => setTimeout(resolve, 400))
      free()
      await ledger.append(apart.admin, 'n-one', started.session_id, ['n one'], 'dora')
      apart.child.kill('SIGTERM')
      expect(await apart.ended).toBe(0)
      expect(ledger.asked.slice(-2).map(({ outcome }) => outcome)).toEqual(['recorded', 'recorded'])
      expect(await audit(home, ledger)).toEqual([])
    },
    HOURS,
  )

  it(
    'is not harmed by a checkpoint, and a start on it serves: it refuses with 507, and reads and records when there is space',
    async () => {
      const home = smallDisk(12)
      copyHome(join(folder, 'template'), home)
      const ledger = Ledger.after(template.ledger)
      const apart = await serveApart(home)
      await work(apart.admin, ledger)
      fill(home)
      await ledger.append(apart.admin, 'e-1', ledger.sessions[0] as string, ['e one'])
      apart.child.kill('SIGTERM')
      expect(await apart.ended).toBe(0)
      for (const views of ['kept', 'gone']) {
        if (views === 'gone') rmSync(join(home, 'projections'), { recursive: true })
        const free = fill(home)
        const again = await serveApart(home)
        const session = ledger.sessions[0] as string
        // What is written down of a read is little, and may find room where a record does not.
        expect([200, 507]).toContain((await again.admin.get(`/api/v1/sessions/${session}`)).status)
        await ledger.append(again.admin, `full-views-${views}`, session, [`${views} ${LONG}`])
        expect(ledger.asked.at(-1)).toMatchObject({ outcome: 'refused', answer: { status: 507, reason: 'not-recorded' } })
        free()
        await expect.poll(async () => (await again.admin.append(session, [said('room again')])).status).toBe(201)
        expect((await again.admin.get(`/api/v1/sessions/${session}`)).status).toBe(200)
        expect((await again.admin.get('/api/v1/users/ada/sessions')).body.sessions).toHaveLength(1)
        again.child.kill('SIGTERM')
        expect(await again.ended).toBe(0)
      }
      expect(await audit(home, ledger)).toEqual([])
    },
    HOURS,
  )
})
