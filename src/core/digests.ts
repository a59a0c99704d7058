// The digests of all tables: equal digests, equal rows. What names this life of the data is left out.

import { createHash } from 'node:crypto'
import { Runs } from './runs.ts'
import type { Tables } from './tables.ts'
import type { View } from './view.ts'

export type Digests = { table: string; rows: number; digest: string }[]

export function digestsOf(tables: Tables, views: readonly View[]): Digests {
  return [
    digest('logs', tables.rowsIn('logs', ['log'])),
    digest('commands', new Runs(tables).names()),
    ...views.map(({ name, key }) => digest(name, tables.rowsIn(name, key))),
  ]
}

function digest(table: string, all: Iterable<object>): Digests[number] {
  const digest = createHash('sha256')
  let rows = 0
  for (const row of all) {
    digest.update(JSON.stringify(row)).update('\n')
    rows++
  }
  return { table, rows, digest: digest.digest('hex') }
}
