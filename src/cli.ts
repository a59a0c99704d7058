// The command line: one verb a file. Data goes to stdout, everything else to stderr; the exit code says how it went.

import { dirname, resolve } from 'node:path'
import { accountsVerb } from './cli/accounts.ts'
import { backupVerb } from './cli/backup.ts'
import { catVerb } from './cli/cat.ts'
import { doctorVerb } from './cli/doctor.ts'
import { infoVerb } from './cli/info.ts'
import { keysVerb } from './cli/keys.ts'
import { rebuildVerb } from './cli/rebuild.ts'
import { recoverVerb } from './cli/recover.ts'
import { replayVerb } from './cli/replay.ts'
import { restoreVerb } from './cli/restore.ts'
import { secretsVerb } from './cli/secrets.ts'
import { serveVerb } from './cli/serve.ts'
import { exit, parse, put, say, Usage, type Verb } from './cli/verb.ts'
import { verifyVerb } from './cli/verify.ts'
import { BadConfig, readConfig, sortIn } from './config.ts'
import { Refusal } from './core/errors.ts'
import { Unopenable } from './core/fold.ts'
import { SyncFailed } from './core/log.ts'
import { isSqlite } from './core/tables.ts'
import { TakenOver } from './log/fence.ts'
import { JournalDamaged } from './log/journal.ts'
import { Held, LockDamaged } from './log/lock.ts'
import { projectionOf } from './log/shelf.ts'

const verbs: Record<string, Verb> = {
  serve: serveVerb,
  keys: keysVerb,
  accounts: accountsVerb,
  secrets: secretsVerb,
  info: infoVerb,
  cat: catVerb,
  verify: verifyVerb,
  doctor: doctorVerb,
  recover: recoverVerb,
  rebuild: rebuildVerb,
  replay: replayVerb,
  backup: backupVerb,
  restore: restoreVerb,
}

const help = () => `sessile: the record of sessions

${Object.entries(verbs)
  .map(([name, { does }]) => `  ${name.padEnd(8)} ${does}`)
  .join('\n')}

  sessile VERB --help   how to call it

The data directory is the current folder, or SESSILE_HOME.
Exit codes: 0 done; 1 something is wrong with the data, or was refused; 2 the call's words are off;
            3 something acknowledged is lost; 4 another process holds the data;
            5 the log cannot be trusted as it is; 70 a sync failed, and the next start reads the log anew.
`

// What Sessile makes is health data: for its owner alone.
process.umask(0o077)

async function main([name, ...args]: string[]): Promise<number> {
  if (name === undefined || name === 'help' || name === '--help' || name === '-h') {
    if (name === undefined) {
      say(help())
      return exit.usage
    }
    await put(help())
    return exit.done
  }
  const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined
  if (!verb) throw new Usage(`there is no verb ${name}: sessile help lists them`)
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

// Whoever reads our output may stop early, as `head` does. A server goes on without them.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
  if (process.argv[2] !== 'serve') process.exit(exit.done)
})
process.stderr.on('error', () => {})

// Whoever ends without having come to an end has not done it.
process.exitCode = exit.found
main(process.argv.slice(2)).then(
  (code) => {
    process.exitCode = code
  },
  (error: Error) => {
    process.exitCode = codeOf(error)
    say(`sessile: ${error.message}`)
  },
)
