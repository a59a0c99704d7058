// A scribe in this thread, on whatever disk: what he is told and what he says takes a turn each, in order, as it does between
// threads. So the disk may refuse him what it likes, and a simulation may hold him up.

import type { Disk } from '../src/log/disk.ts'
import { type Order, Scribe, type Word } from '../src/log/scribe.ts'
import type { Sit } from '../src/log/thread.ts'

export const beside =
  (disk: Disk): Sit =>
  (heard) => {
    const words: Word[] = []
    const orders: Order[] = []
    const say = (word: Word) => {
      words.push(word)
      setImmediate(() => heard(words.shift() as Word))
    }
    const scribe = new Scribe(disk, say)
    say('ready')
    return {
      order: (order) => {
        orders.push(order)
        setImmediate(() => {
          scribe.hear(orders.shift() as Order)
          void scribe.work()
        })
      },
      await: () => {},
      close: () => {},
    }
  }
