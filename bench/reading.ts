// How fast are all records printed in order, and how fast are all seals and schemas checked? Against `cat` and `sha256sum`
// over the same bytes. All are whole commands; what starting ours alone takes stands beside them, since on little data it
// is most of it.

import { execFileSync } from 'node:child_process'
import { statSync } from 'node:fs'
import { FileShelf, fileOf } from '../src/log/shelf.ts'
import { ended, sessileServer, sessileVerb, sessileWords } from './children.ts'
import { type Contender, compare, type Row, rowsOf, scratch } from './measure.ts'

const MB = 1e6
const FILES = `find logs -name '*.jsonl' -print0 | sort -z | xargs -0`
/** Whoever prints has a reader on the other side: a write to nowhere costs nothing, and proves nothing. */
const READER = 'cat > /dev/null'

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const [logs, each] = seconds > 1 ? [10_000, 100] : [500, 100]
  const { path, remove } = scratch()
  const server = await sessileServer(path)
  await server.ask('begin', { sessions: logs, records: each })
  await server.ask('close')
  await server.stop()
  const shelf = new FileShelf(path)
  const bytes = [...shelf.names()].reduce((sum, log) => sum + statSync(fileOf(path, log)).size, 0)
  const printed = Number(shell(path, `${sessileWords} replay | wc -c`))
  if (printed !== bytes) throw new Error(`the logs hold ${bytes} bytes, and a replay printed ${printed}`)

  const contender = (name: string, words: string): Contender => ({
    name,
    round: async () => {
      const began = performance.now()
      shell(path, words)
      return bytes / MB / ((performance.now() - began) / 1000)
    },
  })
  const size = `${(logs * each).toLocaleString('en')} records`
  const printing = [contender('cat', `${FILES} cat | ${READER}`), contender('sessile replay', `${sessileWords} replay | ${READER}`)]
  const checking = [
    contender('sha256sum', `${FILES} sha256sum | ${READER}`),
    contender('sessile verify', `${sessileWords} verify 2> /dev/null`),
  ]
  // Nothing stays warm from one command to the next but the files, and these have just been read.
  const rows = [
    ...(await compare(`printing ${size}`, 'MB/s', printing, { rounds, yardstick: 'cat', warm: true })),
    ...(await compare(`checking ${size}`, 'MB/s', checking, { rounds, yardstick: 'sha256sum', warm: true })),
    ...rowsOf('starting a command', 'ms', new Map([['sessile --help', await startings(path, rounds)]])),
  ]
  remove()
  return rows
}

/** Runs a pipeline in the data directory; it fails where any part of it does. */
function shell(home: string, words: string): string {
  return execFileSync('bash', ['-o', 'pipefail', '-c', words], {
    cwd: home,
    encoding: 'utf8',
    env: { ...process.env, SESSILE_HOME: home },
  })
}

async function startings(home: string, rounds: number): Promise<number[]> {
  const times: number[] = []
  for (let round = 0; round < rounds; round++) {
    const began = performance.now()
    await ended(sessileVerb(home, ['--help']), 'sessile --help')
    times.push(performance.now() - began)
  }
  return times
}
