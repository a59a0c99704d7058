// A connection over HTTP/1.1, as light as can be, for those who load a server: a raw socket, one request under way on it.

import { connect } from 'node:net'

/** The head of a request, but for its last line: more headers may follow. */
export const headOf = ({ port, key }, path, body) =>
  `POST ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n`

/** Connects, and calls `answered` with each answer, head and all, when the whole of it has come. */
export function wire(port, answered) {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  let answer = ''
  let whole = 0
  let refused = false
  socket.on('data', (data) => {
    answer += data.toString('latin1')
    if (whole === 0) {
      const end = answer.indexOf('\r\n\r\n')
      if (end < 0) return
      const length = Number(/content-length: (\d+)/i.exec(answer)?.[1])
      if (Number.isNaN(length)) throw new Error(`an answer without its length: ${answer.slice(0, 200)}`)
      refused = !/^HTTP\/1\.1 20/.test(answer)
      whole = end + 4 + length
    }
    if (answer.length < whole) return
    const last = answer
    answer = ''
    whole = 0
    answered(last, refused)
  })
  return socket
}
