// Looking now and then after those who keep us waiting: a timer for each of them would cost more. It is done only while there
// is somebody, and nobody is blamed for a time in which we ourselves were too busy to look, or to read what had come.

const LOOK_MS = 250

export class Looking {
  readonly #look: (now: number, busy: number) => void
  #timer: NodeJS.Timeout | undefined
  #looked = 0

  /** `look`: is told the time, and for how many milliseconds we were busy since it was last called. */
  constructor(look: (now: number, busy: number) => void) {
    this.#look = look
  }

  begin(): void {
    if (this.#timer) return
    this.#looked = performance.now()
    this.#timer = setInterval(() => this.#again(), LOOK_MS).unref()
  }

  end(): void {
    clearInterval(this.#timer)
    this.#timer = undefined
  }

  #again(): void {
    const now = performance.now()
    const busy = Math.max(0, now - this.#looked - 2 * LOOK_MS)
    this.#looked = now
    this.#look(now, busy)
  }
}
