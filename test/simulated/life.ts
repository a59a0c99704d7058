// One life of the recorder on the simulated disk: what its callers do, until it stops, is killed, or the power goes.

import type { Config } from '../../src/config.ts'
import type { Command } from '../../src/core/command.ts'
import { atRoute } from '../../src/core/feature.ts'
import { catchUp, fill, reopen, takingTurns } from '../../src/core/fold.ts'
import { type Source, uuid } from '../../src/core/ids.ts'
import { Replacement } from '../../src/core/replacement.ts'
import { type Sessile, system } from '../../src/core/sessile.ts'
import { Views } from '../../src/core/views.ts'
import { features } from '../../src/features/index.ts'
import { kindNames } from '../../src/features/kinds.ts'
import type { FileLog } from '../../src/log/files.ts'
import { freshOf } from '../../src/log/shelf.ts'
import { openLog, openRecorder } from '../../src/open.ts'
import { beside } from '../beside.ts'
import type { Chance } from '../chance.ts'
import type { Operation, SimulatedDisk } from './disk.ts'
import type { Ledger } from './ledger.ts'
import type { Loop } from './loop.ts'

const start = atRoute(features.commands, 'POST /session_manager/sessions.start')
const append = atRoute(features.commands, 'POST /api/v1/sessions/{session_id}/records')
const end = atRoute(features.commands, 'POST /session_manager/sessions.end')

const users = ['ada', 'bob', 'eve', 'zoe']
const operations: readonly Operation[] = ['open', 'write', 'truncate', 'makeFolder', 'rename', 'remove']

export interface Asked {
  command: Command
  performer: string
  count: number
  body: object
  path?: Record<string, string>
  key: string | undefined
}

export interface World {
  config: Config
  disk: SimulatedDisk
  chance: Chance
  ledger: Ledger
  /** The wall clock, which is moved about. */
  clock: { now: number }
  sequence: { n: number; ulid: number }
  /** Sessions that callers have heard of, and requests with names, to be made once more. */
  sessions: { session_id: string; user_id: string }[]
  named: Asked[]
  /** The log whose file the disk has lost, if there is one. */
  lost: string | undefined
  reports: string[]
}

const source = ({ clock, sequence }: World): Source => ({
  now: () => clock.now++,
  uuid,
  // The same length and order as real ones, and the same in each run.
  ulid: () => `01SM${String(++sequence.ulid).padStart(22, '0')}`,
  secret: uuid,
})

export class Life {
  readonly #world: World
  readonly #loop: Loop
  #log: FileLog | undefined
  #sessile: Sessile | undefined
  #asked: Promise<void>[] = []
  /** Something of ours that does not hold. */
  #broken: Error | undefined

  constructor(world: World, loop: Loop) {
    this.#world = world
    this.#loop = loop
  }

  get over(): boolean {
    return this.#world.disk.dead || this.#broken !== undefined
  }

  get sessile(): Sessile | undefined {
    return this.#sessile
  }

  get broken(): Error | undefined {
    return this.#broken
  }

  /** Starts; false where it died, or could not. */
  async begin(): Promise<boolean> {
    const world = this.#world
    const opening = {
      config: world.config,
      disk: world.disk,
      // In half of the lives another writes, as soon as there is anything much to write.
      ...(world.chance.oneIn(2) ? { sit: beside(world.disk) } : {}),
      source: source(world),
      // The process ends at once: nothing that it would have gone on to do is done.
      fatal: () => world.disk.kill(),
      logger: { warn: (facts: object, message: string) => void world.reports.push(`${message} ${JSON.stringify(facts)}`) } as never,
    }
    const opened = (async () => {
      this.#log = openLog(opening)
      return openRecorder(this.#log, opening)
    })()
    this.#sessile = await this.#loop.until(opened, () => this.over)
    return this.#sessile !== undefined
  }

  /** A wave of requests, and what else happens meanwhile. */
  async wave(): Promise<void> {
    const { chance } = this.#world
    for (let n = chance.below(chance.pick([3, 12, 40])); n > 0; n--) this.#ask(this.#anything())
    if (chance.oneIn(3)) await this.#loop.turns(chance.below(30), () => this.over)
    if (this.over) return
    if (chance.oneIn(4)) await this.#meanwhile()
    if (chance.oneIn(2)) await this.settled()
  }

  /** Waits until everybody has been answered. */
  async settled(): Promise<void> {
    const asked = this.#asked
    this.#asked = []
    await this.#loop.until(Promise.all(asked), () => this.over)
  }

  async close(): Promise<void> {
    await this.settled()
    if (this.#sessile) await this.#loop.until(this.#sessile.recorder.close(), () => this.over)
  }

  // --- requests -------------------------------------------------------------------------------------------------------

  #ask(asked: Asked): void {
    const { ledger, disk, sessions } = this.#world
    const { command, body, path, key, performer, count } = asked
    const answer = (this.#sessile as Sessile).perform(command, { body, caller: system, key, ...(path ? { path } : {}) })
    const heard = ledger
      .attempt(performer, count, answer, () => disk.dead)
      .then(
        async () => {
          if (command !== start) return
          const started = (await answer.catch(() => undefined)) as { session_id: string; user_id: string } | undefined
          if (started) sessions.push({ session_id: started.session_id, user_id: started.user_id })
        },
        (error: Error) => {
          this.#broken ??= error
        },
      )
    this.#asked.push(heard)
  }

  #anything(): Asked {
    const { chance, sequence, sessions, named } = this.#world
    if (named.length > 0 && chance.oneIn(5)) return chance.pick(named)
    const performer = `p${++sequence.n}`
    const key = chance.oneIn(3) ? `key-${performer}` : undefined
    const asked = sessions.length === 0 || chance.oneIn(6) ? this.#start(performer, key) : this.#within(performer, key)
    if (key !== undefined) named.push(asked)
    return asked
  }

  #start(performer: string, key: string | undefined): Asked {
    const { chance } = this.#world
    const body = { user_id: chance.pick(users), performer_id: performer, kind: chance.pick(kindNames) }
    return { command: start, performer, count: 1, body, key }
  }

  #within(performer: string, key: string | undefined): Asked {
    const { chance, sessions } = this.#world
    // The latest are the likeliest to be active.
    const { session_id, user_id } = sessions[
      Math.max(0, sessions.length - 1 - chance.below(chance.pick([4, 40])))
    ] as World['sessions'][0]
    if (chance.oneIn(9)) return { command: end, performer, count: 1, body: { user_id, session_id, performer_id: performer }, key }
    const count = chance.pick([1, 1, 1, 2, 5, 20])
    const text = 'x'.repeat(chance.pick([1, 10, 300, 3000]))
    const record = () => ({
      type: 'transcript.said',
      source: 'transcriber',
      user_id: chance.oneIn(30) ? 'mallory' : user_id,
      performer_id: performer,
      data: { speaker: 'user', text, at: '2031-05-02T09:30:00Z' },
    })
    const body = count === 1 ? record() : Array.from({ length: count }, record)
    return { command: append, performer, count, body, path: { session_id }, key }
  }

  // --- what else happens ----------------------------------------------------------------------------------------------

  async #meanwhile(): Promise<void> {
    const { chance, clock, disk } = this.#world
    const { recorder } = this.#sessile as Sessile
    const doing = chance.pick([
      'checkpoint',
      'checkpoint',
      'settle',
      'read',
      'rebuild',
      'distrust',
      'clock',
      'chores',
      'trouble',
      'mend',
      'failing checkpoint',
    ])
    this.#world.reports.push(`(${doing})`)
    const quietly = (work: Promise<unknown>) => {
      const over = work.then(
        () => {},
        () => {},
      )
      this.#asked.push(over)
      return over
    }
    if (doing === 'checkpoint') quietly(recorder.checkpoint())
    if (doing === 'settle') quietly(recorder.settle())
    if (doing === 'read') quietly(recorder.settled())
    if (doing === 'rebuild') quietly(this.#rebuild())
    if (doing === 'distrust')
      recorder.distrust(Object.assign(new Error('malformed'), { name: 'SqliteError', code: 'SQLITE_CORRUPT' }))
    if (doing === 'clock') clock.now += chance.pick([-7_200_000, -1000, 60_000, 86_400_000])
    if (doing === 'chores') quietly((this.#sessile as Sessile).doChores())
    if (doing === 'trouble') this.trouble()
    if (doing === 'mend') disk.mend()
    if (doing === 'failing checkpoint') {
      disk.failAt(chance.oneIn(3) ? 'sync' : 'open', 'EIO', { chance: 0.3, once: true })
      quietly(recorder.checkpoint())
    }
    if (chance.oneIn(2)) await this.#loop.turns(chance.below(60), () => this.over)
  }

  /** Something fails from now on, or once. A disk that is lost refuses all of its files: what it refuses now and then is no file. */
  trouble(): void {
    const { chance, disk } = this.#world
    const once = chance.oneIn(2)
    const failAt = (operation: Operation, code: string) =>
      disk.failAt(operation, code, { once, chance: code === 'EIO' && !once ? 1 : chance.pick([1, 0.3]) })
    if (chance.oneIn(4)) disk.shorten()
    else if (chance.oneIn(6)) disk.failAt('sync', 'EIO', { once: true })
    else if (chance.oneIn(2)) failAt('write', chance.pick(['ENOSPC', 'EIO']))
    else failAt(chance.pick(operations), chance.pick(['EIO', 'ENOSPC', 'EMFILE']))
  }

  /** As the command line rebuilds beside a recorder. */
  async #rebuild(): Promise<void> {
    const { recorder, log, gathered } = this.#sessile as Sessile
    const { rebuild } = await recorder.beside.begins()
    const live = recorder.views.file
    const views = Views.create(freshOf(live), features)
    const { latest } = await takingTurns(fill(views, { events: features.events, shelf: log }))
    const { mark, grown } = await recorder.beside.goesOn(rebuild)
    for (const name of grown) catchUp(views, features.events, log, name)
    views.finish({ ...mark, timestamp: Math.max(mark.timestamp, latest) })
    const successor = new Replacement(reopen(freshOf(live), gathered), gathered, log)
    await recorder.beside.ends(rebuild, successor).finally(() => successor.close())
  }
}
