// How everything here is measured: contenders take turns, round by round, in one run; what is told is the median of each
// and its ratio to the yardstick of the same round, since machines drift and ratios drift less.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, release, totalmem } from 'node:os'
import { join } from 'node:path'

export interface Contender {
  name: string
  /** Does the work for one round and tells how many a second, or another figure where more is not better. */
  round(): Promise<number>
  close?(): Promise<void> | void
}

export interface Row {
  question: string
  contender: string
  unit: string
  median: number
  rounds: number[]
  /** The median of the ratios to the yardstick, round by round. */
  ratio?: number
  yardstick?: string
  /** What else there is to say of the figure. */
  note?: string
}

/** Why contenders are missing, each reason once. */
export const leftOut = new Set<string>()

export function leaveOut(why: string): void {
  if (!leftOut.has(why)) console.log(`left out: ${why}`)
  leftOut.add(why)
}

export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

/** Lets contenders take turns; the first round warms up and does not count, where they are not `warm` from what was asked of them before. */
export async function compare(
  question: string,
  unit: string,
  contenders: Contender[],
  { rounds, yardstick, warm = false }: { rounds: number; yardstick?: string; warm?: boolean },
): Promise<Row[]> {
  const figures = new Map<string, number[]>(contenders.map(({ name }) => [name, []]))
  for (let round = warm ? 1 : 0; round <= rounds; round++) {
    // Each round begins with another contender, so that none always runs in the wake of the same one.
    for (let i = 0; i < contenders.length; i++) {
      const contender = contenders[(i + round) % contenders.length] as Contender
      const figure = await contender.round()
      if (round > 0) figures.get(contender.name)?.push(figure)
    }
  }
  for (const { close } of contenders) await close?.()
  return rowsOf(question, unit, figures, yardstick)
}

/** Rows from what each contender's rounds gave; a ratio is the median of the rounds' ratios. */
export function rowsOf(question: string, unit: string, figures: Map<string, number[]>, yardstick?: string): Row[] {
  const base = yardstick === undefined ? undefined : figures.get(yardstick)
  return [...figures].map(([contender, rounds]) => {
    const row: Row = { question, contender, unit, median: median(rounds), rounds }
    if (base === undefined || contender === yardstick) return row
    return { ...row, ratio: median(rounds.map((figure, i) => figure / (base[i] as number))), yardstick: yardstick as string }
  })
}

/** A folder on the disk that is measured, gone afterwards, and also when the benchmark breaks off. */
export function scratch(): { path: string; remove: () => void } {
  const path = mkdtempSync(join(process.env.SESSILE_BENCH_HOME ?? process.cwd(), '.bench-'))
  const remove = () => {
    process.off('exit', remove)
    rmSync(path, { recursive: true, force: true })
  }
  process.on('exit', remove)
  return { path, remove }
}

/** Calls for so many seconds with so many callers at a time; returns how many calls a second. */
export async function saturate(
  callers: number,
  seconds: number,
  call: (caller: number, n: number) => Promise<unknown>,
): Promise<number> {
  const until = performance.now() + seconds * 1000
  const began = performance.now()
  let calls = 0
  await Promise.all(
    Array.from({ length: callers }, async (_, caller) => {
      for (let n = 0; performance.now() < until; n++) {
        await call(caller, n)
        calls++
      }
    }),
  )
  return calls / ((performance.now() - began) / 1000)
}

/** A figure as people read it. */
export const figureOf = (value: number) => (value >= 100 ? Math.round(value).toLocaleString('en') : value.toPrecision(3))

/** Three digits at least of what is small: two hundredths and two and a half are not the same. */
export const ratioOf = (ratio: number) => `${ratio.toFixed(ratio < 0.1 ? 3 : 2)} ×`

export function machine() {
  return {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    memory_gib: Math.round(totalmem() / 2 ** 30),
    kernel: release(),
    commit: commit(),
  }
}

/** The commit that is measured, and whether something was changed since; nothing outside a repository. */
function commit(): string | undefined {
  const git = (...words: string[]) =>
    execFileSync('git', words, { stdio: ['ignore', 'pipe', 'ignore'] })
      .toString()
      .trim()
  try {
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', '--', 'src') === '' ? '' : ', changed')
  } catch {
    return undefined
  }
}
