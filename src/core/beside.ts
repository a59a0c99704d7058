// A rebuild beside the live views: the recorder's note of which logs grew while another process folds them anew.

import { Refusal } from './errors.ts'
import type { Line } from './log.ts'

/** A rebuild that was cut off must not be remembered for ever. */
const SILENT_MS = 5 * 60_000

export class Beside {
  #token: string | undefined
  #grown = new Set<string>()
  #asked = 0

  /** Begins to take note, for this rebuild and no other. */
  begin(token: string): string {
    this.#token = token
    this.#grown = new Set()
    this.#asked = performance.now()
    return token
  }

  /** The logs that grew since the rebuild last asked. */
  goOn(token: string): string[] {
    if (token !== this.#token) {
      throw new Refusal('refused', 'no-rebuild', 'This rebuild is not under way: another has begun, or it was silent for too long.')
    }
    const grown = [...this.#grown]
    this.begin(token)
    return grown
  }

  end(): void {
    this.#token = undefined
    this.#grown = new Set()
  }

  grew(lines: readonly Line[]): void {
    if (this.#token === undefined) return
    if (performance.now() - this.#asked > SILENT_MS) this.end()
    else for (const { log } of lines) this.#grown.add(log)
  }
}
