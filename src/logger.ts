// Structured lines on stderr, gathered and written off the path of the answers, at the latest after a second. Whoever
// reads them may be slow, or go away: then lines are lost, and Sessile goes on.

import { write, writeSync } from 'node:fs'
import pino, { type Logger } from 'pino'

const STDERR = 2
const TOGETHER = 4096
const MOST_WAITING = 1024 * 1024
const FLUSH_MS = 1000

export function makeLogger(level: string): Logger {
  const lines = new Lines()
  setInterval(() => lines.send(), FLUSH_MS).unref()
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, lines)
}

class Lines {
  #waiting = ''
  /** What is being written, and how much of it is left. */
  #sending: Buffer | undefined

  write(line: string): void {
    if (this.#waiting.length < MOST_WAITING) this.#waiting += line
    if (this.#waiting.length > TOGETHER) this.send()
  }

  send(): void {
    if (this.#sending || this.#waiting === '') return
    this.#sending = Buffer.from(this.#waiting)
    this.#waiting = ''
    this.#go()
  }

  #go(): void {
    write(STDERR, this.#sending as Buffer, (error, written) => {
      const left = this.#sending?.subarray(written)
      // A reader who is behind is asked again with the next lines; one who is gone is not.
      if (error && error.code === 'EAGAIN') this.#waiting = `${left?.toString()}${this.#waiting}`
      this.#sending = !error && left && left.length > 0 ? left : undefined
      if (this.#sending) this.#go()
    })
  }

  /** Writes what there is, now: the process is about to end. What is under way is written by whoever is writing it. */
  flush(): void {
    const text = this.#waiting
    this.#waiting = ''
    try {
      if (text !== '') writeSync(STDERR, text)
    } catch {
      // There is nobody left to tell.
    }
  }
}
