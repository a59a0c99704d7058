#!/usr/bin/env node
// Starts the command line. A Node that reads TypeScript by itself is left to it; an older one is taught by tsx.

if (!process.features.typescript) (await import('tsx/esm/api')).register()
await import('./cli.ts')
