// How often one may ask, and how often one may try to prove who one is.
//
// A quota is kept by the generic cell rate algorithm: of each caller one number is known, the time up to which what it
// has asked for is paid. Each request moves it on by a minute's share, and it may lie at most a minute ahead. So a caller may
// ask for its whole quota at once, gets it back evenly, and gains nothing at the turn of a minute.
//
// A time that has come says nothing any more. Hence all that is not touched for a minute can be forgotten: what is known
// lies in two generations, and once a minute the older one is dropped as a whole. Nothing is swept and nothing has a timer.
// There is room for so many callers; those who come when it is full share what is left between them, a few thousand
// quotas, so that a crowd may slow down newcomers, and neither memory grows nor does anybody's debt get lost.
//
// Whoever fails to prove who they are must wait longer each time: by the name that they tried and by where they are. An account that
// somebody else keeps guessing at stays open to its owner where they have proved themselves before, and everywhere else a
// quarter of an hour after the guessing has ended.

import { hash } from 'node:crypto'
import { bounds } from '../core/bounds.ts'
import { Refusal, type RefusalKind } from '../core/errors.ts'
import type { Caller } from '../core/policy.ts'
import { neighbourhood } from './address.ts'

/** How many requests a minute; 0 for any number. */
export interface Rates {
  /** Of each account that is signed in, and of each address without proof of who asks there. */
  requests: number
  /** Of attempts to prove who one is, by the account and by the address. */
  signIn: number
  /** Of each key. */
  keys: number
}

const MINUTE = 60_000
/** Half of a rounding error more or less must not cost the last request of a quota. */
const ROUNDING = 1e-3

/** What is known of those who were there lately, for so long at least, and of so many at most. */
class Lately<V> {
  readonly #lifetime: number
  #young = new Map<string, V>()
  #old = new Map<string, V>()
  #turned = 0

  constructor(lifetime: number) {
    this.#lifetime = lifetime
  }

  /** The name under which somebody is known: their own where there is room for it, or one that they share. */
  nameOf(who: string, now: number): string {
    this.#turn(now)
    if (this.#young.size < bounds.knownCallers || this.#young.has(who) || this.#old.has(who)) return who
    return `one of many ${Number.parseInt(hash('sha256', who, 'hex').slice(0, 8), 16) % bounds.sharedQuotas}`
  }

  get(name: string): V | undefined {
    return this.#young.get(name) ?? this.#old.get(name)
  }

  set(name: string, value: V): void {
    this.#young.set(name, value)
  }

  delete(name: string): void {
    this.#young.delete(name)
    this.#old.delete(name)
  }

  #turn(now: number): void {
    const since = now - this.#turned
    if (since < this.#lifetime) return
    this.#old = since < 2 * this.#lifetime ? this.#young : new Map()
    this.#young = new Map()
    this.#turned = now
  }
}

/** How somebody stands after a request. */
export interface Standing {
  readonly headers: Readonly<Record<string, string>>
  /** For how many seconds there is nothing more; undefined while there is. */
  readonly wait: number | undefined
  /** Is this the first time, lately, that there is nothing more? */
  readonly first: boolean
}

class Quota {
  readonly #title: string
  readonly #policy: string
  readonly #share: number
  readonly #paid = new Lately<number>(MINUTE)
  readonly #told = new Lately<true>(MINUTE)

  /** `title`: what it is called in the headers (draft-ietf-httpapi-ratelimit-headers-10). */
  constructor(title: string, quota: number) {
    this.#title = title
    this.#policy = `"${title}";q=${quota};w=60`
    this.#share = MINUTE / quota
  }

  charge(who: string, now: number): Standing {
    const name = this.#paid.nameOf(who, now)
    const paid = Math.max(this.#paid.get(name) ?? 0, now) + this.#share
    const room = now + MINUTE - paid
    if (room < -ROUNDING) return this.refuse(name, now, -room)
    this.#paid.set(name, paid)
    const left = Math.floor((room + ROUNDING) / this.#share)
    return { headers: this.#headers(left, (left + 1) * this.#share - room), wait: undefined, first: false }
  }

  /** What was charged does not count after all. */
  giveBack(who: string, now: number): void {
    const name = this.#paid.nameOf(who, now)
    const paid = this.#paid.get(name)
    if (paid !== undefined) this.#paid.set(name, paid - this.#share)
  }

  /** There is nothing for so many milliseconds. */
  refuse(who: string, now: number, ms: number): Standing {
    const name = this.#told.nameOf(who, now)
    const first = !this.#told.get(name)
    if (first) this.#told.set(name, true)
    return { headers: this.#headers(0, ms), wait: seconds(ms), first }
  }

  #headers(left: number, ms: number): Standing['headers'] {
    return { 'ratelimit-policy': this.#policy, ratelimit: `"${this.#title}";r=${left};t=${seconds(ms)}` }
  }
}

const seconds = (ms: number) => Math.max(1, Math.ceil(ms / 1000))

/** So often one may fail in a row before one must wait, from so long, twice as long each time, up to so long. */
const FREE_FAILURES = 4
const FIRST_WAIT = 15_000
const LONGEST_WAIT = 15 * MINUTE

interface Failures {
  count: number
  until: number
}

/** Who has failed lately, how often in a row, and how long they must wait. */
class Patience {
  // A wait must not be forgotten before it is over.
  readonly #failures = new Lately<Failures>(2 * LONGEST_WAIT)

  /** How many milliseconds there are to wait. */
  wait(who: string, now: number): number {
    return (this.#failures.get(this.#failures.nameOf(who, now))?.until ?? 0) - now
  }

  failed(who: string, now: number): void {
    const name = this.#failures.nameOf(who, now)
    const count = (this.#failures.get(name)?.count ?? 0) + 1
    const wait = count > FREE_FAILURES ? Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** (count - FREE_FAILURES - 1)) : 0
    this.#failures.set(name, { count, until: now + wait })
  }

  succeeded(who: string): void {
    this.#failures.delete(who)
  }
}

/** Where a name has proved itself it is known for so long, while this process runs. */
const FAMILIAR = 7 * 24 * 60 * MINUTE

export class Limits {
  readonly #accounts: Quota | undefined
  readonly #addresses: Quota | undefined
  readonly #keys: Quota | undefined
  readonly #attempts: Attempts | undefined
  readonly #now: () => number

  /** `now` never goes back, whatever becomes of the wall's clock. */
  constructor({ requests, signIn, keys }: Rates, now = () => performance.now()) {
    this.#accounts = quota('requests', requests)
    this.#addresses = quota('requests', requests)
    this.#keys = quota('keys', keys)
    this.#attempts = signIn > 0 ? new Attempts(signIn) : undefined
    this.#now = now
  }

  /** A request of somebody who has proved who they are. The owner of the files may ask as much as they like. */
  ofCaller({ account_id, by, operator }: Caller): Standing | undefined {
    if (operator) return undefined
    return by?.startsWith('key_') ? this.#keys?.charge(by, this.#now()) : this.#accounts?.charge(account_id, this.#now())
  }

  /** A request of somebody who has not. */
  ofAddress(address: string): Standing | undefined {
    return this.#addresses?.charge(neighbourhood(address), this.#now())
  }

  /** Somebody at this address is about to prove who they are. */
  attempt(address: string): Attempt {
    return new Attempt(this.#attempts, neighbourhood(address), this.#now)
  }
}

const quota = (title: string, rate: number) => (rate > 0 ? new Quota(title, rate) : undefined)

/** All attempts to prove who one is. */
class Attempts {
  readonly places: Quota
  readonly names: Quota
  readonly patience = new Patience()
  readonly familiar = new Lately<true>(FAMILIAR)

  constructor(rate: number) {
    this.places = new Quota('sign-in', rate)
    this.names = new Quota('sign-in', rate)
  }

  charge(quota: Quota, who: string, now: number): Standing {
    const wait = this.patience.wait(who, now)
    return wait > 0 ? quota.refuse(who, now, wait) : quota.charge(who, now)
  }
}

/** So is refused whoever did not prove what they were to prove. */
const UNPROVED: ReadonlySet<RefusalKind> = new Set(['unauthenticated', 'forbidden', 'not-found', 'refused'])

/** One attempt, of which it is not known yet how it ends. */
class Attempt {
  readonly #all: Attempts | undefined
  readonly #where: string
  readonly #now: () => number
  /** Under what it counts: where it was made, and once that is known, whose name was tried. */
  #counts: string[] = []
  #pair = ''

  constructor(all: Attempts | undefined, where: string, now: () => number) {
    this.#all = all
    this.#where = where
    this.#now = now
  }

  /** Counts it where it is made. */
  begins(): Standing | undefined {
    return this.#all && this.#charge(this.#all.places, `at ${this.#where}`)
  }

  /** Counts it for the name that is tried, whether or not there is anybody of that name. */
  names(name: string): Standing | undefined {
    if (!this.#all) return undefined
    const digested = hash('sha256', name, 'base64url')
    this.#pair = `${digested} at ${this.#where}`
    // What strangers do to a name must not keep its owner out where they have been before.
    return this.#charge(this.#all.names, this.#all.familiar.get(this.#pair) ? this.#pair : digested)
  }

  #charge(quota: Quota, who: string): Standing {
    const standing = (this.#all as Attempts).charge(quota, who, this.#now())
    if (standing.wait === undefined) this.#counts.push(who)
    return standing
  }

  /** Waits for how it ends, and remembers that. `proves`: does a success say who it was? */
  of<T>(performed: Promise<T>, proves: boolean): Promise<T> {
    return performed.then(
      (answer) => {
        if (proves) this.#succeeded()
        return answer
      },
      (error) => {
        if (error instanceof Refusal && UNPROVED.has(error.kind)) this.#failed()
        throw error
      },
    )
  }

  /** It proved what it was to prove: that costs a place nothing, where many may live behind one address. */
  #succeeded(): void {
    if (!this.#all) return
    const { places, patience, familiar } = this.#all
    const now = this.#now()
    for (const who of this.#counts) patience.succeeded(who)
    places.giveBack(`at ${this.#where}`, now)
    // Where there is no room for it, it is not known: others would be known with it.
    if (this.#pair !== '' && familiar.nameOf(this.#pair, now) === this.#pair) familiar.set(this.#pair, true)
  }

  #failed(): void {
    for (const who of this.#counts) this.#all?.patience.failed(who, this.#now())
  }
}

/** Says how a caller stands, and refuses where there is nothing more. */
export function abide(asked: { standing?: Standing | undefined }, standing: Standing | undefined): void {
  asked.standing = standing
  if (standing?.wait === undefined) return
  throw new Refusal('limited', 'too-many-requests', `Too many requests: the next is taken in ${standing.wait} s.`, {
    facts: { retry_after: standing.wait },
  })
}
