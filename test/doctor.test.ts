// The doctor: what it finds in a data directory that something happened to, what it says of it, how it ends, and that it
// changes not one byte.

import {
  appendFileSync,
  chmodSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDatabase } from '../src/core/tables.ts'
import { type Header, printHeader, readHeader } from '../src/log/frame.ts'
import { journalOf, projectionOf } from '../src/log/shelf.ts'
import { doctorVerb } from '../src/verbs/doctor.ts'
import { copyOf, everyByte, jsonLines, type Recorded, recordedForDamage, verb } from './harming.ts'
import { cli, clockAt, type Json, makeHome, run, said, serveApart, sessionFile } from './harness.ts'

let recorded: Recorded
beforeAll(async () => {
  recorded = await recordedForDamage()
  const running = await run()
  const { session_id } = (await running.admin.start({ kind: 'therapy' })).body
  await running.stop()
  other = { session_id, log: readFileSync(sessionFile(running.home, session_id)) }
})
afterAll(() => recorded.remove())

/** What a first session of ada looks like in another data directory. */
let other: { session_id: string; log: Buffer }

interface Looked {
  code: number | null
  found: Json[]
  total: Json
}

/** What the doctor finds; asserts that nothing changed. */
async function looked(home: string, args: string[] = []): Promise<Looked> {
  const before = everyByte(home)
  const { code, out } = await verb(doctorVerb, home, ['--json', ...args])
  expect(everyByte(home)).toBe(before)
  const found = jsonLines(out)
  const total = found.pop()
  return { code, found, total }
}

const segment = (home: string) =>
  join(journalOf(home), readdirSync(journalOf(home)).find((name) => name.endsWith('.wal')) as string)

function change(file: string, at: number | string, bytes: string): void {
  const content = readFileSync(file)
  const from = typeof at === 'number' ? at : content.indexOf(at)
  expect(from).toBeGreaterThanOrEqual(0)
  Buffer.from(bytes, 'latin1').copy(content, from)
  writeFileSync(file, content)
}

const cutAfter = (file: string, lines: number) => {
  const content = readFileSync(file)
  let end = 0
  for (let i = 0; i < lines; i++) end = content.indexOf(10, end) + 1
  truncateSync(file, end)
}

type Harm = (home: string, made: { ada: string; bob: string; next: string }) => void
interface Case {
  what: string
  /** Which of the two directories is harmed. */
  in: 'stopped' | 'crashed'
  harm: Harm
  code: number
  finds: object
}

const views =
  (sql: string): Harm =>
  (home) => {
    const db = openDatabase(projectionOf(home)).unsafeMode()
    db.exec(sql)
    db.close()
  }

const cases: Case[] = [
  {
    what: 'a byte that was flipped in a log',
    in: 'stopped',
    harm: (home, { ada }) => change(sessionFile(home, ada), '"one"', '"onf"'),
    code: 3,
    finds: {
      check: 'log',
      level: 'lost',
      line: 2,
      what: expect.stringContaining('the hash does not follow'),
      do: expect.stringContaining('recover'),
    },
  },
  {
    what: 'a log that was cut at the end of a line',
    in: 'stopped',
    harm: (home, { ada }) => cutAfter(sessionFile(home, ada), 3),
    code: 3,
    finds: { check: 'log', level: 'lost', line: 4, what: 'Line 4: the log ends after 3 records, and it had 5.' },
  },
  {
    what: 'a log that is gone, and with it the number of a session',
    in: 'stopped',
    harm: (home, { ada }) => rmSync(sessionFile(home, ada)),
    code: 3,
    finds: {
      check: 'numbers',
      level: 'lost',
      what: expect.stringMatching(
        /^Of the sessions of ada, the highest has the number 2, and no log begins with 1: 1 session lost/,
      ),
    },
  },
  {
    what: 'a log that is gone, of which nothing tells but how many records the journal has counted',
    in: 'stopped',
    harm: (home, { bob }) => {
      rmSync(sessionFile(home, bob, 'bob'))
      rmSync(projectionOf(home))
    },
    code: 3,
    finds: { check: 'log', level: 'lost', what: expect.stringContaining('has counted 14 records, and the logs hold 12') },
  },
  {
    what: 'a last line that has no end',
    in: 'stopped',
    harm: (home, { bob }) => appendFileSync(sessionFile(home, bob, 'bob'), 'scribble'),
    code: 3,
    finds: { check: 'log', level: 'lost', line: 3, what: 'Line 3: the last line has no end.' },
  },
  {
    what: 'two sessions that are active at once',
    in: 'stopped',
    harm: (home, { ada }) => {
      cutAfter(sessionFile(home, ada), 4)
      rmSync(projectionOf(home))
    },
    code: 3,
    finds: { check: 'sessions', level: 'wrong', what: expect.stringContaining('2 capture sessions of ada are active at once') },
  },
  {
    what: 'a number that was given twice',
    in: 'stopped',
    harm: (home, { ada }) => {
      // Another life of this data directory had a first session of ada, too.
      mkdirSync(join(home, 'logs', 'users', 'ada', 'sessions'), { recursive: true })
      writeFileSync(sessionFile(home, other.session_id), other.log)
      expect(other.session_id).not.toBe(ada)
    },
    code: 1,
    finds: { check: 'numbers', level: 'wrong', what: expect.stringContaining('2 sessions of ada have the number 1') },
  },
  {
    what: 'a damaged frame of the journal, before others that prove it had been synced',
    in: 'crashed',
    harm: (home) => change(segment(home), 'three', 'THREE'),
    code: 3,
    finds: {
      check: 'journal',
      level: 'lost',
      what: expect.stringMatching(/^The journal is damaged from byte \d+ to byte \d+, in what had been acknowledged/),
      do: expect.stringContaining('recover'),
    },
  },
  {
    what: 'a damaged last frame, of which only the views know that it had been acknowledged',
    in: 'crashed',
    harm: (home) => change(segment(home), '"six"', '"SIX"'),
    code: 3,
    finds: { check: 'journal', level: 'lost' },
  },
  {
    what: 'a journal whose end was cut off, of which only the views know',
    in: 'crashed',
    harm: (home) =>
      truncateSync(segment(home), readFileSync(segment(home)).indexOf('FRAM', readFileSync(segment(home)).indexOf('"five"'))),
    code: 3,
    finds: { check: 'journal', level: 'lost' },
  },
  {
    what: 'a damaged header of a segment',
    in: 'stopped',
    harm: (home) => change(segment(home), 20, 'x'),
    code: 3,
    finds: { check: 'journal', level: 'lost', what: expect.stringContaining('The header of this segment') },
  },
  {
    what: 'a missing segment',
    in: 'stopped',
    harm: (home) => {
      const header = readHeader(readFileSync(segment(home))) as Header
      const next = { ...header, number: header.number + 1, first: header.first + 5 }
      writeFileSync(segment(home).replace(/\d+\.wal$/, `${String(next.number).padStart(6, '0')}.wal`), printHeader(next))
    },
    code: 3,
    finds: {
      check: 'journal',
      level: 'lost',
      what: expect.stringMatching(/^After this segment, 5 records of the journal are missing/),
    },
  },
  {
    what: 'a log whose file somebody wrote to while lines for it wait in the journal',
    in: 'crashed',
    harm: (home, { bob }) => appendFileSync(sessionFile(home, bob, 'bob'), 'scribble'),
    code: 3,
    finds: { check: 'log', level: 'lost', what: expect.stringContaining('differs from the journal at byte') },
  },
  {
    what: 'a folder in the place of a log for which lines wait in the journal',
    in: 'crashed',
    harm: (home, { bob }) => {
      rmSync(sessionFile(home, bob, 'bob'))
      mkdirSync(sessionFile(home, bob, 'bob'))
    },
    code: 3,
    finds: { check: 'log', level: 'lost', what: expect.stringContaining('something else stands where its file belongs') },
  },
  {
    what: 'acknowledged lines in the quarantine',
    in: 'stopped',
    harm: (home, { bob }) => quarantine(home, `users~bob~sessions~${bob}@5.lines`, 'what could not be placed\n'),
    code: 3,
    finds: { check: 'quarantine', level: 'lost', what: expect.stringContaining('could not be put into its file') },
  },
  {
    what: 'lines in the quarantine that their log has by now',
    in: 'stopped',
    harm: (home, { bob }) => quarantine(home, `users~bob~sessions~${bob}@0.lines`, readFileSync(sessionFile(home, bob, 'bob'))),
    code: 1,
    finds: { check: 'quarantine', level: 'wrong', what: expect.stringContaining('takes no more as long as this file lies here') },
  },
  {
    what: 'a torn end in the quarantine, which is harmless',
    in: 'stopped',
    harm: (home) => quarantine(home, 'torn-00000001-000001.wal', 'FRAM'),
    code: 0,
    finds: { check: 'quarantine', level: 'note', what: expect.stringContaining('of which nobody was told') },
  },
  {
    what: 'a file with a name that Sessile does not give',
    in: 'stopped',
    harm: (home) => writeFileSync(join(home, 'logs', 'users', 'ada', 'notes.txt'), 'x'),
    code: 1,
    finds: { check: 'files', level: 'wrong', what: expect.stringContaining('Sessile gives nothing such a name') },
  },
  {
    what: 'a symbolic link',
    in: 'stopped',
    harm: (home) => symlinkSync(makeHome(), join(home, 'logs', 'users', 'carl')),
    code: 1,
    finds: { check: 'files', level: 'wrong', what: expect.stringContaining('it is a symbolic link') },
  },
  {
    what: 'a folder where a file belongs',
    in: 'stopped',
    harm: (home) => mkdirSync(sessionFile(home, 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV')),
    code: 1,
    finds: { check: 'files', level: 'wrong', what: expect.stringContaining('it is a folder, where a file belongs') },
  },
  {
    what: 'a file where a folder belongs',
    in: 'stopped',
    harm: (home) => {
      renameSync(join(home, 'logs', 'accounts'), join(home, 'accounts'))
      writeFileSync(join(home, 'logs', 'accounts'), '')
    },
    code: 3,
    finds: { check: 'files', level: 'wrong', what: expect.stringContaining('it stands where a folder belongs') },
  },
  {
    what: 'views that are gone, which is harmless',
    in: 'stopped',
    harm: (home) => rmSync(projectionOf(home)),
    code: 0,
    finds: { check: 'views', level: 'note', what: 'There are no views.' },
  },
  {
    what: 'views that are no database',
    in: 'stopped',
    harm: (home) => writeFileSync(projectionOf(home), Buffer.alloc(40_000, 7)),
    code: 1,
    finds: { check: 'views', level: 'wrong', what: expect.stringContaining('cannot be read') },
  },
  {
    what: 'an index of the views that does not fit its table',
    in: 'stopped',
    harm: views(
      "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, '(kind, started_at, session_id)', '(kind, ended_at, session_id)')",
    ),
    code: 1,
    finds: { check: 'views', level: 'wrong', what: expect.stringContaining('database of the views is damaged') },
  },
  {
    what: 'views of another version',
    in: 'stopped',
    harm: views("UPDATE meta SET value = 'older' WHERE key = 'fingerprint'"),
    code: 0,
    finds: { check: 'views', level: 'note', what: 'The views were made by another version of Sessile.' },
  },
  {
    what: 'views of another life',
    in: 'stopped',
    harm: views("UPDATE meta SET value = 'ffff' WHERE key = 'journal'"),
    code: 0,
    finds: { check: 'views', level: 'note', what: 'The views belong to another life of this data directory.' },
  },
  {
    what: 'logs that others may read, and none that lie in a closed folder',
    in: 'stopped',
    harm: (home, { ada }) => {
      for (const folder of ['', 'logs', 'logs/accounts']) chmodSync(join(home, folder), 0o755)
      chmodSync(join(home, 'logs', 'accounts', 'admin.jsonl'), 0o644)
      chmodSync(sessionFile(home, ada), 0o644)
      chmodSync(projectionOf(home), 0o600)
    },
    code: 1,
    finds: {
      check: 'permissions',
      level: 'wrong',
      what: expect.stringMatching(/^Others than the owner may read or enter \S+\/logs, \S+\/accounts, \S+\/admin\.jsonl\. This is/),
      do: expect.stringContaining('chmod'),
    },
  },
]

function quarantine(home: string, name: string, content: string | Buffer): void {
  mkdirSync(join(journalOf(home), 'quarantine'), { recursive: true })
  writeFileSync(join(journalOf(home), 'quarantine', name), content)
}

describe('sessile doctor', () => {
  it('finds nothing wrong after a clean stop, and changes no byte', async () => {
    const home = copyOf(recorded.stopped)
    const before = everyByte(home)
    expect(await cli(home, ['doctor'])).toEqual({ code: 0, out: '', err: '14 records in 6 logs looked at: nothing is wrong.\n' })
    expect(everyByte(home)).toBe(before)
    const { found, total } = await looked(home)
    expect(found).toEqual([])
    expect(total).toEqual({ findings: 0, lost: 0, notes: 0, held_by: null, logs: 6, records: 14, bytes: expect.any(Number) })
  })

  it('does not take for damage what a crash left, and says what the next start will do with it', async () => {
    const home = copyOf(recorded.crashed)
    const bytes = readFileSync(segment(home))
    bytes.write('FRAM and then a crash', bytes.lastIndexOf(0x7d) + 2)
    writeFileSync(segment(home), bytes)
    writeFileSync(join(journalOf(home), 'holder.json'), '{"pid":1,"since":"2031-05-02T09:00:00.000Z"}')
    writeFileSync(join(journalOf(home), '00000000-000001.wal'), 'of a start that was cut off')
    const { code, found, total } = await looked(home)
    expect(code).toBe(0)
    expect(total).toMatchObject({ findings: 0, records: 14 })
    expect(found.map(({ level, what }) => `${level}: ${what}`)).toEqual([
      expect.stringMatching(/^note: The last recorder \(process 1, since 2031.*did not come to its end/),
      expect.stringMatching(/^note: The journal has a torn end of 21 bytes: writes that a crash cut off, of which nobody was told/),
      expect.stringMatching(/^note: The journal still holds 14 records, which the next start brings to their logs/),
      expect.stringMatching(/^note: A start that was cut off left this segment/),
    ])
    // And so it does.
    await (await run(home)).stop()
    expect((await looked(home)).found.map(({ check, level }) => `${check} ${level}`)).toEqual(['quarantine note'])
  })

  it.each(cases)('finds $what', async ({ in: which, harm, code, finds }) => {
    const home = copyOf(recorded[which])
    harm(home, recorded)
    const all = await looked(home)
    expect(all.found).toContainEqual(expect.objectContaining(finds))
    expect(all.code).toBe(code)
    for (const finding of all.found)
      expect(finding).toMatchObject({ what: expect.stringMatching(/\.$/), do: expect.stringMatching(/\S/) })
  })

  it('finds a lock that nobody can take, as a start says, too', async () => {
    const home = copyOf(recorded.stopped)
    const lock = join(journalOf(home), 'lock')
    writeFileSync(lock, Buffer.alloc(4096, 7))
    const { code, found } = await looked(home)
    expect(code).toBe(1)
    expect(found).toEqual([expect.objectContaining({ check: 'holder', level: 'wrong', file: lock })])
    const started = await cli(home, ['serve'], { SESSILE_PORT: '0' })
    expect(started).toMatchObject({
      code: 5,
      err: expect.stringMatching(/^sessile: The lock .* is damaged, .* then remove that file/),
    })
    rmSync(lock)
    expect((await looked(home)).found).toEqual([])
    await (await run(home)).stop()
  })

  it('finds a clock that is behind the last record', async () => {
    const home = makeHome()
    const running = await run(home, {}, clockAt('2099-05-02T09:00:00Z'))
    await running.admin.start()
    await running.stop()
    const { code, found } = await looked(home)
    expect(code).toBe(1)
    expect(found).toEqual([
      expect.objectContaining({ check: 'clock', what: expect.stringContaining('is of 2099-05-02T09:00:00.000Z') }),
    ])
  })

  it('finds a disk with less room than it should have, and takes a number of MiB for that', async () => {
    const home = copyOf(recorded.stopped)
    const [little, plenty, words] = [
      await looked(home, ['--least-free', '999999999999']),
      await looked(home, ['--least-free', '0']),
      await cli(home, ['doctor', '--least-free', 'much']),
    ]
    expect(little).toMatchObject({
      code: 1,
      found: [{ check: 'space', level: 'wrong', what: expect.stringContaining('MiB left') }],
    })
    expect(plenty).toMatchObject({ code: 0, found: [] })
    expect(words).toMatchObject({ code: 2, err: 'sessile: --least-free is a number of MiB\n' })
  })

  it('says in plain words what is wrong and what to do, and ends with 3 where something acknowledged was lost', async () => {
    const home = copyOf(recorded.stopped)
    const file = sessionFile(home, recorded.ada)
    change(file, '"one"', '"o\u009bf"')
    const { code, out, err } = await cli(home, ['doctor'])
    expect(code).toBe(3)
    expect(out).toContain(`LOST  ${file}: Line 2: the hash does not follow from the line and the one before it.\n      → `)
    expect(err).toMatch(/^14 records in 6 logs looked at: \d findings?, \d of them about what had been acknowledged\.\n$/)
  })

  it('puts nothing anywhere but in the data directory, and needs no temporary folder', async () => {
    const home = copyOf(recorded.crashed)
    const nowhere = join(makeHome(), 'not there')
    const { code, out } = await cli(home, ['doctor', '--json'], { TMPDIR: nowhere })
    expect(code).toBe(0)
    expect(jsonLines(out)).not.toContainEqual(expect.objectContaining({ check: 'views' }))
    expect(existsSync(nowhere)).toBe(false)
  })

  it('does all else where nothing can be written, and says that it could not look at the views', async () => {
    const home = copyOf(recorded.stopped)
    const before = everyByte(home)
    const full = ['sh', '-c', 'ulimit -f 0; exec "$@"', 'sh']
    const { code, out } = await cli(home, ['doctor', '--json'], {}, full)
    expect(code).toBe(1)
    const [finding, total, ...more] = jsonLines(out)
    expect(finding).toEqual({
      check: 'views',
      level: 'wrong',
      what: expect.stringMatching(
        /^The views could not be looked at \(.+\), nor what they know of where each log ends\. All else was\.$/,
      ),
      do: expect.stringMatching(/^Make room on their disk/),
    })
    expect([total, more]).toEqual([expect.objectContaining({ findings: 1, lost: 0, logs: 6, records: 14 }), []])
    expect(everyByte(home)).toBe(before)
  })

  it('that was killed while it looked at the views leaves them one name more, which the next start takes away', async () => {
    const home = copyOf(recorded.stopped)
    const look = `${projectionOf(home)}.look-4711`
    mkdirSync(look)
    linkSync(projectionOf(home), join(look, 'sessile.db'))
    expect((await looked(home)).found).toEqual([])
    await (await run(home)).stop()
    expect(readdirSync(dirname(look)).filter((name) => name.includes('look'))).toEqual([])
  })

  it('follows no link to views that lie elsewhere', async () => {
    const home = copyOf(recorded.stopped)
    const elsewhere = makeHome()
    renameSync(projectionOf(home), join(elsewhere, 'sessile.db'))
    symlinkSync(join(elsewhere, 'sessile.db'), projectionOf(home))
    const { found } = await looked(home)
    expect(found).toEqual([
      expect.objectContaining({
        check: 'views',
        level: 'wrong',
        what: expect.stringContaining('what stands in their place is no file'),
      }),
    ])
    expect(readdirSync(elsewhere)).toEqual(['sessile.db'])
  })

  it('makes no data directory, and says that there is none', async () => {
    const home = makeHome()
    expect(await cli(home, ['doctor'])).toEqual({ code: 1, out: '', err: `sessile: There is no data in ${home}.\n` })
    expect(readdirSync(home)).toEqual([])
  })

  it('reports nothing of what is merely on its way while a recorder is at work, and what is wrong all the same', async () => {
    const home = makeHome()
    const { child, url, admin } = await serveApart(home)
    const { session_id: ended } = (await admin.start({ user_id: 'bob' })).body
    await admin.append(ended, said('words', { user_id: 'bob' }))
    await admin.end({ user_id: 'bob', session_id: ended })
    let stop = false
    const speaking = Array.from({ length: 4 }, async (_, i) => {
      const user_id = `user-${i}`
      while (!stop) {
        const { session_id } = (await admin.start({ user_id })).body
        await admin.append(session_id, [said('one', { user_id }), said('two', { user_id })])
        await admin.end({ user_id, session_id })
      }
    })
    const well = await cli(home, ['doctor', '--json'])
    const file = sessionFile(home, ended, 'bob')
    await expect.poll(() => existsSync(file)).toBe(true)
    change(file, '"words"', '"wordz"')
    stop = true
    await Promise.all(speaking)
    const harmed = await verb(doctorVerb, home, ['--json'])
    expect(well.code).toBe(0)
    const [total, ...others] = jsonLines(well.out).reverse()
    expect(others).toEqual([])
    expect(total).toMatchObject({ findings: 0, held_by: { pid: child.pid, since: expect.any(String), url } })
    expect(total.logs).toBeGreaterThan(4)
    expect(well.out).not.toContain('token')
    expect(harmed.code).toBe(3)
    expect(jsonLines(harmed.out).slice(0, -1)).toEqual([expect.objectContaining({ check: 'log', level: 'lost', file })])
  })

  it('looks again before it tells of a line that a recorder was just writing', async () => {
    const { home, admin, sessile } = await run()
    const { session_id } = (await admin.start()).body
    sessile.log.settle()
    const file = sessionFile(home, session_id)
    const whole = readFileSync(file)
    appendFileSync(file, '{"record_id":')
    // Due before the second look, however long the first one takes.
    setTimeout(() => writeFileSync(file, whole), 350)
    const { code, out } = await verb(doctorVerb, home, ['--json'])
    expect(jsonLines(out)).toEqual([expect.objectContaining({ findings: 0 })])
    expect(code).toBe(0)
  })

  it('says who holds the data where the holder does not answer', async () => {
    const home = makeHome()
    const { child, url } = await serveApart(home)
    child.kill('SIGSTOP')
    try {
      const { code, found } = await looked(home)
      expect(code).toBe(1)
      expect(found).toEqual([
        {
          check: 'holder',
          level: 'wrong',
          what: expect.stringMatching(
            new RegExp(`^Process ${child.pid} holds the data since .*, serves on ${url}, and does not answer within a second\\.$`),
          ),
          do: expect.stringContaining(`kill -CONT ${child.pid}`),
        },
      ])
    } finally {
      child.kill('SIGCONT')
    }
  })
})
