// What `sessile` starts Node with.

import { fileURLToPath } from 'node:url'
import { load } from './load.mjs'

await load(fileURLToPath(new URL('./cli.ts', import.meta.url)))
