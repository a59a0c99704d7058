// One recorder per data directory (law 13), also where an operator forces a second one to start beside a first that is
// stopped in its tracks: whatever that one was about to do when it wakes, it changes nothing and acknowledges nothing.

import { createHash } from 'node:crypto'
import { copyFileSync, readFileSync, renameSync, statSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { hangingHolder } from '../src/cli/reach.ts'
import type { InTheWay } from '../src/log/lock.ts'
import { journalOf, projectionOf } from '../src/log/shelf.ts'
import { openLog } from '../src/open.ts'
import { runOnFailingDisk } from './failing.ts'
import {
  type Apart,
  cli,
  clockAt,
  configOf,
  filesUnder,
  later,
  linesIn,
  logBytes,
  makeHome,
  type Reply,
  run,
  said,
  serveApart,
  sessionFile,
} from './harness.ts'

/** How long a holder may take to answer before it counts as one that does not, in seconds. */
const PATIENCE = { SESSILE_PATIENCE_SECONDS: '1' }

const takeOver = (home: string) => serveApart(home, PATIENCE, ['--take-over'])

/** Every file of the data directory: which it is, when it was written, and its bytes. */
const everything = (home: string): string[] =>
  filesUnder(home).flatMap((name) => {
    // What SQLite's connections share in memory says who reads, and nothing that is kept.
    if (name.endsWith('-shm')) return []
    const { ino, mtimeMs } = statSync(join(home, name))
    return [
      `${name} ${ino} ${mtimeMs} ${createHash('sha256')
        .update(readFileSync(join(home, name)))
        .digest('hex')}`,
    ]
  })

const isLog = (file: string) => file.startsWith('logs/')

/** The same once nobody is at work on it any more. */
async function atRest(home: string): Promise<string[]> {
  for (let last = everything(home); ; ) {
    await new Promise((resolve) => setTimeout(resolve, 400))
    const now = everything(home)
    if (now.join('\n') === last.join('\n')) return now
    last = now
  }
}

/** What became of a request: its answer, or the end of its connection. */
const outcome = (reply: Promise<Reply>): Promise<Reply | 'cut'> => reply.catch(() => 'cut' as const)

describe('serve --take-over', () => {
  it('starts beside a stopped one, which changes nothing, acknowledges nothing and says why when it wakes', async () => {
    const home = makeHome()
    const first = await serveApart(home)
    const { session_id } = (await first.admin.start()).body
    await first.admin.append(session_id, [said('one'), said('two')])
    first.child.kill('SIGSTOP')
    const { ino } = statSync(projectionOf(home))
    const waiting = [
      ...Array.from({ length: 8 }, (_, i) => first.admin.append(session_id, said(`waiting ${i}`))),
      first.admin.start({ user_id: 'eve' }),
      first.admin.start({ kind: 'voice' }),
      first.admin.end({ session_id }),
      first.admin.get(`/api/v1/sessions/${session_id}`),
    ].map(outcome)

    const second = await takeOver(home)
    expect(second.err()).toContain(`Taking over from process ${first.child.pid}`)
    // Whatever the first does to the database that it has open, the second has another.
    expect(statSync(projectionOf(home)).ino).not.toBe(ino)
    expect((await second.admin.append(session_id, said('three'))).body).toMatchObject({ seq: 4 })
    expect((await second.admin.start()).body).toMatchObject({ reason: 'session-already-active', session_id })
    expect((await second.admin.start({ kind: 'voice' })).body).toMatchObject({ session_number: 2 })
    const before = await atRest(home)

    first.child.kill('SIGCONT')
    expect(await first.ended).toBe(4)
    expect(first.err()).toContain(`process ${second.child.pid} on ${second.url} has taken over the data`)
    for (const reply of await Promise.all(waiting)) expect(reply === 'cut' ? 503 : reply.status).toBe(503)
    expect(everything(home)).toEqual(before)

    expect((await second.admin.append(session_id, said('four'))).body).toMatchObject({ seq: 5 })
    second.child.kill('SIGTERM')
    expect(await second.ended).toBe(0)
    expect(linesIn(sessionFile(home, session_id)).map(({ data }) => data.text)).toEqual([undefined, 'one', 'two', 'three', 'four'])
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })

  it('keeps all that a busy one had acknowledged, and is done by one of two who try at once', async () => {
    const home = makeHome()
    // Where nobody is in the way it is a start like any other.
    const first = await takeOver(home)
    expect(first.err()).not.toContain('Taking over')
    const { session_id } = (await first.admin.start()).body
    const acknowledged: string[] = []
    let sent = 0
    const caller = async () => {
      for (;;) {
        const text = `text ${sent++}`
        const reply = await outcome(first.admin.append(session_id, said(text)))
        if (reply === 'cut' || reply.status !== 201) return
        acknowledged.push(text)
        if (acknowledged.length === 60) first.child.kill('SIGSTOP')
      }
    }
    const callers = Promise.all(Array.from({ length: 12 }, caller))
    while (acknowledged.length < 60) await new Promise((resolve) => setTimeout(resolve, 5))

    const both = await Promise.allSettled([takeOver(home), takeOver(home)])
    const won = both.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    const lost = both.flatMap((one) => (one.status === 'rejected' ? [String(one.reason)] : []))
    expect(won).toHaveLength(1)
    expect(lost).toEqual([expect.stringMatching(/serve ended with 4(.|\n)*is held by/)])
    const second = won[0] as Apart
    const kept = async () => {
      const { records } = (await second.admin.get(`/api/v1/sessions/${session_id}/records?limit=10000`)).body
      return (records as { data: { text?: string } }[]).map(({ data }) => data.text)
    }
    const before = await kept()
    first.child.kill('SIGCONT')
    expect(await first.ended).toBe(4)
    await callers
    // Also what was answered just before the stop, and read just after.
    for (const text of acknowledged) expect(before.filter((kept) => kept === text)).toEqual([text])
    expect(await kept()).toEqual(before)
    expect(await cli(home, ['rebuild', '--check'])).toMatchObject({ code: 0 })
  })

  it('is refused where the first answers, and needs an address before it takes anything; verbs do not wait for ever', async () => {
    const home = makeHome()
    const first = await serveApart(home)
    const before = (await atRest(home)).filter(isLog)
    const second = await cli(home, ['serve', '--take-over'], { ...PATIENCE, SESSILE_PORT: '0' })
    expect(second).toMatchObject({ code: 4, err: expect.stringContaining(`process ${first.child.pid}`) })
    expect(second.err).toContain('stop it instead')

    first.child.kill('SIGSTOP')
    const asking = [['keys', 'list'], ['rebuild'], ['rebuild', '--check']].map((words) => cli(home, words, PATIENCE))
    const taking = cli(home, ['serve', '--take-over'], { ...PATIENCE, SESSILE_PORT: new URL(first.url).port })
    const looking = [['info'], ['verify'], ['serve']].map((words) => cli(home, words, { SESSILE_PORT: '0' }))
    for (const { code, err } of await Promise.all(asking)) {
      expect(code).toBe(4)
      expect(err).toContain(`process ${first.child.pid}`)
      expect(err).toContain('does not answer')
    }
    expect(await taking).toMatchObject({ code: 2, err: expect.stringContaining('cannot listen') })
    expect((await Promise.all(looking)).map(({ code }) => code)).toEqual([0, 0, 4])

    first.child.kill('SIGCONT')
    expect(everything(home).filter(isLog)).toEqual(before)
    expect((await first.admin.start()).status).toBe(201)
  })
})

describe('a holder who comes after the one that hangs', () => {
  afterEach(() => void vi.restoreAllMocks())

  it('is not put aside for what was found out about the one before', async () => {
    const home = makeHome()
    const first = await serveApart(home)
    await first.admin.start()
    first.child.kill('SIGSTOP')
    const hanging = (await hangingHolder(configOf(home, { patience: 300 }))) as InTheWay
    first.child.kill('SIGKILL')
    await first.ended
    // The file of the lock is the same: whoever starts takes it as it lies there.
    const next = await run(home)
    expect(() => openLog({ config: configOf(home), takeOver: hanging })).toThrow(`is held by process ${process.pid}`)
    expect((await next.admin.start({ user_id: 'bob' })).status).toBe(201)
  })

  it('has as long to answer as that one had', async () => {
    const config = configOf(makeHome())
    const now = vi.spyOn(performance, 'now').mockReturnValue(0)
    const looked = () => new Promise((resolve) => setTimeout(resolve, 300))
    const first = openLog({ config, source: clockAt('2031-05-02T09:30:00Z') })
    const hanging = hangingHolder(config).catch((error: Error) => error.message)
    await looked()
    first.close()
    const next = openLog({ config, source: clockAt('2031-05-02T09:31:00Z') })
    later(() => next.close())
    now.mockReturnValue(config.patience - 1)
    await looked()
    now.mockReturnValue(config.patience + 1)
    await looked()
    const server = createServer((_, response) => void response.end('well'))
    later(() => void server.close())
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    next.announce(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    expect(await hanging).toContain('It answers: stop it instead of taking over.')
  })
})

// What follows stands where a stop would have to come between two particular steps: another lock appears in between.

/** Another process takes over: a file of its own has the lock's name. */
function replaceLock(home: string): void {
  const lock = join(journalOf(home), 'lock')
  copyFileSync(lock, `${lock}.other`)
  renameSync(`${lock}.other`, lock)
}

describe('a recorder that was taken over', () => {
  it('between the write and the end of the sync acknowledges nothing', async () => {
    const { running, disk, fatal } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    const release = disk.holdSync()
    const asked = running.admin.append(session_id, said('one'))
    await disk.syncAsked
    replaceLock(running.home)
    release()
    expect((await asked).status).toBe(503)
    expect(fatal[0]?.message).toContain('has taken over')
  })

  it('between the answer and the copy leaves the session’s file as it is', async () => {
    const { running, fatal } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    running.sessile.log.settle()
    const before = logBytes({ home: running.home })
    const file = readFileSync(sessionFile(running.home, session_id))
    expect((await running.admin.append(session_id, said('one'))).status).toBe(201)
    replaceLock(running.home)
    expect(() => running.sessile.log.settle()).toThrow('has taken over')
    expect(readFileSync(sessionFile(running.home, session_id))).toEqual(file)
    expect(logBytes({ home: running.home })).not.toBe(before) // The journal has the line.
    expect(fatal).toHaveLength(1)
  })

  it('writes no byte of a request that it had not begun, commits no view, and answers no read', async () => {
    const { running, fatal } = await runOnFailingDisk()
    const { session_id } = (await running.admin.start()).body
    await atRest(running.home)
    replaceLock(running.home)
    const before = everything(running.home)
    expect((await running.admin.get(`/api/v1/sessions/${session_id}`)).status).not.toBe(200)
    expect((await running.admin.append(session_id, said('one'))).status).toBe(503)
    await expect(running.sessile.recorder.checkpoint()).rejects.toThrow('has taken over')
    expect(everything(running.home)).toEqual(before)
    expect(fatal[0]?.message).toContain('has taken over')
  })

  it('ends without being asked', async () => {
    let tell = (_: Error) => {}
    const told = new Promise<Error>((resolve) => {
      tell = resolve
    })
    const running = await run(undefined, {}, undefined, { fatal: (error) => tell(error) })
    await atRest(running.home)
    replaceLock(running.home)
    expect((await told).message).toContain('has taken over')
  })
})
