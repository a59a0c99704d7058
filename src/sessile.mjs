#!/usr/bin/env node
// Starts the command line.

import { fileURLToPath } from 'node:url'
import { load } from './load.mjs'

await load(fileURLToPath(new URL('./cli.ts', import.meta.url)))
