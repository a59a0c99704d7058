// Callers that send records as NDJSON: one long request on each connection, with so many lines unanswered at most. They
// count the lines that were answered, and look at each for a refusal.

import { request } from 'node:http'
import { text } from 'node:stream/consumers'

const { port, connections, seconds, requests, key, window } = JSON.parse(await text(process.stdin))
const until = performance.now() + seconds * 1000
let answers = 0
let refused

function stream({ path, body }) {
  return new Promise((resolve, reject) => {
    const headers = { authorization: `Bearer ${key}`, 'content-type': 'application/x-ndjson' }
    const asking = request({ host: '127.0.0.1', port, path, method: 'POST', headers, agent: false })
    const line = `${body}\n`
    let unanswered = 0
    const send = () => {
      // Half a window at a time, so that neither side works line by line.
      const room = window - unanswered
      if (performance.now() > until) asking.end()
      else if (room >= window / 2) {
        unanswered += room
        asking.write(line.repeat(room))
      }
    }
    asking.on('error', reject)
    asking.on('response', (response) => {
      if (response.statusCode !== 200) return reject(new Error(`a stream was answered with ${response.statusCode}`))
      let rest = ''
      response.setEncoding('latin1')
      response.on('data', (data) => {
        const lines = (rest + data).split('\n')
        rest = lines.pop()
        refused ??= lines.find((answer) => answer.includes('"reason":'))
        answers += lines.length
        unanswered -= lines.length
        if (!asking.writableEnded) send()
      })
      response.on('error', reject)
      response.on('end', () =>
        unanswered === 0 && rest === '' ? resolve() : reject(new Error(`a stream ended with ${unanswered} lines unanswered`)),
      )
    })
    send()
  })
}

const began = performance.now()
await Promise.all(Array.from({ length: connections }, (_, i) => stream(requests[i % requests.length])))
if (refused !== undefined) throw new Error(`a line was refused: ${refused}`)
process.stdout.write(String(answers / ((performance.now() - began) / 1000)))
