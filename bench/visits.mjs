// Callers that each live whole sessions over HTTP/1.1, one after another: start, so many times say, end. Every session is
// another user's. They count the sessions that were ended.

import { connect } from 'node:net'
import { text } from 'node:stream/consumers'

const { port, connections, seconds, says, key, said, run } = JSON.parse(await text(process.stdin))
const until = performance.now() + seconds * 1000
const fixed = `Host: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nContent-Type: application/json\r\n`

/** A connection on which one request is under way at a time; returns how to ask on it. */
function wire() {
  const socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  let got = ''
  let waiting
  socket.on('data', (data) => {
    got += data.toString('latin1')
    const end = got.indexOf('\r\n\r\n')
    if (end < 0) return
    const length = Number(/content-length: (\d+)/i.exec(got)?.[1])
    if (got.length < end + 4 + length) return
    const { resolve, reject } = waiting
    if (/^HTTP\/1\.1 20/.test(got)) resolve(got.slice(end + 4))
    else reject(new Error(got))
    got = ''
  })
  socket.on('error', (error) => waiting.reject(error))
  const post = (path, body) =>
    new Promise((resolve, reject) => {
      const content = JSON.stringify(body)
      waiting = { resolve, reject }
      socket.write(`POST ${path} HTTP/1.1\r\n${fixed}Content-Length: ${Buffer.byteLength(content)}\r\n\r\n${content}`)
    })
  return { post, end: () => socket.destroy() }
}

async function visit(post, user_id) {
  const { session_id } = JSON.parse(await post('/session_manager/sessions.start', { user_id, performer_id: 'd' }))
  for (let i = 0; i < says; i++) await post(`/api/v1/sessions/${session_id}/records`, { ...said, user_id })
  await post('/session_manager/sessions.end', { user_id, session_id, performer_id: 'd' })
}

const began = performance.now()
const counts = await Promise.all(
  Array.from({ length: connections }, async (_, caller) => {
    const { post, end } = wire()
    let n = 0
    for (; performance.now() < until; n++) await visit(post, `v${run}-${caller}-${n}`)
    end()
    return n
  }),
)
const sessions = counts.reduce((sum, n) => sum + n, 0)
process.stdout.write(String(sessions / ((performance.now() - began) / 1000)))
