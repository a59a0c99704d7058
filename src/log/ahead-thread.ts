// The thread that reads ahead (ahead.ts). It reads as everybody does, and what it cannot read it leaves for those who asked.

import { workerData } from 'node:worker_threads'
import { CHUNK } from '../core/log.ts'
import {
  after,
  BEGUN,
  FAILED,
  FILLED,
  HEAD,
  READY,
  type Shared,
  SLOT,
  SLOTS,
  STATE,
  TAKEN,
  THROUGH,
  UNREAD,
  WHOLE,
} from './ahead.ts'
import { FileShelf } from './shelf.ts'

const { home, words: shared, slots } = workerData as Shared
const words = new Int32Array(shared)
const files = new FileShelf(home, { reuse: true })

function say(word: number, value: number): void {
  Atomics.store(words, word, value)
  Atomics.notify(words, word)
}

/** After which log it is to begin. */
function told(): string {
  say(STATE, READY)
  Atomics.wait(words, STATE, READY)
  const first = Buffer.from(slots, 0, SLOT)
  return first.toString('latin1', HEAD, HEAD + first.readUInt32LE(0))
}

function beginningOf(log: string): { bytes: Buffer; state: number } {
  try {
    const bytes = files.read(log, 0, CHUNK)
    return { bytes, state: bytes.length < CHUNK ? WHOLE : BEGUN }
  } catch {
    return { bytes: Buffer.alloc(0), state: UNREAD }
  }
}

let filled = 0
/** How much of the slot is filled. */
let at = 0
const slot = () => Buffer.from(slots, (filled % SLOTS) * SLOT, SLOT)

/** Waits until the next slot may be filled. */
function room(): void {
  for (let taken = Atomics.load(words, TAKEN); filled - taken >= SLOTS; taken = Atomics.load(words, TAKEN)) {
    Atomics.wait(words, TAKEN, taken)
  }
  at = 0
}

function giveAway(): void {
  if (at + HEAD <= SLOT) slot().writeUInt32LE(0, at)
  say(FILLED, ++filled)
}

try {
  const last = told()
  for (const log of after(files.names(), last)) {
    const { bytes, state } = beginningOf(log)
    if (at + HEAD + log.length + bytes.length > SLOT) {
      giveAway()
      room()
    }
    const into = slot()
    into.writeUInt32LE(log.length, at)
    into.writeUInt32LE(bytes.length, at + 4)
    into.writeUInt32LE(state, at + 8)
    into.write(log, at + HEAD, 'latin1')
    at += HEAD + log.length
    at += bytes.copy(into, at)
  }
  giveAway()
  say(STATE, THROUGH)
} catch {
  giveAway()
  say(STATE, FAILED)
}
// Whoever waits for a slot is to see that there will be none.
Atomics.notify(words, FILLED)
