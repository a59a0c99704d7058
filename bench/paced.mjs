// Callers over HTTP/1.1 that note how long each answer takes. Without a rate, each connection asks again when it was
// answered; with one, requests fall due at a fixed pace whatever the answers do, and the time counts from that moment.

import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { Worker } from 'node:worker_threads'

const { port, connections, warm, seconds, rate, requests, key, named } = JSON.parse(await text(process.stdin))
const wires = requests.map(({ path, body }) => {
  const head = `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`
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
  for (let due = dueAt(); due <= until && idle.length > 0 && due <= performance.now(); due = dueAt()) send(idle.pop(), due)
  if (idle.length === connections && dueAt() > until) finished()
}

function send(socket, due) {
  socket.due = due
  const { head, body, whole } = wires[sent % wires.length]
  socket.write(named ? `${head}Idempotency-Key: ${run}-${sent}\r\n\r\n${body}` : whole)
  sent++
}

function answered(socket) {
  const now = performance.now()
  if (socket.due >= counted && !socket.refused) {
    latencies.push(now - socket.due)
    last = now
  }
  rest(socket)
}

function open() {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => resolve(socket))
    socket.setNoDelay(true)
    let missing = 0
    let head = ''
    socket.on('data', (data) => {
      if (missing > 0) missing -= data.length
      else {
        head += data.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) return
        const length = Number(/content-length: (\d+)/i.exec(head)?.[1])
        if (Number.isNaN(length)) throw new Error(`an answer without its length: ${head.slice(0, 200)}`)
        socket.refused = !/^HTTP\/1\.1 20/.test(head)
        if (socket.refused && refused++ === 0) refusal = head
        missing = length - (head.length - end - 4)
        head = ''
      }
      if (missing <= 0) {
        missing = 0
        answered(socket)
      }
    })
    socket.on('error', reject)
    socket.on('close', () => idle.length < connections && fail())
  })
}

function fail() {
  console.error('the server closed a connection')
  process.exit(1)
}
