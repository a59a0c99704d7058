// Installs what is missing, so that `npm start` and `npm test` are enough on a fresh checkout.
//   node src/install.mjs          what running needs
//   node src/install.mjs --dev    what testing needs, too

import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

const root = new URL('../', import.meta.url)
const { dependencies, devDependencies } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'))
const needed = process.argv.includes('--dev') ? { ...dependencies, ...devDependencies } : dependencies
const missing = Object.keys(needed).filter((name) => !existsSync(new URL(`node_modules/${name}/package.json`, root)))

if (missing.length > 0) {
  console.error(
    `Installing what is missing (${missing.join(', ')}); this happens once, and takes some minutes where SQLite must be compiled.`,
  )
  const only = process.argv.includes('--dev') ? [] : ['--omit=dev']
  // The lock file says what to install, and is left as it is.
  const { status } = spawnSync('npm', ['install', '--no-save', '--no-audit', '--no-fund', ...only], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  })
  process.exit(status ?? 1)
}
