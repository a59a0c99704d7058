// Where an address leads. One that is written letter by letter as we write it leads straight to its place. Whatever else
// there is to an address, from escapes to another host's name, is read by Hono (otherwise.ts), which knows the same places; that
// costs as much as all else that the door does.

import { type Context, Hono } from 'hono'
import type { Exchange, Frame, Place } from './frame.ts'
import type { Bound, Listener } from './otherwise.ts'
import type { Incoming, WholeRequest } from './whole.ts'
import type { Wire } from './wires.ts'

/** A place, and what an address that leads there says where its route leaves a gap. */
interface Found {
  place: Place
  path: Readonly<Record<string, string>>
}

type Leads = (c: Context<Bound>) => Promise<Response>

/** A host and an address that read the same to everybody: no escapes, nothing to resolve or to decode. */
const PLAIN_HOST = /^[a-z0-9._-]+(?::(?:[1-5]\d{3,4}|[6-9]\d{3}))?$/
const PLAIN_TARGET = /^\/[\w.~/-]*(?:\?[!-~]*)?$/
/** So many addresses are remembered that were found: a device asks at the same one over and over. */
const MOST_KNOWN = 1024

export class Routes {
  readonly #frame: Frame
  readonly #app = new Hono<Bound>()
  /** Reads what is not plain. */
  #otherwise: Promise<Listener> | undefined
  /** The place of each way that Hono knows. */
  readonly #places = new Map<Leads, Place>()
  /** Where requests that came whole were led lately, by their address; and the host that they named last. */
  readonly #known = new Map<string, Found>()
  #host = ''

  /** `nowhere`: the place of an address that leads to none of ours. */
  constructor(frame: Frame, nowhere: (path: string) => Place) {
    this.#frame = frame
    this.#app.notFound((c) => this.#answer(c, nowhere(c.req.path)))
    // What the router itself cannot take.
    this.#app.onError((error, c) => this.#answer(c, { route: 'none', door: 'api', answer: () => Promise.reject(error) }))
  }

  /** Puts a place at this address, as the contract writes it. */
  put(method: string, path: string, place: Place): void {
    const leads: Leads = (c) => this.#answer(c, place)
    this.#places.set(leads, place)
    this.#app.on(method, path.replace(/\{(\w+)\}/g, ':$1'), leads)
  }

  readonly take: Listener = (incoming, outgoing) => {
    const found = this.#plainly(incoming)
    if (found) this.#answerAt(found, { incoming, outgoing })
    else void this.#readOtherwise(incoming, outgoing)
  }

  async #readOtherwise(...[incoming, outgoing]: Parameters<Listener>): Promise<void> {
    try {
      this.#otherwise ??= import('./otherwise.ts').then(({ listenerOf }) =>
        listenerOf({ answer: this.#app.fetch, unrouted: (error) => this.#frame.unrouted(error) }),
      )
      const read = await this.#otherwise
      read(incoming, outgoing)
    } catch (error) {
      this.#frame.lose(outgoing, error)
    }
  }

  /** Takes a request that came whole; false where it leads to no place that answers in one piece. */
  readonly takeWhole = (incoming: WholeRequest, outgoing: Wire): boolean => {
    const found = this.#again(incoming)
    if (!found?.place.whole) return false
    this.#answerAt(found, { incoming, outgoing })
    return true
  }

  #answerAt({ place, path }: Found, exchange: Exchange): void {
    this.#frame.answer(exchange, place, path).catch((error: unknown) => this.#frame.lose(exchange.outgoing, error))
  }

  /** Where an address leads: one that was found before is remembered. */
  #again(incoming: WholeRequest): Found | undefined {
    const { host = '' } = incoming.headers
    const known = host === this.#host ? this.#known.get(incoming.url) : undefined
    if (known) return known
    const found = this.#plainly(incoming)
    if (!found) return undefined
    if (host !== this.#host || this.#known.size >= MOST_KNOWN) this.#known.clear()
    this.#host = host
    this.#known.set(incoming.url, found)
    return found
  }

  #plainly({ method = '', url = '', headers: { host = '' } }: Incoming): Found | undefined {
    if (!PLAIN_HOST.test(host) || !PLAIN_TARGET.test(url) || url.includes('/.')) return undefined
    const query = url.indexOf('?')
    const [found, values = []] = this.#app.router.match(method, query < 0 ? url : url.slice(0, query))
    if (found.length === 0) return undefined
    const [[leads], names] = found[0] as (typeof found)[number]
    const path: Record<string, string> = {}
    for (const name in names) path[name] = values[names[name] as number] as string
    const place = this.#places.get(leads as Leads)
    return place && { place, path }
  }

  async #answer(c: Context<Bound>, place: Place): Promise<Response> {
    await this.#frame.answer(c.env, place, c.req.param())
    // Nobody reads it: the frame has answered.
    return c.body(null)
  }

  /** The methods that some route takes at this path. Looked for only where none takes the request's own. */
  methodsAt(path: string): string[] {
    const steps = path.split('/')
    const fits = (route: string) => {
      const own = route.split('/')
      return own.length === steps.length && own.every((step, i) => (step.startsWith(':') ? steps[i] !== '' : step === steps[i]))
    }
    return this.#app.routes.filter((route) => fits(route.path)).map(({ method }) => method)
  }
}
