// Bringing everything to where it can do without the journal and without the recorder's memory: each line to its file, each row
// to the views. It is done in steps, between which recording goes on.

import { type Log, type Report, SyncFailed } from './log.ts'
import { dwindling, pacer, pause, turn } from './turn.ts'

/** So few that have grown are settled in half a millisecond. */
const FEW_LOGS = 15
const AGAIN_MS = 100

/** What it needs of the recorder. */
interface Recording {
  log: Log
  /** Runs a job between two batches. */
  between<T>(job: () => T): Promise<T>
  /** Brings what trails the views a step closer to this place in order; returns whether it is there. */
  trail(upTo: number): boolean
  /** Makes the views durable, with all that trails them. */
  harden(): void
  /** What the disk holds is unknown from now on. */
  die(error: Error): void
  report: Report
}

export class Steps {
  readonly #recording: Recording
  #checkpointing: Promise<void> | undefined
  /** When a checkpoint was last begun because one was due. */
  #begun = Number.NEGATIVE_INFINITY

  constructor(recording: Recording) {
    this.#recording = recording
  }

  /** Lines come faster than a checkpoint can bring them to where they need no journal: it has to end before there are more. */
  get holdsUp(): boolean {
    return this.#checkpointing !== undefined && this.#recording.log.overfull
  }

  /** Others get their turn, and a checkpoint that holds everything up as much time as there is. */
  turn(): Promise<void> {
    return this.holdsUp ? pause() : turn()
  }

  /** All there is by now, and not only what there was when one began that is under way. */
  async lastCheckpoint(): Promise<void> {
    await this.#checkpointing?.catch((error: Error) => {
      if (error instanceof SyncFailed) throw error
    })
    await this.checkpoint()
  }

  /** Sees whether the journal has grown enough for a checkpoint; where the last one failed, not at once again. */
  look(): void {
    if (this.#checkpointing || !this.#recording.log.due || performance.now() - this.#begun < AGAIN_MS) return
    this.#begun = performance.now()
    const failed = ({ message }: Error) => this.#recording.report('a checkpoint failed; the journal is kept', { error: message })
    this.checkpoint().catch(failed)
  }

  /** Makes everything durable without the journal; one at a time. */
  checkpoint(): Promise<void> {
    const { log, between, harden, die } = this.#recording
    const views = async () => {
      await this.#trail()
      await between(harden)
    }
    this.#checkpointing ??= log
      .checkpoint({ batches: between, views })
      .catch((error: Error) => {
        if (error instanceof SyncFailed) die(error)
        throw error
      })
      .finally(() => {
        this.#checkpointing = undefined
      })
    return this.#checkpointing
  }

  /**
   * Brings nearly everything to where another process finds it, so that there is little left to settle: again what has been recorded
   * meanwhile, as long as that becomes less. Where it cannot be done now, whoever settles the rest finds it out, and says so.
   */
  async approach(): Promise<void> {
    try {
      await this.#trail()
      const pace = pacer()
      const again = dwindling(FEW_LOGS)
      let logs: number
      do {
        logs = 0
        for (const _ of this.#recording.log.settling()) {
          logs++
          await pace()
        }
      } while (again(logs))
    } catch {}
  }

  async #trail(): Promise<void> {
    const { log, between, trail } = this.#recording
    const upTo = log.lsn
    while (!(await between(() => trail(upTo)))) await turn()
  }
}
