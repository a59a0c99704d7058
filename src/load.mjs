// Runs TypeScript where Node does not do so by itself: everything that a file imports from this project becomes one
// file of JavaScript, once, and is kept until the source changes. (Loaders that translate each file on its way in need
// a thread and 30 MB of their own for as long as the process lives. They help out where nothing can be kept.)
//   node src/load.mjs FILE [ARGUMENT …]

import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, realpathSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { basename, join, relative, resolve, sep } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
const cache = join(root, 'node_modules', '.cache', 'sessile')
/** The last line of a bundle: one that lacks it was not written to its end. */
const WHOLE = '\n// whole\n'

export async function load(entry) {
  if (process.features.typescript) return import(pathToFileURL(entry).href)
  const bundle = join(cache, `${basename(entry, '.ts')}-${digestOf(entry)}.mjs`)
  if (!isWhole(bundle) && !keep(bundle, await make(entry))) {
    const { register } = await import('tsx/esm/api')
    register()
    return import(pathToFileURL(entry).href)
  }
  return import(pathToFileURL(bundle).href)
}

function isWhole(bundle) {
  try {
    return readFileSync(bundle, 'utf8').endsWith(WHOLE)
  } catch {
    return false
  }
}

/** Changes when any file changes that may be part of it, and with the place where they lie. */
function digestOf(entry) {
  const digest = createHash('sha256').update(`${process.version}\n${entry}\n`).update(readFileSync(entry))
  for (const folder of new Set(['src', relative(root, entry).split(sep)[0]])) {
    for (const name of readdirSync(join(root, folder), { recursive: true }).sort()) {
      if (!/\.(ts|mjs)$/.test(name) || name.includes('node_modules')) continue
      digest.update(name).update(readFileSync(join(root, folder, name)))
    }
  }
  return digest.digest('hex').slice(0, 16)
}

async function make(entry) {
  const { build } = await import('esbuild')
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    packages: 'external',
    platform: 'node',
    format: 'esm',
    target: `node${process.versions.node}`,
    plugins: [{ name: 'whence', setup: (build) => build.onLoad({ filter: /\.ts$/ }, whence) }],
  })
  return outputFiles[0].text
}

/** Each file finds what lies beside it where it lay. */
const whence = ({ path }) => ({
  loader: 'ts',
  contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', () => JSON.stringify(pathToFileURL(path).href)),
})

/** Keeps a bundle in the place of older ones; false where that cannot be. By rename: others may be starting at the same time. */
function keep(bundle, text) {
  const part = `${bundle}.${process.pid}`
  try {
    mkdirSync(cache, { recursive: true, mode: 0o755 })
    const older = readdirSync(cache).filter((name) => name.startsWith(basename(bundle).slice(0, -'0123456789abcdef.mjs'.length)))
    writeFileSync(part, text + WHOLE, { mode: 0o644 })
    renameSync(part, bundle)
    for (const name of older) if (name !== basename(bundle)) rmSync(join(cache, name), { force: true })
    return true
  } catch {
    rmSync(part, { force: true })
    return isWhole(bundle)
  }
}

if (process.argv[1] !== undefined && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  process.argv.splice(1, 1)
  if (process.argv[1] === undefined) throw new Error('name a file: node src/load.mjs FILE')
  await load(resolve(process.argv[1]))
}
