// Serves the data directory until it is told to stop.

import { serve } from '../app.ts'
import { hangingHolder } from '../cli/reach.ts'
import { exit, say, type Verb } from '../cli/verb.ts'
import { isLoopback } from '../config.ts'
import { makeLogger } from '../logger.ts'

export const serveVerb: Verb = {
  does: 'Serve the data directory over HTTP; --take-over does so although another process holds it, if that one does not answer.',
  usage: 'sessile serve [--take-over]',
  options: { 'take-over': { type: 'boolean' } },
  async run({ config, values }) {
    const logger = makeLogger(config.logLevel)
    const takeOver = values['take-over'] ? await hangingHolder(config) : undefined
    const serving = await serve({ config, logger, takeOver })
    // Heard before anybody is told that it serves: whoever waited for that may stop it at once.
    const told = new Promise<void>((resolve) => {
      process.once('SIGTERM', resolve)
      process.once('SIGINT', resolve)
    })
    if (serving.firstKey !== undefined) greet(serving.url, serving.firstKey)
    say(`Sessile serves ${config.home} on ${serving.url} (documentation: ${serving.url}/docs)`)
    if (!isLoopback(config.host) && config.reached.url === undefined) say(PLAIN)
    await told
    say('Sessile is stopping: it answers what is under way and makes everything durable.')
    await serving.stop()
    logger.flush()
    return exit.done
  },
}

const PLAIN =
  'Sessile speaks plain HTTP, and others than this machine reach it: whoever stands on the way reads all. Put a proxy that ends TLS in front of it, ' +
  'and name its address: SESSILE_PUBLIC_URL=https://….'

/** Told once, on stdout: nothing keeps the key but whoever reads this. */
function greet(url: string, key: string): void {
  process.stdout.write(`
This is a new data directory. Its admin key, shown this once:

  ${key}

Start a first session:

  curl -s ${url}/session_manager/sessions.start -H 'Authorization: Bearer ${key}' -H 'Content-Type: application/json' -d '{"user_id":"ada","performer_id":"admin"}'

`)
}
