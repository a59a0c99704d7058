// A verb as a process: its words, its data directory, its exit code. Data goes to stdout, everything else to stderr.

import { dirname, resolve } from 'node:path'
import { BadConfig, readConfig, sortIn } from '../config.ts'
import { Refusal } from '../core/errors.ts'
import { Unopenable } from '../core/fold.ts'
import { SyncFailed } from '../core/log.ts'
import { isSqlite } from '../core/tables.ts'
import { TakenOver } from '../log/fence.ts'
import { JournalDamaged } from '../log/journal.ts'
import { Held, LockDamaged } from '../log/lock.ts'
import { projectionOf } from '../log/shelf.ts'
import { exit, parse, put, say, Usage, type Verb } from './verb.ts'

/** Does what a verb is called for, with the words that follow its name. */
export async function perform(verb: Verb, args: string[]): Promise<number> {
  if (args.includes('--help') || args.includes('-h')) {
    await put(`${verb.does}\n\n  ${verb.usage}\n`)
    return exit.done
  }
  const config = readConfig()
  const called = parse(verb, args)
  const made = verb.makes?.(called.values)
  sortIn(made === undefined ? dirname(projectionOf(config.home)) : resolve(made))
  return verb.run({ config, ...called })
}

/** This is what the process is for: it ends with the exit code that comes of it. */
export function begin(work: () => Promise<number>): void {
  // What Sessile makes is health data: for its owner alone.
  process.umask(0o077)
  // Whoever reads our output may stop early, as `head` does. A server goes on without them.
  process.stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    if (process.argv[2] !== 'serve') process.exit(exit.done)
  })
  process.stderr.on('error', () => {})
  // Whoever ends without having come to an end has not done it.
  process.exitCode = exit.found
  work().then(
    (code) => {
      process.exitCode = code
    },
    (error: Error) => {
      process.exitCode = codeOf(error)
      say(`sessile: ${error.message}`)
    },
  )
}

function codeOf(error: unknown): number {
  if (error instanceof Usage || error instanceof BadConfig) return exit.usage
  if (error instanceof Held || error instanceof TakenOver) return exit.held
  if (error instanceof SyncFailed) return exit.untrusted
  if (error instanceof JournalDamaged || error instanceof LockDamaged || error instanceof Unopenable) return exit.damaged
  if (isOfSystem(error) || isSqlite(error)) return exit.damaged
  if (error instanceof Refusal) return exit.found
  throw error
}

/** The operating system's own no: a folder that is a file, or that others own. */
const isOfSystem = (error: unknown) => error instanceof Error && 'syscall' in error
