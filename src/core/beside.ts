// A rebuild beside the live views: the recorder's note of which logs grew while another process folds them anew.

import { bounds } from './bounds.ts'
import { Refusal } from './errors.ts'
import type { End } from './heads.ts'
import type { Line } from './log.ts'
import { breath } from './turn.ts'
import type { Mark, Views } from './views.ts'

/** A rebuild that was cut off must not be remembered for ever. */
const SILENT_MS = 5 * 60_000

/** What it needs of the recorder. */
interface Recording {
  /** What no rebuild has been known by. */
  token(): string
  /** Runs a job between two batches. */
  between<T>(job: () => T): Promise<T>
  /** Brings nearly everything to where another process finds it, in steps: nobody's answer waits for long. */
  approach(): Promise<void>
  /** Brings there what is left. */
  settle(): void
  /** How far all has come that was acknowledged. */
  mark(): Mark
  /** Where a log ends. */
  endOf(log: string): End | undefined
  /** Puts other views in the place of the live ones. */
  replace(adopt: (live: Views) => Views): void
}

/** Views that were filled beside the live ones, and are to take their place. */
export interface Successor {
  /** Adds what has grown; false where that contradicts what is there. */
  catchUp(grown: Grown, mark: Mark): boolean
  /** Brings what was added to where nothing is left to do for it. */
  approach(): void
  /** The same for the last time: all of it is durable, and nobody has it open. */
  complete(grown: Grown, mark: Mark): boolean
  /** Puts them in the place of the live ones, and opens them. */
  succeed(live: Views): Views
}

/** The end of a log that grew by plain lines alone: of views that have come to where the first of them begins, it is all that is missing. */
interface PlainEnd {
  from: number
  end: End
}

/** What grew since a rebuild last asked: logs of which the end is all that is new to the views, and others, which have to be folded. */
export interface Grown {
  ends: Map<string, PlainEnd>
  others: string[]
}

/** Of a log that grew by other lines than plain ones. */
const FOLD = -1

export class Beside {
  readonly #recording: Recording
  #token: string | undefined
  /** The logs that grew, and where the first new line begins, if all of them are plain. */
  #grown = new Map<string, number>()
  #asked = 0

  constructor(recording: Recording) {
    this.#recording = recording
  }

  /** A rebuild begins; one that began before it is forgotten. */
  async begins(): Promise<{ rebuild: string; mark: Mark }> {
    await this.#recording.approach()
    return this.#recording.between(() => {
      this.#recording.settle()
      const rebuild = this.#recording.token()
      this.#note(rebuild)
      return { rebuild, mark: this.#recording.mark() }
    })
  }

  /**
   * Tells a rebuild which logs it has to fold further: those that have grown since it last asked. Of one that grew by plain lines only
   * the end is all that is missing, which the recorder puts there itself when the rebuild ends, unless there are very many.
   */
  async goesOn(token: string): Promise<{ mark: Mark; grown: string[] }> {
    await this.#recording.approach()
    return this.#recording.between(() => {
      this.mustBe(token)
      // Where this fails, nothing that grew is forgotten.
      this.#recording.settle()
      return { mark: this.#recording.mark(), grown: this.#since() }
    })
  }

  /** Brings fresh views up to date, between two batches, and puts them in the place of the live ones. */
  async ends(token: string, successor: Successor): Promise<void> {
    this.mustBe(token)
    const { between, mark, replace } = this.#recording
    // What is taken is taken once: nobody else may go on with this rebuild, or end it, and only these steps know it from here on.
    const ending = this.#recording.token()
    this.#token = ending
    const step = (work: () => boolean) => this.#mustAgree(ending, work)
    // Most of it before, some at a time: there is little left then for the moment in which everybody waits.
    for (let left = this.#grown.size; left > 0; left -= bounds.endsInTurn) {
      await between(() => step(() => successor.catchUp(this.#taken(bounds.endsInTurn), mark())))
      await breath()
    }
    step(() => {
      successor.approach()
      return true
    })
    await breath()
    await between(() => {
      step(() => successor.complete(this.#taken(), mark()))
      this.forget()
      replace((live) => successor.succeed(live))
    })
  }

  /** A rebuild of which a step fails is forgotten: it has been told what had grown, and nobody knows what became of that. */
  #mustAgree(token: string, work: () => boolean): void {
    this.mustBe(token)
    let agrees = false
    try {
      agrees = work()
    } finally {
      if (!agrees) this.forget()
    }
    if (agrees) return
    throw new Refusal(
      'refused',
      'no-rebuild',
      'What was recorded meanwhile contradicts the new views: begin this rebuild once more.',
    )
  }

  /** Of the logs that have grown so many, or all: they are not taken again unless they grow. */
  #taken(most = Number.POSITIVE_INFINITY): Grown {
    const grown: Grown = { ends: new Map(), others: [] }
    for (const [log, from] of this.#grown) {
      if (grown.ends.size + grown.others.length >= most) break
      this.#grown.delete(log)
      const end = from === FOLD ? undefined : this.#recording.endOf(log)
      if (end) grown.ends.set(log, { from, end })
      else grown.others.push(log)
    }
    return grown
  }

  grew(lines: readonly Line[]): void {
    if (this.#token === undefined) return
    if (performance.now() - this.#asked > SILENT_MS) this.forget()
    else for (const { log, offset, plain } of lines) this.#grown.set(log, plain ? (this.#grown.get(log) ?? offset) : FOLD)
  }

  /** Takes note from here on, for this rebuild and no other. */
  #note(token: string): void {
    this.#token = token
    this.#grown = new Map()
    this.#asked = performance.now()
  }

  /** Refuses a rebuild that is not the one under way. */
  mustBe(token: string): void {
    if (token === this.#token) return
    throw new Refusal(
      'refused',
      'no-rebuild',
      'This rebuild is not under way: another has begun, it has ended, or it was silent for too long.',
    )
  }

  #since(): string[] {
    this.#asked = performance.now()
    const told: string[] = []
    const all = this.#grown.size > bounds.endsAtOnce
    for (const [log, from] of this.#grown) if (all || from === FOLD) told.push(log)
    for (const log of told) this.#grown.delete(log)
    return told
  }

  /** Whatever a rebuild asks from here on is refused: also the next step of one that is about to end. */
  forget(): void {
    this.#token = undefined
    this.#grown = new Map()
  }
}
