// Bytes that come in pieces, held once: a sender may cut what it sends into single bytes, and each small piece kept for
// itself would cost a hundred times what it holds.

const SMALL = 4096

export class Pieces {
  length = 0
  #whole: Buffer[] = []
  /** What small pieces are gathered in, and how much of it is filled. */
  #room: Buffer = NOTHING
  #filled = 0

  add(piece: Buffer): void {
    this.length += piece.length
    if (piece.length >= SMALL || (this.length === piece.length && piece.length > 0)) {
      this.#close()
      this.#whole.push(piece)
      return
    }
    if (this.#filled + piece.length > this.#room.length) {
      this.#close()
      this.#room = Buffer.allocUnsafe(Math.max(SMALL, Math.min(this.length, MOST_ROOM)))
    }
    this.#filled += piece.copy(this.#room, this.#filled)
  }

  #close(): void {
    if (this.#filled > 0) this.#whole.push(this.#room.subarray(0, this.#filled))
    this.#room = this.#room.subarray(this.#filled)
    this.#filled = 0
  }

  /** All of it in one piece; after this there is nothing. */
  take(): Buffer {
    this.#close()
    const bytes = this.#whole.length === 1 ? (this.#whole[0] as Buffer) : Buffer.concat(this.#whole)
    this.#whole = []
    this.#room = NOTHING
    this.length = 0
    return bytes
  }
}

const NOTHING = Buffer.alloc(0)
const MOST_ROOM = 1024 * 1024
