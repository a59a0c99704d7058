// Callers over HTTP/1.1 that note how long each answer takes. Without a rate, each connection asks again when it was
// answered; with one, requests fall due at a fixed pace whatever the answers do, and the time counts from that moment.

import { text } from 'node:stream/consumers'
import { Worker } from 'node:worker_threads'
import { headOf, wire } from './wire.mjs'

const { port, connections, warm, seconds, rate, requests, key, named } = JSON.parse(await text(process.stdin))
const wires = requests.map(({ path, body }) => {
  const head = headOf({ port, key }, path, body)
  return { head, body, whole: Buffer.from(`${head}\r\n${body}`) }
})

// Timers fire on whole milliseconds, and turning in a loop would take the core that the server's sync needs. So a thread
// sleeps half a millisecond at a time and wakes us.
const BEAT = `
const { parentPort } = require('node:worker_threads')
const never = new Int32Array(new SharedArrayBuffer(4))
for (;;) { Atomics.wait(never, 0, 0, 0.5); parentPort.postMessage(0) }
`

const idle = []
const latencies = []
const run = `${process.pid}-${Date.now()}`
let sent = 0
let refused = 0
let refusal = ''
let last = 0
let finished
const done = new Promise((resolve) => {
  finished = resolve
})

const sockets = await Promise.all(Array.from({ length: connections }, open))
const began = performance.now()
const counted = began + warm * 1000
const until = counted + seconds * 1000
const dueAt = () => (rate ? began + (sent * 1000) / rate : performance.now())
// Whoever started us is told when it counts.
setTimeout(() => process.stdout.write('\n'), warm * 1000)
const beat = rate ? new Worker(BEAT, { eval: true }).on('message', sendDue) : undefined
for (const socket of sockets) rest(socket)
await done
await beat?.terminate()
for (const socket of sockets) socket.destroy()
// Told, and not counted as answers: whether there may be any is for those to say who asked.
if (refused > 0) console.error(`${refused} of ${sent} were refused, the first so: ${refusal.slice(-400)}`)

const sorted = Float64Array.from(latencies).sort()
// The smallest latency that at least so large a share of the answers did not exceed.
const share = (of) => sorted[Math.max(0, Math.ceil(sorted.length * of) - 1)]
const answer = {
  refused,
  rate: sorted.length / ((last - counted) / 1000),
  p50: share(0.5),
  p99: share(0.99),
  'p99.9': share(0.999),
}
process.stdout.write(JSON.stringify(answer))

/** A connection with nothing under way: it takes what is due, and when all is sent and answered, that is the end. */
function rest(socket) {
  idle.push(socket)
  sendDue()
}

function sendDue() {
  // In turn, the one that has rested longest first: the server closes what has had nothing to say for some seconds.
  for (let due = dueAt(); due <= until && idle.length > 0 && due <= performance.now(); due = dueAt()) send(idle.shift(), due)
  if (idle.length === connections && dueAt() > until) finished()
}

function send(socket, due) {
  socket.due = due
  const { head, body, whole } = wires[sent % wires.length]
  socket.write(named ? `${head}Idempotency-Key: ${run}-${sent}\r\n\r\n${body}` : whole)
  sent++
}

function answered(socket, answer, isRefusal) {
  const now = performance.now()
  if (isRefusal) {
    if (refused++ === 0) refusal = answer
  } else if (socket.due >= counted) {
    latencies.push(now - socket.due)
    last = now
  }
  rest(socket)
}

function open() {
  return new Promise((resolve, reject) => {
    const socket = wire(port, (answer, isRefusal) => answered(socket, answer, isRefusal))
    socket.on('connect', () => resolve(socket))
    socket.on('error', reject)
    socket.on('close', () => idle.length < connections && fail())
  })
}

function fail() {
  console.error('the server closed a connection')
  process.exit(1)
}
