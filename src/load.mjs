// Runs TypeScript where Node does not do so by itself: everything that a file imports from this project becomes one
// file of JavaScript, once, and is kept until the source changes. (Loaders that translate each file on its way in need
// a thread and 30 MB of their own for as long as the process lives.)
//   node src/load.mjs FILE [ARGUMENT …]

import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { basename, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

const root = fileURLToPath(new URL('../', import.meta.url))
const cache = join(root, 'node_modules', '.cache', 'sessile')

export async function load(entry) {
  if (process.features.typescript) return import(pathToFileURL(entry).href)
  const bundle = join(cache, `${basename(entry, '.ts')}-${digestOf(entry)}.mjs`)
  if (!statSync(bundle, { throwIfNoEntry: false })) {
    try {
      await make(entry, bundle)
    } catch (error) {
      // Where nothing can be kept, each file is translated on its way in.
      if (!['EACCES', 'EROFS', 'EPERM'].includes(error.code)) throw error
      ;(await import('tsx/esm/api')).register()
      return import(pathToFileURL(entry).href)
    }
  }
  return import(pathToFileURL(bundle).href)
}

/** Changes when any file changes that may be part of it, and with the place where they lie. */
function digestOf(entry) {
  const digest = createHash('sha256').update(`${process.version}\n${entry}\n`)
  for (const folder of ['src', 'bench']) {
    for (const name of readdirSync(join(root, folder), { recursive: true }).sort()) {
      if (name.endsWith('.ts') && !name.includes('node_modules')) digest.update(name).update(readFileSync(join(root, folder, name)))
    }
  }
  return digest.digest('hex').slice(0, 16)
}

async function make(entry, bundle) {
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
  mkdirSync(cache, { recursive: true })
  const others = readdirSync(cache).filter((name) => name.startsWith(`${basename(entry, '.ts')}-`) && name !== basename(bundle))
  // By rename: others may be starting at the same time.
  writeFileSync(`${bundle}.${process.pid}`, outputFiles[0].contents)
  renameSync(`${bundle}.${process.pid}`, bundle)
  for (const name of others) if (name.endsWith('.mjs')) rmSync(join(cache, name), { force: true })
}

/** Each file finds what lies beside it where it lay. */
const whence = ({ path }) => ({
  loader: 'ts',
  contents: readFileSync(path, 'utf8').replaceAll('import.meta.url', JSON.stringify(pathToFileURL(path).href)),
})

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.argv.splice(1, 1)
  await load(resolve(process.argv[1]))
}
