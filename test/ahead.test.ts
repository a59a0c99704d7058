// Reading ahead: whoever goes through all logs finds the same, whether or not another thread has read them meanwhile.

import { mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { bounds } from '../src/core/bounds.ts'
import { linesOf, type Shelf } from '../src/core/log.ts'
import { Ahead } from '../src/log/ahead.ts'
import { realDisk } from '../src/log/disk.ts'
import { FileShelf, fileOf } from '../src/log/shelf.ts'
import { makeHome } from './harness.ts'

const { fewLogs } = bounds
afterEach(() => {
  bounds.fewLogs = fewLogs
  vi.restoreAllMocks()
})

const nameOf = (i: number) => `users/u${String(i).padStart(3, '0')}/sessions/sess_${String(i).padStart(26, '0')}`

/** Logs of which some are longer than what is read at a time, one is empty, and one no file. */
function filled(count: number): string {
  const home = makeHome()
  for (let i = 0; i < count; i++) {
    const file = fileOf(home, nameOf(i))
    mkdirSync(dirname(file), { recursive: true })
    const lines = i % 29 === 28 ? 3000 : i % 31 === 30 ? 0 : i
    if (i === count - 7) mkdirSync(file)
    else writeFileSync(file, Array.from({ length: lines }, (_, n) => `line ${n} of ${i} ${'x'.repeat(n % 400)}\n`).join(''))
  }
  return home
}

/** What is found in each log; of each a little later, so that a thread has time to come. */
async function found(shelf: Shelf, passed: (log: string) => void = () => {}): Promise<Record<string, string>> {
  const all: Record<string, string> = {}
  for (const log of shelf.names()) {
    try {
      all[log] = [...linesOf(shelf, log)].map(({ bytes, offset, end }) => `${offset} ${end} ${bytes}`).join('\n')
    } catch (error) {
      all[log] = (error as Error).message
    }
    passed(log)
    await new Promise((resolve) => setTimeout(resolve, 16))
  }
  return all
}

describe('logs that are read ahead', () => {
  it('are those that there are, and in them what there is', async () => {
    const home = filled(150)
    const expected = await found(new FileShelf(home))
    bounds.fewLogs = 2
    const opened = vi.spyOn(realDisk, 'openToRead')
    expect(await found(new Ahead(home))).toEqual(expected)
    // Most of them were opened elsewhere.
    expect(opened.mock.calls.length).toBeLessThan(Object.keys(expected).length / 2)
    expect(Object.values(expected).filter((text) => text.length > 512 * 1024).length).toBeGreaterThan(2)
  })

  it('are read here where there is no other thread', async () => {
    const home = filled(40)
    const expected = await found(new FileShelf(home))
    bounds.fewLogs = Number.POSITIVE_INFINITY
    expect(await found(new Ahead(home))).toEqual(expected)
  })

  it('are not passed over in silence where it is not known any more which have been read', async () => {
    const home = filled(150)
    bounds.fewLogs = 2
    const reading = found(new Ahead(home), (log) => rmSync(fileOf(home, log), { recursive: true }))
    await expect(reading).rejects.toThrow('is gone')
  })
})
