// Many clients that follow one session: opens their connections, says `watching` when each has heard that it has caught
// up, and `told` when each has heard of a record that came after that.

import { connect } from 'node:net'
import { text } from 'node:stream/consumers'

const { port, path, connections, key } = JSON.parse(await text(process.stdin))
const wire = `GET ${path}?follow=1 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAuthorization: Bearer ${key}\r\nAccept: text/event-stream\r\n\r\n`
// More at a time would overflow the queue of those who wait to be let in.
const AT_ONCE = 100
let told = 0

const watcher = () =>
  new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => socket.write(wire))
    let heard = ''
    let watching = false
    let knows = false
    socket.on('data', (data) => {
      if (knows) return
      heard += data.toString('latin1')
      if (!watching && heard.includes('event: caught-up')) {
        if (!heard.startsWith('HTTP/1.1 200')) reject(new Error(heard.slice(0, 200)))
        watching = true
        heard = ''
        resolve()
      } else if (watching && heard.includes('event: record')) {
        knows = true
        heard = ''
        if (++told === connections) console.log('told')
      }
    })
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('a watcher was sent away')))
  })

for (let left = connections; left > 0; left -= AT_ONCE) await Promise.all(Array.from({ length: Math.min(AT_ONCE, left) }, watcher))
console.log('watching')
