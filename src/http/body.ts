// Reading a body: its bytes are bounded while they come, and held once however they come.

import type { IncomingMessage } from 'node:http'
import { Refusal } from '../core/errors.ts'
import type { Unread } from '../core/waiting.ts'
import type { Hold } from './burden.ts'
import { asJson } from './json.ts'
import { Looking } from './looking.ts'
import { Pieces } from './pieces.ts'
import { mediaType, unsupported } from './request.ts'
import { WholeRequest } from './whole.ts'

export const MOST_BYTES = 4 * 1024 * 1024

const tooLarge = () => new Refusal('too-large', 'body-too-large', `A body is at most ${MOST_BYTES} bytes.`)

const tooSlow = () => new Refusal('invalid', 'body-too-slow', 'The body took too long to come.')

/** The body of a request, when all of it is there: held by `hold`, which its owner lets go when it is done with. */
export function bodyOf(incoming: IncomingMessage | WholeRequest, patience: number, hold: Hold): Unread | Promise<Unread> {
  if (incoming instanceof WholeRequest) {
    hold.take(incoming.body.length)
    return asJson(incoming.body)
  }
  const type = mediaType(incoming)
  if (type !== 'application/json') {
    throw unsupported(`The body must be application/json${type ? `, not ${type.slice(0, 100)}` : ''}.`)
  }
  if (Number(incoming.headers['content-length'] ?? 0) > MOST_BYTES) throw tooLarge()
  return new Promise((resolve, reject) => {
    const body = new Reading(patience, hold, resolve, reject)
    incoming.on('data', (chunk: Buffer) => body.take(chunk))
    incoming.on('end', () => body.end())
    // A caller who is gone is no mistake of ours.
    const brokeOff = () => body.giveUp(new Refusal('invalid', 'invalid', 'The body broke off.'))
    incoming.on('error', brokeOff)
    incoming.on('close', () => {
      if (!incoming.complete) brokeOff()
    })
  })
}

/** Bodies that are being read, in no order. */
const reading: Reading[] = []

const looking = new Looking((now, busy) => {
  for (const body of [...reading]) {
    body.until += busy
    if (now > body.until) body.giveUp(tooSlow())
  }
  if (reading.length === 0) looking.end()
})

/** A body, read no further than the limit and no longer than there is patience; what comes beyond it is let go. */
class Reading {
  until: number
  readonly #resolve: (body: Unread) => void
  readonly #reject: (error: unknown) => void
  readonly #hold: Hold
  readonly #pieces = new Pieces()
  /** Its place among all that are being read; none when that is over. */
  #at: number

  constructor(patience: number, hold: Hold, resolve: (body: Unread) => void, reject: (error: unknown) => void) {
    this.until = performance.now() + patience
    this.#hold = hold
    this.#resolve = resolve
    this.#reject = reject
    this.#at = reading.push(this) - 1
    looking.begin()
  }

  take(chunk: Buffer): void {
    if (this.#at < 0) return
    try {
      if (this.#pieces.length + chunk.length > MOST_BYTES) throw tooLarge()
      this.#hold.take(chunk.length)
      this.#pieces.add(chunk)
    } catch (error) {
      this.giveUp(error)
    }
  }

  end(): void {
    if (!this.#leave()) return
    try {
      this.#resolve(asJson(this.#pieces.take()))
    } catch (error) {
      this.#reject(error)
    }
  }

  giveUp(error: unknown): void {
    if (this.#leave()) this.#reject(error)
  }

  /** The last of them takes its place. */
  #leave(): boolean {
    if (this.#at < 0) return false
    const last = reading.pop() as Reading
    if (last !== this) {
      reading[this.#at] = last
      last.#at = this.#at
    }
    this.#at = -1
    return true
  }
}

/** What still comes of a body after its answer is let go of; a sender who has much more, or is slow, loses the connection. */
const LET_GO_MS = 500
const LET_GO_BYTES = 64 * 1024 * 1024

export function letGo(incoming: IncomingMessage): void {
  const { socket } = incoming
  if (incoming.complete || socket.destroyed) return
  const most = socket.bytesRead + LET_GO_BYTES
  const end = () => void socket.destroySoon()
  const timer = setTimeout(end, LET_GO_MS).unref()
  incoming.on('data', () => {
    if (socket.bytesRead > most) end()
  })
  incoming.on('close', () => clearTimeout(timer))
  incoming.resume()
}
