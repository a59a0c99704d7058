// What somebody may do while an answer to them lasts. Whoever was let in once is asked about again before anything more leaves
// for them, or is taken from them, wherever it may have changed: after each record by which somebody may do more or less than
// before, and each second, since some rights end by themselves.

import type { Socket } from 'node:net'
import type { Caller } from '../core/policy.ts'
import type { Incoming } from './whole.ts'

const AGE_MS = 1000

/** What rights depend on: how many records there have been by which they may have changed, and the time. */
export interface Ground {
  rulings: number
  now: number
}

export class Rights {
  readonly #ground: () => Ground
  /** What is known was asked in the same age, or is asked again. */
  #age = { rulings: -1, second: 0 }
  /** Thousands may show the same for themselves, and ask for the same. */
  readonly #asked = new Map<string, Promise<unknown>>()

  constructor(ground: () => Ground) {
    this.#ground = ground
  }

  /** Gives, each time it is called, what `find` finds by now; at once where nothing can have changed it. `key`: the same for all who would find the same. */
  lasting<T>(key: string, find: () => Promise<T>): () => T | Promise<T> {
    let known: { age: object; found: T } | undefined
    const current = (): T | Promise<T> => {
      const { age } = this
      if (known?.age === age) return known.found
      return this.#ask(key, find).then((found) => {
        known = { age, found }
        // While it was asked about it may have changed once more.
        return current()
      })
    }
    return current
  }

  /** The same as before for as long as nobody's rights can have changed. */
  get age(): object {
    const { rulings, now } = this.#ground()
    const second = Math.floor(now / AGE_MS)
    if (rulings !== this.#age.rulings || second !== this.#age.second) {
      this.#age = { rulings, second }
      this.#asked.clear()
    }
    return this.#age
  }

  #ask<T>(key: string, find: () => Promise<T>): Promise<T> {
    const asked = (this.#asked.get(key) as Promise<T> | undefined) ?? find()
    this.#asked.set(key, asked)
    return asked
  }
}

/**
 * Who asked last on each connection, by what they showed: where the next request on it shows the very same, and nobody's rights
 * can have changed, they are the same.
 */
export class Shown {
  readonly #age: () => object
  readonly #last = new WeakMap<Socket, { age: object; authorization: string; caller: Caller }>()

  constructor(age: () => object) {
    this.#age = age
  }

  get({ socket, headers: { authorization } }: Incoming): Caller | undefined {
    if (authorization === undefined) return undefined
    const last = this.#last.get(socket)
    return last?.authorization === authorization && last.age === this.#age() ? last.caller : undefined
  }

  note({ socket, headers: { authorization } }: Incoming, caller: Caller): void {
    if (authorization !== undefined) this.#last.set(socket, { age: this.#age(), authorization, caller })
  }
}
