// Simulations in a process of their own: what each leaves behind in memory goes with it.
//   node src/load.cjs test/simulated/main.ts FIRST_SEED COUNT

import { simulate } from './run.ts'

const [first = 1, count = 1] = process.argv.slice(-2).map(Number)
async function main(): Promise<void> {
  const total = { crashes: 0, acknowledged: 0, refused: 0, records: 0, operations: 0, failed: 0 }
  for (let seed = first; seed < first + count; seed++) {
    try {
      const outcome = await simulate(seed)
      for (const what of ['crashes', 'acknowledged', 'refused', 'records', 'operations'] as const) total[what] += outcome[what]
    } catch (error) {
      total.failed++
      console.error((error as Error).stack)
    }
  }
  console.log(JSON.stringify(total))
}

void main()
