// The verbs of the command line, run as anyone runs them: what they print, where, and how they end. Serving has a file of
// its own (serve.test.ts).

import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { buffer, text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { genesis, SEAL_LENGTH, seal } from '../src/core/seal.ts'
import { openDatabase } from '../src/core/tables.ts'
import { erase } from './backups.ts'
import {
  Client,
  cli,
  clockAt,
  copyHome,
  filesUnder,
  type Json,
  makeHome,
  run,
  said,
  serveApart,
  sessionFile,
  trailOf,
} from './harness.ts'

const BIN = new URL('../src/sessile.cjs', import.meta.url).pathname
const NO_SUCH = 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'

/** Standard output as the bytes it is. */
async function bytesOf(home: string, args: string[]): Promise<Buffer> {
  const child = spawn(process.execPath, [BIN, ...args], {
    env: { ...process.env, SESSILE_HOME: home },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [bytes] = await Promise.all([buffer(child.stdout), once(child, 'close')])
  return bytes
}

const jsonLines = (out: string): Json[] =>
  out
    .trimEnd()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Json)

const wholeLines = (file: string) =>
  readFileSync(file, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map((line) => `${line}\n`)

const template = mkdtempSync(join(tmpdir(), 'sessile-'))
let made: { ada: string; bob: string; later: string }
afterAll(() => rmSync(template, { recursive: true }))

/** Two sessions of ada and one of bob, a second between any two records, and nobody serving any more. */
beforeAll(async () => {
  const clock = clockAt('2031-05-02T09:00:00Z')
  const { admin, stop } = await run(template, {}, clock)
  const start = async (more: object): Promise<string> => {
    clock.move(1)
    return (await admin.start(more)).body.session_id
  }
  const say = async (session_id: string, words: string, user_id = 'ada') => {
    clock.move(1)
    expect((await admin.append(session_id, said(words, { user_id }))).status).toBe(201)
  }
  const ada = await start({})
  const bob = await start({ user_id: 'bob', kind: 'voice' })
  await say(ada, 'one')
  await say(bob, 'two', 'bob')
  await say(ada, 'three')
  clock.move(1)
  await admin.end({ session_id: ada })
  made = { ada, bob, later: await start({ kind: 'therapy' }) }
  await say(bob, 'four', 'bob')
  await stop()
})

function recorded() {
  const home = makeHome()
  copyHome(template, home)
  return { home, ...made, file: sessionFile(home, made.ada), clock: clockAt('2031-05-02T09:00:08Z') }
}

describe('sessile keys', () => {
  it('makes, lists and revokes keys while nobody serves', async () => {
    const home = makeHome()
    const made = await cli(home, ['keys', 'create', '--account', 'device-7', '--users', 'ada,bob', '--name', 'the one at the door'])
    expect(made).toMatchObject({ code: 0, out: expect.stringMatching(/^sessile_[\w-]{43}\n$/) })
    const [key_id = ''] = /key_[0-9A-Z]{26}/.exec(made.err) ?? []
    expect(made.err).toBe(`Made ${key_id} for device-7. The key is shown this once:\n`)
    const listed = await cli(home, ['keys', 'list'])
    expect(listed).toEqual({ code: 0, out: `${key_id}\tdevice-7\tdevice\tada,bob\t-\tworks\tthe one at the door\n`, err: '' })

    const running = await run(home)
    const device = new Client(running.url, made.out.trim())
    expect((await device.start()).status).toBe(201)
    expect((await device.start({ user_id: 'carl' })).status).toBe(403)
    await running.stop()

    expect(await cli(home, ['keys', 'revoke', key_id])).toEqual({
      code: 0,
      out: '',
      err: `The key ${key_id} opens nothing any more.\n`,
    })
    const [preset, own] = jsonLines((await cli(home, ['keys', 'list', '--json'])).out)
    expect(preset).toMatchObject({ account_id: 'admin', role: 'admin', users: 'all', system: true, revoked_at: null })
    expect(own).toMatchObject({ key_id, account_id: 'device-7', users: ['ada', 'bob'], revoked_at: expect.stringMatching(/Z$/) })
    expect((await cli(home, ['keys'])).out).toContain(`revoked ${own.revoked_at}`)
    expect(await cli(home, ['keys', 'revoke', key_id])).toEqual({
      code: 1,
      out: '',
      err: 'sessile: The key has already been revoked.\n',
    })
    expect(existsSync(join(home, 'logs', '.journal', 'holder.json'))).toBe(false)
  })

  it('makes keys that open the running server at once, and closes it to those it revokes', async () => {
    const { home, url, admin } = await run()
    const made = await cli(home, ['keys', 'create', '--account', 'device-7', '--users', 'ada', '--json'])
    const { secret, ...key } = JSON.parse(made.out)
    expect(key).toMatchObject({ account_id: 'device-7', role: 'device', users: ['ada'], system: false, name: null })
    expect(made).toMatchObject({ code: 0, err: '' })
    const device = new Client(url, secret)
    const { body } = await device.start()
    expect((await device.start({ user_id: 'bob' })).status).toBe(403)
    expect((await device.get('/api/v1/keys')).status).toBe(403)
    expect((await cli(home, ['keys', 'list'])).out).toContain(`${key.key_id}\tdevice-7\tdevice\tada\t-\tworks`)
    const revoked = await cli(home, ['keys', 'revoke', key.key_id, '--json'])
    expect(JSON.parse(revoked.out)).toMatchObject({ type: 'key.revoked', key_id: key.key_id, performer_id: 'operator' })
    expect(await device.end({ session_id: body.session_id })).toMatchObject({ status: 401, body: { reason: 'unauthenticated' } })
    expect((await admin.get('/api/v1/keys')).body.keys[0]).toMatchObject({ key_id: key.key_id, revoked_at: expect.any(String) })
    expect((await cli(home, ['keys', 'list', '--json'])).out).not.toContain(secret)
  })

  it('gives an admin, all users and the system’s name to those it is told to', async () => {
    const { home, url } = await run()
    const [admin, device] = await Promise.all([
      cli(home, ['keys', 'create', '--account', 'mina', '--role', 'admin']),
      cli(home, ['keys', 'create', '--account', 'clock', '--all-users', '--system']),
    ])
    expect((await new Client(url, admin.out.trim()).get('/api/v1/keys')).body.keys).toHaveLength(3)
    const clock = new Client(url, device.out.trim())
    expect((await clock.start({ user_id: 'anyone', performer_id: 'system' })).body.performer_id).toBe('system')
  })

  it('refuses what does not fit and says where, whether or not a server runs', async () => {
    const home = makeHome()
    const account = await cli(home, ['keys', 'create', '--account', '../x', '--users', 'ada'])
    const running = await run(home)
    const [online, scope, role, unknown] = await Promise.all([
      cli(home, ['keys', 'create', '--account', '../x', '--users', 'ada']),
      cli(home, ['keys', 'create', '--account', 'device-7']),
      cli(home, ['keys', 'create', '--account', 'device-7', '--users', 'ada', '--role', 'king']),
      cli(home, ['keys', 'revoke', 'key_unknown']),
    ])
    expect(account).toMatchObject({
      code: 1,
      out: '',
      err: expect.stringMatching(/^sessile: The input does not fit\. account_id: .*\n$/),
    })
    expect(online).toEqual(account)
    expect(scope).toEqual({ code: 1, out: '', err: 'sessile: A device’s key names the users in its scope, or all.\n' })
    expect(role).toMatchObject({ code: 1, out: '', err: expect.stringContaining('role: ') })
    expect(unknown).toEqual({ code: 1, out: '', err: 'sessile: There is no such key.\n' })
    expect((await running.admin.get('/api/v1/keys')).body.keys).toHaveLength(1)
  })

  it('shows a key’s name on one line, whatever is in it', async () => {
    const { home, admin } = await run()
    await admin.device({ users: 'all', name: 'a\u001b[2Jb\nc\u009bd' })
    const { out } = await cli(home, ['keys', 'list'])
    expect(out.split('\n')[0]).toMatch(/\ta\\u001b\[2Jb\\u000ac\\u009bd$/)
  })
})

describe('sessile info', () => {
  it('tells what is there, and who holds it', async () => {
    const { home } = recorded()
    const free = await cli(home, ['info', '--json'])
    expect(free).toMatchObject({ code: 0, err: '' })
    const logs = filesUnder(join(home, 'logs')).filter((file) => file.endsWith('.jsonl'))
    expect(JSON.parse(free.out)).toMatchObject({
      home,
      held_by: null,
      journal: { segments: 1, bytes: 80, quarantined: 0 },
      views: { last_record: '2031-05-02T09:00:08.000Z' },
      users: 2,
      sessions: [
        { kind: 'capture', status: 'closed', n: 1 },
        { kind: 'therapy', status: 'active', n: 1 },
        { kind: 'voice', status: 'active', n: 1 },
      ],
      records: 9,
      bytes: logs.reduce((sum, file) => sum + readFileSync(join(home, 'logs', file)).length, 0),
    })
    const apart = await serveApart(home, { SESSILE_IDLE_SECONDS: '0', SESSILE_LONGEST_SECONDS: '0' })
    const [held, lines] = await Promise.all([cli(home, ['info', '--json']), cli(home, ['info'])])
    expect(JSON.parse(held.out).held_by).toEqual({ pid: apart.child.pid, since: expect.stringMatching(/Z$/), url: apart.url })
    expect(lines.out).toContain(`held by   process ${apart.child.pid} since `)
    expect(lines.out).toContain('sessions  1 capture closed, 1 therapy active, 1 voice active\n')
    expect(lines.out + held.out).not.toMatch(/ada|bob|token/)
  })

  it('works where the views are gone or no views at all', async () => {
    const { home } = recorded()
    writeFileSync(
      join(home, 'projections', 'sessile.db'),
      'this is no database, and it is long enough to be read as one'.repeat(20),
    )
    const damaged = await cli(home, ['info'])
    expect(damaged).toMatchObject({
      code: 0,
      out: expect.stringContaining('views     none'),
      err: expect.stringContaining('cannot be read'),
    })
    rmSync(join(home, 'projections'), { recursive: true })
    expect(await cli(home, ['info'])).toMatchObject({ code: 0, out: expect.stringContaining('views     none'), err: '' })
  })
})

describe('sessile cat', () => {
  it('prints the very bytes of a session’s log, and of all logs of a user', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    const words = 'Grüße, 会议, 🜂 — '.repeat(500)
    for (let i = 0; i < 20; i++) await running.admin.append(body.session_id, said(`${i} ${words}`))
    await running.admin.start({ kind: 'therapy' })
    await running.admin.start({ user_id: 'adam' })
    running.sessile.log.settle()
    const folder = join(running.home, 'logs', 'users', 'ada')
    const [session, user] = await Promise.all([
      bytesOf(running.home, ['cat', body.session_id]),
      bytesOf(running.home, ['cat', '--user', 'ada']),
    ])
    expect(session.length).toBeGreaterThan(200_000)
    expect(session.equals(readFileSync(sessionFile(running.home, body.session_id)))).toBe(true)
    expect(user.equals(Buffer.concat(filesUnder(folder).map((file) => readFileSync(join(folder, file)))))).toBe(true)
  })

  it('tells a session in sentences, and shows control characters instead of obeying them', async () => {
    const { home, ada, file } = recorded()
    expect((await cli(home, ['cat', ada, '--says'])).out).toBe(
      [
        '2031-05-02T09:00:01.000Z Session 1 (a device recording a user) was started by device-7.',
        '2031-05-02T09:00:03.000Z user said: one',
        '2031-05-02T09:00:05.000Z user said: three',
        '2031-05-02T09:00:06.000Z The session was ended by device-7 (completed).',
        '',
      ].join('\n'),
    )
    const running = await run(home)
    const { body } = await running.admin.start()
    await running.admin.append(body.session_id, said('a\u001b]0;owned\u0007b\r\nc\u0000d\u007fe\u009b31mf\u2028g\u202ah\tGrüße'))
    await running.stop()
    const { out } = await cli(home, ['cat', body.session_id, '--says'])
    const shown = 'user said: a\\u001b]0;owned\\u0007b\\u000d\\u000ac\\u0000d\\u007fe\\u009b31mf\\u2028g'
    expect(out.split('\n')[1]).toContain(shown)
    expect(out).toContain('Grüße')
    expect(out.split('\n')).toHaveLength(3)

    // A line that the recorder did not write hides none of the others, and is not repeated on stderr.
    writeFileSync(file, wholeLines(file).toSpliced(1, 1, 'what mina said\n', '{"a":1}\n').join(''))
    const { code, out: broken, err } = await cli(home, ['cat', ada, '--says'])
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(broken.split('\n').slice(1, 4)).toEqual([
      expect.stringContaining('this line is not a record'),
      expect.stringContaining('this line is not a record'),
      '2031-05-02T09:00:05.000Z user said: three',
    ])
  })

  it('says when there is no such log', async () => {
    const { home } = recorded()
    const [session, user, part] = await Promise.all([
      cli(home, ['cat', NO_SUCH]),
      cli(home, ['cat', '--user', 'ad']),
      cli(home, ['cat', 'user']),
    ])
    expect(session).toEqual({ code: 1, out: '', err: `There is no log of ${NO_SUCH} in ${home}.\n` })
    expect(user).toMatchObject({ code: 1, out: '' })
    expect(part).toMatchObject({ code: 1, out: '' })
  })
})

// --- verify -----------------------------------------------------------------------------------------------------------

/** The same log with other contents, sealed as the recorder would have sealed them. */
function resealed(session_id: string, lines: string[], change: (content: string, i: number) => string): Buffer {
  let previous = genesis(`users/any/sessions/${session_id}`)
  return Buffer.concat(
    lines.map((line, i) => {
      const sealed = seal(previous, change(line.slice(0, -SEAL_LENGTH - 1), i))
      previous = sealed.hash
      return sealed.line
    }),
  )
}

interface Tampering {
  home: string
  ada: string
  file: string
  lines: string[]
}

const tamperings: [string, (on: Tampering) => void, number, string | RegExp][] = [
  [
    'a byte that was flipped in what was said',
    ({ file, lines }) => writeFileSync(file, lines.join('').replace('"text":"one"', '"text":"onf"')),
    2,
    'the hash does not follow from the line and the one before it',
  ],
  [
    'a byte that was flipped in a seal',
    ({ file, lines }) =>
      writeFileSync(
        file,
        lines.join('').replace(/"salt":"(.)/, (_, c) => `"salt":"${c === 'A' ? 'B' : 'A'}`),
      ),
    1,
    'the hash does not follow from the line and the one before it',
  ],
  [
    'a line without its seal',
    ({ file, lines }) => writeFileSync(file, lines.with(2, `${lines[2]?.slice(0, -SEAL_LENGTH - 1)}}\n`).join('')),
    3,
    'there is no seal',
  ],
  ['a line that is gone', ({ file, lines }) => writeFileSync(file, lines.toSpliced(1, 1).join('')), 2, 'its seq is 3, not 2'],
  [
    'two lines that changed places',
    ({ file, lines }) => writeFileSync(file, [lines[0], lines[2], lines[1], lines[3]].join('')),
    2,
    'the hash does not follow from the line and the one before it',
  ],
  [
    'a log that was cut at the end of a line',
    ({ file, lines }) => truncateSync(file, Buffer.byteLength(lines.slice(0, 3).join(''))),
    4,
    'the log ends after 3 records, and it had 4',
  ],
  ['a log that was emptied', ({ file }) => truncateSync(file), 1, 'the log ends after 0 records, and it had 4'],
  ['a log that was taken away', ({ file }) => rmSync(file), 1, 'the log ends after 0 records, and it had 4'],
  [
    'a last line that is unfinished',
    ({ file, lines }) => truncateSync(file, Buffer.byteLength(lines.join('')) - 1),
    4,
    'the last line has no end',
  ],
  [
    'a record that does not fit its schema, though its seal does',
    ({ ada, file, lines }) =>
      writeFileSync(
        file,
        resealed(ada, lines, (content) => content.replace('"text":"three"', '"text":3')),
      ),
    3,
    'data.text must be string',
  ],
  [
    'a field that no schema knows, though its seal fits, and shows what is in its name',
    ({ ada, file, lines }) =>
      writeFileSync(
        file,
        resealed(ada, lines, (content) => content.replace('"text":"one"', '"text":"one","\u009bm":1')),
      ),
    2,
    /^data\.\\u009bm /,
  ],
  [
    'a record of a type that nobody registered',
    ({ ada, file, lines }) =>
      writeFileSync(
        file,
        resealed(ada, lines, (content) => content.replace('"session.ended"', '"session.paused"')),
      ),
    4,
    'session.paused is not a registered event',
  ],
  [
    'a log that was written anew as a whole, each seal fitting the one before',
    ({ ada, file, lines }) =>
      writeFileSync(
        file,
        resealed(ada, lines, (content) => content.replace('"text":"one"', '"text":"two"')),
      ),
    4,
    'the log is whole in itself, but not the one that was recorded',
  ],
  [
    'a record that is earlier than the one before it',
    ({ ada, file, lines }) =>
      writeFileSync(
        file,
        resealed(ada, lines, (content, i) => (i === 2 ? content.replace('2031-05-02', '2031-05-01') : content)),
      ),
    3,
    /^its timestamp 2031-05-01T09:00:05.000Z is earlier than the one before it$/,
  ],
]

describe('sessile verify', () => {
  it('finds nothing wrong with what Sessile recorded', async () => {
    const { home, ada } = recorded()
    const [all, one, json] = await Promise.all([
      cli(home, ['verify']),
      cli(home, ['verify', ada]),
      cli(home, ['verify', 'accounts/admin', '--json']),
    ])
    expect(all).toEqual({ code: 0, out: '', err: '9 records in 4 logs verified.\n' })
    expect(one).toEqual({ code: 0, out: '', err: '4 records in 1 log verified.\n' })
    expect(json).toMatchObject({ code: 0, err: '' })
    expect(jsonLines(json.out)).toEqual([{ logs: 1, records: 1, bytes: expect.any(Number), findings: 0 }])
    expect(await cli(home, ['verify', NO_SUCH])).toEqual({ code: 1, out: '', err: `There is no log ${NO_SUCH} in ${home}.\n` })
  })

  it.each(tamperings)('finds %s', async (_, tamper, line, what) => {
    const { home, ada, file } = recorded()
    tamper({ home, ada, file, lines: wholeLines(file) })
    const { code, out, err } = await cli(home, ['verify'])
    expect(code).toBe(1)
    expect(err).toMatch(/^\d+ findings? in 4 logs\.\n$/)
    const findings = out.trimEnd().split('\n')
    for (const finding of findings) expect(finding.startsWith(`${file}:`)).toBe(true)
    expect(Math.min(...findings.map((finding) => Number(finding.slice(file.length + 1).split(':')[0])))).toBe(line)
    const here = findings
      .filter((finding) => finding.startsWith(`${file}:${line}: `))
      .map((finding) => finding.slice(`${file}:${line}: `.length))
    expect(here).toContainEqual(typeof what === 'string' ? what : expect.stringMatching(what))
  })

  it('finds a record in another user’s folder, tells it as JSON, and lets the other logs be', async () => {
    const { home, ada, bob, file } = recorded()
    const strange = sessionFile(home, ada, 'bob')
    cpSync(file, strange)
    const [all, own, whole] = await Promise.all([
      cli(home, ['verify', '--json']),
      cli(home, ['verify', bob]),
      cli(home, ['verify', `users/ada/sessions/${ada}`]),
    ])
    expect(all).toMatchObject({ code: 1, err: '' })
    const log = `users/bob/sessions/${ada}`
    expect(jsonLines(all.out)).toEqual([
      ...[1, 2, 3, 4].map((line) => ({ file: strange, log, line, what: 'it belongs to the user ada' })),
      { logs: 5, records: 13, bytes: expect.any(Number), findings: 4 },
    ])
    expect([own.code, whole.code]).toEqual([0, 0])
  })

  it('does not take for damage what a crash left in the journal, and finds it whole after the next start', async () => {
    const { home, ada, later: session_id, clock } = recorded()
    const running = await run(home, {}, clock)
    for (const words of ['five', 'six']) await running.admin.append(session_id, said(words))
    await running.admin.get('/api/v1/sessions')
    running.sessile.log.settle()
    const crashed = makeHome()
    copyHome(home, crashed)
    const file = sessionFile(crashed, session_id)
    const whole = readFileSync(file)
    // As if the process had died before the last lines got from the journal to their file.
    truncateSync(file, Buffer.byteLength(wholeLines(file)[0] as string))
    expect(await cli(crashed, ['verify'])).toEqual({
      code: 0,
      out: '',
      err: expect.stringMatching(/^The last recorder did not come to its end: .*\n10 records in 5 logs verified\.\n$/),
    })
    await (await run(crashed, {}, clock)).stop()
    expect(readFileSync(file).equals(whole)).toBe(true)
    expect(await cli(crashed, ['verify'])).toEqual({ code: 0, out: '', err: '12 records in 5 logs verified.\n' })
    truncateSync(sessionFile(crashed, ada))
    expect((await cli(crashed, ['verify'])).code).toBe(1)
  })

  it('finds nothing wrong while a server is recording', async () => {
    const home = makeHome()
    const { admin } = await serveApart(home)
    const stop = underLoad(admin)
    for (let i = 0; i < 2; i++) expect(await cli(home, ['verify'])).toMatchObject({ code: 0, out: '' })
    expect((await stop()).size).toBeGreaterThan(10)
  })
})

// --- rebuild ----------------------------------------------------------------------------------------------------------

/** Callers who record until they are stopped. Tells what was acknowledged: the sessions and how often each was spoken in. */
function underLoad(admin: Client): { (): Promise<Map<string, number>>; so_far: () => Map<string, number> } {
  const acknowledged = new Map<string, number>()
  let going = true
  const caller = async (user_id: string) => {
    while (going) {
      const { body } = await admin.start({ user_id, kind: 'therapy' })
      for (let i = 1; i <= 5; i++) {
        expect((await admin.append(body.session_id, said(`word ${i}`, { user_id }))).status).toBe(201)
        acknowledged.set(body.session_id, i)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
      expect((await admin.end({ user_id, session_id: body.session_id })).status).toBe(200)
    }
  }
  const callers = Promise.all(Array.from({ length: 8 }, (_, i) => caller(`user-${i}`)))
  const stop = async () => {
    going = false
    await callers
    return acknowledged
  }
  return Object.assign(stop, { so_far: () => new Map(acknowledged) })
}

async function expectSpoken(admin: Client, acknowledged: Map<string, number>): Promise<void> {
  for (const [session_id, spoken] of acknowledged) {
    const { body } = await admin.get(`/api/v1/sessions/${session_id}`)
    expect(body.transcript.length).toBeGreaterThanOrEqual(spoken)
  }
}

describe('sessile rebuild', () => {
  it('gives the same rows, and --check names the tables in which somebody changed one', async () => {
    const { home } = recorded()
    const db = () => openDatabase(join(home, 'projections', 'sessile.db'))
    const same = { code: 0, out: 'A rebuild gives the same rows: 9 records in 4 logs.\n', err: '' }
    expect(await cli(home, ['rebuild', '--check'])).toEqual(same)

    const tampered = db()
    tampered.exec("UPDATE sessions SET status = 'closed' WHERE kind = 'voice'; DELETE FROM keys")
    tampered.close()
    const { code, out } = await cli(home, ['rebuild', '--check'])
    expect(code).toBe(1)
    const [, tables = ''] = /^A rebuild gives other rows in: (.*)\.\n$/.exec(out) ?? []
    expect(tables.match(/\(/g)).toHaveLength(2)
    expect(tables).toContain('keys (0 rows live, 1 rebuilt)')
    expect(tables).toContain('sessions (3 rows live, 3 rebuilt)')
    const rebuilt = await cli(home, ['rebuild', '--json'])
    expect(rebuilt).toMatchObject({ code: 0, err: '' })
    expect(JSON.parse(rebuilt.out)).toMatchObject({ ok: true, logs: 4, records: 9 })
    const mended = db()
    expect(mended.prepare('SELECT kind, status FROM sessions ORDER BY started_at').raw().all()).toEqual([
      ['capture', 'closed'],
      ['voice', 'active'],
      ['therapy', 'active'],
    ])
    mended.close()
    expect(await cli(home, ['rebuild', '--check'])).toEqual(same)
    const left = readdirSync(join(home, 'projections')).filter((name) => !/-(wal|shm)$/.test(name))
    expect(left).toEqual(['sessile.db'])
  })

  it('--check says which table differs from a log that is gone', async () => {
    const { home, file } = recorded()
    rmSync(file)
    const { code, out } = await cli(home, ['rebuild', '--check', '--json'])
    expect(code).toBe(1)
    expect(JSON.parse(out)).toMatchObject({ ok: false, says: expect.stringContaining('sessions (3 rows live, 2 rebuilt)') })
  })

  it('goes round a line that is no record, names it, and repeats nothing of what it holds', async () => {
    const { home, ada, file } = recorded()
    writeFileSync(file, wholeLines(file).join('').replace('"type":"transcript.said","v":1,"source":', '"type":mina said'))
    const { code, out, err } = await cli(home, ['rebuild'])
    expect(code).toBe(1)
    expect(out).toMatch(/^Rebuilt from \d records in \d logs .*damaged/)
    expect(err).toMatch(new RegExp(`^users/ada/sessions/${ada}: line 2 .*\n$`))
    expect(out + err).not.toMatch(/mina|said|three/)
    const { admin } = await run(home)
    expect((await admin.get('/api/v1/sessions')).body.sessions).toHaveLength(3)
  })

  it('does not read data that no view folds: what is wrong there is found by verify', async () => {
    const { home, file } = recorded()
    writeFileSync(file, wholeLines(file).join('').replace('"text":"three"', '"text":mina said'))
    expect((await cli(home, ['rebuild'])).code).toBe(0)
    expect((await cli(home, ['rebuild', '--check'])).code).toBe(0)
    expect(await cli(home, ['verify'])).toMatchObject({ code: 1, out: expect.stringContaining(`${file}:3: `) })
  })

  it('is done at a start without being asked, where the views are gone or damaged', async () => {
    const { home, clock } = recorded()
    const file = join(home, 'projections', 'sessile.db')
    const first = await run(home, {}, clock)
    const { body } = await first.admin.get('/api/v1/sessions')
    expect(body.sessions).toHaveLength(3)
    await first.stop()
    rmSync(dirname(file), { recursive: true })
    const apart = await serveApart(home)
    expect((await apart.admin.get('/api/v1/sessions')).body).toEqual(body)
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    expect(jsonLines(apart.err().replace(/^Sessile .*$/gm, ''))).toContainEqual(
      expect.objectContaining({ msg: 'the views are rebuilt from the logs', why: 'there are none' }),
    )
    writeFileSync(file, readFileSync(file).fill(0x5a, 200))
    expect((await (await run(home, {}, clock)).admin.get('/api/v1/sessions')).body).toEqual(body)
  })

  it('comes to the end of a log most of which was erased', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    const some = Array.from({ length: 100 }, (_, i) => said(`${i}`))
    for (let i = 0; i < 110; i++) expect((await running.admin.append(session_id, some)).status).toBe(201)
    await running.stop()
    const file = sessionFile(running.home, session_id)
    // More than is held of what was read, and behind lines of which more than one piece is read.
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n')
    writeFileSync(file, `${lines.map((line, i) => (i < 1000 ? line : erase(line, 0))).join('\n')}\n`)
    expect(await cli(running.home, ['rebuild'])).toMatchObject({ code: 0, err: '' })
    expect(await cli(running.home, ['rebuild', '--check'])).toMatchObject({ code: 0, err: '' })
  })

  it('goes on beside a server that is recording: nothing is lost, and all reads are right at once', async () => {
    const home = makeHome()
    const apart = await serveApart(home)
    const stop = underLoad(apart.admin)
    const inode = () => statSync(join(home, 'projections', 'sessile.db')).ino
    for (let i = 0; i < 2; i++) {
      await new Promise((resolve) => setTimeout(resolve, 300))
      const before = inode()
      expect(await cli(home, ['rebuild'])).toMatchObject({
        code: 0,
        out: expect.stringMatching(/^Rebuilt from \d+ records/),
        // Where it takes a while it says how far it is.
        err: expect.stringMatching(/^(\d+ records of \d+, \d+ a second(, about \d+ s left)?\n)*$/),
      })
      const acknowledged = stop.so_far()
      await expectSpoken(apart.admin, acknowledged)
      expect(acknowledged.size).toBeGreaterThan(10)
      expect(inode()).not.toBe(before)
    }
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0, err: '' })
    const acknowledged = await stop()
    await expectSpoken(apart.admin, acknowledged)
    apart.child.kill('SIGTERM')
    expect(await apart.ended).toBe(0)
    expect(readdirSync(join(home, 'projections'))).toEqual(['sessile.db'])
    const records = [...acknowledged.values()].reduce((sum, spoken) => sum + spoken + 2, 1) + trailOf({ home }).length
    const logs = acknowledged.size + 2
    expect((await cli(home, ['rebuild', '--check'])).out).toBe(
      `A rebuild gives the same rows: ${records} records in ${logs} logs.\n`,
    )
    expect((await cli(home, ['verify'])).err).toBe(`${records} records in ${logs} logs verified.\n`)
  })
})

// --- replay -----------------------------------------------------------------------------------------------------------

describe('sessile replay', () => {
  it('prints every record in the order of time, across sessions and users', async () => {
    const { home, ada, bob, later, file } = recorded()
    const out = await bytesOf(home, ['replay'])
    const records = jsonLines(out.toString())
    expect(records.map(({ timestamp, session_id, seq }) => [timestamp.slice(17, 19), session_id, seq])).toEqual([
      ['00', undefined, 1],
      ['01', ada, 1],
      ['02', bob, 1],
      ['03', ada, 2],
      ['04', bob, 2],
      ['05', ada, 3],
      ['06', ada, 4],
      ['07', later, 1],
      ['08', bob, 3],
    ])
    const lines = out
      .toString()
      .split('\n')
      .filter((line) => line.includes(ada))
    expect(`${lines.join('\n')}\n`).toBe(readFileSync(file, 'utf8'))
    expect(out.equals(await bytesOf(home, ['replay', '--speed', '1e6']))).toBe(true)
  })

  it('prints the part that is asked for', async () => {
    const { home, ada, bob } = recorded()
    const part = async (...args: string[]) => {
      const { code, out, err } = await cli(home, ['replay', ...args])
      expect({ code, err }).toEqual({ code: 0, err: '' })
      return jsonLines(out).map(({ timestamp, user_id, type }) => `${timestamp.slice(17, 19)} ${user_id} ${type}`)
    }
    const [from, window, user, session, type, none] = await Promise.all([
      part('--from', '2031-05-02T09:00:07Z'),
      part('--from', '2031-05-02T11:00:04+02:00', '--to', '2031-05-02T09:00:06Z'),
      part('--user', 'bob'),
      part('--session', ada),
      part('--session', bob, '--type', 'transcript.said', '--to', '2031-05-02T09:00:08Z'),
      part('--user', 'bo'),
    ])
    expect(from).toEqual(['07 ada session.started', '08 bob transcript.said'])
    expect(window).toEqual(['04 bob transcript.said', '05 ada transcript.said'])
    expect(user).toEqual(['02 bob session.started', '04 bob transcript.said', '08 bob transcript.said'])
    expect(session).toEqual(['01 ada session.started', '03 ada transcript.said', '05 ada transcript.said', '06 ada session.ended'])
    expect(type).toEqual(['04 bob transcript.said'])
    expect(none).toEqual([])
  })

  it('keeps the order of each log where the clock stood still', async () => {
    const running = await run(makeHome(), {}, clockAt('2031-05-02T09:00:00Z'))
    const started = await Promise.all(['ada', 'bob', 'carl'].map((user_id) => running.admin.start({ user_id })))
    for (let i = 0; i < 4; i++)
      for (const { body } of started)
        await running.admin.append(
          body.session_id,
          ['a', 'b'].map((words) => said(words, { user_id: body.user_id })),
        )
    await running.stop()
    const records = jsonLines((await cli(running.home, ['replay'])).out)
    for (const { body } of started) {
      const own = records.filter(({ session_id }) => session_id === body.session_id)
      expect(own.map(({ seq }) => seq)).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9])
    }
    expect(records).toHaveLength(28)
  })

  it('keeps the pace that is asked for', async () => {
    const { home } = recorded()
    const args = ['replay', '--speed', '2', '--from', '2031-05-02T09:00:01Z', '--to', '2031-05-02T09:00:05Z']
    const child = spawn(process.execPath, [BIN, ...args], { env: { ...process.env, SESSILE_HOME: home } })
    const [first] = await once(child.stdout, 'data')
    const began = performance.now()
    const rest = await text(child.stdout)
    expect(performance.now() - began).toBeGreaterThan(1000)
    expect(jsonLines(first + rest)).toHaveLength(4)
  })

  it('prints lines of any length as they stand, and before a fault what came before it', async () => {
    const { home, ada, file } = recorded()
    const [, line = ''] = readFileSync(file, 'utf8').split('\n')
    const record = JSON.parse(line) as Json
    const lengths = [1, 65_000, 3, 65_535, 65_536, 100, 500_000, 65_537, 2, ...Array.from({ length: 50 }, (_, i) => 7000 + i)]
    const long = lengths.map((length) =>
      JSON.stringify({ ...record, data: { ...(record.data as Json), text: 'x'.repeat(length) } }),
    )
    writeFileSync(file, `${readFileSync(file, 'utf8')}${long.join('\n')}\n`)
    const all = readFileSync(file)
    expect(all.equals(await bytesOf(home, ['cat', ada]))).toBe(true)
    expect(all.equals(await bytesOf(home, ['replay', '--session', ada]))).toBe(true)
    const next = join(dirname(file), 'sess_7ZZZZZZZZZZZZZZZZZZZZZZZZZ.jsonl')
    mkdirSync(next)
    for (const args of [
      ['cat', '--user', 'ada'],
      ['replay', '--user', 'ada'],
    ]) {
      const { code, out, err } = await cli(home, args)
      expect({ args, code, err }).toEqual({ args, code: 5, err: expect.stringContaining('leads to what is not a file') })
      if (args[0] === 'cat') expect(out).toContain(all.toString())
    }
  })

  it('ends quietly when its reader has seen enough', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    const long = Array.from({ length: 1000 }, (_, i) => said(`${i} ${'and so on '.repeat(50)}`))
    await running.admin.append(body.session_id, long)
    await running.stop()
    for (const verb of ['replay', `cat ${body.session_id}`, `cat ${body.session_id} --says`]) {
      const child = spawn('sh', ['-c', `{ '${process.execPath}' '${BIN}' ${verb}; echo "ended with $?" >&2; } | head -1`], {
        env: { ...process.env, SESSILE_HOME: running.home },
      })
      const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
      expect(out.split('\n')).toHaveLength(2)
      expect(err).toBe('ended with 0\n')
    }
  })
})

// --- how it is called -------------------------------------------------------------------------------------------------

const readers = [
  ['info'],
  ['cat', NO_SUCH],
  ['cat', '--user', 'ada'],
  ['verify'],
  ['verify', NO_SUCH],
  ['rebuild'],
  ['rebuild', '--check'],
  ['replay'],
  ['keys', 'list'],
  ['keys', 'revoke', 'key_1'],
]

describe('sessile', () => {
  it('refuses words and options that it does not know, on stderr only', async () => {
    const home = makeHome()
    const wrong: [string[], RegExp][] = [
      [['frobnicate'], /there is no verb frobnicate: sessile help lists them/],
      [['verify', '--colour'], /Unknown option '--colour'/],
      [['serve', '/some/data'], /there is no place for the word \/some\/data: sessile serve/],
      [['cat', 'a', 'b'], /there is no place for the word b/],
      [['cat'], /cat names a session, a user with --user, or a day/],
      [['cat', NO_SUCH, '--user', 'ada'], /cat names a session, a user with --user, or a day/],
      [['replay', '--speed', '0'], /--speed must be a number above 0/],
      [['replay', '--from', 'yesterday'], /--from must be a time such as 2031-05-02T09:30:00Z, not yesterday/],
      [['keys', 'revoke'], /keys revoke names a key/],
      [['keys', 'create', '--users', 'ada'], /--account ID/],
      [['keys', 'create', '--account', 'a', '--users', 'ada', '--all-users'], /not both/],
    ]
    const ran = await Promise.all(wrong.map(([args]) => cli(home, args)))
    for (const [i, [, sentence]] of wrong.entries()) {
      expect(ran[i]).toEqual({ code: 2, out: '', err: expect.stringMatching(sentence) })
      expect(ran[i]?.err).toMatch(/^sessile: .*\n$/)
    }
    expect(readdirSync(home)).toEqual([])
  })

  it('explains itself on stdout', async () => {
    const home = makeHome()
    const [help, option, replay] = await Promise.all([
      cli(home, ['help']),
      cli(home, ['--help']),
      cli(home, ['replay', '--speed', '0', '--help']),
    ])
    expect(help).toEqual({ code: 0, out: expect.stringContaining('Exit codes:'), err: '' })
    for (const verb of ['serve', 'keys', 'accounts', 'secrets', 'info', 'cat', 'verify', 'rebuild', 'replay']) {
      expect(help.out).toMatch(new RegExp(`^ {2}${verb} +[A-Z].*\\.$`, 'm'))
    }
    expect(option).toEqual(help)
    expect(replay).toEqual({ code: 0, out: expect.stringContaining('sessile replay [--from TIME]'), err: '' })
    expect(readdirSync(home)).toEqual([])
  })

  it('says of a folder without data that there is none, and leaves it so', async () => {
    const home = makeHome()
    mkdirSync(join(home, 'empty'))
    const ran = await Promise.all(readers.map((args, i) => cli(join(home, i % 2 === 0 ? 'empty' : 'missing'), args)))
    for (const { code, out, err } of ran) {
      expect({ code, out }).toEqual({ code: 1, out: '' })
      expect(err).toMatch(/^(sessile: )?There is no (data|log of \S+) in \S+\.\n$/)
    }
    expect(filesUnder(home)).toEqual([])
    expect(readdirSync(home)).toEqual(['empty'])
  })

  // Fails as long as what the disk answers ends as a stack trace (codeOf in src/cli.ts throws it on).
  it('says in one sentence that the data directory cannot be used', async () => {
    const home = join(makeHome(), 'a-file')
    writeFileSync(home, '')
    const { out, err } = await cli(home, ['keys', 'create', '--account', 'device-7', '--users', 'ada'])
    expect(out).toBe('')
    expect(err).toMatch(/^sessile: .*\n$/)
  })

  it('paints nothing where no terminal reads it', async () => {
    const { home, ada, file } = recorded()
    truncateSync(file, 10)
    const ran = await Promise.all([cli(home, ['verify']), cli(home, ['cat', ada, '--says']), cli(home, ['info'])])
    for (const { out, err } of ran) expect(out + err).not.toContain('\u001b')
  })

  it.skipIf(spawnSync('script', ['--version']).status !== 0)('paints on a terminal, and not where NO_COLOR is set', async () => {
    const { home, ada } = recorded()
    const onTerminal = async (env: NodeJS.ProcessEnv) => {
      const child = spawn('script', ['-qec', `'${process.execPath}' '${BIN}' cat ${ada} --says`, '/dev/null'], {
        env: { ...process.env, NO_COLOR: undefined, SESSILE_HOME: home, ...env },
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      return text(child.stdout)
    }
    expect(await onTerminal({})).toContain('\u001b[2m2031-05-02T09:00:03.000Z\u001b[0m user said: one')
    const plain = await onTerminal({ NO_COLOR: '1' })
    expect(plain).toContain('2031-05-02T09:00:03.000Z user said: one')
    expect(plain).not.toContain('\u001b')
  })
})
