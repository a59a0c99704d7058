// Does every store that calls itself durable really sync? Each runs in a child under strace, servers of its own included,
// and the calls that reach the disk are counted while the records are written. A caller waits for its answer before it asks
// again, so one sync can answer at most as many records as there are callers: with fewer syncs than that, somebody lied.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { durable } from './append.ts'
import { leaveOut, type Row, scratch } from './measure.ts'
import { versionOf } from './servers.ts'

const LOAD = fileURLToPath(new URL('../src/load.cjs', import.meta.url))
const CALLERS = 64
const CALLS_EACH = 32
const SYNCS = ['fsync', 'fdatasync', 'sync_file_range', 'msync', 'syncfs'] as const

interface Told {
  name: string
  records: number
  began: number
  ended: number
}

/** What runs in the child: so many records, and when the first was asked for and the last answered. */
async function write(which: keyof typeof durable): Promise<Told | string> {
  const { path, remove } = scratch()
  const store = await durable[which](path, CALLERS)
  if (typeof store === 'string') {
    remove()
    return store
  }
  const began = Date.now()
  await Promise.all(
    Array.from({ length: CALLERS }, async (_, caller) => {
      for (let n = 0; n < CALLS_EACH; n++) await store.call(caller, n)
    }),
  )
  const told = { name: store.name, records: CALLERS * CALLS_EACH, began, ended: Date.now() }
  await store.close()
  remove()
  return told
}

/** How often each call was made while the records were written. */
function countIn(trace: string, { began, ended }: Told): Map<string, number> {
  const counts = new Map<string, number>()
  for (const [, at, call] of trace.matchAll(new RegExp(`^\\d+ +(\\d+\\.\\d+) (${SYNCS.join('|')})\\(`, 'gm'))) {
    const ms = Number(at) * 1000
    if (ms >= began && ms <= ended + 1) counts.set(call as string, (counts.get(call as string) ?? 0) + 1)
  }
  return counts
}

async function traced(which: string, file: string): Promise<Told | string> {
  const words = ['-f', '-ttt', '-o', file, '-e', `trace=${SYNCS.join(',')}`]
  const child = spawn('strace', ['--seccomp-bpf', ...words, process.execPath, LOAD, fileURLToPath(import.meta.url), which], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  const [said, [code]] = await Promise.all([text(child.stdout), once(child, 'exit')])
  if (code !== 0) throw new Error(`${which} under strace ended with ${code}`)
  return JSON.parse(said) as Told | string
}

export async function question(_effort: { rounds: number; seconds: number }): Promise<Row[]> {
  if (versionOf('strace') === undefined) {
    leaveOut('strace is not installed, so nobody counted syncs')
    return []
  }
  const { path, remove } = scratch()
  const rows: Row[] = []
  for (const which of Object.keys(durable)) {
    const file = join(path, which)
    const told = await traced(which, file)
    if (typeof told === 'string') leaveOut(told)
    else rows.push(rowOf(told, countIn(readFileSync(file, 'utf8'), told)))
  }
  remove()
  return rows
}

function rowOf({ name, records }: Told, counts: Map<string, number>): Row {
  const syncs = [...counts.values()].reduce((sum, n) => sum + n, 0)
  if (records > (syncs + 1) * CALLERS) throw new Error(`${name} answered ${records} records after ${syncs} syncs`)
  const each = [...counts].map(([call, n]) => `${n.toLocaleString('en')} × ${call}`).join(', ')
  return {
    question: `syncs of the disk, ${CALLERS} callers`,
    contender: name,
    unit: 'syncs/1,000 records',
    median: (1000 * syncs) / records,
    rounds: [(1000 * syncs) / records],
    note: `${each} for ${records.toLocaleString('en')} records`,
  }
}

const [, script, which] = process.argv
if (script === fileURLToPath(import.meta.url))
  void write(which as keyof typeof durable).then((written) => process.stdout.write(JSON.stringify(written)))
