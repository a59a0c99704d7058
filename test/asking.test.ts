// How the command line asks a service that runs: the whole answer, or none; and it waits no longer than anybody is there.

import { createServer, type RequestListener } from 'node:http'
import { type AddressInfo, createServer as createPeer, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { asked } from '../src/cli/asking.ts'
import { askHolder, holder } from '../src/cli/reach.ts'
import { openLog } from '../src/open.ts'
import { configOf, later, makeHome } from './harness.ts'

async function listening(server: { listen: (port: number, host: string, done: () => void) => unknown; address(): unknown }) {
  await new Promise<void>((resolve) => void server.listen(0, '127.0.0.1', resolve))
  return new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}/asked`)
}

/** A peer that takes what it is asked, and says this. */
async function peer(says: (socket: Socket) => void): Promise<URL> {
  const sockets = new Set<Socket>()
  const server = createPeer((socket) => {
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('data', () => says(socket))
  })
  later(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return listening(server)
}

async function service(answer: RequestListener): Promise<URL> {
  const server = createServer(answer)
  later(() => {
    server.closeAllConnections()
    server.close()
  })
  return listening(server)
}

const HEAD = 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'

describe('asking', () => {
  it('says what is asked, and how long it is, and is told all of the answer', async () => {
    const url = await service((request, response) => {
      const { method, url, headers } = request
      let body = ''
      request.on('data', (data) => {
        body += data
      })
      request.on('end', () => {
        response.writeHead(201).write('{"answer":')
        setTimeout(() => response.end(`${JSON.stringify([method, url, headers['content-length'], headers.a, body, 'é'])}}`), 20)
      })
    })
    const { status, text } = await asked(url, { method: 'DELETE', headers: { a: 'b' }, body: 'é!' })
    expect({ status, text }).toEqual({ status: 201, text: '{"answer":["DELETE","/asked","3","b","é!","é"]}' })
  })

  it.each<[string, (socket: Socket) => void]>([
    ['nothing', () => {}],
    ['a beginning, and nothing more', (socket) => socket.write(`${HEAD}begin`)],
  ])('gives up a peer that says %s in time', async (_, says) => {
    await expect(asked(await peer(says), { signal: AbortSignal.timeout(100) })).rejects.toThrow()
  })

  it.each<[string, (socket: Socket) => void]>([
    ['nothing', (socket) => socket.end()],
    ['a beginning', (socket) => socket.end(`${HEAD}begin`)],
    ['a beginning, and is reset', (socket) => socket.write(`${HEAD}begin`, () => socket.resetAndDestroy())],
    ['a beginning in pieces', (socket) => socket.end('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegin\r\n')],
    [
      'that it speaks otherwise from here on',
      (socket) => socket.end('HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n'),
    ],
    ['what is no answer', (socket) => socket.end('what?\r\n\r\n')],
  ])('takes no part for the whole where a peer ends with %s', async (_, says) => {
    await expect(asked(await peer(says))).rejects.toThrow()
  })

  /** A holder of the data who is asked there, with so little patience that a test can wait for its end. */
  async function held(answer: RequestListener) {
    const config = { ...configOf(makeHome()), patience: 300 }
    const log = openLog({ config })
    later(() => log.close())
    log.announce((await service(answer)).origin)
    return { config, running: holder(config) as NonNullable<ReturnType<typeof holder>> }
  }

  it('waits for a holder as long as it is there', async () => {
    const { config, running } = await held((request, response) => {
      if (request.url === '/healthz') response.end('{}')
      else setTimeout(() => response.end('{"done":true}'), 1500)
    })
    expect(await askHolder(config, running, 'POST', '/operator/settle', {})).toEqual({ done: true })
  })

  it('waits no longer for one that was there, and says nothing any more', async () => {
    let looks = 0
    const { config, running } = await held((request, response) => {
      if (request.url === '/healthz' && looks++ === 0) response.end('{}')
    })
    await expect(askHolder(config, running, 'POST', '/operator/settle', {})).rejects.toThrow('It does not answer')
    expect(looks).toBeGreaterThan(3)
  })
})
