// Callers over HTTP/1.1, as light as can be: raw sockets, one request under way on each, answers only counted.

import { text } from 'node:stream/consumers'
import { headOf, wire } from './wire.mjs'

const { port, connections, seconds, requests, key } = JSON.parse(await text(process.stdin))
const wires = requests.map(({ path, body }) => Buffer.from(`${headOf({ port, key }, path, body)}\r\n${body}`))

let answers = 0
let refused = 0
let next = 0
const until = performance.now() + seconds * 1000

function caller() {
  return new Promise((resolve, reject) => {
    const socket = wire(port, (_answer, isRefusal) => {
      if (isRefusal) refused++
      answers++
      ask()
    })
    function ask() {
      if (performance.now() > until) return resolve(socket.destroy())
      socket.write(wires[next++ % wires.length])
    }
    socket.on('connect', ask)
    socket.on('error', reject)
  })
}

const began = performance.now()
await Promise.all(Array.from({ length: connections }, caller))
if (refused > 0) throw new Error(`${refused} of ${answers} were refused`)
process.stdout.write(String(answers / ((performance.now() - began) / 1000)))
