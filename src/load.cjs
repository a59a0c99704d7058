// Runs TypeScript fast: everything that a file imports, packages included, becomes one script, once, and is kept beside
// what V8 made of it until something of it changes. (Reading hundreds of files, and compiling them, takes longer than most verbs
// do; that Node strips types by itself does not change it.) Where nothing can be kept, it is made at every start.
//   node src/load.cjs FILE [ARGUMENT …]
// No module, but what Node had before there were any: a start is a twentieth shorter so, and that of a thread a fourth.

const { isAscii } = require('node:buffer')
const { createHash } = require('node:crypto')
const { existsSync, mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } = require('node:fs')
const { createRequire } = require('node:module')
const { join, relative, resolve } = require('node:path')
const { pathToFileURL } = require('node:url')
const { cachedDataVersionTag } = require('node:v8')
const { constants, Script } = require('node:vm')
const { isMainThread } = require('node:worker_threads')

const root = join(__dirname, '..')
const cache = join(root, 'node_modules', '.cache', 'sessile')
/** Packages that hold compiled code look for it beside themselves. */
const APART = ['@node-rs/argon2', 'better-sqlite3', 'esbuild']

const PASSES_ON = /^export\s*[{*]/m

/** Runs these files as one script, the first of them where it begins; returns what they export, together. */
async function load(...files) {
  const entries = files.map((file) => relative(root, file))
  const name = `${entries.at(-1).replace(/\.ts$/, '').replaceAll(/\W+/g, '-')}-`
  const file = join(cache, name + digestOf(entries))
  const kept = keptAt(file, entries)
  const text = kept?.text ?? (await make(entries))
  // A script that imports while it runs, as some benchmarks do, cannot do so from what V8 made of it before.
  const how = /\bimport\([^)]/.test(text)
    ? { importModuleDynamically: constants.USE_MAIN_CONTEXT_DEFAULT_LOADER }
    : { cachedData: kept?.code }
  const script = new Script(text, { filename: `${file}.cjs`, ...how })
  const module = { exports: {} }
  script.runInThisContext()(module.exports, createRequire(files[0]), module)
  // What has run by now is what every start runs.
  if (!kept) keep(file, name, text, script.createCachedData())
  return module.exports
}

/** Changes when a file does that a script is made of, or a package; with the place where they lie, and with what V8 is told. */
function digestOf(entries, files = [], read = (file) => readFileSync(join(root, file))) {
  const digest = createHash('sha256').update(`${process.version} ${process.arch} ${cachedDataVersionTag()} ${root} ${entries}\n`)
  const locks = ['node_modules/.package-lock.json', 'package-lock.json'].map((name) => join(root, name))
  digest.update(readFileSync(locks.find(existsSync) ?? __filename))
  for (const file of files) digest.update(read(file))
  return digest.digest('hex').slice(0, 16)
}

/** A script, which says in its first line what it was made of. */
async function make(entries) {
  const { build } = require('esbuild')
  const together = entries.map((entry) => `export * from ${JSON.stringify(`./${entry}`)}\n`).join('')
  const seen = new Map()
  /** Each file finds what lies beside it where it lay. */
  const whence = ({ path }) => {
    const bytes = readFileSync(path)
    seen.set(relative(root, path), bytes)
    const beside = JSON.stringify(pathToFileURL(path).href)
    return { loader: 'ts', contents: bytes.toString().replaceAll('import.meta.url', () => beside) }
  }
  const { outputFiles, metafile } = await build({
    ...(entries.length > 1 ? { stdin: { contents: together, resolveDir: root } } : { entryPoints: entries }),
    absWorkingDir: root,
    bundle: true,
    metafile: true,
    write: false,
    external: APART,
    platform: 'node',
    format: 'cjs',
    target: `node${process.versions.node}`,
    plugins: [{ name: 'whence', setup: (build) => build.onLoad({ filter: /\.ts$/ }, whence) }],
  })
  const [{ inputs: taken }] = Object.values(metafile.outputs)
  // What it was made of, whatever has become of that meanwhile.
  const read = (file) => seen.get(file) ?? readFileSync(join(root, file))
  // Of packages what is locked tells. Of ours what nothing was taken of changes nothing, unless it passes on what others have.
  const counts = (file) => file in taken || !file.startsWith('src/') || PASSES_ON.test(read(file))
  const ours = Object.keys(metafile.inputs).filter((file) => !/(?:^|\/)node_modules\/|^</.test(file))
  const of = ['package.json', 'src/load.cjs', ...ours.filter(counts)]
  const digest = digestOf(entries, of, read)
  const head = JSON.stringify({ digest, of })
  return `// ${head}\n(function (exports, require, module) {${plain(outputFiles[0].text)}\n})`
}

/** With one letter beyond Latin-1 V8 keeps two bytes for each that there is: megabytes, for a dash in a comment. Elsewhere they are escaped. */
const plain = (text) => text.replace(/^[ \t]*\/\/.*$/gm, (comment) => comment.replace(/[^\n -~]/g, '?'))

/** V8 believes what it is given: that it fits the text, and that both were written to their end, is for us to see. */
const sealOf = (text, code) => createHash('sha256').update(text).update(code).digest()

/** What was kept, if it is whole, and made of what is there now. */
function keptAt(file, entries) {
  try {
    const [text, sealed] = [readFileSync(`${file}.cjs`), readFileSync(`${file}.v8`)]
    const code = sealed.subarray(32)
    if (!sealOf(text, code).equals(sealed.subarray(0, 32))) return undefined
    const { of, digest } = JSON.parse(text.subarray('// '.length, text.indexOf('\n')))
    return digest === digestOf(entries, of) ? { text: text.toString(isAscii(text) ? 'latin1' : 'utf8'), code } : undefined
  } catch {
    return undefined
  }
}

/** Keeps a script in the place of older ones, where that can be. By rename: others may be starting at the same time. */
function keep(file, name, text, code) {
  const parts = { '.cjs': text, '.v8': Buffer.concat([sealOf(text, code), code]) }
  // What has run may have asked that its own files be private. This is no secret, and whoever runs it next may be another.
  const mask = isMainThread ? process.umask(0o022) : undefined
  try {
    mkdirSync(cache, { recursive: true })
    const ofAnother = (one) =>
      one.startsWith(name) && /^[0-9a-f]{16}\./.test(one.slice(name.length)) && !join(cache, one).startsWith(file)
    const older = readdirSync(cache).filter(ofAnother)
    for (const [ending, bytes] of Object.entries(parts)) {
      writeFileSync(`${file}.${process.pid}`, bytes)
      renameSync(`${file}.${process.pid}`, file + ending)
    }
    for (const one of older) rmSync(join(cache, one), { force: true })
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
