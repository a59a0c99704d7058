#!/usr/bin/env node
// Starts the command line.

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
