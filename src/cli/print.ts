// Prints what is published from what the features declare, or checks that what is committed is what would be printed.
//   npm run print            writes schemas/, projections/*.sql and docs/POLICY.md
//   npm run print -- --check compares, and exits 1 where something differs

import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { policyPage, projectionFiles, schemaFiles } from '../core/print.ts'
import { features } from '../features/index.ts'
import { openapi } from '../http/openapi.ts'

const root = new URL('../../', import.meta.url)
const schemas = schemaFiles(features)

const files = new Map<string, string>([
  ...[...schemas].map(([name, text]) => [`schemas/${name}`, text] as const),
  ...[...projectionFiles(features)].map(([name, text]) => [`projections/${name}`, text] as const),
  ['docs/POLICY.md', policyPage(features)],
  ['schemas/openapi.json', `${JSON.stringify(openapi(features), null, 2)}\n`],
])

const read = (name: string) => (existsSync(new URL(name, root)) ? readFileSync(new URL(name, root), 'utf8') : undefined)

/** A published schema never changes: what was once listed here keeps its digest for ever. */
const listed = new Map(
  (read('schemas/published.sha256') ?? '')
    .split('\n')
    .filter(Boolean)
    .map((line) => line.split('  ').reverse() as [string, string]),
)
const changed = [...schemas].filter(([name, text]) => (listed.get(name) ?? sha256(text)) !== sha256(text)).map(([name]) => name)
const gone = [...listed.keys()].filter((name) => !schemas.has(name))
if (changed.length + gone.length > 0) {
  console.error(`Published schemas never change; a change is a new version. Changed or gone: ${[...changed, ...gone].join(', ')}`)
  process.exit(1)
}
files.set('schemas/published.sha256', [...schemas].map(([name, text]) => `${sha256(text)}  ${name}\n`).join(''))

if (process.argv.includes('--check')) {
  const stale = [...files].filter(([name, text]) => read(name) !== text).map(([name]) => name)
  if (stale.length > 0) console.error(`Not as it would be printed (npm run print): ${stale.join(', ')}`)
  process.exit(stale.length > 0 ? 1 : 0)
}

for (const [name, text] of files) {
  mkdirSync(new URL('.', new URL(name, root)), { recursive: true })
  writeFileSync(new URL(name, root), text)
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}
