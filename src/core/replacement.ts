// How views that were filled beside the live ones take their place, while recording goes on.

import type { Grown, Successor } from './beside.ts'
import { Refusal } from './errors.ts'
import type { Gathered } from './feature.ts'
import { catchUp, reopen } from './fold.ts'
import type { Log } from './log.ts'
import { put, settle } from './place.ts'
import { breath } from './turn.ts'
import type { Mark, Views } from './views.ts'

/**
 * Views that were filled beside the live ones, and take their place between two batches: what grew since the filling is folded
 * first, then one rename decides. Where that contradicts them, the live ones stay: a log that lost its end since, as where its file is
 * lost, would else keep a newer one out of the views.
 */
export class Replacement implements Successor {
  readonly #views: Views
  readonly #gathered: Gathered
  readonly #log: Log
  /** Those whose place they have taken. */
  #replaced: Views | undefined

  constructor(views: Views, gathered: Gathered, log: Log) {
    this.#views = views
    this.#gathered = gathered
    this.#log = log
  }

  catchUp(grown: Grown, mark: Mark): boolean {
    this.#views.begin()
    if (!this.#add(grown)) return false
    this.#views.commit(mark)
    return true
  }

  approach(): void {
    this.#views.checkpoint()
  }

  complete(grown: Grown, mark: Mark): boolean {
    this.#log.assertOurs()
    this.#views.begin()
    if (!this.#add(grown)) return false
    if (this.#views.complete(mark)) return true
    throw new Refusal('refused', 'no-rebuild', 'Somebody has the new views open, and keeps them from being put in place.')
  }

  succeed(live: Views): Views {
    this.#replaced = live
    try {
      put(live.file, this.#views.file)
    } catch (error) {
      // What lay beside the live ones may be gone: nobody goes on with them as they are.
      for (const _ of live.leave());
      throw error
    }
    return reopen(live.file, this.#gathered)
  }

  /** Afterwards, step by step: nobody waits for it. */
  async close(): Promise<void> {
    this.#views.close()
    if (!this.#replaced) return
    await breath()
    for (const _ of this.#replaced.leave()) await breath()
    settle(this.#replaced.file)
  }

  #add({ ends, others }: Grown): boolean {
    const short: string[] = []
    for (const [log, { from, end }] of ends) {
      // What could not be folded to there has no other end, whatever follows.
      if (this.#views.damaged.has(log)) continue
      if ((this.#views.head(log)?.size ?? 0) >= from) this.#views.putHead(log, end)
      else short.push(log)
    }
    return [...short, ...others].every((log) => catchUp(this.#views, this.#gathered.events, this.#log, log))
  }
}
