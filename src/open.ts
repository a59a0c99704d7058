// Sessile without a network: the log of a data directory, and the recorder over it.

import type { Logger } from 'pino'
import { exit } from './cli/verb.ts'
import type { Config } from './config.ts'
import { steady } from './core/clock.ts'
import { Refusal } from './core/errors.ts'
import type { Gathered } from './core/feature.ts'
import { restore } from './core/fold.ts'
import { type Source, systemSource } from './core/ids.ts'
import type { Log } from './core/log.ts'
import { Recorder } from './core/recorder.ts'
import { Schemas } from './core/schemas.ts'
import { Sessile } from './core/sessile.ts'
import { isFull } from './core/tables.ts'
import { after } from './core/turn.ts'
import { features } from './features/index.ts'
import { type Disk, realDisk } from './log/disk.ts'
import { TakenOver } from './log/fence.ts'
import { FileLog } from './log/files.ts'
import type { InTheWay } from './log/lock.ts'
import { projectionOf } from './log/shelf.ts'
import type { Sit } from './log/thread.ts'
import { Secrets } from './secrets.ts'

export interface Opening {
  config: Config
  source?: Source
  disk?: Disk
  /** Who hears what goes on; nobody, where this is missing. */
  logger?: Logger | undefined
  gathered?: Gathered
  /** Ends the process when the log can no longer be trusted. */
  fatal?: (error: Error) => void
  /** Whose lock may be put aside although it is held: a process that does not answer. */
  takeOver?: InTheWay | undefined
  /** Who writes where much is recorded; as a rule a thread of this process. */
  sit?: Sit | undefined
}

/** Recovers what is there; the log is held from here on. */
export function openLog(opening: Opening): FileLog {
  const { config, source = systemSource(), disk = realDisk, logger, fatal: lost = endProcess(logger), takeOver, sit } = opening
  const report = (message: string, facts?: Record<string, unknown>) => logger?.warn(facts ?? {}, message)
  return FileLog.open(config.home, { disk, now: source.now, report, lost, takeOver, sit })
}

/** Compiled once, however often a recorder is opened. */
let schemas: Schemas | undefined

/** Brings the views up to the log and makes the recorder. */
export async function openRecorder(
  log: Log,
  { config, source = systemSource(), logger, gathered = features, fatal = endProcess(logger) }: Opening,
  distrust?: string,
): Promise<Sessile> {
  const file = projectionOf(config.home)
  const report = (message: string, facts?: Record<string, unknown>) => logger?.warn(facts ?? {}, message)
  const tryToBringBack = (distrust?: string) =>
    restore({ file, gathered, log, report, ...(distrust === undefined ? {} : { distrust }) })
  const bringBack = (distrust?: string) =>
    tryToBringBack(distrust).catch((error) => {
      if (!isFull(error)) throw error
      log.giveRoom()
      return tryToBringBack(distrust)
    })
  const views = await bringBack(distrust)
  const timed = steady(source, views.mark.timestamp)
  schemas ??= new Schemas()
  const recorder = new Recorder({
    log,
    views,
    gathered,
    schemas,
    settings: config.settings,
    source: timed,
    report,
    restore: bringBack,
    fatal,
  })
  const vault = secretsOf(config)
  const sessile = new Sessile({ recorder, log, gathered, settings: config.settings, source: timed, vault })
  // What fell due while nobody was running is done before anybody is let in.
  await whenWell(() => sessile.doChores())
  return sessile
}

/** The secrets of a data directory; tokens are good under its address alone. */
export const secretsOf = ({ home, reached, host, port }: Config) => new Secrets(home, reached.url ?? `http://${host}:${port}`)

const endProcess = (logger?: Logger) => (error: Error) => {
  const over = error instanceof TakenOver
  const why = over ? 'the data is no longer ours' : 'the disk cannot be trusted'
  logger?.fatal({ error: error.message }, `${why}: ending at once`)
  logger?.flush()
  // In words, too: this is for whoever finds the process gone, whatever is logged.
  const then = over ? 'Nothing more was recorded here.' : 'The next start reads the log anew.'
  process.stderr.write(`sessile: ${error.message}: ending at once, since ${why}. ${then}\n`)
  process.exit(over ? exit.held : exit.untrusted)
}

/** Views that turn out to be damaged at the start are rebuilt; what needed them waits for that. */
export async function whenWell<T>(job: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await job()
    } catch (error) {
      if (!(error instanceof Refusal) || error.kind !== 'unavailable') throw error
      await after(50)
    }
  }
}
