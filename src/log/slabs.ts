// Where lines wait for their files: in a few large pieces of memory that are used over and over. What waits half a second is old
// to the garbage collector, which would free thousands of buffers late, and let the process grow meanwhile.

const SIZE = 512 * 1024
/** So many that nothing lies in are kept for what comes. */
const MOST_FREE = 16

class Slab {
  readonly bytes: Buffer
  /** How much of it is filled. */
  used = 0
  /** How many pieces of it are waiting. */
  waiting = 0

  constructor(bytes: Buffer) {
    this.bytes = bytes
  }
}

/** What is waiting of one log, in order: pieces of memory that many logs share. */
export interface Pieces {
  length: number
  slabs: Slab[]
  from: number[]
  to: number[]
}

/** All of it in a room that is large enough. */
export function together({ slabs, from, to, length }: Pieces, room: Buffer): Buffer {
  let at = 0
  for (let i = 0; i < slabs.length; i++) at += (slabs[i] as Slab).bytes.copy(room, at, from[i], to[i])
  return room.subarray(0, length)
}

export class Slabs {
  #room = Buffer.allocUnsafeSlow(SIZE)
  #current = new Slab(Buffer.alloc(0))
  readonly #free: Slab[] = []

  /** Keeps a copy of these bytes, of which so many pieces are waiting; tells where it begins. */
  keep(bytes: Buffer, pieces: number): { slab: Slab; at: number } {
    if (this.#current.bytes.length - this.#current.used < bytes.length) this.#turn(bytes.length)
    const slab = this.#current
    const at = slab.used
    bytes.copy(slab.bytes, at)
    slab.used += bytes.length
    slab.waiting += pieces
    return { slab, at }
  }

  /** All pieces in one, for what is done with them at once: the next call puts others there. */
  atOnce(pieces: Pieces): Buffer {
    if (this.#room.length < pieces.length) this.#room = Buffer.allocUnsafeSlow(2 * pieces.length)
    return together(pieces, this.#room)
  }

  /** These are no longer waiting. Where nothing is, something else may be kept. */
  release({ slabs }: Pieces): void {
    for (const slab of slabs) {
      slab.waiting--
      if (slab.waiting === 0 && slab !== this.#current) this.#reuse(slab)
    }
  }

  #turn(length: number): void {
    const left = this.#current
    this.#current = (length <= SIZE ? this.#free.pop() : undefined) ?? new Slab(Buffer.allocUnsafeSlow(Math.max(SIZE, length)))
    if (left.waiting === 0) this.#reuse(left)
  }

  #reuse(slab: Slab): void {
    if (slab.bytes.length !== SIZE || this.#free.length >= MOST_FREE) return
    slab.used = 0
    this.#free.push(slab)
  }
}
