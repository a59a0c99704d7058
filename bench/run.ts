// npm run bench: every question, one table, and bench/results.json.
//   npm run bench -- append http     only these questions; `trail` is asked in this way, or with --full
//   npm run bench -- --full          more and longer rounds, larger data; draws the plots, too
//   npm run bench -- --plot          draws docs/plots/<question>.svg also from a quick run

import { writeFileSync } from 'node:fs'
import { figureOf, leftOut, machine, type Row, ratioOf } from './measure.ts'
import { versions } from './packages.ts'
import { write, writePlot } from './plot.ts'

const questions = {
  append: () => import('./append.ts'),
  syncs: () => import('./syncs.ts'),
  http: () => import('./http.ts'),
  whole: () => import('./whole.ts'),
  latency: () => import('./latency.ts'),
  rebuild: () => import('./rebuild.ts'),
  reading: () => import('./reading.ts'),
  lists: () => import('./lists.ts'),
  trail: () => import('./trail.ts'),
  start: () => import('./start.ts'),
  memory: () => import('./memory.ts'),
}
const args = process.argv.slice(2)
const full = args.includes('--full')
const drawing = full || args.includes('--plot')
const named = args.filter((arg) => !arg.startsWith('--'))
// A quick round has five minutes.
const isUsual = (name: string) => full || name !== 'trail'
const chosen = Object.entries(questions).filter(([name]) => (named.length > 0 ? named.includes(name) : isUsual(name)))
const effort = full ? { rounds: 9, seconds: 5 } : { rounds: 3, seconds: 0.4 }

// Servers that were started, and folders, go with us.
process.once('SIGINT', () => process.exit(130))
process.once('SIGTERM', () => process.exit(143))

async function run(): Promise<void> {
  const rows: (Row & { of: string })[] = []
  const took: Record<string, number> = {}
  for (const [name, load] of chosen) {
    const { question } = await load()
    const began = performance.now()
    const answered = await question(effort)
    took[name] = Math.round((performance.now() - began) / 1000)
    rows.push(...answered.map((row) => ({ of: name, ...row })))
    for (const row of answered) console.log(line(row))
    if (drawing && answered.length > 0) writePlot(name, answered)
  }
  const results = { machine: machine(), versions: versions(), effort, took_seconds: took, left_out: [...leftOut], rows }
  writeFileSync(new URL('./results.json', import.meta.url), `${JSON.stringify(results, null, 2)}\n`)
  if (drawing) write('machine', whence())
  const seconds = Object.values(took).reduce((sum, n) => sum + n, 0)
  console.log(
    `${seconds} s: ${Object.entries(took)
      .map(([name, n]) => `${name} ${n}`)
      .join(', ')}`,
  )
  for (const why of leftOut) console.log(`left out: ${why}`)
}

void run()

function line({ question, contender, unit, median, ratio, yardstick, note }: Row): string {
  const against = ratio === undefined ? '' : `${ratioOf(ratio)} ${yardstick}`
  const columns = [question.padEnd(54), contender.padEnd(42), figureOf(median).padStart(10), unit.padEnd(11), against, note ?? '']
  return columns.join(' ').trimEnd()
}

/** Where the figures come from. */
function whence(): string {
  const { cpu, cores, memory_gib, kernel, commit } = machine()
  const told = Object.entries(versions()).map(([name, version]) => `${name} ${version}`)
  return [
    `Commit ${commit}; ${cores} cores (${cpu}), ${memory_gib} GiB, Linux ${kernel}; ${effort.rounds} rounds of ${effort.seconds} s.`,
    `${told.join(', ')}.`,
    ...[...leftOut].map((what) => `Left out: ${what}.`),
  ].join('\n')
}
