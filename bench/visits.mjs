// Callers that each live whole sessions over HTTP/1.1, one after another: start, so many times say, end. Every session is
// another user's. They count the sessions that were ended.

import { text } from 'node:stream/consumers'
import { headOf, wire } from './wire.mjs'

const { port, connections, seconds, says, key, said, run } = JSON.parse(await text(process.stdin))
const until = performance.now() + seconds * 1000

/** A connection on which one request is under way at a time; returns how to ask on it. */
function open() {
  let waiting
  const socket = wire(port, (answer, isRefusal) => {
    const { resolve, reject } = waiting
    if (isRefusal) reject(new Error(answer))
    else resolve(answer.slice(answer.indexOf('\r\n\r\n') + 4))
  })
  socket.on('error', (error) => waiting.reject(error))
  const post = (path, body) =>
    new Promise((resolve, reject) => {
      const content = JSON.stringify(body)
      waiting = { resolve, reject }
      socket.write(`${headOf({ port, key }, path, content)}\r\n${content}`)
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
    const { post, end } = open()
    let n = 0
    for (; performance.now() < until; n++) await visit(post, `v${run}-${caller}-${n}`)
    end()
    return n
  }),
)
const sessions = counts.reduce((sum, n) => sum + n, 0)
process.stdout.write(String(sessions / ((performance.now() - began) / 1000)))
