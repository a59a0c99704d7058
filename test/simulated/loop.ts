// Time and turns that belong to a simulation: what would run later runs when the simulation says so, in an order that
// follows from its seed, and no second of it has to be waited for.

import type { Chance } from '../chance.ts'

const realTurn = setImmediate
const real = {
  setTimeout: globalThis.setTimeout,
  clearTimeout: globalThis.clearTimeout,
  setImmediate: globalThis.setImmediate,
  now: performance.now,
}

interface Timer {
  at: number
  order: number
  run: () => void
}

/** What `setTimeout` returns: nothing here keeps a process alive. */
class Handle {
  readonly timer: Timer
  constructor(timer: Timer) {
    this.timer = timer
  }
  unref(): this {
    return this
  }
  ref(): this {
    return this
  }
}

export class Loop {
  readonly #chance: Chance
  #now = 0
  #order = 0
  #soon: (() => void)[] = []
  readonly #timers = new Set<Timer>()

  constructor(chance: Chance) {
    this.#chance = chance
  }

  /** Takes the place of the clock and the timers, those of another simulated life or the real ones. */
  install(): void {
    const fake = {
      setTimeout: (run: (...args: unknown[]) => void, ms = 0, ...args: unknown[]) => this.after(ms, () => run(...args)),
      clearTimeout: (handle: unknown) => void (handle instanceof Handle && this.#timers.delete(handle.timer)),
      setImmediate: (run: () => void) => void this.#soon.push(run),
    }
    Object.assign(globalThis, fake)
    performance.now = () => this.now()
  }

  /** Gives the real ones back their place. */
  static uninstall(): void {
    const { now, ...globals } = real
    Object.assign(globalThis, globals)
    performance.now = now
  }

  /** Looking at the clock takes time, as everything does: so slices of work end in other places each time. */
  now(): number {
    this.#now += this.#chance.next() * 0.2
    return this.#now
  }

  after(ms: number, run: () => void): Handle {
    const timer = { at: this.#now + Math.max(0, ms), order: this.#order++, run }
    this.#timers.add(timer)
    return new Handle(timer)
  }

  /** Runs what is due until the promise is settled, or the simulation is over; undefined then. */
  async until<T>(promise: Promise<T>, over: () => boolean): Promise<T | undefined> {
    let settled = false
    promise.then(
      () => {
        settled = true
      },
      () => {
        settled = true
      },
    )
    for (let steps = 0; ; steps++) {
      await new Promise((resolve) => realTurn(resolve))
      if (over()) return undefined
      if (settled) return promise
      if (steps > 200_000) throw new Error('nothing comes to an end any more')
      this.#step()
    }
  }

  /** Lets everything come to rest that waits for nothing of ours. */
  async rest(): Promise<void> {
    for (let i = 0; i < 3; i++) await new Promise((resolve) => realTurn(resolve))
  }

  /** Runs some of what is due. */
  async turns(count: number, over: () => boolean): Promise<void> {
    for (let i = 0; i < count && !over(); i++) {
      await new Promise((resolve) => realTurn(resolve))
      if (this.#soon.length > 0 || this.#timers.size > 0) this.#step()
    }
  }

  #step(): void {
    const ran = this.#soon.length > 0
    if (ran) {
      const soon = this.#soon
      this.#soon = []
      for (const run of soon) run()
      // What the disk has done is heard of between two turns, or some turns later.
      if (this.#chance.oneIn(2)) return
    }
    let next: Timer | undefined
    for (const timer of this.#timers) {
      if (!next || timer.at < next.at || (timer.at === next.at && timer.order < next.order)) next = timer
    }
    if (!next) {
      if (!ran) throw new Error('everybody waits, and nothing will happen any more')
      return
    }
    // While there is something to do at once, only what is due by now has its turn.
    if ((ran || this.#soon.length > 0) && next.at > this.#now) return
    this.#timers.delete(next)
    this.#now = Math.max(this.#now, next.at)
    next.run()
  }
}
