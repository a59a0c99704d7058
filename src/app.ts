// Wires the floors: the log, the views, the recorder, the door.

import { createServer, type Server } from 'node:http'
import type { Socket } from 'node:net'
import pino, { type Logger } from 'pino'
import { BadConfig, type Config } from './config.ts'
import { bounds } from './core/bounds.ts'
import { Refusal } from './core/errors.ts'
import { digest } from './core/ids.ts'
import { Replacement } from './core/replacement.ts'
import { type Sessile, system } from './core/sessile.ts'
import { turn } from './core/turn.ts'
import { Views } from './core/views.ts'
import { features } from './features/index.ts'
import { hadAdmin, makeKey, preset } from './features/keys.ts'
import { Proxies } from './http/address.ts'
import { Connections } from './http/connections.ts'
import { Identify } from './http/identify.ts'
import { Limits } from './http/limits.ts'
import { Door, type DoorParts } from './http/server.ts'
import { Wires } from './http/wires.ts'
import { descriptors } from './log/disk.ts'
import { freshOf } from './log/shelf.ts'
import { type Opening, openLog, openRecorder, whenWell } from './open.ts'
import { whoHolds } from './who.ts'

const CHORES_MS = 1000
/** Descriptors for what is opened for a moment only, and for what Node opens of its own. */
const RESERVED = 32

const quiet = pino({ level: 'silent' })

export interface Serving {
  readonly url: string
  readonly sessile: Sessile
  /** The admin key made at the first start; told once. */
  readonly firstKey: string | undefined
  stop(): Promise<void>
}

export async function serve(opening: Opening): Promise<Serving> {
  const { config, logger = quiet } = opening
  let log: ReturnType<typeof openLog> | undefined
  let sessile: Sessile | undefined
  let operator: string | undefined
  const door = new Door({
    gathered: opening.gathered ?? features,
    logger,
    sessile: () => sessile,
    unready: () => (sessile ? sessile.recorder.stalled : 'it is starting'),
    identify: new Identify({ ...whoHolds(() => ({ sessile, operator })), reached: config.reached }),
    operate: operations,
    surplus: (socket) => connections.isSurplus(socket),
    patience: config.patience,
    reached: config.reached,
    limits: new Limits(config.limits, opening.source?.passed),
    proxies: new Proxies(config.proxies),
  })
  const server = createServer(timesOf(config), door.take)
  // What is expected beyond a word to go on is not known here; the request is answered as it is.
  server.on('checkExpectation', door.take)
  server.on('clientError', (error, socket) => endUnreadable(() => door.frame.unreadable(error), socket as Answering))
  const wires = new Wires(server, door.takeWhole)
  const connections = new Connections(server, descriptorsLeft())
  try {
    // A take-over cannot be undone: it begins when there is an address to serve on.
    const early = opening.takeOver === undefined ? undefined : await listen(server, config)
    log = openLog(opening)
    const url = early ?? (await listen(server, config))
    operator = digest(log.announce(url))
    sessile = await openRecorder(log, opening, log.tookOver ? 'a process that was taken over may still have them open' : undefined)
    const ready = sessile
    // On a full disk they are made when there is room; until then nobody signs in who was not.
    await ready.vault.ready(ready.source.now()).catch(unless('not-recorded'))
    const firstKey = await whenWell(() => firstAdmin(ready, config.adminKey).catch(unlessDamaged(logger)))
    const stopChores = keepDoing(ready, logger)
    return { url, sessile, firstKey, stop: () => stop({ server, wires, door, sessile: ready, stopChores }) }
  } catch (error) {
    server.close()
    log?.close()
    throw error
  }
}

/** How many descriptors the recorder's own files leave for connections. */
function descriptorsLeft(): number | undefined {
  const known = descriptors()
  if (!known) return undefined
  bounds.openFiles = Math.min(bounds.openFiles, Math.floor(known.most / 4))
  return known.most - known.open - bounds.openFiles - Math.min(RESERVED, known.most / 8)
}

/** A stream of records may last as long as its session, so that only the door can tell when a request takes too long. */
const timesOf = ({ patience }: Config) => ({
  headersTimeout: patience,
  requestTimeout: 0,
  // One without is refused by the door, in the words of every refusal.
  requireHostHeader: false,
  connectionsCheckingInterval: Math.min(patience, CHORES_MS),
  // A stream may pause for hours; the system finds out whether somebody is still there.
  keepAlive: true,
  keepAliveInitialDelay: 60_000,
})

type Answering = Socket & { _httpMessage?: { headersSent: boolean } | null }

/** Says why, unless an answer is under way on this connection: nothing may come between its bytes. */
function endUnreadable(why: () => string, socket: Answering): void {
  if (socket.writable && !socket._httpMessage?.headersSent) socket.end(why(), () => socket.destroy())
  else socket.destroy()
}

function listen(server: Server, { host, port }: Config): Promise<string> {
  return new Promise((resolve, reject) => {
    server.once('error', (error) => reject(new BadConfig(`Sessile cannot listen on ${host}:${port}: ${error.message}.`)))
    server.listen(port, host, () => {
      const { port: bound } = server.address() as { port: number }
      resolve(`http://${host.includes(':') ? `[${host}]` : host}:${bound}`)
    })
  })
}

/** The secret of the admin key made now, if there was none and the operator chose none. */
async function firstAdmin(sessile: Sessile, chosen: string | undefined): Promise<string | undefined> {
  if (chosen !== undefined) {
    await sessile.perform(preset, { body: { secret: chosen }, caller: system }).catch(unless('key-known'))
    return undefined
  }
  if (sessile.reading(hadAdmin)) return undefined
  const made = await sessile.perform(makeKey, {
    body: { account_id: 'admin', role: 'admin', system: true, name: 'first' },
    caller: system,
  })
  return (made as { secret: string }).secret
}

/** Of a damaged account no key opens anything, and it takes no new one. Waiting would not change that. */
const unlessDamaged = (logger: Logger) => (error: unknown) => {
  if (!(error instanceof Refusal) || error.reason !== 'log-damaged') throw error
  logger.error({}, 'the log of the account admin is damaged, and its keys open nothing: sessile keys create makes one for another')
  return undefined
}

const unless = (reason: string) => (error: unknown) => {
  if (!(error instanceof Refusal) || error.reason !== reason) throw error
}

/** What the command line asks of a running recorder: that files be complete, and to take over views that it has filled. */
const operations: DoorParts['operate'] = {
  settle: async (sessile) => {
    await sessile.recorder.settle()
    return { settled: true }
  },
  'secrets.list': async ({ vault, source }) => ({ keys: await vault.list(source.now()) }),
  'secrets.rotate': async ({ vault, source }) => ({ keys: await vault.rotate(source.now()) }),
  'backup.begins': async ({ recorder, log }) => {
    const until = new Date(await recorder.moment()).toISOString()
    // Step by step: nobody's answer waits for all the files there are.
    for (const _ of log.settling()) await turn()
    return { until }
  },
  'rebuild.begins': (sessile) => sessile.recorder.beside.begins(),
  'rebuild.goes-on': (sessile, { rebuild = '' }) => sessile.recorder.beside.goesOn(rebuild),
  'rebuild.ends': async ({ recorder, gathered, log }, { rebuild = '' }) => {
    // Looked at first: nobody but the rebuild under way has a file there. And opened before anybody has to wait for it.
    recorder.beside.mustBe(rebuild)
    log.assertOurs()
    const fresh = Views.open(freshOf(recorder.views.file), gathered)
    if (!(fresh instanceof Views)) throw new Refusal('refused', 'no-rebuild', `What was rebuilt cannot be opened: ${fresh.why}.`)
    const successor = new Replacement(fresh, gathered, log)
    try {
      await recorder.beside.ends(rebuild, successor)
    } finally {
      await successor.close()
    }
    return { rebuilt: true }
  },
}

function keepDoing(sessile: Sessile, logger: Logger): () => void {
  let busy = false
  const timer = setInterval(async () => {
    if (busy || sessile.recorder.stalled !== undefined) return
    busy = true
    await sessile.doChores().catch((error: Error) => logger.error({ error: error.message }, 'a chore failed'))
    busy = false
  }, CHORES_MS)
  return () => clearInterval(timer)
}

/** Stops taking requests, answers those under way, makes everything durable. */
async function stop({
  server,
  wires,
  door,
  sessile,
  stopChores,
}: {
  server: Server
  wires: Wires
  door: Door
  sessile: Sessile
  stopChores: () => void
}) {
  stopChores()
  const closed = new Promise<void>((resolve) => server.close(() => resolve()))
  door.endStreams()
  // A connection that is kept open after its last answer must not keep us.
  const endIdle = () => {
    server.closeIdleConnections()
    wires.endIdle()
  }
  endIdle()
  const closing = setInterval(endIdle, 50)
  const patience = setTimeout(() => {
    server.closeAllConnections()
    wires.endAll()
  }, 10_000)
  await closed
  clearInterval(closing)
  clearTimeout(patience)
  await sessile.recorder.close()
}
