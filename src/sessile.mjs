#!/usr/bin/env -S node --max-semi-space-size=4 --no-allocation-site-pretenuring --no-parallel-scavenge
// Starts the command line.
//
// V8 is told three things, here and by `npm start`. It keeps what is new in 4 MiB at a time instead of 16. It never puts that among
// what is old before it has lived: what waits for a sync looks as if it were here to stay, but then each request, long over, holds
// on to what came with it until all of the memory is gone over, and a smaller room for what is new costs a fifth of all requests.
// And it wakes no other threads for what one does in a fifth of a millisecond: they would take a processor from whoever records.

import { spawnSync } from 'node:child_process'
import { constants, setPriority } from 'node:os'
import { fileURLToPath } from 'node:url'
import { load } from './load.mjs'

/** What goes through all there is, maybe beside a recorder. */
const LONG = ['rebuild', 'replay', 'verify']

// Whoever is recording goes first, from the first moment on. Even a low priority has a processor for milliseconds before it is taken
// away; what is idle by its class gives it up at once, where the system has such a class and a command that sets it.
if (LONG.includes(process.argv[2] ?? '') && !process.argv.includes('--check')) {
  setPriority(constants.priority.PRIORITY_LOW)
  spawnSync('chrt', ['--idle', '--all-tasks', '--pid', '0', String(process.pid)], { stdio: 'ignore' })
}

await load(fileURLToPath(new URL('./cli.ts', import.meta.url)))
