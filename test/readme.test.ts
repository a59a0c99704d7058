// The README is run: its tour command by command against a server of its own, and its check of a seal.

import { execFile, spawn } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { filesUnder, later, makeHome, run, said, sessionFile } from './harness.ts'

const root = new URL('../', import.meta.url).pathname
const readme = readFileSync(join(root, 'README.md'), 'utf8')
const blocks = (language: string) =>
  [...readme.matchAll(new RegExp(`^\`\`\`${language}\n([\\s\\S]*?)^\`\`\``, 'gm'))].map(([, text]) => text as string)

/** Commands with the output that the README shows for each. */
function commands(): { command: string; shown: string }[] {
  const all: { command: string; shown: string }[] = []
  for (const line of blocks('console').join('').split('\n')) {
    const last = all.at(-1)
    if (line.startsWith('$ ')) all.push({ command: line.slice(2), shown: '' })
    else if (last) last.shown += `${line}\n`
  }
  return all.map(({ command, shown }) => ({ command, shown: shown.trim() }))
}

/** What differs from run to run, made alike. */
const alike = (text: string) =>
  text
    .replace(/sess_[0-9A-Z]{26}/g, 'SESSION')
    .replace(/key_[0-9A-Z]{26}/g, 'KEY_ID')
    .replace(/sessile_[\w-]{43}/g, 'SECRET')
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}/g, 'UUID')
    .replace(/(?!2031)\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z/g, 'TIME')
    .replace(/\d+\.\d s/g, 'SECONDS')
    .trim()

describe('the README', () => {
  it('shows a tour whose every command gives what it shows', async () => {
    const home = makeHome()
    // Below those that the system gives to whoever asks for any.
    const port = String(10_000 + (process.pid % 20_000))
    const server = spawn('npm', ['start', '--silent'], {
      cwd: root,
      env: { ...process.env, SESSILE_HOME: home, SESSILE_PORT: port, NO_COLOR: '1' },
      detached: true,
    })
    const gone = new Promise((resolve) => server.on('close', resolve))
    later(async () => {
      process.kill(-(server.pid as number), 'SIGTERM')
      await gone
    })
    let out = ''
    server.stdout.on('data', (data) => {
      out += data
    })
    await expect.poll(() => out, { timeout: 30_000 }).toMatch(/sessions\.start/)
    const [start, ...tour] = commands()
    expect(start?.command).toBe('npm start')
    expect(alike(out)).toContain(alike(start?.shown ?? ''))
    const secret = /sessile_[\w-]{43}/.exec(out)?.[0] as string

    // One shell for the whole tour, each command's output between marks.
    const script = tour.map(({ command }) => `${command}\necho "=== $?"`).join('\n')
    const ran = await new Promise<string>((resolve, reject) => {
      const pasted = script
        .replaceAll('8787', port)
        .replace(/KEY=\S+/, `KEY=${secret}`)
        .replaceAll('npx sessile', `${root}src/sessile`)
      const env = { ...process.env, SESSILE_HOME: home, NO_COLOR: '1' }
      execFile('bash', ['-c', `exec 2>&1\n${pasted}`], { cwd: makeHome(), env }, (error, stdout) =>
        error ? reject(error) : resolve(stdout),
      )
    })
    const outputs = ran.split(/=== (\d+)\n/)
    tour.forEach(({ command, shown }, i) => {
      expect([command, alike(outputs[2 * i] as string), outputs[2 * i + 1]]).toEqual([command, alike(shown), '0'])
    })
    expect(tour.length).toBeGreaterThan(10)
  })

  it('is right about `npx sessile` in the checkout', async () => {
    const out = await new Promise<string>((resolve, reject) => {
      execFile('npx', ['sessile', 'help'], { cwd: root }, (error, stdout) => (error ? reject(error) : resolve(stdout)))
    })
    for (const verb of ['serve', 'info', 'cat', 'verify', 'rebuild', 'replay', 'keys']) {
      expect(out).toContain(`  ${verb} `)
      expect(readme).toContain(`| \`${verb}`)
    }
  })

  it('shows twelve lines of Python that find a log right, and a changed one wrong', async () => {
    const [python] = blocks('python')
    expect(python?.trimEnd().split('\n')).toHaveLength(12)
    const { admin, sessile, home } = await run()
    const { session_id } = (await admin.start()).body
    await admin.append(session_id, [said('one ✓'), said('two\u2028lines')])
    sessile.log.settle()
    const script = join(home, 'check.py')
    writeFileSync(script, python as string)
    const check = () =>
      new Promise<{ failed: boolean; out: string }>((resolve) =>
        execFile('python3', [script, sessionFile(home, session_id)], (error, out, err) =>
          resolve({ failed: error !== null, out: out + err }),
        ),
      )
    expect(await check()).toEqual({ failed: false, out: `3 lines follow from ${session_id}\n` })
    const file = sessionFile(home, session_id)
    writeFileSync(file, readFileSync(file, 'utf8').replace('one', 'ond'))
    expect(await check()).toMatchObject({ failed: true, out: expect.stringContaining('line 2 does not follow') })
  })

  it('names every setting, and files that are there', () => {
    const config = readFileSync(join(root, 'src/config.ts'), 'utf8')
    for (const [name] of config.matchAll(/SESSILE_[A-Z_]+/g)) expect(readme).toContain(`\`${name}\``)
    const here = new Set(
      ['src', 'test', 'schemas', 'projections', 'docs'].flatMap((folder) =>
        filesUnder(join(root, folder)).map((file) => `${folder}/${file}`),
      ),
    )
    for (const [, file] of readme.matchAll(/`(?:npx vitest run )?((?:test|docs|projections|schemas)\/[\w./-]+\.(?:ts|md|sql))`/g))
      expect(here).toContain(file)
  })
})
