#!/usr/bin/env node
// Starts the command line.

import { constants, setPriority } from 'node:os'
import { fileURLToPath } from 'node:url'
import { load } from './load.mjs'

// What goes through all there is may do so beside a recorder: whoever is recording goes first, from the first moment on.
if (process.argv[2] === 'rebuild' && !process.argv.includes('--check')) setPriority(constants.priority.PRIORITY_LOW)

await load(fileURLToPath(new URL('./cli.ts', import.meta.url)))
