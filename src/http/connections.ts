// Who is connected. There are fewer connections than descriptors, so that the recorder always has some for its files;
// whoever comes when all are taken is told so, and comes again.

import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import type { Outgoing } from './wires.ts'

const MOST = 16_384
/** So many more are let in to be told that there is no room. */
const TO_BE_TOLD = 16

/**
 * Calls once when an answer is over: taken, or never to be, since its connection went before its turn came, or before there
 * was an answer. One that waits behind another on its connection is told nothing of that.
 */
export function whenOver(outgoing: Outgoing, done: () => void): void {
  const { socket } = outgoing.req
  if (outgoing.destroyed || socket.destroyed) {
    done()
    return
  }
  const over = () => {
    socket.off('close', over)
    outgoing.off('close', over)
    done()
  }
  socket.on('close', over)
  outgoing.on('close', over)
}

export class Connections {
  readonly #surplus = new Set<Socket>()
  #count = 0

  /** `descriptors`: how many may be used for connections, where that is known. */
  constructor(server: Server, descriptors = MOST) {
    const all = Math.max(2, Math.min(MOST, Math.floor(descriptors)))
    const told = Math.min(TO_BE_TOLD, Math.floor(all / 2))
    // What comes even then is closed without a word.
    server.maxConnections = all
    server.on('connection', (socket: Socket) => {
      // However many answers wait on it to be over.
      socket.setMaxListeners(0)
      if (++this.#count > all - told) this.#surplus.add(socket)
      socket.on('close', () => {
        this.#count--
        this.#surplus.delete(socket)
      })
    })
  }

  get count(): number {
    return this.#count
  }

  isSurplus(socket: Socket): boolean {
    return this.#surplus.size > 0 && this.#surplus.has(socket)
  }
}
