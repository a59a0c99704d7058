// Who is asking: by a key or an access token in the Authorization header, or by an access token that a browser carries
// in a cookie. What a browser carries of its own accord it also carries for other sites: a request that changes
// something counts only where it comes from our own pages.

import type { Carried } from '../core/command.ts'
import { invalid, Refusal } from '../core/errors.ts'
import { type Caller, unproved } from '../core/policy.ts'
import type { Reached } from './headers.ts'
import type { Incoming } from './whole.ts'

export interface IdentifyParts {
  /** Who holds this secret: a key, or an access token. */
  holder: (secret: string) => Caller | undefined | Promise<Caller | undefined>
  /** Whom this access token speaks for. */
  bearer: (token: string) => Promise<Caller | undefined>
  reached: Reached
}

/** Where a browser sends what it carries. */
const PATHS: Record<Carried, string> = { access: '/', refresh: '/api/v1/refresh', identity: '/api/v1/identity' }

const kinds = Object.keys(PATHS) as Carried[]

export class Identify {
  readonly #parts: IdentifyParts
  readonly #names: Record<Carried, string>

  constructor(parts: IdentifyParts) {
    this.#parts = parts
    // The prefixes bind a browser: it takes and sends them over TLS alone, and what is for all paths from this very host alone.
    const prefix = (what: Carried) => (parts.reached.secure ? (PATHS[what] === '/' ? '__Host-' : '__Secure-') : '')
    this.#names = Object.fromEntries(kinds.map((what) => [what, `${prefix(what)}sessile-${what}`])) as Record<Carried, string>
  }

  /** Who asks, as far as it can be proved; undefined for whoever proves nothing. A proof that is none is refused. */
  caller(incoming: Incoming): Caller | undefined | Promise<Caller | undefined> {
    const { authorization } = incoming.headers
    if (authorization !== undefined) {
      const [scheme, secret, ...more] = authorization.split(' ')
      const holder = scheme?.toLowerCase() === 'bearer' && secret && more.length === 0 ? this.#parts.holder(secret) : undefined
      return holder instanceof Promise ? holder.then(proved) : proved(holder)
    }
    const token = this.#carried(incoming, 'access')
    this.#checkSite(incoming, token !== undefined)
    return token === undefined ? undefined : this.#parts.bearer(token)
  }

  /** All that the caller's browser carries. */
  carriedBy(incoming: Incoming): Partial<Record<Carried, string>> {
    const carried = kinds.flatMap((what) => {
      const value = this.#carried(incoming, what)
      return value === undefined ? [] : [[what, value]]
    })
    if (carried.length > 0) this.#checkSite(incoming, true)
    return Object.fromEntries(carried)
  }

  #carried({ headers }: Incoming, what: Carried): string | undefined {
    const name = `${this.#names[what]}=`
    const found = (headers.cookie ?? '').split(/; ?/).filter((pair) => pair.startsWith(name))
    if (found.length > 1) throw invalid([{ path: 'Cookie', message: `has ${name.slice(0, -1)} more than once` }])
    return found[0]?.slice(name.length)
  }

  /** Browsers say where a request comes from; one that carries cookies and says nothing is not believed. */
  #checkSite({ method = '', headers }: Incoming, carries: boolean): void {
    if (SAFE.has(method)) return
    const { origin, host = '', 'sec-fetch-site': site } = headers
    if (site === undefined && origin === undefined && !carries) return
    if (origin === undefined ? site === 'same-origin' : this.#isOurs(origin, host, site)) return
    throw new Refusal('forbidden', 'cross-site', 'This request comes from another site, or does not say where it comes from.')
  }

  /** Is this origin Sessile's own, or one of those whose pages may ask? */
  #isOurs(origin: string, host: string, site: string | undefined): boolean {
    const { url, origins } = this.#parts.reached
    if (origins.includes(origin)) return true
    return (url === undefined ? hostOf(origin) === host : origin === url) && (site ?? 'same-origin') === 'same-origin'
  }

  /** What is told of an answer, and what of it the caller's browser is given to carry. */
  carry(answer: unknown): { told: unknown; cookies: string[] } {
    const { carried = {}, ...told } = answer as { carried?: Partial<Record<Carried, { value: string; seconds: number }>> }
    const cookies = kinds.flatMap((what) => {
      const { [what]: given } = carried
      return given === undefined ? [] : [this.#cookie(what, given.value, given.seconds)]
    })
    return { told, cookies }
  }

  #cookie(what: Carried, value: string, seconds: number): string {
    const parts = [`${this.#names[what]}=${value}`, `Path=${PATHS[what]}`, `Max-Age=${seconds}`, 'HttpOnly', 'SameSite=Strict']
    return [...parts, ...(this.#parts.reached.secure ? ['Secure'] : [])].join('; ')
  }
}

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

const hostOf = (origin: string) => (URL.canParse(origin) ? new URL(origin).host : undefined)

function proved(caller: Caller | undefined): Caller {
  if (!caller) throw unproved()
  return caller
}
