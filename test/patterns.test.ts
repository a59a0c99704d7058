// No text can make a pattern slow: every regular expression of the source, and every pattern of the published schemas, is
// taken apart and looked through for more ways than one. Found by parsing the source, so that none is passed over.

import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { transform } from 'esbuild'
import { describe, expect, it } from 'vitest'
import { parseAst } from 'vitest/node'
import { growthOf, parsePattern, stepsOf, textFor } from './patterns.ts'

const root = fileURLToPath(new URL('../', import.meta.url))

interface Pattern {
  file: string
  source: string
  flags: string
}

interface Tree {
  type: string
  [part: string]: unknown
}
const isTree = (part: unknown): part is Tree => typeof part === 'object' && part !== null && 'type' in part

/** Every node of a syntax tree. */
function* nodesOf(part: unknown): Generator<Tree> {
  if (Array.isArray(part)) for (const one of part) yield* nodesOf(one)
  if (!isTree(part)) return
  yield part
  for (const inner of Object.values(part)) yield* nodesOf(inner)
}

/** The pattern that `RegExp(…)` is given: a text, where what is put into it is a number; or one of the contract's own. */
function sourceOf(file: string, given: Tree | undefined): string {
  const property = (given?.left as Tree | undefined)?.property as Tree | undefined
  // The page that shows the contract uses its patterns, which are looked at with the schemas.
  if (file.endsWith('docs.html') && given?.type === 'LogicalExpression' && property?.name === 'pattern') return ''
  if (given?.type === 'Literal' && typeof given.value === 'string') return given.value
  if (given?.type !== 'TemplateLiteral') throw new Error(`${file} makes a pattern of something that cannot be read here`)
  return (given.quasis as { value: { cooked: string } }[]).map(({ value }) => value.cooked).join('7')
}

const MATCHING = ['match', 'matchAll', 'search']

async function patternsIn(file: string, text: string): Promise<Pattern[]> {
  const { code } = await transform(text, { loader: file.endsWith('.ts') ? 'ts' : 'js', target: 'esnext' })
  const found: Pattern[] = []
  for (const node of nodesOf(parseAst(code))) {
    const {
      regex,
      callee,
      arguments: given,
    } = node as { regex?: { pattern: string; flags: string }; callee?: Tree; arguments?: Tree[] }
    if (regex) found.push({ file, source: regex.pattern, flags: regex.flags })
    if (callee?.name === 'RegExp') found.push({ file, source: sourceOf(file, given?.[0]), flags: '' })
    // These make a pattern of a text by themselves.
    const method = (callee?.property as Tree | undefined)?.name
    if (
      MATCHING.includes(method as string) &&
      ['Literal', 'TemplateLiteral'].includes(given?.[0]?.type ?? '') &&
      !given?.[0]?.regex
    )
      found.push({ file, source: sourceOf(file, given?.[0]), flags: '' })
  }
  return found
}

const filesIn = (folder: string) =>
  readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name))

/** What the shell matches with is no regular expression. */
const isOfShell = (text: string) => text.startsWith('#!/bin/sh\n')

async function ofSource(): Promise<Pattern[]> {
  const found: Pattern[] = []
  for (const file of filesIn('src')) {
    const text = readFileSync(file, 'utf8')
    if (/\.(ts|[cm]?js)$/.test(file)) found.push(...(await patternsIn(file, text)))
    else if (file.endsWith('.html')) {
      for (const [, script = ''] of text.matchAll(/<script[^>]*>([\s\S]*?)<\/script>/g))
        found.push(...(await patternsIn(file, script)))
    } else if (!file.endsWith('.txt') && !isOfShell(text)) throw new Error(`${file}: what patterns are in there?`)
  }
  return found
}

function ofSchemas(): Pattern[] {
  const found: Pattern[] = []
  for (const file of filesIn('schemas').filter((name) => name.endsWith('.json'))) {
    JSON.parse(readFileSync(file, 'utf8'), (name, value) => {
      if (name === 'pattern' && typeof value === 'string') found.push({ file, source: value, flags: 'u' })
      return value
    })
  }
  return found
}

const slow = (patterns: Pattern[]) =>
  patterns
    .map(({ file, source, flags }) => ({ file: file.slice(root.length), source, growth: growthOf(source, flags) }))
    .filter(({ growth }) => growth !== 'linear')

describe('a pattern', () => {
  it('of the source can be made slow by no text', async () => {
    const patterns = await ofSource()
    expect(patterns.length).toBeGreaterThan(50)
    expect(slow(patterns)).toEqual([])
  })

  it('of a published schema can be made slow by no text', () => {
    const patterns = ofSchemas()
    expect(patterns.length).toBeGreaterThan(30)
    expect(slow(patterns)).toEqual([])
  })

  it.each([
    'const a: RegExp = /x{2}/gi // /no/',
    'const a = b / /x{2}/gi.exec(c).length / 2',
    "const a = new RegExp('x{2}')",
    'const a = RegExp(`x{2}`)',
    "const a = c.match('x{2}')",
    'const a = `/no/ ${'.concat('c.replace(/x{2}/gi, "/no/")}`'),
  ])('is found wherever it stands: %s', async (text) => {
    expect((await patternsIn('a.ts', text)).map(({ source }) => source)).toEqual(['x{2}'])
  })

  it('that is put together at run time of what cannot be read is not passed over', async () => {
    await expect(patternsIn('a.ts', 'new RegExp(c)')).rejects.toThrow('cannot be read')
  })

  it.each([
    ['(a+)+$', 'exponential'],
    ['^(a|a)*$', 'exponential'],
    ['^(a|aa)+$', 'exponential'],
    ['^(\\w+\\s?)*$', 'exponential'],
    ['(x+x+)+y', 'exponential'],
    ['^(a*)*$', 'exponential'],
    ['^(a{0,63}){0,63}$', 'exponential'],
    ['^(?:a?b?)*c$', 'exponential'],
    ['(?=(a+)+$)b', 'exponential'],
    ['^([A-Za-z]+[0-9]*)+@$', 'exponential'],
    ['^.*.*=.*$', 'polynomial'],
    ['\\s+$', 'polynomial'],
    ['^\\d+-?\\d+$', 'polynomial'],
    ['^(?:a?){9}a{9}$', 'polynomial'],
    ['a*$', 'polynomial'],
    ['^a*$', 'linear'],
    ['[a-z]+', 'linear'],
    ['^[a-z]+(?:-[a-z]+)*$', 'linear'],
    ['^(?:a|b)*c$', 'linear'],
    ['^a{1,3}b+[^b]+$', 'linear'],
    ['^"(?:\\\\.|[^"\\\\])*"$', 'linear'],
  ])('such as %s is told to be %s in what it can cost', (source, growth) => {
    expect(growthOf(source)).toBe(growth)
  })

  it.each(['^(a+)+$', '^(a|a)*$', '^(a*)*$', '^(a|aa)+$', '^a*$', '^[a-z]+(?:-[a-z]+)*$', '^a*a*$', '^(?:a|b)*c$'])(
    'costs as many steps as is told: %s',
    (source) => {
      const [short, long] = [stepsOf(source, `${'a'.repeat(8)}!`), stepsOf(source, `${'a'.repeat(16)}!`)]
      const times = long / short
      expect(times < 2.5 ? 'linear' : times < 6 ? 'polynomial' : 'exponential').toBe(growthOf(source))
    },
  )

  it('of a published schema is fitted by the texts that are drawn for it', () => {
    let seed = 7
    const upTo = (most: number) => {
      seed = (seed * 48_271) % 2_147_483_647
      return seed % (most + 1)
    }
    for (const { source } of ofSchemas()) {
      for (let i = 0; i < 5; i++) expect(textFor(parsePattern(source), upTo)).toMatch(new RegExp(source, 'u'))
    }
  })
})
