// How fast are all views folded from the logs? Against two threads doing nothing but JSON.parse over the same bytes, and
// against a naive loop of JSON.parse and insert.

import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Worker } from 'node:worker_threads'
import Database from 'better-sqlite3'
import { fill } from '../src/core/fold.ts'
import { system } from '../src/core/sessile.ts'
import { Views } from '../src/core/views.ts'
import { features } from '../src/features/index.ts'
import { Ahead } from '../src/log/ahead.ts'
import { FileShelf, fileOf } from '../src/log/shelf.ts'
import { type Contender, compare, type Row, scratch } from './measure.ts'
import { append, open, said } from './sessile.ts'

const PARSE = `
const { parentPort, workerData } = require('node:worker_threads')
const { readFileSync } = require('node:fs')
let n = 0
for (const file of workerData) for (const line of readFileSync(file, 'utf8').split('\\n')) if (line !== '') { JSON.parse(line); n++ }
parentPort.postMessage(n)
`

const parsed = (files: string[]) =>
  new Promise<number>((resolve, reject) =>
    new Worker(PARSE, { eval: true, workerData: files }).once('message', resolve).once('error', reject),
  )

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  if (seconds <= 1) return rebuilt(1000, 100_000, rounds)
  return [...(await rebuilt(10_000, 1_000_000, rounds)), ...(await rebuilt(100_000, 10_000_000, rounds))]
}

async function rebuilt(logs: number, records: number, rounds: number): Promise<Row[]> {
  const { path, remove } = scratch()
  const home = join(path, 'sessile')
  const { sessile, ids, close } = await open(home, logs)
  for (let i = 0; i < logs; i += 100) {
    const some = Array.from({ length: 100 }, (_, n) => i + n)
    const body = (n: number) => Array.from({ length: records / logs }, () => said(`u${n}`))
    await Promise.all(
      some.map((n) => sessile.perform(append, { body: body(n), path: { session_id: ids[n] as string }, caller: system })),
    )
    // Lines are taken on faster than files are made for them, and refused when too many wait.
    await sessile.recorder.settle()
  }
  await close()
  const files = [...new FileShelf(home).names()].map((log) => fileOf(home, log))
  mkdirSync(join(path, 'scratch'))
  const timed = async (work: () => Promise<number> | number) => {
    const began = performance.now()
    return (await work()) / ((performance.now() - began) / 1000)
  }
  const contenders: Contender[] = [
    {
      name: 'JSON.parse, two threads',
      round: () =>
        timed(async () => {
          const half = files.length >> 1
          const [a, b] = await Promise.all([parsed(files.slice(0, half)), parsed(files.slice(half))])
          return a + b
        }),
    },
    {
      name: 'a naive loop: JSON.parse, insert',
      round: () =>
        timed(() => {
          const db = new Database(join(path, 'scratch', `naive-${readdirSync(join(path, 'scratch')).length}.db`))
          db.pragma('synchronous = OFF')
          db.exec('CREATE TABLE records (record_id TEXT PRIMARY KEY, session_id TEXT, seq INTEGER, type TEXT, data TEXT); BEGIN')
          const insert = db.prepare('INSERT INTO records VALUES (?, ?, ?, ?, ?)')
          let n = 0
          for (const file of files) {
            for (const line of readFileSync(file, 'utf8').split('\n')) {
              if (line === '') continue
              const { record_id, session_id, seq, type, data } = JSON.parse(line)
              insert.run(record_id, session_id, seq, type, JSON.stringify(data))
              n++
            }
          }
          db.exec('COMMIT')
          db.close()
          return n
        }),
    },
    {
      name: 'Sessile, indexes and sync included',
      round: () =>
        timed(() => {
          const views = Views.create(join(path, 'scratch', 'fresh.db'), features)
          const filling = fill(views, { events: features.events, shelf: new Ahead(home) })
          let step = filling.next()
          while (!step.done) step = filling.next()
          views.finish({ journal: '', lsn: 0, timestamp: step.value.latest })
          return step.value.records
        }),
    },
  ]
  const rows = await compare(
    `rebuild of ${records.toLocaleString('en')} records in ${logs.toLocaleString('en')} logs`,
    'records/s',
    contenders,
    {
      rounds,
      yardstick: 'JSON.parse, two threads',
    },
  )
  remove()
  return rows
}
