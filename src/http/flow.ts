// An answer that is written piece by piece: the next piece is made when the one before it has been taken, so that a reader who
// is slow, or gone, holds one of them. Where it cannot go on the connection breaks off, so that nobody takes it for whole.

import type { ServerResponse } from 'node:http'
import type { Refusal } from '../core/errors.ts'
import type { Hold } from './burden.ts'
import { whenOver } from './connections.ts'

/** The pieces of an answer, in order; the last one is what it returns. */
export type Flow = AsyncGenerator<Uint8Array, Uint8Array>

/** A flow of which the first piece has been made. */
export interface Begun {
  first: Uint8Array
  rest: Flow
}

/** The first piece is made before anything is answered, so that what cannot be told is refused; an answer of one piece is that piece. */
export async function begin(flow: Flow, hold: Hold): Promise<Uint8Array | Begun> {
  const { value, done } = await flow.next()
  try {
    hold.take(value.length)
  } catch (error) {
    await flow.return(NOTHING)
    throw error
  }
  return done ? value : { first: value, rest: flow }
}

/** For a flow whose first piece may be long in coming: its headers need not wait for that. */
export const atOnce = (flow: Flow): Begun => ({ first: NOTHING, rest: flow })

/** Why a reader may have no more, from the moment on when that is so. */
export type Still = () => Refusal | undefined | Promise<Refusal | undefined>

interface Terms {
  /** Holds what has been gathered for this answer, and each piece until it has been taken. */
  hold: Hold
  still: Still | undefined
  /** Is told why it could not go on. */
  broke: (error: unknown) => void
}

export async function pour(outgoing: ServerResponse, { first, rest }: Begun, { hold, still, broke }: Terms): Promise<void> {
  let [gone, wake] = [false, () => {}]
  const gathered = hold.bytes - first.length
  whenOver(outgoing, () => {
    gone = true
    hold.keep(0)
    wake()
  })
  outgoing.on('drain', () => wake())
  try {
    if (!gone) outgoing.flushHeaders()
    for (let next: IteratorResult<Uint8Array, Uint8Array> = { value: first }; !gone; next = await rest.next()) {
      const refusal = await still?.()
      if (refusal) throw refusal
      hold.keep(gathered + next.value.length)
      if (next.done) {
        outgoing.end(next.value)
        return
      }
      if (next.value.length > 0 && !outgoing.write(next.value)) {
        await new Promise<void>((resolve) => {
          wake = resolve
        })
      }
    }
    await rest.return(NOTHING)
  } catch (error) {
    // Whoever is gone breaks off what was still being made for it, and that is no mistake of ours.
    if (!gone) broke(error)
    outgoing.destroy()
  }
}

const NOTHING = Buffer.alloc(0)
