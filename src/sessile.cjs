#!/usr/bin/env -S node --max-semi-space-size=4 --no-allocation-site-pretenuring --no-parallel-scavenge
// What `sessile` starts Node with.
//
// V8 is told three things, here and by `npm start`. It keeps what is new in 4 MiB at a time instead of 16. It never puts that among
// what is old before it has lived: what waits for a sync looks as if it were here to stay, but then each request, long over, holds
// on to what came with it until all of the memory is gone over, and a smaller room for what is new costs a fifth of all requests.
// And it wakes no other threads for what one does in a fifth of a millisecond: they would take a processor from whoever records.

// A verb is loaded with what it needs and nothing else: none needs half of what there is. What is no verb the list of all of them
// answers.

const { existsSync } = require('node:fs')
const { join } = require('node:path')
const { load } = require('./load.cjs')

const [name = '', ...words] = process.argv.slice(2)
const verb = join(__dirname, 'verbs', `${name}.ts`)

async function start() {
  if (!/^[a-z]+$/.test(name) || !existsSync(verb)) return load(join(__dirname, 'cli.ts'))
  const { begin, perform, ...loaded } = await load(join(__dirname, 'cli', 'program.ts'), verb)
  return begin(() => perform(loaded[`${name}Verb`], words))
}

void start()
