// The contract of a log, which every backend passes.

import { describe, expect, it } from 'vitest'
import type { Line, Log } from '../src/core/log.ts'
import { linesOf } from '../src/core/log.ts'
import { FileLog } from '../src/log/files.ts'
import { MemoryLog } from '../src/log/memory.ts'
import { later, makeHome } from './harness.ts'

const backends: [string, () => Log][] = [
  ['files', () => FileLog.open(makeHome())],
  ['memory', () => new MemoryLog()],
]

const between = { batches: async <T>(job: () => T) => job(), views: async () => {} }

const append = (log: Log, lines: Line[]) => {
  log.write(lines)
  return log.sync()
}

/** Lines for a log, each in its place. */
function writer() {
  const sizes = new Map<string, number>()
  return (log: string, text: string, more = false): Line => {
    const offset = sizes.get(log) ?? 0
    const bytes = Buffer.from(`${text}\n`)
    sizes.set(log, offset + bytes.length)
    return { log, offset, bytes, length: bytes.length, more }
  }
}

const A = 'users/ada/sessions/sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
const B = 'accounts/device-7'
const textsOf = (log: Log, name: string, from = 0) => [...linesOf(log, name, from)].map(({ bytes }) => bytes.toString())

/** The lines after this place, each with its own. */
function since(log: Log, lsn: number): string[] {
  const told: string[] = []
  for (const some of log.since(lsn) ?? []) for (const line of some) told.push(`${line.lsn} ${line.bytes.toString().trimEnd()}`)
  return told
}

describe.each(backends)('a log of %s', (_, open) => {
  const start = () => {
    const log = open()
    later(() => log.close())
    return log
  }

  it('reads back what it acknowledged, at once and in order', async () => {
    const log = start()
    const line = writer()
    await append(log, [line(A, 'one'), line(B, 'x'), line(A, 'two')])
    await append(log, [line(A, 'drei ✓')])
    expect(textsOf(log, A)).toEqual(['one', 'two', 'drei ✓'])
    log.settle()
    expect(textsOf(log, A, 4)).toEqual(['two', 'drei ✓'])
    expect(textsOf(log, B)).toEqual(['x'])
    expect(textsOf(log, 'accounts/nobody')).toEqual([])
  })

  it('names its logs once they are settled', async () => {
    const log = start()
    const line = writer()
    await append(log, [line(A, 'one'), line(B, 'x')])
    log.settle()
    expect([...log.names()].sort()).toEqual([B, A].sort())
  })

  it('numbers every line once, in one order', async () => {
    const log = start()
    const line = writer()
    expect(log.lsn).toBe(0)
    await append(log, [line(A, 'one'), line(B, 'x')])
    await append(log, [line(A, 'two')])
    expect(log.lsn).toBe(3)
    expect(since(log, 1)).toEqual(['2 x', '3 two'])
    expect(since(log, 3)).toEqual([])
    expect(log.since(4)).toBeUndefined()
  })

  it('forgets the order behind a checkpoint, and no line', async () => {
    const log = start()
    const line = writer()
    await append(log, [line(A, 'one')])
    await log.checkpoint(between)
    await append(log, [line(A, 'two')])
    expect(log.since(0)).toBeUndefined()
    expect(since(log, 1)).toEqual(['2 two'])
    expect(textsOf(log, A)).toEqual(['one', 'two'])
  })

  it('makes the views durable before it forgets', async () => {
    const log = start()
    const line = writer()
    await append(log, [line(A, 'one')])
    let held: string[] = []
    await log.checkpoint({
      ...between,
      views: async () => {
        held = since(log, 0)
      },
    })
    expect(held).toEqual(['1 one'])
  })

  it('has nothing to say against an undamaged log', async () => {
    const log = start()
    expect(log.damaged.size).toBe(0)
    expect(log.due).toBe(false)
  })
})
