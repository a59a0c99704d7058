// The rules of the house, read off the source as text. Each rule is a function from files to findings (`file:line: what`);
// each is also fed small bad texts, to see that it bites, and small good ones, to see that it bites nothing else.

import { readdirSync, readFileSync, statSync } from 'node:fs'
import { STATUS_CODES } from 'node:http'
import { posix } from 'node:path'
import { describe, expect, it } from 'vitest'
import { kindNames } from '../src/features/kinds.ts'

const root = new URL('../', import.meta.url)

// --- reading ----------------------------------------------------------------------------------------------------------

interface Source {
  path: string
  text: string
  /** The text with its comments blanked; every character keeps its place. */
  words: string
  /** The text with comments and what is within strings and patterns blanked. */
  code: string
}

const COMMENT = /\/\/.*|\/\*[\s\S]*?\*\//y
const STRING = /'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"/y
const PATTERN = /\/(?:\\.|\[(?:\\.|[^\]\\\n])*\]|[^/\\\n[])+\/[a-z]*/y
/** From a backtick, or from the brace that ends an expression within, to the end or to the next such expression. */
const TEMPLATE = /[`}](?:\\[\s\S]|\$(?!\{)|[^`\\$])*(?:`|\$\{)/y
const BEFORE_PATTERN = /(?:^|[(,=:[!&|?{};+*%<>~^-]|\b(?:return|typeof|case|in|of|await|yield|throw))\s*$/

const blank = (text: string) => text.replace(/[^\n]/g, ' ')

/** The next piece of a text: how it reads without comments, and how without strings as well. */
function pieceAt(text: string, at: number, before: string, inTemplate: boolean): { words: string; code: string } {
  const c = text[at] as string
  const take = (token: RegExp) => {
    token.lastIndex = at
    return token.exec(text)?.[0]
  }
  const hollow = (whole: string) => ({ words: whole, code: c + blank(whole.slice(1, -1)) + whole.at(-1) })
  if (c === '/') {
    const comment = take(COMMENT)
    if (comment) return { words: blank(comment), code: blank(comment) }
    const pattern = BEFORE_PATTERN.test(before.slice(-40)) && take(PATTERN)
    return pattern ? { words: pattern, code: `/${blank(pattern.slice(2))}/` } : { words: c, code: c }
  }
  if (c === "'" || c === '"') return hollow(take(STRING) ?? c)
  if (c === '`' || (c === '}' && inTemplate)) return hollow(take(TEMPLATE) ?? c)
  return { words: c, code: c }
}

const STEPS: Record<string, number> = { '{': 1, '}': -1 }

function sourceOf(path: string, text: string): Source {
  let [words, code, depth] = ['', '', 0]
  const templates: number[] = []
  while (/\.(ts|[cm]?js)$/.test(path) && words.length < text.length) {
    const piece = pieceAt(text, words.length, code, templates.at(-1) === depth)
    depth += STEPS[piece.words] ?? 0
    // A brace and more is what follows an expression within a template.
    if (/^\}./s.test(piece.words)) templates.pop()
    if (/^[`}].*\$\{$/s.test(piece.words)) templates.push(depth)
    words += piece.words
    code += piece.code
  }
  if (depth !== 0 || templates.length > 0) throw new Error(`${path}: what opens and what closes do not pair`)
  return { path, text, words, code }
}

function filesIn(folder: string): string[] {
  const url = new URL(folder, root)
  if (!statSync(url, { throwIfNoEntry: false })) return []
  const entries = readdirSync(url, { withFileTypes: true }).filter(({ name }) => name !== 'node_modules')
  return entries.flatMap((entry) => (entry.isDirectory() ? filesIn(`${folder}${entry.name}/`) : [`${folder}${entry.name}`]))
}

const manifest = readFileSync(new URL('package.json', root), 'utf8')
const house = [
  ...['src/', 'test/', 'bench/', 'docs/'].flatMap(filesIn),
  ...readdirSync(root).filter((name) => /^[^.].*\.(md|json|ts|js)$/.test(name) && name !== 'package-lock.json'),
].map((path) => sourceOf(path, readFileSync(new URL(path, root), 'utf8')))

const isCode = ({ path }: Source) => /\.(ts|[cm]?js)$/.test(path)
const codeUnder = (sources: Source[], folder: string) =>
  sources.filter((source) => source.path.startsWith(folder) && isCode(source))
const lineAt = (text: string, at: number) => text.slice(0, at).split('\n').length
const finding = ({ path, text }: Source, at: number, what: string) => `${path}:${lineAt(text, at)}: ${what}`

/** A finding for each place where a pattern is found. */
const each = (source: Source, text: string, pattern: RegExp, what: (found: RegExpExecArray) => string | undefined) =>
  [...text.matchAll(pattern)].flatMap((found) => {
    const said = what(found)
    return said === undefined ? [] : [finding(source, found.index + found[0].search(/\S/), said)]
  })

interface Import {
  at: number
  /** A file, from the root on; or a package or a part of Node. */
  to: string
  /** The names as the other file knows them; `*` for all of them. */
  names: string[]
  /** What the whole of it is called here. */
  whole: string | undefined
  typeOnly: boolean
}

const STATIC = /^(?:import|export)\s+(type\s+)?((?:(?!\b(?:import|export)\b)[\w\s{},*$])*?)\s*\bfrom\s*(['"])([^'"\n]+)\3/gm
const BARE = /^import\s*(['"])([^'"\n]+)\1/gm
const DYNAMIC = /\bimport\(\s*(?:(['"])([^'"\n]+)\1\s*\))?/g
const REQUIRED = /^ *const \{([\w ,]*)\} = require\((['"])([^'"\n]+)\2\)$/gm
const BESIDE = /\bnew URL\(\s*(['"])(\.[^'"\n]*)\1,\s*import\.meta\.url\)/g

function importsOf(source: Source): Import[] {
  const { path, words, code } = source
  const to = (named: string) => (named.startsWith('.') ? posix.join(posix.dirname(path), named) : named)
  const real = (found: RegExpExecArray) => /^[ien]/.test(code.slice(found.index))
  const all = { names: ['*'], whole: undefined, typeOnly: false }
  const found: Import[] = []
  for (const one of [...words.matchAll(STATIC)].filter(real)) {
    const [, type, clause = '', , named = ''] = one
    const braced = /\{([^}]*)\}/.exec(clause)?.[1] ?? ''
    const names = braced.split(',').map((name) =>
      name
        .trim()
        .replace(/^type\s+/, '')
        .replace(/\s+as\s+.*$/s, ''),
    )
    const whole = /^(?:\*\s+as\s+)?([\w$]+)/.exec(clause.trim())?.[1]
    const star = clause.includes('*') ? ['*'] : whole ? ['default'] : []
    found.push({ at: one.index, to: to(named), names: [...names.filter(Boolean), ...star], whole, typeOnly: type !== undefined })
  }
  for (const { index, 0: text, 1: names = '', 3: named = '' } of words.matchAll(REQUIRED)) {
    const required = { names: names.split(',').map((name) => name.trim()), whole: undefined, typeOnly: false }
    found.push({ at: index + text.indexOf('require'), to: to(named), ...required })
  }
  for (const one of [...words.matchAll(BARE)].filter(real)) found.push({ at: one.index, to: to(one[2] ?? ''), ...all })
  for (const one of [...words.matchAll(DYNAMIC)].filter(real)) found.push({ at: one.index, to: to(one[2] ?? ''), ...all })
  return found
}

/** Files that are read or run beside a file: `new URL('./docs.html', import.meta.url)`. */
const besides = ({ path, words }: Source) =>
  [...words.matchAll(BESIDE)].map(([, , named = '']) => posix.join(posix.dirname(path), named))

// --- the rules --------------------------------------------------------------------------------------------------------

/** What each floor may import of the others. The top is src/*.ts: the command line, app and config. */
const floors: Record<string, readonly string[] | 'all'> = {
  core: [],
  log: ['core'],
  features: ['core'],
  exports: ['core'],
  http: ['core'],
  client: [],
  console: ['client'],
  cli: 'all',
  verbs: 'all',
  top: 'all',
}

const floorOf = (path: string) => (/^src\/[^/]+$/.test(path) ? 'top' : (path.split('/')[1] as string))

function wrongArrows(sources: Source[]): string[] {
  const known = new Set(sources.map(({ path }) => path))
  return codeUnder(sources, 'src/').flatMap((source) =>
    importsOf(source).flatMap(({ at, to }) => {
      const wrong = to.startsWith('src/') ? wrongWithin(source.path, to, known) : wrongWithout(to)
      return wrong === undefined ? [] : [finding(source, at, wrong)]
    }),
  )
}

function wrongWithin(path: string, to: string, known: Set<string>): string | undefined {
  const [from, into] = [floorOf(path), floorOf(to)]
  const may = floors[from]
  if (!known.has(to)) return `there is no ${to}`
  if (may === undefined) return `${from} is a new floor: say in this test what it may import`
  return may === 'all' || from === into || may.includes(into) ? undefined : `${from} imports ${to}`
}

const { dependencies } = JSON.parse(manifest) as { dependencies: Record<string, string> }

function wrongWithout(to: string): string | undefined {
  if (to === '') return 'an import that nobody can follow: name the file'
  if (to.startsWith('node:')) return undefined
  if (/^(test|bench|docs)\/|^\.|^\//.test(to)) return `${to} is not under src`
  const name = to.split('/', to.startsWith('@') ? 2 : 1).join('/')
  return name in dependencies ? undefined : `${name} is not among the dependencies of package.json`
}

function circles(sources: Source[]): string[] {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  const done = new Set<string>()
  const found: string[] = []
  const walk = (source: Source, way: string[]) => {
    if (done.has(source.path)) return
    for (const { at, to } of importsOf(source)) {
      const next = byPath.get(to)
      if (!next) continue
      const from = [...way, source.path].indexOf(to)
      if (from >= 0) found.push(finding(source, at, `a circle: ${[...way, source.path, to].slice(from).join(' → ')}`))
      else walk(next, [...way, source.path])
    }
    done.add(source.path)
  }
  for (const source of codeUnder(sources, 'src/').sort((a, b) => (a.path < b.path ? -1 : 1))) walk(source, [])
  return found
}

/** A thread of Node takes memory and time before it runs a line; what it loads besides is paid for each time that one is begun. */
const SMALL = /^node:|^better-sqlite3$|^ulid$/

function heavyThreads(sources: Source[]): string[] {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  return sources
    .filter(({ path }) => /^src\/.*-thread\.ts$/.test(path))
    .flatMap((thread) => {
      const loaded = new Set<Source>([thread])
      const found: string[] = []
      for (const source of loaded)
        for (const { at, to, typeOnly } of importsOf(source)) {
          const next = typeOnly ? undefined : byPath.get(to)
          if (next) loaded.add(next)
          else if (!typeOnly && !SMALL.test(to)) found.push(finding(source, at, `${to} is loaded by ${thread.path}`))
        }
      return found
    })
}

/** Of `z` as one thing all is kept that it has, the words of fifty languages among it: a quarter of all that is loaded. */
const wholeOfZod = (sources: Source[]) =>
  codeUnder(sources, 'src/').flatMap((source) =>
    importsOf(source)
      .filter(({ to, names, typeOnly }) => /^zod(?:\/|$)/.test(to) && !typeOnly && !names.includes('*'))
      .map(({ at }) => finding(source, at, "import * as z from 'zod': what is not used can be left out then")),
  )

/** Between features, events and views are public; commands and queries are not. */
function borrowedCommands(sources: Source[]): string[] {
  const features = codeUnder(sources, 'src/features/')
  const own = new Map(
    features.map((source) => [
      source.path,
      [...source.code.matchAll(/^export const (\w+) = (?:command|query)\(/gm)].map(([, name]) => name),
    ]),
  )
  return features.flatMap((source) =>
    importsOf(source).flatMap(({ at, to, names }) =>
      names
        .filter((name) => own.get(to)?.includes(name))
        .map((name) => finding(source, at, `${name} is a command of ${to}: features share events and views only`)),
    ),
  )
}

const makesGarbage = (sources: Source[]) =>
  codeUnder(sources, 'src/').flatMap((source) => [
    ...each(
      source,
      source.code,
      /\.(?:pragma|iterate|transaction)\(/g,
      () => 'makes an object that may be collected, which ends the process',
    ),
    ...(source.path === 'src/core/tables.ts'
      ? []
      : each(source, source.code, /\bnew Database\(/g, () => 'openDatabase keeps what it opens')),
  ])

const readsEnvironment = (sources: Source[]) =>
  codeUnder(sources, 'src/')
    .filter(({ path }) => path !== 'src/config.ts')
    .flatMap((source) => [
      ...each(
        source,
        source.code,
        /\bprocess\s*(?:\??\.\s*env\b|(?:\?\.)?\s*\[)|\benv\b[^;{}\n]*\}\s*=\s*(?:globalThis\s*\.\s*)?process\b/g,
        () => 'the environment is read in config.ts alone',
      ),
      ...importsOf(source).flatMap(({ at, to }) =>
        to === 'node:process' || to === 'process' ? [finding(source, at, 'the environment is read in config.ts alone')] : [],
      ),
    ])

const KIND = `['"\`](?:${kindNames.join('|')})['"\`]`
const COMPARED = new RegExp(
  [
    `[=!]==?\\s*${KIND}`,
    `${KIND}\\s*[=!]==?`,
    `\\bcase\\s+${KIND}\\s*:`,
    `\\bkinds\\.(?:${kindNames.join('|')})\\b`,
    `${KIND}[^\\][]*\\]\\s*\\.\\s*(?:includes|indexOf|some|find)\\b`,
    // In SQL.
    `\\bkind\\s*(?:=|==|<>|!=|IS(?:\\s+NOT)?|(?:NOT\\s+)?IN\\s*\\()\\s*'(?:${kindNames.join('|')})'`,
  ].join('|'),
  'g',
)

const comparesKinds = (sources: Source[]) =>
  codeUnder(sources, 'src/')
    .filter(({ path }) => path !== 'src/features/kinds.ts')
    .flatMap((source) => [
      ...each(source, source.words, COMPARED, ([found]) => `${found.trim()}: what differs between kinds is data in kinds.ts`),
      ...(source.path.startsWith('src/features/')
        ? each(source, source.code, /\bswitch\s*\([^)]*\bkind\b/g, () => 'a switch over kinds: what differs is data in kinds.ts')
        : []),
    ])

/** Numbers that measure something, and only look like a status. */
const MEASURE =
  /(?:\.(?:max|min|length|slice|padStart|padEnd)\([^()]*|\b[A-Z_]*(?:_MS|_BYTES|_LENGTH|MOST[A-Z_]*) = |\.length\s*[<>]=?\s*|[%*/+] )$/

const statusCodes = (sources: Source[]) =>
  ['src/http/', 'src/features/', 'src/core/']
    .flatMap((folder) => codeUnder(sources, folder))
    .filter(({ path }) => path !== 'src/http/problem.ts')
    .flatMap((source) => {
      const said = (status: string) => `the status ${status}: only http/problem.ts knows them`
      return [
        ...each(source, source.code, /(?<![\w.$])[45]\d\d(?![\w.]|\s*\*)/g, ({ 0: status, index }) =>
          status in STATUS_CODES && !MEASURE.test(source.code.slice(0, index).split('\n').at(-1) ?? '') ? said(status) : undefined,
        ),
        ...each(source, source.words, /(['"`])([45](?:\d\d|XX))\1/gi, ([, , status = '']) => said(status)),
      ]
    })

/** What can change a file, and who may use it. Law 1: under `logs/` that is the recorder's room alone. */
const WRITES =
  /^(?:promises|writ|append|createWriteStream|rename|rm|unlink|mkdir|mkdtemp|f?truncate|copyFile|cp|symlink|link|[fl]?(?:chmod|chown|utimes)|lutimes)/
const mayWrite: Record<string, readonly string[]> = {
  'src/log/disk.ts': ['openSync', 'writeSync', 'ftruncateSync', 'mkdirSync', 'renameSync', 'rmSync', 'rm'],
  'src/core/tables.ts': ['better-sqlite3'], // the views' database
  'src/core/views.ts': ['mkdirSync', 'rmSync'], // under projections/
  'src/core/place.ts': ['renameSync', 'rmSync'], // there, too
  'src/verbs/rebuild.ts': ['rmSync'], // the views it made to compare
  'src/cli/looking.ts': ['copyFileSync', 'linkSync', 'mkdirSync', 'rmSync'], // second names or a copy of the views, to look at
  'src/cli/print.ts': ['mkdirSync', 'writeFileSync'], // schemas/, projections/*.sql and docs/POLICY.md
  'src/features/hashing.ts': ['require'], // a package, when a password is to be hashed
  'src/secrets.ts': ['mkdirSync', 'writeFileSync', 'renameSync', 'rmSync'], // under secrets/
  'src/logger.ts': ['write', 'writeSync'], // stderr
  'src/install.mjs': ['spawnSync'], // npm
  'src/load.cjs': ['require', 'mkdirSync', 'writeFileSync', 'renameSync', 'rmSync'], // under node_modules/; what it runs asks for packages
}

interface Use {
  name: string
  at: number
}

/** What of a file can change files. */
function writesOf(source: Source): Use[] {
  const known = new Set(importsOf(source).map(({ at }) => at))
  const loose = [...source.code.matchAll(/\b(?:require|createRequire|getBuiltinModule)\s*\(/g)].filter(
    ({ index }) => !known.has(index),
  )
  return [...loose.map(({ index: at }) => ({ name: 'require', at })), ...importsOf(source).flatMap((one) => writesBy(source, one))]
}

function writesBy({ code, words }: Source, { at, to, names, whole, typeOnly }: Import): Use[] {
  const files = /^(?:node:)?fs(?:\/promises)?$/.test(to)
  if (typeOnly || !(files || /^(?:(?:node:)?child_process|better-sqlite3|fs-extra)$/.test(to))) return []
  if (!files && !to.includes('child_process')) return [{ name: to, at }]
  if (!whole && names.includes('*')) return [{ name: `all of ${to}`, at }]
  const opens = (name: string) => opensOf(words, new RegExp(`(?<![\\w.$#])${name}\\b(?!\\s*[,}])`, 'g'))
  const named = names
    .filter((name) => name !== '*' && name !== 'default')
    .flatMap((name) => (/^open(?:Sync)?$/.test(name) ? opens(name) : !files || WRITES.test(name) ? [{ name, at }] : []))
  const members = [...code.matchAll(new RegExp(`(?<![\\w.$])${whole}\\s*\\.\\s*(\\w+)`, 'g'))]
    .map(({ 1: name = '', index }) => ({ name, at: index }))
    .filter(({ name }) => !files || WRITES.test(name))
  const passedOn = [...code.matchAll(new RegExp(`(?<![\\w.$])${whole}\\b(?!\\s*(?:\\.|,|from\\b))`, 'g'))]
  const more = [...members, ...passedOn.map(({ index }) => ({ name: `all of ${to}`, at: index }))]
  return [...named, ...(whole ? [...more, ...opens(`${whole}\\s*\\.\\s*open(?:Sync)?`)] : [])]
}

const READS = /^\([^,()]*(?:\([^()]*(?:\([^()]*\)[^()]*)*\)[^,()]*)*, 'r'\)/
/** Opens that are not only for reading: whose second argument is anything but 'r'. */
const opensOf = (words: string, call: RegExp): Use[] =>
  [...words.matchAll(call)]
    .filter(({ 0: found, index }) => !READS.test(words.slice(index + found.length)))
    .map(({ index: at }) => ({ name: 'openSync', at }))

const inRoom = ({ path }: Source) => path.startsWith('src/log/')

function writers(sources: Source[], allowed = mayWrite): string[] {
  return codeUnder(sources, 'src/').flatMap((source) => {
    const [used, may] = [writesOf(source), allowed[source.path] ?? []]
    const stale = may.filter((name) => !used.some((use) => use.name === name))
    return [
      ...used
        .filter(({ name }) => !may.includes(name))
        .map(({ name, at }) => finding(source, at, `${name}: only the recorder's room writes`)),
      ...stale.map((name) => finding(source, 0, `${name} is no longer used here: take the permission away`)),
      ...importsOf(source)
        .filter(
          ({ to, typeOnly }) =>
            to === 'src/log/disk.ts' && !typeOnly && !inRoom(source) && !/^src\/(?:app|open)\.ts$/.test(source.path),
        )
        .map(({ at }) => finding(source, at, "the disk does not leave the recorder's room")),
      ...(inRoom(source) ? [] : each(source, source.code, /\brealDisk\s*[.[]/g, () => 'the disk is passed on here, and not used')),
    ]
  })
}

const tooLong = (sources: Source[]) =>
  codeUnder(sources, 'src/').flatMap((source) => {
    const lines = source.text.trimEnd().split('\n').length
    return lines > 400 ? [`${source.path}:401: ${lines} lines, and 400 are the most`] : []
  })

/** Everything under src is reached from a command of package.json, a test or the bench. */
function deadFiles(sources: Source[]): string[] {
  const byPath = new Map(sources.map((source) => [source.path, source]))
  const reached = new Set<string>()
  const reach = (path: string) => {
    if (path.endsWith('/')) for (const under of byPath.keys()) if (under.startsWith(path) && path !== 'src/') reach(under)
    const source = byPath.get(path)
    if (!source || reached.has(path)) return
    reached.add(path)
    for (const { to } of importsOf(source)) reach(to)
    for (const beside of besides(source)) reach(beside)
  }
  for (const [path] of manifest.matchAll(/\bsrc\/[\w./-]+/g)) reach(path)
  for (const { path } of sources) if (/^(test|bench)\//.test(path)) reach(path)
  reach('src/sessile.mjs') // From links that `npx` has made before, and keeps.
  return sources
    .filter(({ path }) => path.startsWith('src/') && !reached.has(path))
    .map(({ path }) => `${path}:1: a dead file: nothing leads here`)
}

interface Export {
  name: string
  at: number
  isType: boolean
}

/** The top-level statements of a file: each begins with a letter at the start of a line. */
const statementsOf = ({ code }: Source) => {
  const starts = [...code.matchAll(/^[A-Za-z@]/gm)].map(({ index }) => index)
  return starts.map((at, i) => ({ at, code: code.slice(at, starts[i + 1]) }))
}

function exportsOf(source: Source): Export[] {
  return statementsOf(source).flatMap(({ at, code }) => {
    const one =
      /^export\s+(?:declare\s+)?(?:abstract\s+)?(async\s+function\*?|function\*?|class|const|let|interface|type|enum|default)\s+([\w$]+)/.exec(
        code,
      )
    if (one)
      return [
        { name: one[1] === 'default' ? 'default' : (one[2] as string), at, isType: one[1] === 'interface' || one[1] === 'type' },
      ]
    const many = /^export\s+(?:type\s+|const\s+|let\s+)?\{([^}]*)\}(?!\s*from)/.exec(code)?.[1]
    return (many?.split(',') ?? [])
      .map((name) => name.trim().replace(/^.*(?:\bas|:)\s+/s, ''))
      .filter(Boolean)
      .map((name) => ({ name, at, isType: /^export\s+type/.test(code) }))
  })
}

/** Between features, events and views are public, whether or not another feature has come to need them yet. */
const PUBLIC = /^export\s+const\s+[^=]*=\s*(?:events|view)\(/

/** A value must be imported somewhere. A type may also be part of what another export of its file says of itself. */
function deadExports(sources: Source[]): string[] {
  const imported = new Map<string, Set<string>>()
  for (const source of sources.filter(isCode)) {
    for (const { to, names } of importsOf(source)) {
      const known = imported.get(to) ?? new Set()
      for (const name of names) known.add(name)
      imported.set(to, known)
    }
  }
  return codeUnder(sources, 'src/').flatMap((source) => {
    const known = imported.get(source.path) ?? new Set()
    const mentioned = (name: string, own: number) =>
      statementsOf(source).some(({ at, code }) => at !== own && code.startsWith('export') && new RegExp(`\\b${name}\\b`).test(code))
    const open = (at: number) => source.path.startsWith('src/features/') && PUBLIC.test(source.code.slice(at))
    return exportsOf(source)
      .filter(({ at }) => !open(at))
      .filter(({ name, at, isType }) => !known.has('*') && !known.has(name) && !(isType && mentioned(name, at)))
      .map(({ name, at }) => finding(source, at, `${name} is exported, and no other file imports it`))
  })
}

const unopened = (sources: Source[]) =>
  codeUnder(sources, 'src/')
    .filter(({ text }) => !/^(?:#!.*\n)?(?:\/\/ |\/\*\*?\s+)(?!biome-|@|eslint)\S.{20,}/.test(text))
    .map(({ path }) => `${path}:1: it does not open with what it is for`)

const EMPTY_WORD = /^(?:managers?|services?|helpers?|utils?|utility|utilities|handlers?|process|processes|processors?|data\d+)$/
/** Here the word is the operating system's. */
const OWN_MEANING = ['endProcess']
const DECLARED =
  /\b(?:class|interface|type|enum|function\*?|const|let|var)\s+([\w$]+)|^\s+(?:[a-z]+\s+)*[#*]?([\w$]+)\s*(?:<.*>)?\(.*\{$/gm

const wordsOf = (name: string) => name.split(/(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+/).map((word) => word.toLowerCase())

const emptyWords = (sources: Source[]) =>
  sources
    .filter(({ path }) => path.startsWith('src/'))
    .flatMap((source) => {
      const empty = (name: string) => (OWN_MEANING.includes(name) ? undefined : wordsOf(name).find((word) => EMPTY_WORD.test(word)))
      const inPath = empty(source.path)
      return [
        ...(inPath ? [`${source.path}:1: a file is not called ${inPath}: say what it does`] : []),
        ...each(source, source.code, DECLARED, ([, one, other]) => {
          const word = empty(one ?? other ?? '')
          return word && `${one ?? other}: ${word} says nothing`
        }),
      ]
    })

const anyInFeatures = (sources: Source[]) =>
  codeUnder(sources, 'src/features/').flatMap((source) => each(source, source.code, /\bany\b/g, () => 'any, in a feature'))

// Written apart, so that this file need not be left out.
const LEFT = new RegExp(`\\b(?:TO${'DO'}|FIX${'ME'}|X${'XX'})\\b|@ts-(?:ig${'nore'}|no${'check'})`, 'g')
const unfinished = (sources: Source[]) =>
  sources.flatMap((source) => each(source, source.text, LEFT, ([found]) => `${found}: finish it, or say in plain words why not`))

const WORKPLACE = new RegExp(`(?<![\\w.~/-])/(?:wo${'rk'}|ro${'ot'})(?![\\w-])|\\bsub-?ag${'ents?'}\\b`, 'gi')
const workplace = (sources: Source[]) =>
  sources.flatMap((source) => each(source, source.text, WORKPLACE, ([found]) => `${found}: a word of the workplace`))

// --- the rules, held --------------------------------------------------------------------------------------------------

type Files = Record<string, string>
type Check = (sources: Source[]) => string[]
type Bite = [where: string, text: string, others?: Files]

const sourcesOf = (files: Files) => Object.entries(files).map(([path, text]) => sourceOf(path, text))

/** A rule that holds in this house, that bites there in each bad file, and lets the good ones be. */
function rule(words: string, check: Check, { bites, lets = [] }: { bites: Bite[]; lets?: Files[] }) {
  describe(words, () => {
    it('holds here', () => expect(check(house).join('\n')).toBe(''))
    it.each(bites.map(([where, text, others = {}]) => ({ where, text, others })))('bites: $text', ({ where, text, others }) => {
      const found = check(sourcesOf({ [where.replace(/:\d+$/, '')]: text, ...others }))
      expect(found.map((line) => line.split(': ')[0])).toEqual([where])
    })
    it.each(lets.map((files) => ({ files })))('lets be: $files', ({ files }) => expect(check(sourcesOf(files))).toEqual([]))
  })
}

describe('reading the source', () => {
  it.each([
    ["a = 'kind // no' // ' yes", "a = ' '"],
    ['b = "\\"}" + d', 'b = " " + d'],
    ['b = `any #{c ? `x#{{ d: 1 }}y` : d} any` + e'.replaceAll('#', '$'), 'b = ` {c ? ` {{ d: 1 }} ` : d} ` + e'],
    ["e = /['\"`/[/]]/g.test(f) ? g / 2 : h / 3 /* 'i */", 'e = / /.test(f) ? g / 2 : h / 3'],
    ['return /x}/ // }', 'return / /'],
  ])('tells code from strings, templates, patterns and comments: %s', (text, rest) => {
    const { code, words } = sourceOf('a.ts', text)
    expect(code.replace(/ +/g, ' ').trim()).toBe(rest)
    expect([code.length, words.length]).toEqual([text.length, text.length])
    expect(words.trim()).toBe(text.replace(/ (?:\/\/ \W|\/\*).*$/, ''))
  })

  it('follows every way to import', () => {
    const text = `import a, { type B, c as d } from './x.ts'
import type { E } from '../y.ts'
import * as f from 'node:fs'
export { h }
import './z.ts'
export { g } from './w.ts'
export * from './v.ts'
const h = await import('./u.ts')
// import i from './no.ts'
const j = "import k from './no.ts'"`
    const found = importsOf(sourceOf('src/core/a.ts', text)).map(({ to, names, whole, typeOnly }) => [
      to,
      names.join(),
      whole,
      typeOnly,
    ])
    expect(found).toEqual([
      ['src/core/x.ts', 'B,c,default', 'a', false],
      ['src/y.ts', 'E', undefined, true],
      ['node:fs', '*', 'f', false],
      ['src/core/w.ts', 'g', undefined, false],
      ['src/core/v.ts', '*', undefined, false],
      ['src/core/z.ts', '*', undefined, false],
      ['src/core/u.ts', '*', undefined, false],
    ])
  })

  it('reads all of the source', () => {
    expect(codeUnder(house, 'src/core/').length).toBeGreaterThan(15)
    expect(house.flatMap(importsOf).length).toBeGreaterThan(200)
    for (const { path, text, code, words } of house.filter(isCode)) {
      expect([path, code.length, words.length]).toEqual([path, text.length, text.length])
    }
  })
})

const one = 'export const one = 1\n'

rule(
  'core imports nothing above it; log, features, exports and http import core and themselves; the top imports all',
  wrongArrows,
  {
    bites: [
      ['src/core/a.ts:2', "// a\nimport { one } from '../log/b.ts'", { 'src/log/b.ts': one }],
      ['src/core/a.ts:1', "import type { One } from '../config.ts'", { 'src/config.ts': one }],
      ['src/http/a.ts:1', "import {\n  one,\n} from '../features/b.ts'", { 'src/features/b.ts': one }],
      ['src/features/a.ts:1', "export { one } from '../http/b.ts'", { 'src/http/b.ts': one }],
      ['src/log/a.ts:1', "const b = await import('../features/b.ts')", { 'src/features/b.ts': one }],
      ['src/attic/a.ts:1', "import { one } from '../core/b.ts'", { 'src/core/b.ts': one }],
      ['src/core/a.ts:1', "import { one } from '../../test/harness.ts'", { 'test/harness.ts': one }],
      ['src/core/a.ts:1', "import { one } from './gone.ts'"],
      ['src/core/a.ts:1', "import 'left-pad'"],
      ['src/core/a.ts:1', "import { readFileSync } from 'fs'"],
      ['src/core/a.ts:1', 'await import(name)'],
    ],
    lets: [
      { 'src/http/a.ts': "import { one } from '../core/b.ts'\nimport './c.ts'", 'src/core/b.ts': one, 'src/http/c.ts': one },
      { 'src/cli/a.ts': "import { one } from '../log/b.ts'\nimport '../app.ts'", 'src/log/b.ts': one, 'src/app.ts': one },
      { 'src/core/a.ts': "import * as z from 'zod'\nimport 'node:fs'\nimport { Ajv2020 } from 'ajv/dist/2020.js'" },
    ],
  },
)

rule('no file imports itself, by whatever way round', circles, {
  bites: [
    [
      'src/core/c.ts:1',
      "import type { A } from './a.ts'",
      { 'src/core/a.ts': "import './b.ts'", 'src/core/b.ts': "import './c.ts'" },
    ],
    ['src/core/a.ts:1', "import './a.ts'"],
  ],
  lets: [{ 'src/core/a.ts': "import './b.ts'\nimport './c.ts'", 'src/core/b.ts': "import './c.ts'", 'src/core/c.ts': one }],
})

rule('threads load nothing large', heavyThreads, {
  bites: [
    ['src/log/a-thread.ts:1', "import * as z from 'zod'"],
    [
      'src/core/c.ts:1',
      "import pino from 'pino'",
      { 'src/log/a-thread.ts': "import { b } from './b.ts'", 'src/log/b.ts': "import '../core/c.ts'" },
    ],
  ],
  lets: [
    { 'src/log/a-thread.ts': "import type { C } from './c.ts'\nimport 'node:fs'", 'src/log/c.ts': "import * as z from 'zod'" },
    { 'src/log/a.ts': "import * as z from 'zod'" },
  ],
})

rule('of zod only what is used is loaded', wholeOfZod, {
  bites: [
    ['src/core/a.ts:1', "import { z } from 'zod'"],
    ['src/core/a.ts:1', "import { z } from 'zod/v4'"],
  ],
  lets: [{ 'src/core/a.ts': "import * as z from 'zod'", 'src/core/b.ts': "import type { z } from 'zod'" }],
})

rule('features share events and views, and no commands', borrowedCommands, {
  bites: [['src/features/b.ts:1', "import { one } from './a.ts'", { 'src/features/a.ts': 'export const one = command({})' }]],
  lets: [{ 'src/features/a.ts': 'export const one = view({})', 'src/features/b.ts': "import { one } from './a.ts'" }],
})

rule('nothing of SQLite may become garbage: connections and statements are kept, and nothing else is made', makesGarbage, {
  bites: [
    ['src/core/a.ts:1', "db.pragma('journal_mode = WAL')"],
    ['src/core/a.ts:1', 'for (const row of statement.iterate()) {}'],
    ['src/core/a.ts:1', 'const db = new Database(file)'],
    ['src/core/a.ts:1', 'const all = db.transaction(() => {})'],
  ],
  lets: [{ 'src/core/tables.ts': 'const db = new Database(file)' }, { 'src/core/a.ts': "db.exec('PRAGMA synchronous = FULL')" }],
})

rule('only config.ts reads the environment', readsEnvironment, {
  bites: [
    ['src/app.ts:2', '\nif (process.env.X) {}'],
    ['src/app.ts:1', "process['env']"],
    ['src/app.ts:1', 'const { pid, env } = process'],
    ['src/app.ts:1', "import { env } from 'node:process'"],
  ],
  lets: [{ 'src/config.ts': 'process.env' }, { 'src/app.ts': "process.pid // process.env\nsay('process.env')" }],
})

rule('what differs between kinds is data in kinds.ts', comparesKinds, {
  bites: [
    ['src/features/a.ts:1', "if (kind === 'capture') {}"],
    ['src/http/a.ts:1', "if ('voice' !== session.kind) {}"],
    ['src/features/a.ts:2', "switch (row.mode) {\n  case 'therapy': }"],
    ['src/features/a.ts:1', 'switch (session.kind) {}'],
    ['src/core/a.ts:1', "['voice', 'video'].includes(kind)"],
    ['src/app.ts:1', 'if (rules === kinds.voice) {}'],
    ['src/cli/a.ts:1', "sql(`SELECT 1 WHERE kind = 'workflow'`)"],
    ['src/cli/a.ts:1', `sql("SELECT 1 WHERE kind IN ('voice', 'video')")`],
  ],
  lets: [
    { 'src/features/kinds.ts': "kind === 'capture'" },
    { 'src/core/a.ts': "if (error.kind === 'broken') {} // kind === 'capture'", 'src/features/b.ts': "z.enum(['voice', 'video'])" },
  ],
})

rule('only http/problem.ts knows status codes', statusCodes, {
  bites: [
    ['src/http/a.ts:1', 'c.json(x, 404)'],
    ['src/http/a.ts:1', "const r = { '503': y }"],
    ['src/core/a.ts:2', '\nif (status >= 500) {}'],
    ['src/features/a.ts:1', 'const GONE = 410'],
  ],
  lets: [
    { 'src/http/problem.ts': 'invalid: 400', 'src/cli/a.ts': 'if (response.status === 404) {}' },
    {
      'src/core/a.ts':
        'const A_MS = 500\nconst B = 512 * 1024\nz.string().max(500)\nif (text.length < 400 || n % 500 === 0) {}\n// 404',
    },
  ],
})

rule("only the recorder's room opens a log for writing", writers, {
  bites: [
    ['src/http/a.ts:1', "import { readFileSync, writeFileSync } from 'node:fs'"],
    ['src/http/a.ts:1', "import { createWriteStream as c } from 'fs'"],
    ['src/cli/a.ts:1', "import { appendFile } from 'node:fs/promises'"],
    ['src/cli/a.ts:3', "import * as fs from 'node:fs'\nfs.openSync(path, 'r')\nfs.rmSync(path)"],
    ['src/cli/a.ts:2', "import { openSync } from 'node:fs'\nopenSync(join(a, b(c)), 'r+')"],
    ['src/cli/a.ts:2', "import { openSync } from 'node:fs'\nopenSync(path, flags)"],
    ['src/cli/a.ts:1', "import { openSync as look } from 'node:fs'\nlook(path, 'w')"],
    ['src/cli/a.ts:2', "import * as fs from 'node:fs'\nconst { rmSync } = fs"],
    ['src/cli/a.ts:2', "import { open } from 'node:fs/promises'\nopen(path, 'a')"],
    ['src/cli/a.ts:1', "import { promises } from 'node:fs'"],
    ['src/cli/a.ts:1', "const fs = await import('node:fs')"],
    ['src/cli/a.ts:1', "require('fs')"],
    ['src/a.cjs:2', "\nconst { join, writeFileSync } = require('node:fs')"],
    ['src/a.cjs:1', "const fs = require('node:fs')"],
    ['src/a.cjs:1', "const { openSync: look } = require('node:fs')"],
    ['src/a.cjs:1', "const { ...all } = require('node:fs')"],
    ['src/a.cjs:1', "const { join } = require('node:fs').promises"],
    ['src/cli/a.ts:1', "import { spawn } from 'node:child_process'"],
    ['src/cli/a.ts:1', "import Database from 'better-sqlite3'"],
    ['src/cli/a.ts:1', "import { realDisk } from '../log/disk.ts'"],
    ['src/app.ts:2', "import { realDisk } from './log/disk.ts'\nrealDisk.remove(path)"],
    ['src/verbs/rebuild.ts:1', "import { rmSync, mkdirSync } from 'node:fs'"],
    ['src/verbs/rebuild.ts:1', '// no longer removes anything'],
  ],
  lets: [
    { 'src/log/shelf.ts': "import { openSync, type WriteStream } from 'node:fs'\nopenSync(fileOf(home(a), log), 'r')" },
    { 'src/open.ts': "import { type Disk, realDisk } from './log/disk.ts'\nFileLog.open(home, { disk: realDisk })" },
    { 'src/log/a.ts': "import { writeAll } from './disk.ts'\nthis.disk.open(path, true)" },
  ],
})

rule('a file fits in 400 lines', tooLong, {
  bites: [['src/core/a.ts:401', 'a\n'.repeat(401)]],
  lets: [{ 'src/core/a.ts': 'a\n'.repeat(400) }, { 'test/a.ts': 'a\n'.repeat(500) }],
})

rule('every file is reached from a command, a test or the bench', deadFiles, {
  bites: [
    ['src/core/b.ts:1', "import './a.ts'", { 'src/cli.ts': "import './core/a.ts'", 'src/core/a.ts': one }],
    ['src/http/old.html:1', '<p>', { 'src/cli.ts': '// old.html', 'test/a.test.ts': "import '../src/cli.ts'" }],
  ],
  lets: [
    { 'src/cli.ts': "new URL('./http/a.html', import.meta.url)", 'src/http/a.html': '<p>' },
    { 'src/cli.ts': "new URL('./console/', import.meta.url)", 'src/console/a.css': '', 'src/console/b.js': '' },
    { 'test/a.test.ts': "import '../src/log/memory.ts'", 'src/log/memory.ts': one },
  ],
})

rule('what a file exports, another imports', deadExports, {
  bites: [
    ['src/core/a.ts:2', 'const two = 2\nexport function one() {\n  return one(two)\n}'],
    ['src/core/a.ts:1', 'export const { one, two } = f()', { 'src/core/b.ts': "import { two } from './a.ts'" }],
    ['src/core/a.ts:2', 'const one = 1\nexport { one }', { 'src/core/b.ts': "import { one } from './c.ts'" }],
    ['src/core/a.ts:1', 'export interface One {\n  one: One\n}\nconst two = (one: One) => one'],
    ['src/features/a.ts:1', 'export const one = command({})'],
  ],
  lets: [
    { 'src/core/a.ts': 'export async function* one() {}', 'test/b.ts': "import { one as two } from '../src/core/a.ts'" },
    { 'src/core/a.ts': 'export class One {}', 'src/core/b.ts': "import * as a from './a.ts'" },
    { 'src/core/a.ts': 'export interface One {}\nexport const two: One = {}', 'src/core/b.ts': "import { two } from './a.ts'" },
    { 'src/features/a.ts': "export const { one, two } = events('a', {})\nexport const three = view('b', {})" },
  ],
})

rule('a file opens with what it is for', unopened, {
  bites: [
    ['src/core/a.ts:1', "import { z } from 'zod'"],
    ['src/core/a.ts:1', '// biome-ignore lint/suspicious/noExplicitAny: because of that'],
    ['src/core/a.ts:1', '// Code.\n'],
  ],
  lets: [{ 'src/a.mjs': '#!/usr/bin/env node\n// Starts the command line, and nothing else.' }],
})

rule('names say something: no manager, service, helper, util, handler or process', emptyWords, {
  bites: [
    ['src/core/log-utils.ts:1', one],
    ['src/helpers/log.ts:1', one],
    ['src/core/a.ts:2', '\nexport class SessionManager {}'],
    ['src/core/a.ts:1', 'export async function handleService() {}'],
    ['src/core/a.ts:1', 'const data2 = 1'],
    ['src/core/a.ts:2', 'class A {\n  async #processRecord(a: B): Promise<void> {\n  }\n}'],
    ['src/core/a.ts:1', 'const onError_handler = () => {}'],
  ],
  lets: [
    {
      'src/core/a.ts': "const SOURCE = 'session_manager'\nclass DoorHandle {}\nconst processed = process.pid\nfunction manage() {}",
    },
  ],
})

rule('no any in features', anyInFeatures, {
  bites: [['src/features/a.ts:2', '\nconst a = b as any']],
  lets: [{ 'src/features/a.ts': "const many = 'any' // any" }, { 'src/cli/a.ts': 'let any = 1' }],
})

rule('nothing is left for later', unfinished, {
  bites: [
    ['src/core/a.ts:2', `\n// TO${'DO'} later`],
    ['test/a.ts:1', `/* @ts-ig${'nore'} */`],
  ],
  lets: [{ 'src/core/a.ts': '// todos are fine, and so is @ts-expect-error' }],
})

rule('nothing tells of the workplace', workplace, {
  bites: [
    ['src/core/a.ts:1', `const a = '/wo${'rk'}/main'`],
    ['docs/a.md:2', `See\n/ro${'ot'}/notes`],
    ['test/a.ts:1', `// as the Sub${'agent'} said`],
  ],
  lets: [{ 'src/core/a.ts': "import a from '../work/b.ts'\nconst c = '/workflow'\nconst d = 'users/root'" }],
})
