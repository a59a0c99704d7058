// The door: turns requests into commands and queries and their answers into responses. It knows routes, media types and
// bodies; what a request means is said by the features, what all answers have in common by frame.ts, and statuses by problem.ts.

import { readFileSync } from 'node:fs'
import type { ServerResponse } from 'node:http'
import type { Command } from '../core/command.ts'
import { Refusal } from '../core/errors.ts'
import type { Gathered } from '../core/feature.ts'
import { type Caller, isOpen, nobody, unproved } from '../core/policy.ts'
import { Listed, type Query, Slice } from '../core/query.ts'
import type { Asking, Sessile } from '../core/sessile.ts'
import { isTelling, type Trace } from '../core/trail.ts'
import { Unread } from '../core/waiting.ts'
import { bodyOf } from './body.ts'
import { Burden, type Hold } from './burden.ts'
import { atOnce, begin, type Still } from './flow.ts'
import { Followers } from './follow.ts'
import { type Asked, Frame, type FrameParts, type Given, type Place } from './frame.ts'
import { emergencyOf, policyOf } from './headers.ts'
import type { Identify } from './identify.ts'
import { abide, type Limits } from './limits.ts'
import { answerLines } from './ndjson.ts'
import { openapi } from './openapi.ts'
import type { Listener } from './otherwise.ts'
import { success } from './problem.ts'
import { checkRequest, hasBody, idempotencyKey, lastEventId, mediaType, parametersOf } from './request.ts'
import { Rights, Shown } from './rights.ts'
import { Routes } from './routes.ts'
import { listedAsJson, sliceAsJson, sliceAsLines } from './slice.ts'
import { type Incoming, WholeRequest } from './whole.ts'
import type { Wire } from './wires.ts'

const A_MOMENT_MS = 500

export interface DoorParts extends FrameParts {
  limits: Limits
  gathered: Gathered
  /** Sessile, once it has recovered. */
  sessile: () => Sessile | undefined
  /** Why it cannot record at the moment; undefined when it can. */
  unready: () => string | undefined
  identify: Identify
  /** Routes for the owner of the files alone. */
  operate: Record<string, (sessile: Sessile, body: Record<string, string>) => Promise<unknown>>
}

const pageOf = (body: string): Given => ({
  status: success.done,
  type: 'text/html; charset=utf-8',
  body,
  headers: policyOf(body),
})
const docs = pageOf(readFileSync(new URL('./docs.html', import.meta.url), 'utf8'))
const welcome = pageOf(readFileSync(new URL('./welcome.html', import.meta.url), 'utf8'))

export class Door {
  readonly frame: Frame
  readonly #routes: Routes
  readonly #followers: Followers
  readonly #rights = new Rights(() => ({ rulings: this.#sessile.recorder.watchers.rulings, now: this.#sessile.source.now() }))
  readonly #shown = new Shown(() => this.#rights.age)
  readonly #parts: DoorParts

  constructor(parts: DoorParts) {
    this.#parts = parts
    this.frame = new Frame(parts, async (trace, refusal) => this.#here().note(trace, refusal))
    this.#followers = new Followers(parts.patience)
    this.#routes = new Routes(this.frame, (path) => this.#nowhere(path))
    this.#open()
    const { commands, queries } = parts.gathered
    for (const query of queries) this.#route(query.at, query, (asked, caller) => this.#ask(query, asked, caller))
    for (const command of commands) {
      if (command.at !== undefined) this.#route(command.at, command, (asked, caller) => this.#perform(command, asked, caller), true)
    }
    const operate: DoorParts['operate'] = { ...parts.operate, load: async (sessile) => this.#load(sessile) }
    for (const [name, work] of Object.entries(operate)) {
      this.#route(`POST /operator/${name}`, OPERATE, async ({ incoming }, caller) => {
        if (!caller.operator) throw new Refusal('forbidden', 'forbidden', 'Only the owner of the files operates here.')
        // Not counted among what is held for callers: the owner looks in also where nothing more can be.
        const body = (await bodyOf(incoming, parts.patience, new Burden().hold())).read()
        return json(await work(this.#sessile, body as Record<string, string>))
      })
    }
  }

  readonly take: Listener = (incoming, outgoing) => this.#routes.take(incoming, outgoing)

  /** The same for a request that came whole; false where it is not to be answered on its wire. */
  readonly takeWhole = (incoming: WholeRequest, outgoing: Wire): boolean => this.#routes.takeWhole(incoming, outgoing)

  endStreams(): void {
    this.#followers.end()
  }

  /** What is held and waited for at the moment, for the operator to see. */
  #load({ recorder }: Sessile): Record<string, number> {
    return {
      held_bytes: this.frame.burden.bytes,
      waiting: recorder.waiting,
      followers: this.#followers.count,
      watchers: recorder.watchers.count,
    }
  }

  /** What everybody may ask, without a key. */
  #open(): void {
    const { gathered, unready } = this.#parts
    const contract = JSON.stringify(openapi(gathered))
    const get = (path: string, answer: (asked: Asked) => Given) => {
      const checked = (asked: Asked) => {
        this.#check(asked)
        return answer(asked)
      }
      this.#routes.put('GET', path, { route: path, door: 'api', answer: checked })
    }
    // Whoever keeps it running asks these two as often as they like.
    get('/healthz', () => json({ status: 'alive' }))
    get('/readyz', () => {
      const why = unready()
      if (why !== undefined) throw new Refusal('unavailable', 'not-ready', `Not ready: ${why}.`)
      return json({ status: 'ready' })
    })
    get('/openapi.json', (asked) => this.#toAnybody(asked, { status: success.done, type: JSON_TYPE, body: contract }))
    get('/docs', (asked) => this.#toAnybody(asked, docs))
    get('/welcome', (asked) => this.#toAnybody(asked, welcome))
  }

  /** Where no route leads. */
  #nowhere(path: string): Place {
    const answer = (asked: Asked): Given => {
      this.#check(asked)
      this.#countPlace(asked)
      const methods = this.#routes.methodsAt(path)
      if (methods.length === 0) throw new Refusal('not-found', 'no-such-route', 'There is nothing at this address.')
      const preflight = this.frame.headers.preflight(methods, asked.incoming)
      if (preflight) return { status: success.done, body: '', headers: preflight }
      const allow = methods.join(', ')
      throw new Refusal('invalid', 'method-not-allowed', `At this address there is ${allow} alone.`, { facts: { allow } })
    }
    return { route: 'none', door: 'api', answer }
  }

  #route(at: string, what: Routable, answer: (asked: Asked, caller: Caller) => Promise<Given>, whole = false): void {
    const [method, path] = at.split(' ') as [string, string]
    const admitted = (asked: Asked) => {
      const caller = this.#admit(asked, what)
      return caller instanceof Promise ? caller.then((known) => answer(asked, known)) : answer(asked, caller)
    }
    this.#routes.put(method, path, {
      route: path,
      door: what.door,
      at,
      whole,
      answer: (asked) => {
        this.#check(asked)
        return this.#whenBack()?.then(() => admitted(asked)) ?? admitted(asked)
      },
    })
  }

  /** What is no request to begin with counts like one of somebody who has proved nothing: its refusals fill no trail, either. */
  #check(asked: Asked): void {
    try {
      checkRequest(asked.incoming)
    } catch (error) {
      this.#countPlace(asked)
      throw error
    }
  }

  /** Views that are just being brought back are worth a moment's wait; after that, callers are told to come again. */
  #whenBack(): Promise<void> | undefined {
    const recorder = this.#parts.sessile()?.recorder
    if (recorder?.stalled === undefined) return undefined
    let soon: NodeJS.Timeout | undefined
    const moment = new Promise<void>((resolve) => {
      soon = setTimeout(resolve, A_MOMENT_MS)
    })
    return Promise.race([recorder.between(() => {}), moment]).finally(() => clearTimeout(soon))
  }

  #toAnybody(asked: Asked, given: Given): Given {
    this.#countPlace(asked)
    return held(given, asked.hold)
  }

  /** Who has proved nothing is counted by where they are. */
  #countPlace(asked: Asked): void {
    abide(asked, this.#parts.limits.ofAddress(asked.address))
  }

  /** Who is let in, as often as they may ask: whoever proves who they are, and anybody to what is open to all. */
  #admit(asked: Asked, what: Routable): Caller | Promise<Caller> {
    this.#here()
    if (this.#parts.surplus(asked.incoming.socket)) throw new Refusal('unavailable', 'overloaded', 'All connections are taken.')
    const unproven = (error: unknown): never => {
      this.#countPlace(asked)
      throw error
    }
    const admitted = (caller: Caller): Caller => {
      if (caller !== nobody) abide(asked, this.#parts.limits.ofCaller(caller))
      else if (!what.tries) this.#countPlace(asked)
      return caller
    }
    let caller: Caller | Promise<Caller>
    try {
      caller = this.#who(asked, what)
    } catch (error) {
      return unproven(error)
    }
    return caller instanceof Promise ? caller.catch(unproven).then(admitted) : admitted(caller)
  }

  /** Who asks this at this moment. */
  #who({ incoming, trace }: Asked, { may }: Routable): Caller | Promise<Caller> {
    const known = (caller = nobody): Caller => {
      if (caller === nobody && !isOpen(may, nobody)) throw unproved()
      if (trace) trace.caller = caller
      return caller
    }
    const caller = this.#shown.get(incoming) ?? this.#parts.identify.caller(incoming)
    if (caller instanceof Promise) return caller.then(known)
    if (caller) this.#shown.note(incoming, caller)
    return known(caller)
  }

  /** The body of a request, and who asks now that it is there: it may have been long in coming. */
  #body(asked: Asked, what: Routable, caller: Caller): Come | Promise<Come> {
    const body = hasBody(asked.incoming) ? bodyOf(asked.incoming, this.#parts.patience, asked.hold) : NO_BODY
    if (!(body instanceof Promise)) return { body, caller }
    const before = this.#rights.age
    return body.then(async (body) => ({ body, caller: this.#rights.age === before ? caller : await this.#who(asked, what) }))
  }

  #here(): Sessile {
    const sessile = this.#parts.sessile()
    if (!sessile) throw new Refusal('unavailable', 'starting', 'Sessile is starting.')
    return sessile
  }

  get #sessile(): Sessile {
    return this.#parts.sessile() as Sessile
  }

  async #perform(command: Command, asked: Asked, caller: Caller): Promise<Given> {
    const { incoming, path, trace } = asked
    const attempt = command.tries && this.#attempt(asked, command)
    const key = idempotencyKey(incoming.headers['idempotency-key'])
    if (command.body && !(incoming instanceof WholeRequest) && mediaType(incoming) === NDJSON) {
      const asking = { path, key, trace, tried: attempt?.under }
      const broke = (error: unknown) => this.frame.note(asked, error)
      const traced = (trace: Asking['trace'], error: unknown) => this.#lineRefused(caller, trace, error)
      const who = this.#rights.lasting(shownBy(incoming), async () => this.#callerNow(incoming).catch(asRefusal))
      const parts = { sessile: this.#sessile, burden: this.frame.burden, command, asking, who, traced, broke }
      const body = atOnce(answerLines(parts, incoming.iterator({ destroyOnReturn: false })))
      // Whose data its lines will be about is not known yet: it says of all whom it may reach by emergency alone.
      const headers = emergencyOf({ caller, users: [...(caller.emergencies?.keys() ?? [])] })
      return { status: success.done, type: NDJSON, body, ...(headers ? { headers } : {}) }
    }
    const status = command.makes ? success.made : success.done
    const carried = command.carries ? this.#parts.identify.carriedBy(incoming) : undefined
    // What is asked is held by nobody once it has been decided: thousands may wait for the same sync.
    const asText = !command.carries
    const { body, caller: now } = await this.#body(asked, command, caller)
    const performed = this.#sessile.perform(command, {
      body,
      path,
      caller: now,
      key,
      carried,
      tried: attempt?.under,
      trace,
      asText,
    })
    const answer = await (attempt ? attempt.of(performed) : performed)
    if (!command.carries) return { status, type: JSON_TYPE, body: answer as string }
    const { told, cookies } = this.#parts.identify.carry(answer)
    return { ...json(told, status), cookies }
  }

  /** A line that is refused counts as a request of its own: no stream fills the trail faster than requests could. */
  async #lineRefused(caller: Caller, trace: Asking['trace'], error: unknown): Promise<{ error: unknown; last: boolean }> {
    if (!isTelling(error)) return { error, last: false }
    const counted: Pick<Asked, 'standing'> = {}
    try {
      abide(counted, this.#parts.limits.ofCaller(caller))
    } catch (tooMany) {
      return { error: await this.frame.traced(counted.standing?.first ? trace : undefined, tooMany), last: true }
    }
    return { error: await this.frame.traced(trace, error), last: false }
  }

  /** Somebody is about to prove who they are. */
  #attempt(asked: Asked, { may, proves }: Command) {
    const attempt = this.#parts.limits.attempt(asked.address)
    abide(asked, attempt.begins())
    // How a name stands is told only where there is nothing more: it says how often others have tried it. What one signs in
    // by is no name of an account that asks for itself: nobody may have both, and prove the one to be forgiven the other.
    const under = (name: string) => {
      const standing = attempt.names(`${may} ${name}`)
      if (standing?.wait !== undefined) abide(asked, standing)
    }
    return { under, of: <T>(performed: Promise<T>) => attempt.of(performed, proves) }
  }

  async #ask(query: Query, asked: Asked, admitted: Caller): Promise<Given> {
    const { incoming, hold, path, trace } = asked
    const { body, caller } = query.at.startsWith('POST ')
      ? await this.#body(asked, query, admitted)
      : { body: new Unread(() => parametersOf(incoming.url ?? '')), caller: admitted }
    const sent = body.read()
    const stated = typeof sent === 'object' && sent !== null ? Object.entries(sent) : []
    const input = Object.fromEntries([...stated, ...Object.entries(path)])
    const last = lastEventId(incoming.headers['last-event-id'] as string | undefined)
    const answer = await this.#sessile.ask(query, { input, caller, trace, hold: (bytes) => hold.take(bytes) })
    if (!(answer instanceof Slice || answer instanceof Listed)) return held(json(answer), hold)
    const sight = answer instanceof Slice ? answer.sight : ''
    const urgent = emergencyOf(trace) !== undefined
    const same = `${incoming.url} ${sight} ${urgent} ${shownBy(incoming)}`
    const still = this.#rights.lasting(same, () => this.#refusalNow(incoming, query, input, { sight, urgent }))
    const status = success.done
    if (answer instanceof Listed) return { status, type: JSON_TYPE, body: await begin(listedAsJson(answer), hold), still }
    if (answer.follow) return this.#follow(answer, last, still, asked)
    if (incoming.headers.accept?.includes(NDJSON))
      return { status, type: NDJSON, body: await begin(sliceAsLines(this.#sessile, answer), hold), still }
    return { status, type: JSON_TYPE, body: await sliceAsJson(this.#sessile, answer, hold) }
  }

  #follow(slice: Slice, last: number | undefined, still: Still, asked: Asked): Given {
    const resumed = { ...slice, after: last ?? slice.after }
    const following = { sessile: this.#sessile, slice: resumed, still, broke: (error: unknown) => this.frame.note(asked, error) }
    const body = (outgoing: ServerResponse) => this.#followers.follow(following, outgoing)
    return { status: success.done, type: 'text/event-stream', body }
  }

  /** Who asks, by what they showed when they began. */
  async #callerNow(incoming: Incoming): Promise<Caller> {
    return (await this.#parts.identify.caller(incoming)) ?? nobody
  }

  /** Why a question that was answered is not answered any more, or not as far; what passes by itself is no reason. */
  async #refusalNow(
    incoming: Incoming,
    query: Query,
    input: unknown,
    before: { sight: string; urgent: boolean },
  ): Promise<Refusal | undefined> {
    try {
      const caller = await this.#callerNow(incoming)
      const trace: Trace = { request_id: '', route: query.at, caller, users: [] }
      const now = await this.#sessile.askAgain(query, { input, caller, trace })
      // What rests on emergency access from now on must be asked for as such.
      const same = !(now instanceof Slice) || now.sight === before.sight
      if (same && (before.urgent || emergencyOf(trace) === undefined)) return undefined
      return new Refusal('forbidden', 'forbidden', 'This caller no longer sees all of it.')
    } catch (error) {
      const refusal = asRefusal(error)
      return refusal.kind === 'unavailable' ? undefined : refusal
    }
  }
}

/** What a request shows for itself. */
const shownBy = ({ headers: { authorization = '', cookie = '' } }: Incoming) => `${authorization} ${cookie}`

function asRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error
  throw error
}

/** A body that has come, and who asks then. */
interface Come {
  body: Unread
  caller: Caller
}

const NO_BODY = new Unread(() => ({}))

const NDJSON = 'application/x-ndjson'
const JSON_TYPE = 'application/json'

/** What a route needs to know of what it leads to. */
type Routable = Pick<Command, 'door' | 'may' | 'tries'>
const OPERATE: Routable = { door: 'api', may: 'operate' }

const json = (value: unknown, status: number = success.done): Given => ({
  status,
  type: JSON_TYPE,
  body: JSON.stringify(value),
})

/** An answer that only tells: where nobody takes such answers they are refused before they take all memory. */
function held(given: Given, hold: Hold): Given {
  hold.keep(0)
  hold.take((given.body as string).length)
  return given
}
