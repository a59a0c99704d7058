// How a command starts: what its source becomes is kept, believed only where it is whole, and made anew when the source changes.

import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { getPriority } from 'node:os'
import { join } from 'node:path'
import type { Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { describe, expect, it } from 'vitest'
import { makeHome, serveApart } from './harness.ts'

const root = new URL('../', import.meta.url).pathname

/** A copy of this house, with packages that are links and a place of its own to keep things in. */
function houseApart(): string {
  const house = makeHome()
  for (const name of ['src', 'schemas', 'package.json', 'package-lock.json'])
    cpSync(join(root, name), join(house, name), { recursive: true })
  mkdirSync(join(house, 'node_modules'))
  for (const name of readdirSync(join(root, 'node_modules')))
    if (!name.startsWith('.')) symlinkSync(join(root, 'node_modules', name), join(house, 'node_modules', name))
  return house
}

async function said(child: ChildProcessByStdio<null, Readable, Readable>): Promise<string> {
  const [out, err] = await Promise.all([text(child.stdout), text(child.stderr)])
  expect(err).toBe('')
  return out
}

/** What a command says, when it is started there, and V8 is told this. */
const start = (house: string, ...flags: string[]): Promise<string> =>
  said(spawn(process.execPath, [...flags, join(house, 'src', 'sessile.cjs'), 'help'], { stdio: ['ignore', 'pipe', 'pipe'] }))

const cache = (house: string) => join(house, 'node_modules', '.cache', 'sessile')
const kept = (house: string) => readdirSync(cache(house)).map((name) => join(cache(house), name))
const when = (files: string[]) => files.map((file) => `${file} ${statSync(file).ino}`)
/** What Node is started with. */
const entry = join(root, 'src', 'sessile.cjs')

/** Another name for one of our files, elsewhere. */
function linkTo(name: string): string {
  const path = join(makeHome(), 'a name of its own')
  symlinkSync(join(root, 'src', name), path)
  return path
}

const HELP = /^sessile: the record of sessions\n/

describe('a start', () => {
  it('keeps what it made, for whoever starts next, and takes it as it is', async () => {
    const house = houseApart()
    expect(await start(house)).toMatch(HELP)
    const files = kept(house)
    expect(files.map((file) => file.replace(/.*\/src-cli-[0-9a-f]{16}/, ''))).toEqual(['.cjs', '.v8'])
    for (const file of files) expect(statSync(file).mode & 0o777).toBe(0o644)
    const text = readFileSync(files[0] as string, 'utf8')
    // Then V8 could not go by what is kept.
    expect(text).not.toMatch(/\bimport\([^)]/)
    // Then it would take twice the memory.
    expect([...text].find((letter) => letter > '\xff')).toBeUndefined()
    const before = when(files)
    expect(await start(house)).toMatch(HELP)
    expect(when(kept(house))).toEqual(before)
  })

  /** Has Node say at the end what it has loaded of its own. */
  const saysAtEnd = {
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent('process.on("exit", () => console.error(process.moduleLoadList.join(" ")))')}`,
  }

  it('loads what Node fetches with for odd addresses alone: it takes ten megabytes', async () => {
    const loadedFor = async (path: string) => {
      const { url, admin, child, err, ended } = await serveApart(makeHome(), saysAtEnd)
      expect((await admin.start()).status).toBe(201)
      expect((await fetch(`${url}${path}`)).status).toBe(200)
      child.kill('SIGTERM')
      expect(await ended).toBe(0)
      return err()
    }
    expect(await loadedFor('/healthz')).not.toContain('undici')
    expect(await loadedFor('/%68ealthz')).toContain('undici')
  })

  it('asks a service that runs without it: to load it takes a tenth of a second from whoever records', async () => {
    const home = makeHome()
    const { admin, child, ended } = await serveApart(home)
    expect((await admin.start()).status).toBe(201)
    const rebuild = spawn(entry, ['rebuild'], {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, ...saysAtEnd, SESSILE_HOME: home },
    })
    const [out, loaded] = await Promise.all([text(rebuild.stdout), text(rebuild.stderr)])
    expect(out).toMatch(/^Rebuilt from \d+ records in \d+ logs/)
    expect(loaded).toContain('NativeModule http')
    expect(loaded).not.toContain('undici')
    child.kill('SIGTERM')
    expect(await ended).toBe(0)
  })

  it('tells V8 the same, however it comes about', () => {
    const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
      scripts: { start: string; bench: string }
    }
    const told = scripts.start.match(/--\S+/g)
    expect(told).toContain('--no-allocation-site-pretenuring')
    expect(scripts.bench).toContain(`node ${told?.join(' ')} src/load.cjs bench/run.ts`)
    for (const file of [entry, join(root, 'src', 'sessile.mjs')])
      expect(readFileSync(file, 'utf8').split('\n')[0]).toBe(`#!/usr/bin/env -S node ${told?.join(' ')}`)
  })

  it('works by a link to where `npx` led before, which it keeps', async () => {
    expect(await said(spawn(linkTo('sessile.mjs'), ['help'], { stdio: ['ignore', 'pipe', 'pipe'] }))).toMatch(HELP)
  })

  describe('as `npx sessile` makes it', () => {
    /** What it would start Node with, and how whoever is told of it is scheduled; `chrt`: what takes the place of this command. */
    const startsWith = async (words: string[], chrt?: string): Promise<string[]> => {
      const folder = makeHome()
      const stub = (name: string, script: string) => writeFileSync(join(folder, name), `#!/bin/sh\n${script}\n`, { mode: 0o755 })
      stub('node', `printf '%s\\n' "$@"; PATH=${process.env.PATH}; chrt -p $$; nice`)
      if (chrt !== undefined) stub('chrt', chrt)
      const env = { ...process.env, PATH: `${folder}:${process.env.PATH}` }
      return (await said(spawn(linkTo('sessile'), words, { stdio: ['ignore', 'pipe', 'pipe'], env }))).trimEnd().split('\n')
    }

    it('runs, by whatever name it is called', async () => {
      expect(await said(spawn(linkTo('sessile'), ['help'], { stdio: ['ignore', 'pipe', 'pipe'] }))).toMatch(HELP)
    })

    it('gives way to whoever records before Node is there, where it goes through all there is', async () => {
      for (const verb of ['rebuild', 'replay', 'verify']) {
        const [, , , ...rest] = await startsWith([verb, 'two words', '*'])
        expect(rest).toEqual([entry, verb, 'two words', '*', expect.stringContaining('SCHED_IDLE'), expect.any(String), '19'])
      }
    })

    it('is there like others where it serves, or waits for a moment of the recorder', async () => {
      for (const words of [['serve'], ['rebuild', '--check'], ['info', 'rebuild'], []]) {
        const [, , , ...rest] = await startsWith(words)
        expect(rest).toEqual([entry, ...words, expect.stringContaining('SCHED_OTHER'), expect.any(String), `${getPriority()}`])
      }
    })

    it('goes by a low priority alone where it may not choose its class', async () => {
      const [, , , ...rest] = await startsWith(['verify'], 'exit 1')
      expect(rest).toEqual([entry, 'verify', expect.stringContaining('SCHED_OTHER'), expect.any(String), '19'])
    })
  })

  it('believes what V8 made only where V8 is told the same', async () => {
    const house = houseApart()
    await start(house)
    const before = when(kept(house))
    expect(await start(house, '--max-semi-space-size=4', '--no-allocation-site-pretenuring')).toMatch(HELP)
    expect(when(kept(house))).not.toEqual(before)
  })

  it('makes it anew where it was cut, or is not what it was', async () => {
    const house = houseApart()
    const another = (file: string) => writeFileSync(file, readFileSync(file, 'utf8').replace('of sessions', 'of delusion'))
    const harms: [string, (file: string) => void][] = [
      ['.cjs', (file) => truncateSync(file, 1000)],
      ['.cjs', another],
      ['.v8', (file) => truncateSync(file, 1000)],
      ['.v8', (file) => truncateSync(file, 0)],
    ]
    await start(house)
    for (const [ending, harm] of harms) {
      const file = kept(house).find((name) => name.endsWith(ending)) as string
      const [before, bytes] = [when(kept(house)), readFileSync(file).length]
      harm(file)
      expect(await start(house)).toMatch(HELP)
      expect(when(kept(house))).not.toEqual(before)
      expect(readFileSync(file).length).toBeGreaterThan(bytes / 2)
    }
  })

  it('runs the source as it is now, and keeps nothing of what it was', async () => {
    const house = houseApart()
    await start(house)
    const before = when(kept(house))
    const info = join(house, 'src', 'verbs', 'info.ts')
    writeFileSync(info, readFileSync(info, 'utf8').replace('Tell what is in', 'Tell what was in'))
    expect(await start(house)).toMatch('Tell what was in')
    expect(kept(house)).toHaveLength(2)
    expect(when(kept(house))).not.toEqual(before)
    rmSync(info)
    await expect(start(house)).rejects.toThrow('Could not resolve')
  })

  it('loads of a verb what it needs and no more, and keeps each for itself', async () => {
    const house = houseApart()
    const starts = async (verb: string) => {
      const child = spawn(process.execPath, [join(house, 'src', 'sessile.cjs'), verb], {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: { ...process.env, SESSILE_HOME: house },
      })
      expect(await text(child.stderr)).toMatch(/There is no data in /)
    }
    const of = (verb: string) => kept(house).filter((file) => file.includes(`/src-verbs-${verb}-`))
    const touch = (path: string) => writeFileSync(join(house, path), `${readFileSync(join(house, path), 'utf8')}\n// More.\n`)
    await starts('info')
    await starts('replay')
    expect(readFileSync(of('replay')[0] as string, 'utf8')).not.toMatch(/node_modules\/(?:zod|hono|ajv|pino)\/|core\/recorder/)
    const [info, replay] = [when(of('info')), when(of('replay'))]
    expect([info.length, replay.length]).toEqual([2, 2])
    touch('src/verbs/info.ts')
    touch('src/http/server.ts')
    await starts('replay')
    expect(when(of('replay'))).toEqual(replay)
    expect(when(of('info'))).toEqual(info)
    await starts('info')
    expect(when(of('info'))).not.toEqual(info)
    touch('src/log/shelf.ts')
    await starts('replay')
    expect(when(of('replay'))).not.toEqual(replay)
  })

  it('runs what is passed on as it is passed on now', async () => {
    const house = houseApart()
    const write = (path: string, text: string) => writeFileSync(join(house, 'src', path), text)
    write(
      'verbs/info.ts',
      `import { exit } from '../cli/passing.ts'\nexport const infoVerb = { options: {}, run: () => exit.found }\n`,
    )
    const codes: unknown[] = []
    for (const passing of ["export * from './verb.ts'", "export * from './other.ts'"]) {
      write('cli/passing.ts', `${passing}\n`)
      write('cli/other.ts', 'export const exit = { found: 9 }\n')
      const child = spawn(process.execPath, [join(house, 'src', 'sessile.cjs'), 'info'], {
        stdio: ['ignore', 'inherit', 'inherit'],
      })
      codes.push((await once(child, 'exit'))[0])
    }
    expect(codes).toEqual([1, 9])
  })

  it('knows each verb by its file, and no other file by its name', async () => {
    const run = (...words: string[]) => spawn(process.execPath, [entry, ...words], { stdio: ['ignore', 'pipe', 'pipe'] })
    const listed = [...(await said(run('help'))).matchAll(/^ {2}([a-z]+) +[A-Z][a-z]/gm)].map(([, name = '']) => name)
    expect(listed.sort()).toEqual(readdirSync(join(root, 'src', 'verbs')).map((name) => name.replace('.ts', '')))
    for (const name of listed) expect(await said(run(name, '--help'))).toContain(`\n\n  sessile ${name} `)
    for (const name of ['Info', '../cli/print', 'program', 'constructor', '']) {
      const child = run(name)
      const ended = once(child, 'exit')
      expect(await text(child.stderr)).toBe(`sessile: there is no verb ${name}: sessile help lists them\n`)
      expect(await ended).toEqual([2, null])
    }
  })

  it('does without where nothing can be kept', async () => {
    const house = houseApart()
    writeFileSync(join(house, 'node_modules', '.cache'), '')
    expect(await start(house)).toMatch(HELP)
  })
})
