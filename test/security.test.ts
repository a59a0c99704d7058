// What docs/SECURITY.md says is there: each requirement is named once, each row says by what it is seen or why it is not,
// and every file that it names exists.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { features } from '../src/features/index.ts'

const root = new URL('../', import.meta.url).pathname
const page = readFileSync(join(root, 'docs', 'SECURITY.md'), 'utf8')

/** What is between two headings of the second level. */
const part = (heading: string) => page.split(/^## /m).find((text) => text.startsWith(heading)) as string

const rowsOf = (text: string) =>
  text
    .split('\n')
    .filter((line) => line.startsWith('| ') && !line.startsWith('| requirement') && !line.startsWith('| paragraph'))
    .map((line) => line.split(/ *\| */).slice(1, -1))

/** The requirements of OWASP ASVS 5.0.0 at levels 1 and 2. */
const ASVS = `1.1.1-2 1.2.1-9 1.3.1-11 1.4.1-3 1.5.1-2 2.1.1-3 2.2.1-3 2.3.1-4 2.4.1 3.2.1-2 3.3.1-4 3.4.1-6 3.5.1-5 3.7.1-2 4.1.1-3
4.2.1 4.3.1-2 4.4.1-4 5.1.1 5.2.1-3 5.3.1-2 5.4.1-3 6.1.1-3 6.2.1-12 6.3.1-4 6.4.1-4 6.5.1-5 6.6.1-3 6.8.1-4 7.1.1-3 7.2.1-4 7.3.1-2
7.4.1-5 7.5.1-2 7.6.1-2 8.1.1-2 8.2.1-3 8.3.1 8.4.1 9.1.1-3 9.2.1-4 10.1.1-2 10.2.1-2 10.3.1-4 10.4.1-11 10.5.1-5 10.6.1-2 10.7.1-3
11.1.1-2 11.2.1-3 11.3.1-3 11.4.1-4 11.5.1 11.6.1 12.1.1-3 12.2.1-2 12.3.1-4 13.1.1 13.2.1-5 13.3.1-2 13.4.1-5 14.1.1-2 14.2.1-4
14.3.1-3 15.1.1-3 15.2.1-3 15.3.1-7 16.1.1 16.2.1-5 16.3.1-4 16.4.1-3 16.5.1-3 17.1.1 17.2.1-4 17.3.1-2`

/** `1.2.6–1.2.8`, or `1.2.6-8`, as three. */
function each(range: string): string[] {
  const [first = '', last = first] = range.split(/[–-]/)
  const steps = first.split('.')
  const from = Number(steps.pop())
  const to = Number(last.split('.').pop())
  return Array.from({ length: to - from + 1 }, (_, i) => [...steps, from + i].join('.'))
}

const HIPAA = '(a)(1) (a)(2)(i) (a)(2)(ii) (a)(2)(iii) (a)(2)(iv) (b) (c)(1) (c)(2) (d) (e)(1) (e)(2)(i) (e)(2)(ii)'

describe('docs/SECURITY.md', () => {
  const asvs = rowsOf(part('OWASP ASVS'))
  const hipaa = rowsOf(part('HIPAA'))

  it('names every requirement of ASVS 5.0 at levels 1 and 2, once and in order', () => {
    const named = asvs.flatMap(([ids = '']) => ids.split(', ').flatMap(each))
    const published = ASVS.split(/\s+/).flatMap(each)
    expect(published).toHaveLength(253)
    expect(new Set(named).size).toBe(named.length)
    expect([...named].sort()).toEqual([...published].sort())
  })

  it('names every paragraph of the technical safeguards, once', () => {
    expect(hipaa.map(([paragraph]) => paragraph)).toEqual(HIPAA.split(' '))
  })

  it('claims nothing without a test, unless it says by whom it is met, that it is not, or where it is written', () => {
    const excused = /no such thing here|by the operator|up to the operator|not met|\[above\]|this page/i
    const bare = [...asvs, ...hipaa].filter(
      (row) => !/`test\/[\w.]+`|not tested/.test(row.at(-1) ?? '') && !excused.test(row.at(-2) ?? ''),
    )
    expect(bare.map((row) => row.join(' | '))).toEqual([])
  })

  it('names files, headings and settings that are there', () => {
    const files = [...page.matchAll(/`((?:src|test|schemas)\/[\w./-]+\.\w+)`/g)].map(([, file]) => file as string)
    expect(files.length).toBeGreaterThan(50)
    expect(files.filter((file) => !existsSync(join(root, file)))).toEqual([])
    const headings = [...page.matchAll(/^#+ (.*)$/gm)].map(([, text]) =>
      (text as string)
        .toLowerCase()
        .replace(/[^\w -]/g, '')
        .replace(/ /g, '-'),
    )
    const links = [...page.matchAll(/\]\(#([\w-]+)\)/g)].map(([, link]) => link as string)
    expect(links.filter((link) => !headings.includes(link))).toEqual([])
    const config = readFileSync(join(root, 'src', 'config.ts'), 'utf8')
    const settings = [...page.matchAll(/SESSILE_[A-Z_]+/g)].map(([name]) => name.replace(/_FILE$/, ''))
    expect(settings.filter((name) => !config.includes(name))).toEqual([])
  })
})

describe('what is asked by GET', () => {
  it('is a question, and never a command', () => {
    const asked = features.commands.flatMap(({ at }) => at ?? [])
    expect(asked.length).toBeGreaterThan(10)
    expect(asked.filter((at) => !/^(?:POST|PUT|PATCH|DELETE) /.test(at))).toEqual([])
  })
})
