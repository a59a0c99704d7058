// Sessile with its door open, in a child of its own, so that nobody who measures it shares its event loop. It does for
// its parent what can only be done from within: fill its logs, make checkpoints, and look at its memory.

import { type Serving, serve } from '../src/app.ts'
import { system } from '../src/core/sessile.ts'
import { append, begun, configOf, end, type Session, said } from './sessile.ts'

const KEY = 'an-admin-key-for-the-benchmark-of-32-letters'
const AT_ONCE = 200
const MOST_IN_ARRAY = 100

let serving: Serving
let checkpoints = 0
/** The one under way, if there is one. */
let checkpoint = Promise.resolve()
let clock: NodeJS.Timeout | undefined
let users = 0

const verbs = {
  /** Starts sessions of so many new users, appends records to each, ends them where asked; returns who and which. */
  async begin({ sessions, records = 0, ended = false }: { sessions: number; records?: number; ended?: boolean }) {
    const made: Session[] = []
    for (let left = sessions; left > 0; left -= AT_ONCE) {
      const some = Array.from({ length: Math.min(AT_ONCE, left) }, () => `u${users++}`)
      made.push(...(await Promise.all(some.map((user_id) => oneSession(user_id, records, ended)))))
      // Lines are taken on faster than files are made for them; nothing measured here should be a refusal because of that.
      if (records > 0) await serving.sessile.recorder.settle()
    }
    // An answer of a hundred thousand sessions is not asked for, and would be garbage where garbage is measured.
    return ended ? [] : made
  },
  /** From now on a checkpoint every so many milliseconds, or none; returns how many there have been. */
  async checkpoints({ every }: { every: number }) {
    clearInterval(clock)
    const begin = () => {
      checkpoint = serving.sessile.recorder.checkpoint().then(() => void checkpoints++)
    }
    if (every > 0) clock = setInterval(begin, every)
    await checkpoint
    return checkpoints
  },
  /** Stops as a service is stopped: everything lies in its file. */
  async close() {
    await serving.stop()
  },
  async settle() {
    await serving.sessile.recorder.settle()
  },
  /** What is held when all that waits has been written and all garbage is gone. */
  async memory() {
    await serving.sessile.recorder.settle()
    await serving.sessile.recorder.checkpoint()
    for (let i = 0; i < 3; i++) {
      globalThis.gc?.()
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const { heapUsed, external, arrayBuffers, rss } = process.memoryUsage()
    return { heapUsed, external, arrayBuffers, rss }
  },
}

async function oneSession(user_id: string, records: number, ended: boolean): Promise<Session> {
  const by = { user_id, performer_id: 'device-7' }
  const session_id = await begun(serving.sessile, by)
  for (let left = records; left > 0; left -= MOST_IN_ARRAY) {
    const body = Array.from({ length: Math.min(MOST_IN_ARRAY, left) }, () => said(user_id))
    await serving.sessile.perform(append, { body, path: { session_id }, caller: system })
  }
  if (ended) await serving.sessile.perform(end, { body: { ...by, session_id }, caller: system })
  return { user_id, session_id }
}

async function open(): Promise<void> {
  serving = await serve({ config: { ...configOf(process.argv[2] as string), adminKey: KEY } })
  process.on('message', async ({ id, verb, input }: { id: number; verb: keyof typeof verbs; input: never }) => {
    try {
      process.send?.({ id, answer: await verbs[verb](input) })
    } catch (error) {
      process.send?.({ id, error: String(error) })
    }
  })
  process.on('disconnect', () => process.exit())
  process.send?.({ port: Number(new URL(serving.url).port), reader: KEY })
}

void open()
