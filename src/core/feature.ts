// A feature: its events, views, commands, queries and chores. `gather` joins the features into what the recorder, the
// door and the printer work from.

import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import type { Command } from './command.ts'
import { assert } from './errors.ts'
import { Events, type EventType } from './event.ts'
import type { Query } from './query.ts'
import type { Settings } from './settings.ts'
import type { Noted } from './trail.ts'
import type { Read, View } from './view.ts'

/** Something that the system itself does as time passes: looks for work, and asks for it as anyone else would. */
export interface Chore {
  readonly does: string
  /** The commands that are due, with their inputs. */
  due(on: {
    read: Read
    now: number
    settings: Settings
    /** When a log last grew, in milliseconds. */
    lastAt: (log: string) => number | undefined
  }): { command: Command; input: unknown }[]
}

export interface Feature {
  readonly name: string
  readonly events?: readonly EventType[]
  readonly views?: readonly View[]
  readonly commands?: readonly Command[]
  readonly queries?: readonly Query[]
  readonly chores?: readonly Chore[]
  /** Records what became of a request: one feature keeps the trail. */
  readonly trail?: Command<Noted>
}

export interface Gathered {
  readonly features: readonly Feature[]
  readonly events: Events
  readonly views: readonly View[]
  readonly commands: readonly Command[]
  readonly queries: readonly Query[]
  readonly chores: readonly Chore[]
  readonly trail: Command<Noted>
  /** A digest of the features' source: what their folds would make of a log may differ where this differs. */
  readonly code: string
}

export function gather(features: readonly Feature[], folder: URL): Gathered {
  const [trail, ...others] = features.flatMap((feature) => feature.trail ?? [])
  assert(trail && others.length === 0, 'one feature keeps the trail')
  return {
    features,
    trail,
    code: digestOf(folder),
    events: new Events(features.flatMap((feature) => feature.events ?? [])),
    views: features.flatMap((feature) => feature.views ?? []),
    commands: features.flatMap((feature) => feature.commands ?? []),
    queries: features.flatMap((feature) => feature.queries ?? []),
    chores: features.flatMap((feature) => feature.chores ?? []),
  }
}

/** The command or query that a route leads to. */
export function atRoute<T extends Pick<Command | Query, 'at'>>(all: readonly T[], route: string): T {
  const found = all.find(({ at }) => at === route)
  if (!found) throw new Error(`broken: nothing is at ${route}`)
  return found
}

function digestOf(folder: URL): string {
  const digest = createHash('sha256')
  for (const name of readdirSync(folder).sort()) digest.update(name).update(readFileSync(new URL(name, folder)))
  return digest.digest('hex')
}
