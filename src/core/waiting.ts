// A request to the recorder while it waits: to be decided, and then for its sync. Of a long one that has yet to be decided nothing is
// held but what was sent. What waited for long is old to a garbage collector, which goes over all that is old only now and then, and keeps
// till then whatever that refers to: so what is made of a request when its turn comes is let go by name when it has been used.

import type { Command } from './command.ts'
import type { Remembered } from './names.ts'
import { type Caller, nobody } from './policy.ts'
import type { Recorded } from './record.ts'
import type { Trace } from './trail.ts'

/** A body that is read when the recorder comes to it: till then it is but bytes, however many wait. */
export class Unread {
  readonly read: () => unknown

  constructor(read: () => unknown) {
    this.read = read
  }
}

/** What is asked for, as it was read. */
export interface Asked {
  input: unknown
  /** What the input was shaped from. */
  body: unknown
  /** Does the caller know records by numbers of their own? */
  unnumbered?: boolean | undefined
}

export interface Request {
  /** Reads what is asked for, or refuses it. Called once, when its turn comes. */
  asks(): Asked
  prepared?: unknown
  caller: Caller
  /** The caller's own name for this request (`Idempotency-Key`). */
  key?: string | undefined
  trace?: Trace | undefined
  /** Is the answer wanted as JSON? */
  asText?: boolean | undefined
}

/** What has been printed once, to be printed again in the same order. */
export class Printed {
  readonly #values: object[] = []
  readonly #texts: string[] = []

  readonly print = (value: object): string => {
    const text = JSON.stringify(value)
    this.#values.push(value)
    this.#texts.push(text)
    return text
  }

  /** The text of this very value, where it was the nth; else undefined. */
  nth(n: number, value: unknown): string | undefined {
    return this.#values[n] === value ? this.#texts[n] : undefined
  }
}

export class Waiting {
  readonly command: Command
  request: Request
  readonly done: (answer: unknown) => void
  readonly failed: (error: unknown) => void
  asked: Asked | undefined
  records: Recorded[] = NONE
  /** The same as texts, where the answer is made of those. */
  texts: string[] = NO_TEXTS
  /** What its records will be known by, where the caller named it. */
  command_id: string | undefined
  /** What was printed for that. */
  printed: Printed | undefined
  revealed: Record<string, unknown> | undefined
  /** Where the records of the first request with the same key stand. */
  before: readonly Remembered[] | undefined
  refusal: unknown
  /** The answer, once it is made. */
  told: { is: unknown } | undefined

  constructor(command: Command, request: Request, done: Waiting['done'], failed: Waiting['failed']) {
    this.command = command
    this.request = request
    this.done = done
    this.failed = failed
  }

  /** Is what it is told made of the very texts that are recorded? */
  get tellsTexts(): boolean {
    return this.request.asText === true && !this.asked?.unnumbered && !this.command.answer
  }

  /** It is about to be recorded. */
  begin(): void {
    this.records = []
    this.texts = []
  }

  /** The answer, which is not kept here any longer. */
  give(): unknown {
    const is = this.told?.is
    this.told = undefined
    return is
  }

  /** Nothing of it is needed any more but its answer. */
  over(): void {
    this.records = NONE
    this.texts = NO_TEXTS
    this.asked = undefined
    this.printed = undefined
    this.request = OVER
  }
}

const NONE: Recorded[] = []
const NO_TEXTS: string[] = []
const OVER: Request = { asks: () => ({ input: undefined, body: undefined }), caller: nobody }
