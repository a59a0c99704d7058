// How long does a start take after a clean stop, by the number of logs? It should be the same for all.

import { openLog, openRecorder } from '../src/app.ts'
import type { Command } from '../src/core/command.ts'
import { system } from '../src/core/sessile.ts'
import { median, type Row, scratch } from './measure.ts'
import { configOf, end, start } from './sessile.ts'

const AT_ONCE = 200

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const config = configOf(path)
  const rows: Row[] = []
  let made = 0
  for (const logs of seconds > 1 ? [1000, 10_000, 100_000] : [1000, 10_000]) {
    const sessile = await openRecorder(openLog({ config }), { config })
    const record = (command: Command, body: object) => sessile.perform(command, { body, caller: system })
    while (made < logs) {
      await Promise.all(
        Array.from({ length: AT_ONCE }, async () => {
          const user_id = `u${made++}`
          const { session_id } = (await record(start, { user_id, performer_id: 'd' })) as { session_id: string }
          await record(end, { user_id, performer_id: 'd', session_id })
        }),
      )
    }
    await sessile.recorder.close()
    const times: number[] = []
    for (let round = 0; round <= rounds * 3; round++) {
      const began = performance.now()
      const started = await openRecorder(openLog({ config }), { config })
      if (round > 0) times.push(performance.now() - began)
      await started.recorder.close()
    }
    const row: Row = {
      question: `start after a clean stop, ${logs.toLocaleString('en')} logs`,
      contender: 'Sessile',
      unit: 'ms',
      median: median(times),
      rounds: times,
    }
    const first = rows[0]
    rows.push(first ? { ...row, ratio: row.median / first.median, yardstick: first.question.split(', ')[1] as string } : row)
  }
  remove()
  return rows
}
