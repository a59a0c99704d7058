// How a thread of this process is begun that writes or reads beside the recorder's.

import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'

/** Runs a script of ours in a thread that does not keep the process from ending. It makes little garbage, and is given little room for it. */
export function begin(script: URL, workerData: object): Worker {
  const load = new URL('../load.cjs', import.meta.url)
  const worker = new Worker(load, {
    argv: [fileURLToPath(script)],
    workerData,
    resourceLimits: { maxYoungGenerationSizeMb: 4 },
  })
  worker.unref()
  return worker
}
