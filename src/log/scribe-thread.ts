// The thread in which a scribe writes. It holds no lock and opens nothing: what it writes to was opened by the recorder, and
// before each write and after each sync it looks whether the data is still the recorder's.

import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import { realDisk } from './disk.ts'
import { fenced, TakenOver } from './fence.ts'
import { type Order, Scribe, type Word } from './scribe.ts'

const { path, identity } = workerData as { path: string; identity: number | undefined }
const port = parentPort as NonNullable<typeof parentPort>

const assertOurs = () => {
  if (realDisk.identity(path) !== identity) throw new TakenOver('another process has taken over the data')
}
const scribe = new Scribe(fenced(realDisk, assertOurs), (word: Word) => port.postMessage(word))

port.on('message', (order: Order) => {
  scribe.hear(order)
  for (let more = receiveMessageOnPort(port); more; more = receiveMessageOnPort(port)) scribe.hear(more.message as Order)
  void scribe.work()
})
port.postMessage('ready' satisfies Word)
