// Who is asking: by a key or an access token in the Authorization header, or by an access token that a browser carries
// in a cookie. What a browser carries of its own accord it also carries for other sites: a request that changes
// something counts only where it comes from our own pages.

import type { IncomingMessage } from 'node:http'
import { invalid, Refusal } from '../core/errors.ts'
import { type Caller, unproved } from '../core/policy.ts'
import type { Reached } from './headers.ts'

export interface IdentifyParts {
  /** Who holds this secret: a key, or an access token. */
  holder: (secret: string) => Caller | undefined | Promise<Caller | undefined>
  /** Whom this access token speaks for. */
  bearer: (token: string) => Promise<Caller | undefined>
  reached: Reached
}

/** What a browser carries, by what it is for. */
type Carried = 'access' | 'refresh'

const REFRESH_PATH = '/api/v1/refresh'

export class Identify {
  readonly #parts: IdentifyParts
  readonly #names: Record<Carried, string>

  constructor(parts: IdentifyParts) {
    this.#parts = parts
    // The prefixes bind a browser: sent over TLS alone, and set by nobody but this very host.
    this.#names = parts.reached.secure
      ? { access: '__Host-sessile-access', refresh: '__Secure-sessile-refresh' }
      : { access: 'sessile-access', refresh: 'sessile-refresh' }
  }

  /** Who asks, as far as it can be proved; undefined for whoever proves nothing. A proof that is none is refused. */
  caller(incoming: IncomingMessage): Caller | undefined | Promise<Caller | undefined> {
    const { authorization } = incoming.headers
    if (authorization !== undefined) {
      const [scheme, secret] = authorization.split(' ')
      const holder = scheme?.toLowerCase() === 'bearer' && secret ? this.#parts.holder(secret) : undefined
      return holder instanceof Promise ? holder.then(proved) : proved(holder)
    }
    const token = this.#carried(incoming, 'access')
    this.#checkSite(incoming, token !== undefined)
    return token === undefined ? undefined : this.#parts.bearer(token)
  }

  /** The refresh token that a browser carries. */
  refreshOf(incoming: IncomingMessage): string | undefined {
    const token = this.#carried(incoming, 'refresh')
    if (token !== undefined) this.#checkSite(incoming, true)
    return token
  }

  #carried({ headers }: IncomingMessage, what: Carried): string | undefined {
    const name = `${this.#names[what]}=`
    const found = (headers.cookie ?? '').split(/; ?/).filter((pair) => pair.startsWith(name))
    if (found.length > 1) throw invalid([{ path: 'Cookie', message: `has ${name.slice(0, -1)} more than once` }])
    return found[0]?.slice(name.length)
  }

  /** Browsers say where a request comes from; one that carries cookies and says nothing is not believed. */
  #checkSite({ method = '', headers }: IncomingMessage, carries: boolean): void {
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

  /** What is told of an answer, and what of it the caller's browser is given to carry, or to let go of. */
  carry(how: 'gives' | 'takes', answer: unknown): { told: unknown; cookies: string[] } {
    const { carried, ...told } = answer as { carried?: { tokens: Record<Carried, string>; seconds: Record<Carried, number> } }
    if (how === 'takes') return { told, cookies: [this.#cookie('access', '', 0), this.#cookie('refresh', '', 0)] }
    if (!carried) return { told, cookies: [] }
    const { tokens, seconds } = carried
    return { told, cookies: (['access', 'refresh'] as const).map((what) => this.#cookie(what, tokens[what], seconds[what])) }
  }

  #cookie(what: Carried, value: string, seconds: number): string {
    const path = what === 'refresh' ? REFRESH_PATH : '/'
    const parts = [`${this.#names[what]}=${value}`, `Path=${path}`, `Max-Age=${seconds}`, 'HttpOnly', 'SameSite=Strict']
    return [...parts, ...(this.#parts.reached.secure ? ['Secure'] : [])].join('; ')
  }
}

const SAFE = new Set(['GET', 'HEAD', 'OPTIONS'])

const hostOf = (origin: string) => (URL.canParse(origin) ? new URL(origin).host : undefined)

function proved(caller: Caller | undefined): Caller {
  if (!caller) throw unproved()
  return caller
}
