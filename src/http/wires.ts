// Connections on which requests come whole, one after the other, as devices send them. Each begins here, and stays for as long as
// all that comes on it is a whole request to a place that answers in one piece. With the first that is not, it goes over to
// Node's own parser, with every byte that has not been answered, and stays there: no request is ever read by both.

import { EventEmitter } from 'node:events'
import { type Server, type ServerResponse, STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import { linesOf } from './headers.ts'
import { Looking } from './looking.ts'
import { type Head, headOf, WholeRequest } from './whole.ts'

/** Where an answer goes. */
export type Outgoing = ServerResponse | Wire

/** Takes a request and answers it on its wire; false where it does not belong here. */
type Take = (incoming: WholeRequest, outgoing: Wire) => boolean

/** The rest of a request is waited for this long, and its first byte; then Node waits, who knows when to say that it is too late. */
const REST_MS = 250
const FIRST_MS = 1000
/** What is waited for is not more than this, so that it need not be counted among what is held, and comes in no more pieces. */
const MOST_BYTES = 16 * 1024
const MOST_PIECES = 8

const NOTHING = Buffer.alloc(0)
/** What Node says where a connection ends within a request. */
const BROKEN_OFF = Object.assign(new Error('It broke off.'), { code: 'HPE_INVALID_EOF_STATE' })

export class Wires {
  readonly server: Server
  readonly take: Take
  readonly #all = new Set<Wire>()
  readonly #nodes: (this: Server, socket: Socket) => void
  readonly #looking = new Looking((now, busy) => this.#look(now, busy))
  #now = { second: 0, date: '', kept: '' }

  constructor(server: Server, take: Take) {
    this.server = server
    this.take = take
    const [nodes] = server.listeners('connection')
    this.#nodes = nodes as (socket: Socket) => void
    server.off('connection', this.#nodes)
    server.on('connection', (socket: Socket) => {
      this.#all.add(new Wire(this, socket))
      this.#looking.begin()
    })
  }

  /** Lets Node have a connection as if it had just begun, with what has come on it. */
  handOver(wire: Wire, bytes: Buffer): void {
    const { socket } = wire
    this.left(wire)
    if (bytes.length > 0) socket.unshift(bytes)
    this.#nodes.call(this.server, socket)
    socket.resume()
  }

  /** How the head of an answer ends: the time, and whether the connection is kept. */
  ending(closes: boolean): string {
    const second = Math.floor(Date.now() / 1000)
    if (second !== this.#now.second) {
      const date = `Date: ${new Date(second * 1000).toUTCString()}\r\n`
      const kept = `${date}Connection: keep-alive\r\nKeep-Alive: timeout=${this.server.keepAliveTimeout / 1000}\r\n\r\n`
      this.#now = { second, date: `${date}\r\n`, kept }
    }
    return closes ? this.#now.date : this.#now.kept
  }

  left(wire: Wire): void {
    this.#all.delete(wire)
  }

  /** Ends those on which nothing is under way. */
  endIdle(): void {
    for (const wire of this.#all) if (wire.isIdle) wire.destroy()
  }

  endAll(): void {
    for (const wire of this.#all) wire.destroy()
  }

  #look(now: number, busy: number): void {
    for (const wire of this.#all) wire.look(now, busy)
    if (this.#all.size === 0) this.#looking.end()
  }
}

/** A connection, and where the answer to the request that is under way on it goes. */
export class Wire extends EventEmitter {
  readonly socket: Socket
  readonly #all: Wires
  /** When something last came or went. */
  #since = performance.now()
  #hasAsked = false
  /** Is a request under way: taken, and its answer not wholly gone? */
  #busy = false
  /** No more will come from the other end. */
  #ended = false
  #pieces: Buffer[] = []
  /** The head of what waits for its rest, and how many bytes the whole has. */
  #head: Head | undefined
  /** Did something come before its turn? */
  #early = false
  #text = ''
  #closes = false

  constructor(all: Wires, socket: Socket) {
    super()
    this.#all = all
    this.socket = socket
    socket.on('data', this.#came)
    socket.on('end', this.#end)
    socket.on('close', this.#close)
    socket.on('timeout', this.#timeout)
    socket.on('error', this.#error)
  }

  /** For whoever waits until an answer is over: the request that it belongs to. */
  get req(): { readonly socket: Socket } {
    return this
  }

  /** Has nothing come of which the answer is still to go? */
  get isIdle(): boolean {
    return !this.#busy && this.#pieces.length === 0
  }

  get destroyed(): boolean {
    return this.socket.destroyed
  }

  readonly #came = (chunk: Buffer): void => {
    if (this.#busy) {
      // What comes before its turn is put back, for Node to find it.
      this.#early = true
      this.socket.pause()
      this.socket.unshift(chunk)
      return
    }
    this.#pieces.push(chunk)
    this.#read()
  }

  #read(): void {
    this.#since = performance.now()
    const bytes = this.#waiting()
    this.#head ??= headOf(bytes)
    const head = this.#head
    const missing = head ? head.begins + head.length - bytes.length : -1
    if (head && missing === 0) this.#take(head, bytes)
    else if (!head || missing < 0 || head.begins + head.length > MOST_BYTES || this.#pieces.length >= MOST_PIECES)
      this.#leave(bytes)
  }

  #take(head: Head, bytes: Buffer): void {
    this.#busy = true
    this.#pieces = []
    this.#head = undefined
    if (!this.#all.take(new WholeRequest(this.socket, head, bytes.subarray(head.begins)), this)) this.#leave(bytes)
  }

  #waiting(): Buffer {
    return this.#pieces.length === 1 ? (this.#pieces[0] as Buffer) : Buffer.concat(this.#pieces)
  }

  /** Goes over to Node with these bytes. */
  #leave(bytes: Buffer): void {
    const { socket } = this
    // Nobody would hear what is still to be said of it.
    if (socket.destroyed) return
    socket.off('data', this.#came)
    socket.off('end', this.#end)
    socket.off('close', this.#close)
    socket.off('timeout', this.#timeout)
    socket.off('error', this.#error)
    this.#all.handOver(this, bytes)
  }

  /** `said`: headers as they are sent, before these. */
  writeHead(status: number, said: string, head: readonly string[]): this {
    for (let i = 0; i < head.length; i += 2) if (head[i] === 'connection') this.#closes = true
    this.#text = `HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${said}${linesOf(head)}${this.#all.ending(this.#closes)}`
    return this
  }

  end(body: string | Uint8Array, encoding: BufferEncoding): this {
    const { socket } = this
    if (typeof body === 'string') socket.write(this.#text + body, encoding)
    else {
      socket.write(this.#text, 'latin1')
      socket.write(body)
    }
    if (socket.writableLength === 0) this.#over()
    // Called when all before it has gone, however little that is.
    else socket.write(NOTHING, () => this.#over())
    return this
  }

  /** The answer is gone, and the next request may come. */
  #over(): void {
    this.#busy = false
    this.#hasAsked = true
    this.#since = performance.now()
    if (this.listenerCount('close') > 0) this.emit('close')
    if (this.listenerCount('timeout') > 0) {
      this.removeAllListeners('timeout')
      this.socket.setTimeout(0)
    }
    if (this.socket.destroyed) return
    if (this.#closes) this.socket.destroySoon()
    else if (this.#early) this.#leave(NOTHING)
    else if (this.#ended) this.socket.end()
  }

  destroy(): void {
    this.socket.destroy()
  }

  setTimeout(ms: number): void {
    this.socket.setTimeout(ms)
  }

  readonly #end = (): void => {
    this.#ended = true
    if (this.#busy) return
    if (this.#pieces.length > 0) this.#all.server.emit('clientError', BROKEN_OFF, this.socket)
    else this.socket.end()
  }

  readonly #close = (): void => this.#all.left(this)

  readonly #timeout = (): void => void this.emit('timeout', this.socket)

  /** Whatever it is, the connection closes, and whoever waits for it hears of that. */
  readonly #error = (): void => {}

  /** Who lets us wait is not waited for here. */
  look(now: number, busy: number): void {
    this.#since += busy
    const idle = now - this.#since
    if (this.#busy) return
    if (this.#pieces.length > 0) {
      if (idle > REST_MS) this.#leave(this.#waiting())
    } else if (!this.#hasAsked) {
      if (idle > FIRST_MS) this.#leave(NOTHING)
    } else if (idle > this.#all.server.keepAliveTimeout) this.destroy()
  }
}
