// Links planted in a data directory: whatever they lead to, nothing outside is read or written through them, at a start or
// while it runs, and nobody else's data suffers.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { cli, filesUnder, makeHome, type Running, run, said, sessionFile } from './harness.ts'

/** A place outside, with something in it, and how one sees that nothing there was touched. */
function outside() {
  const folder = join(makeHome(), 'outside')
  mkdirSync(join(folder, 'sessions'), { recursive: true })
  writeFileSync(join(folder, 'sessions', 'secret.jsonl'), 'a secret of somebody else\n')
  const seen = () => filesUnder(folder).map((file) => [file, readFileSync(join(folder, file), 'utf8')])
  const before = seen()
  return { folder, untouched: () => expect(seen()).toEqual(before) }
}

const logs = (running: { home: string }, ...path: string[]) => join(running.home, 'logs', ...path)

async function othersGoOn(running: Running): Promise<void> {
  const { status, body } = await running.admin.start({ user_id: 'mina', kind: 'therapy' })
  expect(status).toBe(201)
  expect((await running.admin.append(body.session_id, said('x', { user_id: 'mina' }))).status).toBe(201)
  await running.sessile.recorder.checkpoint()
}

describe('a link planted before the first write', () => {
  it.each([
    ['as a user’s folder', ['users'], 'bob', ''],
    ['as a folder that has no sessions', ['users'], 'bob', 'sessions'],
    ['as the folder of a user’s sessions', ['users', 'bob'], 'sessions', ''],
    ['as a folder that is yet to be made', ['users'], 'bob', 'nothing'],
  ])('%s: the record is refused, and nothing outside is made', async (_, parents, name, under) => {
    const running = await run()
    const { folder, untouched } = outside()
    mkdirSync(logs(running, ...parents), { recursive: true })
    symlinkSync(join(folder, under), logs(running, ...parents, name))
    expect((await running.admin.start({ user_id: 'bob' })).status).toBe(503)
    await othersGoOn(running)
    untouched()
    expect(existsSync(join(folder, 'nothing'))).toBe(false)
  })

  it('in the place of an account’s log: no key is made', async () => {
    const running = await run()
    const target = join(makeHome(), 'made')
    running.sessile.log.settle()
    symlinkSync(target, logs(running, 'accounts', 'device-9.jsonl'))
    const made = await running.admin.post('/api/v1/keys', { account_id: 'device-9', users: 'all' })
    expect(made.status).toBe(503)
    await othersGoOn(running)
    expect(existsSync(target)).toBe(false)
  })

  it.each(['.journal', '.journal/lock', '.journal/quarantine'])(
    'as %s: it does not start, or what it sets aside stays',
    async (name) => {
      const home = makeHome()
      const { folder, untouched } = outside()
      mkdirSync(join(home, 'logs', name, '..'), { recursive: true })
      symlinkSync(name.endsWith('lock') ? join(folder, 'lock') : folder, join(home, 'logs', name))
      if (name.endsWith('quarantine')) {
        const running = await run(home)
        await othersGoOn(running)
        await running.stop()
        const segment = readdirSync(join(home, 'logs', '.journal')).find((file) => file.endsWith('.wal')) as string
        writeFileSync(join(home, 'logs', '.journal', segment), Buffer.alloc(500, 0x7b), { flag: 'a' })
      }
      const ran = await cli(home, ['keys', 'create', '--account', 'd', '--all-users'])
      expect(ran.code).toBe(5)
      expect(ran.err).toContain('leads to')
      untouched()
    },
  )
})

describe('a link planted between two writes', () => {
  const plant = async (what: 'user' | 'sessions' | 'file') => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.admin.append(session_id, said('before'))
    await running.stop()
    const { folder, untouched } = outside()
    const path =
      what === 'file'
        ? sessionFile(running.home, session_id)
        : logs(running, 'users', 'ada', ...(what === 'sessions' ? ['sessions'] : []))
    const aside = join(makeHome(), 'aside')
    renameSync(path, aside)
    symlinkSync(
      what === 'file' ? join(folder, 'sessions', 'secret.jsonl') : what === 'user' ? folder : join(folder, 'sessions'),
      path,
    )
    return { home: running.home, session_id, path, aside, untouched }
  }

  it.each(['user', 'sessions', 'file'] as const)(
    'in the place of the %s: nothing goes through it, and it is told',
    async (what) => {
      const { home, session_id, path, aside, untouched } = await plant(what)
      const verified = await cli(home, ['verify'])
      expect(verified.code).toBe(1)
      expect(verified.out).toContain(what === 'file' ? session_id : 'leads elsewhere')
      for (const args of [['cat', session_id], ['cat', '--user', 'ada'], ['replay'], ['rebuild', '--check'], ['verify', '--json']])
        expect((await cli(home, args)).out).not.toContain('secret of')
      const running = await run(home)
      expect((await running.admin.append(session_id, said('after'))).status).toBe(503)
      for (const way of ['/records', '', '/timeline', '/records?follow=1']) {
        const response = await running.admin.raw('GET', `/api/v1/sessions/${session_id}${way}`)
        expect(await response.text()).not.toContain('secret of')
        expect(response.status).toBe(way.endsWith('follow=1') ? 200 : 503)
      }
      await othersGoOn(running)
      await running.stop()
      untouched()
      // Once what was put away is back, all is well again, and nothing was lost.
      rmSync(path)
      renameSync(aside, path)
      rmSync(join(home, 'logs', '.journal', 'quarantine'), { recursive: true, force: true })
      expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
      const again = await run(home)
      expect((await again.admin.append(session_id, said('again'))).body.seq).toBe(3)
    },
  )

  it('while it runs: nothing more goes to it, and views made anew do not read it', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.sessile.recorder.checkpoint()
    const { folder, untouched } = outside()
    renameSync(logs(running, 'users', 'ada'), join(makeHome(), 'aside'))
    symlinkSync(folder, logs(running, 'users', 'ada'))
    expect((await running.admin.start({ kind: 'therapy' })).status).toBe(503)
    expect((await running.admin.get(`/api/v1/sessions/${session_id}/records`)).status).toBe(503)
    await othersGoOn(running)
    await running.stop()
    rmSync(join(running.home, 'projections'), { recursive: true })
    const again = await run(running.home)
    expect((await again.admin.get('/api/v1/sessions')).body.sessions.map(({ user_id }: { user_id: string }) => user_id)).toEqual([
      'mina',
    ])
    untouched()
  })
})

describe('a pipe in the place of a log', () => {
  it('keeps nobody waiting, is told, and takes no record', async () => {
    const running = await run()
    const { session_id } = (await running.admin.start()).body
    await running.stop()
    const file = sessionFile(running.home, session_id)
    rmSync(file)
    expect(spawnSync('mkfifo', [file]).status).toBe(0)
    const verified = await cli(running.home, ['verify'])
    expect(verified.code).toBe(1)
    expect(verified.out).toContain('what is not a file')
    const again = await run(running.home)
    expect((await again.admin.append(session_id, said('x'))).status).toBe(503)
    expect((await again.admin.get(`/api/v1/sessions/${session_id}/records`)).status).toBe(503)
    await othersGoOn(again)
  })
})

describe('a data directory', () => {
  it('may itself be named by way of a link', async () => {
    const [home, other] = [makeHome(), makeHome()]
    symlinkSync(home, join(other, 'link'))
    const running = await run(join(other, 'link'))
    expect((await running.admin.start()).status).toBe(201)
    await running.stop()
    expect(await cli(join(other, 'link'), ['verify'])).toMatchObject({ code: 0 })
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
  })

  it('may yet have to be made, with all that leads to it', async () => {
    const home = join(makeHome(), 'a', 'b')
    const running = await run(home)
    expect((await running.admin.start()).status).toBe(201)
    await running.stop()
    expect(await cli(home, ['verify'])).toMatchObject({ code: 0 })
  })
})
