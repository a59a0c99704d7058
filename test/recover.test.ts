// Recovering: what of a damaged data directory comes out whole in a new one, what is told of the rest, and that the source
// is only read. How much random harm is done: SESSILE_TEST_DAMAGES; from where: SESSILE_TEST_SEED.

import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { TOTP } from 'otpauth'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { journalOf, projectionOf } from '../src/log/shelf.ts'
import { rebuildVerb } from '../src/verbs/rebuild.ts'
import { recoverVerb } from '../src/verbs/recover.ts'
import { copyOf, drawing, everyByte, harm, jsonLines, place, type Recorded, recordedForDamage, verb } from './harming.ts'
import { Client, cli, crashedCopy, filesUnder, makeHome, PASSWORD, run, said, serveApart, sessionFile } from './harness.ts'
import { recovered } from './recovered.ts'

let made: Recorded
beforeAll(async () => {
  made = await recordedForDamage()
})
afterAll(() => made.remove())

const segment = (home: string) =>
  join(journalOf(home), readdirSync(journalOf(home)).find((name) => name.endsWith('.wal')) as string)
const log = (session_id: string, user_id = 'ada') => `users/${user_id}/sessions/${session_id}`
const lines = (name: string) => made.truth.get(`${name}.jsonl`) as string[]

/** Bytes that nothing can bring back. */
function spoil(file: string, from: number, length: number): void {
  const bytes = readFileSync(file)
  expect(bytes.length).toBeGreaterThanOrEqual(from + length)
  bytes.fill('#', from, from + length)
  writeFileSync(file, bytes)
}

function flip(file: string, at: number): void {
  const bytes = readFileSync(file)
  bytes[at] = (bytes[at] as number) ^ 4
  writeFileSync(file, bytes)
}

/** Where a line begins in its file. */
const offsetOf = (name: string, line: number) =>
  Buffer.byteLength(
    lines(name)
      .slice(0, line - 1)
      .map((text) => `${text}\n`)
      .join(''),
  )

describe('sessile recover', () => {
  it('takes a whole directory over as it is, byte for byte, and the new one serves', async () => {
    const home = copyOf(made.stopped)
    mkdirSync(join(home, 'logs', 'users', 'ada', 'artifacts'))
    writeFileSync(join(home, 'logs', 'users', 'ada', 'artifacts', 'voice-1.wav'), 'RIFF')
    const to = place()
    expect(await cli(home, ['recover', '--to', to])).toEqual({
      code: 0,
      out: '',
      err: `14 records in 6 logs salvaged into ${to}: nothing is lost.\n`,
    })
    const own = (folder: string) => filesUnder(join(folder, 'logs')).filter((file) => !file.startsWith('.journal'))
    expect(own(to)).toEqual(own(home))
    for (const file of own(home)) expect(readFileSync(join(to, 'logs', file))).toEqual(readFileSync(join(home, 'logs', file)))
    expect(existsSync(join(to, 'salvage'))).toBe(false)
    expect((await verb(rebuildVerb, to, ['--check'])).code).toBe(0)
    const running = await run(to)
    expect((await running.admin.get(`/api/v1/sessions/${made.ada}`)).body.transcript).toHaveLength(3)
    expect((await running.admin.append(made.next, said('more'))).body.seq).toBe(4)
    expect((await running.admin.start({ kind: 'therapy' })).body.session_number).toBe(3)
  })

  it('brings what a crash left in the journal to its log, and leaves out what nobody was told of', async () => {
    const home = copyOf(made.crashed)
    const bytes = readFileSync(segment(home))
    bytes.write('FRAM and then a crash', bytes.lastIndexOf(0x7d) + 2)
    writeFileSync(segment(home), bytes)
    const { code, told, missing } = await recovered(home, made.truth)
    expect({ code, missing }).toEqual({ code: 0, missing: 0 })
    expect(told).toEqual([
      expect.objectContaining({ level: 'note', file: segment(home), what: expect.stringMatching(/^A crash tore these writes/) }),
    ])
  })

  it('joins a log whose beginning is in its file alone, and whose end is in the journal alone', async () => {
    const running = await run(copyOf(made.stopped))
    await running.admin.append(made.next, said('more'))
    running.sessile.log.settle()
    const home = crashedCopy(running.home)
    const file = sessionFile(home, made.next)
    const whole = readFileSync(file, 'utf8').split('\n').slice(0, -1)
    truncateSync(file, offsetOf(log(made.next), 4))
    const { code, missing } = await recovered(home, new Map([...made.truth, [`${log(made.next)}.jsonl`, whole]]))
    expect({ code, missing, lines: whole.length }).toEqual({ code: 0, missing: 0, lines: 4 })
  })

  it('puts one byte back wherever it was changed in a line, and says that the seal proves it', async () => {
    const name = log(made.ada)
    const line = Buffer.from(`${lines(name)[1]}\n`)
    // In the envelope, in what was said, in the salt, in the hash, and the newline itself.
    for (const at of [2, 60, line.indexOf('one'), line.length - 80, line.length - 20, line.length - 1]) {
      const home = copyOf(made.stopped)
      flip(sessionFile(home, made.ada), offsetOf(name, 2) + at)
      const { code, told, missing } = await recovered(home, made.truth)
      expect({ at, code, missing }).toEqual({ at, code: 0, missing: 0 })
      expect(told).toContainEqual({
        level: 'mended',
        log: name,
        file: sessionFile(home, made.ada),
        line: 2,
        what: `One byte of line 2 was wrong, at byte ${offsetOf(name, 2) + at}. It was put back, and the seal proves it.`,
      })
    }
  })

  it('keeps what is before a damaged line in its log, and what follows beside it, byte for byte', async () => {
    const home = copyOf(made.stopped)
    const [name, file] = [log(made.next), sessionFile(home, made.next)]
    spoil(file, offsetOf(name, 2) + 100, 40)
    const { to, code, told, after } = await recovered(home, made.truth)
    expect(code).toBe(3)
    expect(after.get(`${name}.jsonl`)).toEqual(lines(name).slice(0, 1))
    const kept = join(to, 'salvage', `${name}.rest`)
    expect(readFileSync(kept)).toEqual(readFileSync(file).subarray(offsetOf(name, 2)))
    const [from, end] = [offsetOf(name, 2), offsetOf(name, 3)]
    expect(told).toEqual([
      {
        level: 'lost',
        log: name,
        file,
        line: 2,
        from,
        to: end,
        kept,
        what: expect.stringMatching(/^It cannot be told what stood here: the hash does not follow/),
      },
      {
        level: 'lost',
        log: name,
        file,
        line: 3,
        from: end,
        to: readFileSync(file).length,
        kept,
        what: 'What goes before it is lost, so that no seal proves it.',
      },
      {
        level: 'lost',
        log: name,
        file,
        line: 2,
        what: '1 of 3 records could be saved: the log ends before 2 records that had been acknowledged.',
      },
      { level: 'lost', what: expect.stringContaining('has counted 14 records, and here are 12') },
    ])
    expect(jsonLines(readFileSync(join(to, 'salvage', 'report.jsonl'), 'utf8'))).toEqual(told)
    expect((await verb(rebuildVerb, to, ['--check'])).code).toBe(0)
    const running = await run(to)
    expect((await running.admin.append(made.next, said('after'))).body.seq).toBe(2)
  })

  it('ends a session anew whose end is lost, where another one began after it', async () => {
    const home = copyOf(made.stopped)
    const name = log(made.ada)
    spoil(sessionFile(home, made.ada), offsetOf(name, 5) + 60, 30)
    const { to, code, told, after } = await recovered(home, made.truth)
    expect(code).toBe(3)
    expect(told).toContainEqual(
      expect.objectContaining({ level: 'note', log: name, what: expect.stringContaining(`${made.next} began after it`) }),
    )
    expect(JSON.parse(after.get(`${name}.jsonl`)?.at(-1) as string)).toMatchObject({
      seq: 5,
      type: 'session.ended',
      performer_id: 'system',
    })
    expect(after.get(`${log(made.next)}.jsonl`)).toEqual(lines(log(made.next)))
    expect((await verb(rebuildVerb, to, ['--check'])).code).toBe(0)
    const { admin } = await run(to)
    expect((await admin.get('/api/v1/sessions')).body.sessions.map(({ status }: { status: string }) => status).sort()).toEqual([
      'active',
      'active',
      'closed',
    ])
  })

  it('says which session is lost as a whole, and that its number may come again', async () => {
    const home = copyOf(made.stopped)
    const name = log(made.next)
    spoil(sessionFile(home, made.next), 50, 60)
    const { code, told, after } = await recovered(home, made.truth)
    expect(code).toBe(3)
    expect(after.has(`${name}.jsonl`)).toBe(false)
    expect(told).toContainEqual({
      level: 'lost',
      log: name,
      what: expect.stringMatching(
        /^The capture session 2 of ada, begun at .*Z, is lost as a whole\. The next session of ada would get a number that was given already\.$/,
      ),
    })
  })

  it('revokes a key again whose revocation is lost', async () => {
    const home = copyOf(made.stopped)
    const file = join(home, 'logs', 'accounts', 'device-7.jsonl')
    truncateSync(file, readFileSync(file).indexOf(10) + 1)
    const { to, code, told } = await recovered(home, made.truth)
    expect(code).toBe(3)
    expect(told).toContainEqual({
      level: 'note',
      what: expect.stringMatching(/^The key key_\w+ had been revoked, and that record is lost: it has been revoked again\.$/),
    })
    const running = await run(to)
    expect((await new Client(running.url, made.secret).get('/api/v1/sessions')).status).toBe(401)
  })

  it('shuts again what was shut for people, where that is lost: an account, a role, a password, a second factor, an assignment', async () => {
    const running = await run()
    const [ada, bob, eve] = [
      await running.admin.account({ role: 'therapist', account_id: 'ada' }),
      await running.admin.account({ role: 'admin', account_id: 'bob' }),
      await running.admin.account({ account_id: 'eve' }),
    ]
    const carl = await running.admin.account({ account_id: 'carl' })
    const { secret } = (await carl.post('/api/v1/account/totp', { password: PASSWORD })).body
    await carl.post('/api/v1/account/totp/confirm', { code: new TOTP({ secret }).generate() })
    const thea = await running.admin.account({ role: 'therapist', account_id: 'thea' })
    const assign = { therapist_id: 'thea', user_id: 'eve', relationship_type: 'primary' }
    const { assignment_id } = (await running.admin.post('/api/v1/assignments', assign)).body
    await running.admin.post(`/api/v1/assignments/${assignment_id}/end`, {})
    await running.admin.post('/api/v1/accounts/ada/deactivate', {})
    await running.admin.post('/api/v1/accounts/bob/role', { role: 'analyst' })
    await eve.post('/api/v1/account/password', { password: PASSWORD, new_password: 'since somebody looked over it' })
    await running.stop()
    for (const account_id of ['ada', 'bob', 'carl', 'eve', 'thea']) {
      const file = join(running.home, 'logs', 'accounts', `${account_id}.jsonl`)
      truncateSync(file, readFileSync(file).lastIndexOf(10, -2) + 1)
    }
    const to = place()
    const { code, out } = await verb(recoverVerb, running.home, ['--to', to, '--json'])
    expect(code).toBe(3)
    const notes = jsonLines(out).flatMap(({ level, what }) => (level === 'note' ? [what.replace(/,.*/, '')] : []))
    expect(notes.sort()).toEqual([
      'The account ada had been deactivated',
      'The account bob had been deactivated',
      'The account carl had been deactivated',
      'The account eve had been deactivated',
      `The assignment ${assignment_id} had ended`,
    ])
    const again = await run(to)
    for (const { name } of [ada, bob, carl, eve])
      expect((await again.anyone.post('/api/v1/sign-in', { name, password: PASSWORD })).status).toBe(401)
    const same = await again.anyone.signIn(thea.name)
    expect((await same.get('/api/v1/users/eve/sessions')).status).toBe(403)
    expect((await again.admin.post('/api/v1/accounts/ada/reactivate', {})).status).toBe(200)
    expect((await again.anyone.signIn(ada.name)).account_id).toBe('ada')
  })

  it('reads on behind a damaged frame of the journal, and without the header of a segment', async () => {
    const harms: ((bytes: Buffer) => void)[] = [
      (bytes) => bytes.fill('#', bytes.indexOf('three'), bytes.indexOf('three') + 30),
      (bytes) => bytes.fill('#', 0, 80),
      (bytes) => bytes.fill('#', 20, 24),
    ]
    for (const spoiled of harms) {
      const home = copyOf(made.crashed)
      const bytes = readFileSync(segment(home))
      spoiled(bytes)
      writeFileSync(segment(home), bytes)
      const { code, told, missing } = await recovered(home, made.truth)
      expect({ code, missing }).toEqual({ code: 0, missing: 0 })
      expect(told).toContainEqual(expect.objectContaining({ level: 'mended', file: segment(home) }))
    }
  })

  it('puts a line back that is in a damaged frame of the journal and nowhere else', async () => {
    const whole = readFileSync(segment(made.crashed))
    const frame = whole.lastIndexOf('FRAM')
    // In its CRC, its lengths, the name of the log, the line's first letters, its words, and its end.
    for (const at of [5, 9, 12, 45, 120, whole.indexOf('six') - frame, whole.lastIndexOf(0x7d) + 1 - frame]) {
      const home = copyOf(made.crashed)
      flip(segment(home), frame + at)
      const { code, missing } = await recovered(home, made.truth)
      expect({ at, code, missing }).toEqual({ at, code: 0, missing: 0 })
    }
    const home = copyOf(made.crashed)
    spoil(segment(home), whole.indexOf('"six"'), 20)
    const { code, told, missing } = await recovered(home, made.truth)
    expect({ code, missing }).toEqual({ code: 3, missing: 1 })
    expect(told).toContainEqual(
      expect.objectContaining({
        level: 'lost',
        file: segment(home),
        what: expect.stringContaining('1 record did not turn up elsewhere'),
      }),
    )
  })

  it('joins what lies in the quarantine to its log, and leaves torn ends there', async () => {
    const home = copyOf(made.crashed)
    const file = sessionFile(home, made.bob, 'bob')
    appendFileSync(file, 'scribble')
    await (await run(home)).stop()
    const quarantine = join(journalOf(home), 'quarantine')
    expect(readdirSync(quarantine)).toEqual([expect.stringContaining(made.bob)])
    writeFileSync(join(quarantine, 'torn-00000001-000001.wal'), 'FRAM')
    const { code, told, missing } = await recovered(home, made.truth)
    expect(missing).toBe(0)
    expect(code).toBe(0)
    expect(told).toContainEqual(expect.objectContaining({ level: 'note', file: join(quarantine, 'torn-00000001-000001.wal') }))
    expect(told).toContainEqual(
      expect.objectContaining({ log: log(made.bob, 'bob'), level: 'mended', what: expect.stringContaining('or not of this log') }),
    )
  })

  it('tells of logs that are gone by how many records the journal has counted', async () => {
    const home = copyOf(made.stopped)
    rmSync(projectionOf(home))
    rmSync(sessionFile(home, made.bob, 'bob'))
    const { code, told } = await recovered(home, made.truth)
    expect(code).toBe(3)
    expect(told).toEqual([
      { level: 'lost', what: expect.stringMatching(/has counted 14 records, and here are 12: at least 2 cannot be had/) },
    ])
  })

  it('works without views, and follows no link', async () => {
    const home = copyOf(made.stopped)
    rmSync(projectionOf(home))
    const file = sessionFile(home, made.ada)
    renameSync(file, join(home, 'elsewhere.jsonl'))
    symlinkSync(join(home, 'elsewhere.jsonl'), file)
    const to = place()
    const { code, out } = await verb(recoverVerb, home, ['--to', to])
    expect(code).toBe(3)
    expect(out).toContain(`note   ${file}: It was left where it is: it is a symbolic link`)
    expect(existsSync(sessionFile(to, made.ada))).toBe(false)
    expect(existsSync(sessionFile(to, made.next))).toBe(true)
  })

  it('refuses a target that is not empty, or lies within the source or around it, and makes nothing there', async () => {
    const home = copyOf(made.stopped)
    const full = makeHome()
    writeFileSync(join(full, 'mine'), 'x')
    const before = everyByte(home)
    const refusal = (to: string, from = home) => verb(recoverVerb, from, ['--to', to]).then(String, (error: Error) => error.message)
    expect(await refusal(full)).toBe(`${full} is not empty: recover into a new directory.`)
    expect(await refusal(join(full, 'mine'))).toBe(`${join(full, 'mine')} is not a directory.`)
    symlinkSync(home, join(full, 'link'))
    for (const within of [
      home,
      join(home, 'new'),
      join(home, '..', home.split('/').at(-1) as string, 'logs', 'new'),
      join(full, 'link', 'new'),
    ])
      expect(await refusal(within)).toContain('lie within each other')
    const inner = join(makeHome(), 'inner')
    renameSync(copyOf(made.stopped), inner)
    expect(await refusal(join(inner, '..'), inner)).toContain('lie within each other')
    expect(everyByte(home)).toBe(before)
    expect(readdirSync(full).sort()).toEqual(['link', 'mine'])
  })

  it('refuses a directory that is held, one without data, and a call without a target', async () => {
    const home = makeHome()
    const { child } = await serveApart(home)
    const to = place()
    const [held, none, words] = await Promise.all([
      cli(makeHome(), ['recover', '--from', home, '--to', to]),
      cli(makeHome(), ['recover', '--to', to]),
      cli(home, ['recover']),
    ])
    expect(held).toMatchObject({ code: 4, out: '', err: expect.stringContaining(`is held by process ${child.pid}`) })
    expect(none).toMatchObject({ code: 1, out: '', err: expect.stringContaining('There is no data in') })
    expect(words).toEqual({ code: 2, out: '', err: 'sessile: --to names the new directory\n' })
    expect(existsSync(to)).toBe(false)
  })

  it('saves all that can be saved whatever is harmed, and tells the rest', async () => {
    const { first, many } = {
      first: Number(process.env.SESSILE_TEST_SEED ?? 1),
      many: Number(process.env.SESSILE_TEST_DAMAGES ?? 6),
    }
    for (let seed = first; seed < first + many; seed++) {
      const draw = drawing(seed)
      const home = copyOf(draw(2) === 0 ? made.stopped : made.crashed)
      const harms = [harm(home, draw), ...(draw(3) === 0 ? [harm(home, draw)] : [])]
      const done = await recovered(home, made.truth).catch((error: Error) => {
        throw new Error(`seed ${seed}: ${JSON.stringify(harms)}: ${error.message}`, { cause: error })
      })
      rmSync(home, { recursive: true })
      expect({ seed, ...done }).toMatchObject({ seed, total: { lost: expect.any(Number) } })
    }
  })
})
