// Runs TypeScript fast: everything that a file imports, packages included, becomes one script, once, and is kept beside
// what V8 made of it until something changes. (Reading hundreds of files, and compiling them, takes longer than most verbs
// do; that Node strips types by itself does not change it.) Where nothing can be kept, it is made at every start.
//   node src/load.cjs FILE [ARGUMENT …]
// No module, but what Node had before there were any: a start is a twentieth shorter so, and that of a thread a fourth.

const { createHash } = require('node:crypto')
const { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } = require('node:fs')
const { createRequire } = require('node:module')
const { basename, join, relative, resolve, sep } = require('node:path')
const { pathToFileURL } = require('node:url')
const { cachedDataVersionTag } = require('node:v8')
const { constants, Script } = require('node:vm')
const { isMainThread } = require('node:worker_threads')

const root = join(__dirname, '..')
const cache = join(root, 'node_modules', '.cache', 'sessile')
/** Packages that hold compiled code look for it beside themselves. */
const APART = ['@node-rs/argon2', 'better-sqlite3', 'esbuild']

async function load(entry) {
  const file = join(cache, `${basename(entry, '.ts')}-${digestOf(entry)}`)
  const kept = keptAt(file)
  const text = kept?.text ?? (await make(entry))
  // A script that imports while it runs, as some benchmarks do, cannot do so from what V8 made of it before.
  const how = /\bimport\([^)]/.test(text)
    ? { importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER }
    : { cachedData: kept?.code }
  const script = new Script(text, { filename: `${file}.cjs`, ...how })
  const module = { exports: {} }
  script.runInThisContext()(module.exports, createRequire(entry), module)
  // What has run by now is what every start runs.
  if (!kept) keep(file, text, script.createCachedData())
  return module.exports
}

/** Changes when any file changes that may be part of it, or a package does, and with the place where they lie; and with what V8 is told. */
function digestOf(entry) {
  const digest = createHash('sha256')
    .update(`${process.version} ${process.arch} ${cachedDataVersionTag()}\n${entry}\n`)
    .update(readFileSync(entry))
  const locks = ['node_modules/.package-lock.json', 'package-lock.json'].map((name) => join(root, name))
  digest.update(readFileSync(locks.find(existsSync) ?? entry))
  for (const folder of new Set(['src', relative(root, entry).split(sep)[0]])) {
    for (const name of readdirSync(join(root, folder), { recursive: true }).sort()) {
      if (!/\.(ts|[cm]js)$/.test(name) || name.includes('node_modules')) continue
      digest.update(name).update(readFileSync(join(root, folder, name)))
    }
  }
  return digest.digest('hex').slice(0, 16)
}

async function make(entry) {
  const { build } = require('esbuild')
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    external: APART,
    platform: 'node',
    format: 'cjs',
    target: `node${process.versions.node}`,
    plugins: [{ name: 'whence', setup: (build) => build.onLoad({ filter: /\.ts$/ }, whence) }],
  })
  return `(function (exports, require, module) {${plain(outputFiles[0].text)}\n})`
}

/** With one letter beyond Latin-1 V8 keeps two bytes for each that there is: megabytes, for a dash in a comment. Elsewhere they are escaped. */
const plain = (text) => text.replace(/^[ \t]*\/\/.*$/gm, (comment) => comment.replace(/[^\n -~]/g, '?'))

/** Each file finds what lies beside it where it lay. */
const whence = ({ path }) => ({
  loader: 'ts',
  contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', () => JSON.stringify(pathToFileURL(path).href)),
})

/** V8 believes what it is given: that it fits the text, and that both were written to their end, is for us to see. */
const sealOf = (text, code) => createHash('sha256').update(text).update(code).digest()

function keptAt(file) {
  try {
    const [text, sealed] = [readFileSync(`${file}.cjs`), readFileSync(`${file}.v8`)]
    const code = sealed.subarray(32)
    return sealOf(text, code).equals(sealed.subarray(0, 32)) ? { text: text.toString(), code } : undefined
  } catch {
    return undefined
  }
}

/** Keeps a script in the place of older ones, where that can be. By rename: others may be starting at the same time. */
function keep(file, text, code) {
  const parts = { '.cjs': text, '.v8': Buffer.concat([sealOf(text, code), code]) }
  // What has run may have asked that its own files be private. This is no secret, and whoever runs it next may be another.
  const mask = isMainThread ? process.umask(0o022) : undefined
  try {
    mkdirSync(cache, { recursive: true })
    const of = basename(file).slice(0, -'0123456789abcdef'.length)
    const older = readdirSync(cache).filter((name) => name.startsWith(of) && !name.startsWith(basename(file)))
    for (const [ending, bytes] of Object.entries(parts)) {
      writeFileSync(`${file}.${process.pid}`, bytes)
      renameSync(`${file}.${process.pid}`, file + ending)
    }
    for (const name of older) rmSync(join(cache, name), { force: true })
  } catch {
    if (existsSync(`${file}.${process.pid}`)) rmSync(`${file}.${process.pid}`)
  }
  if (mask !== undefined) process.umask(mask)
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === __filename) {
  process.argv.splice(1, 1)
  if (process.argv[1] === undefined) throw new Error('name a file: node src/load.cjs FILE')
  void load(resolve(process.argv[1]))
}

exports.load = load
