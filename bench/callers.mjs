// Callers over HTTP/1.1, as light as can be: raw sockets, one request under way on each, answers only counted.

import { connect } from 'node:net'
import { text } from 'node:stream/consumers'

const { port, connections, seconds, requests, key } = JSON.parse(await text(process.stdin))
const wires = requests.map(({ path, body }) =>
  Buffer.from(
    `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  ),
)

let answers = 0
let refused = 0
let next = 0
const until = performance.now() + seconds * 1000

function caller() {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', ask)
    socket.setNoDelay(true)
    let missing = 0
    let head = ''
    function ask() {
      if (performance.now() > until) return resolve(socket.destroy())
      socket.write(wires[next++ % wires.length])
    }
    socket.on('data', (data) => {
      if (missing > 0) missing -= data.length
      else {
        head += data.toString('latin1')
        const end = head.indexOf('\r\n\r\n')
        if (end < 0) return
        const length = Number(/content-length: (\d+)/i.exec(head)?.[1])
        if (Number.isNaN(length)) return reject(new Error(`an answer without its length: ${head.slice(0, 200)}`))
        if (!/^HTTP\/1\.1 20/.test(head)) refused++
        missing = length - (head.length - end - 4)
        head = ''
      }
      if (missing > 0) return
      missing = 0
      answers++
      ask()
    })
    socket.on('error', reject)
  })
}

const began = performance.now()
await Promise.all(Array.from({ length: connections }, caller))
if (refused > 0) throw new Error(`${refused} of ${answers} were refused`)
process.stdout.write(String(answers / ((performance.now() - began) / 1000)))
