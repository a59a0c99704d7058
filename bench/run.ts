// npm run bench: every question, one table, and bench/results.json.
//   npm run bench -- append http     only these questions
//   npm run bench -- --full          more and longer rounds

import { writeFileSync } from 'node:fs'
import { machine, type Row } from './measure.ts'

const questions = ['append', 'http', 'rebuild', 'start'] as const
const args = process.argv.slice(2)
const full = args.includes('--full')
const chosen = questions.filter((name) => args.every((arg) => arg.startsWith('--')) || args.includes(name))
const effort = full ? { rounds: 9, seconds: 5 } : { rounds: 3, seconds: 1 }

const rows: Row[] = []
for (const name of chosen) {
  const { question } = (await import(`./${name}.ts`)) as {
    question: (effort: { rounds: number; seconds: number }) => Promise<Row[]>
  }
  const answered = await question(effort)
  rows.push(...answered)
  for (const row of answered) console.log(line(row))
}
writeFileSync(new URL('./results.json', import.meta.url), `${JSON.stringify({ machine: machine(), effort, rows }, null, 2)}\n`)

function line({ question, contender, unit, median, ratio, yardstick }: Row): string {
  const figure = median >= 100 ? Math.round(median).toLocaleString('en') : median.toPrecision(3)
  return `${question.padEnd(54)} ${contender.padEnd(42)} ${figure.padStart(10)} ${unit.padEnd(10)} ${ratio === undefined ? '' : `${ratio.toFixed(2)} × ${yardstick}`}`
}
