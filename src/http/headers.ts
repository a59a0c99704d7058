// The headers that keep an answer to those it was meant for: every answer has them, whatever it answers. Also which other
// origins' pages may read one. They are made once, at the start, since they go out with each answer.

import { hash } from 'node:crypto'
import type { IncomingHttpHeaders } from 'node:http'
import { assert } from '../core/errors.ts'
import { nobody } from '../core/policy.ts'
import type { Trace } from '../core/trail.ts'

/** How the world reaches this Sessile. */
export interface Reached {
  /** The origin under which it is known, where there is a name for it. */
  url: string | undefined
  /** Is it reached over TLS, which a proxy in front of it ends? */
  secure: boolean
  /** The origins, beside its own, whose pages may ask. */
  origins: readonly string[]
}

type Lines = Readonly<Record<string, string>>

const NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

const ALWAYS: Lines = {
  'content-security-policy': NOTHING,
  'x-frame-options': 'DENY',
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-store',
}

/** For a year, and for all names under this one. */
const TRANSPORT: Lines = { 'strict-transport-security': 'max-age=31536000; includeSubDomains' }

/** What a page of another origin may send, and read of an answer, beyond what any page may. */
const SENT = 'Authorization, Content-Type, Idempotency-Key, Last-Event-ID, X-Request-ID, traceparent'
const READ = 'X-Request-ID, X-Emergency-Access, RateLimit, RateLimit-Policy, Retry-After'
/** How many seconds a browser may go by a preflight's answer. */
const PREFLIGHT_LASTS = '600'

export class AnswerHeaders {
  /** What every answer says. */
  readonly always: Lines
  /** The same, names and values in turn. */
  readonly lines: readonly string[]
  /** The same, as it is sent. */
  readonly text: string
  readonly #shared: ReadonlyMap<string, Lines>

  constructor({ secure, origins }: Omit<Reached, 'url'>) {
    this.always = { ...ALWAYS, ...(secure ? TRANSPORT : {}), ...(origins.length > 0 ? { vary: 'Origin' } : {}) }
    this.lines = Object.entries(this.always).flat()
    this.text = linesOf(this.lines)
    this.#shared = new Map(origins.map((origin) => [origin, sharedWith(origin)]))
  }

  /** What is said besides to a page of a listed origin; to any other nothing. */
  shared({ origin }: IncomingHttpHeaders): Lines | undefined {
    return origin === undefined ? undefined : this.#shared.get(origin)
  }

  /** The answer to a browser that asks whether a page of a listed origin may use these methods; to any other none. */
  preflight(methods: readonly string[], { method, headers }: { method?: string; headers: IncomingHttpHeaders }): Lines | undefined {
    if (method !== 'OPTIONS' || headers['access-control-request-method'] === undefined || !this.shared(headers)) return undefined
    return {
      'access-control-allow-methods': methods.join(', '),
      'access-control-allow-headers': SENT,
      'access-control-max-age': PREFLIGHT_LASTS,
    }
  }
}

/** What would end a header, or is none of ASCII. Nothing that is said in one comes from a caller as it is; Node would look, too. */
const UNFIT = /[^\t -~]/

/** Headers as they are sent, of names and values in turn. */
export function linesOf(head: readonly string[]): string {
  let text = ''
  for (let i = 0; i < head.length; i += 2) {
    const value = head[i + 1] as string
    assert(!UNFIT.test(value), 'a header holds what no header may')
    text += `${head[i]}: ${value}\r\n`
  }
  return text
}

const sharedWith = (origin: string): Lines => ({
  'access-control-allow-origin': origin,
  'access-control-allow-credentials': 'true',
  'access-control-expose-headers': READ,
})

/** What a page of our own may do: run the script and wear the style that stand in it, and ask at its own address. */
export function policyOf(page: string): Lines {
  const [script, style] = ['script', 'style'].map((tag) => {
    const from = page.indexOf(`<${tag}>`) + tag.length + 2
    return `'sha256-${hash('sha256', page.slice(from, page.indexOf(`</${tag}>`)), 'base64')}'`
  })
  return {
    'content-security-policy': `${NOTHING}; connect-src 'self'; script-src ${script}; style-src ${style}`,
    'cross-origin-opener-policy': 'same-origin',
  }
}

/** Says of an answer that it rested on emergency access: to whose data, and until when. */
export function emergencyOf({ caller, users }: Pick<Trace, 'caller' | 'users'> = NOBODYS): Lines | undefined {
  const { emergencies } = caller
  if (!emergencies?.size) return undefined
  const taken = users.filter((user) => emergencies.has(user)).map((user) => `${user}; until=${emergencies.get(user)}`)
  return taken.length > 0 ? { 'x-emergency-access': taken.join(', ') } : undefined
}

const NOBODYS = { caller: nobody, users: [] }

const TRACE = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?$/

/** The trace that a request is part of (W3C Trace Context); what is not well-formed says nothing. */
export function traceOf(given: string | string[] | undefined): string | undefined {
  if (given === undefined) return undefined
  const [, version, trace, parent, more] = TRACE.exec(String(given)) ?? []
  if (version === undefined || version === 'ff' || (version === '00' && more !== undefined)) return undefined
  return isZero(trace) || isZero(parent) ? undefined : trace
}

const isZero = (digits = '') => /^0+$/.test(digits)
