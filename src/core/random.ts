// Random bytes for everyone who needs sixteen at a time. They are drawn 256 times sixteen at once: one call to the
// generator per record would cost as much as its hash.

import { randomFillSync } from 'node:crypto'

const EACH = 16
const pool = Buffer.allocUnsafeSlow(EACH * 256)
let drawn = pool.length

/** Sixteen random bytes, put in their place; nothing of them stays behind. */
export function draw(into: Buffer, at = 0): void {
  if (drawn === pool.length) {
    randomFillSync(pool)
    drawn = 0
  }
  // Byte by byte: for so few, a call that copies them costs more.
  for (let i = 0; i < EACH; i++, drawn++) {
    into[at + i] = pool[drawn] as number
    pool[drawn] = 0
  }
}
