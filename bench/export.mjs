// One client that exports everything: reads session after session as the log's own bytes, from the first again after the
// last, until it is told to stop; then says how many bytes it got.

import { Agent, get } from 'node:http'
import { text } from 'node:stream/consumers'

const { port, paths, key } = JSON.parse(await text(process.stdin))
const agent = new Agent({ keepAlive: true, maxSockets: 1 })
const headers = { authorization: `Bearer ${key}`, accept: 'application/x-ndjson' }
let bytes = 0

process.on('SIGTERM', () => process.stdout.write(String(bytes), () => process.exit()))

const read = (path) =>
  new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, agent, headers }, (answer) => {
      if (answer.statusCode !== 200) reject(new Error(`${path} was answered with ${answer.statusCode}`))
      answer.on('data', (chunk) => {
        bytes += chunk.length
      })
      answer.on('end', resolve)
    }).on('error', reject)
  })

for (let n = 0; ; n++) await read(paths[n % paths.length])
