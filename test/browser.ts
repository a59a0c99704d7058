// A browser, as far as a door sees one: it keeps the cookies that it is given, sends them where they belong, and says where
// its requests come from.

import { Client, type Reply } from './harness.ts'

interface Kept {
  value: string
  path: string
}

export class Browser extends Client {
  readonly cookies = new Map<string, Kept>()
  /** What it was told to keep, word for word. */
  readonly told: string[] = []

  constructor(url: string) {
    super(url, undefined)
  }

  /** Where its requests come from; a page of Sessile's own, unless it is put elsewhere. */
  from: Record<string, string> = { origin: this.url, 'sec-fetch-site': 'same-origin' }

  override async raw(method: string, path: string, init: RequestInit & { duplex?: 'half' } = {}): Promise<Response> {
    const headers = new Headers(init.headers)
    const sent = [...this.cookies].filter(
      ([, kept]) => path === kept.path || path.startsWith(kept.path === '/' ? '/' : `${kept.path}/`),
    )
    if (sent.length > 0) headers.set('cookie', sent.map(([name, { value }]) => `${name}=${value}`).join('; '))
    for (const [name, value] of Object.entries(this.from)) headers.set(name, value)
    const response = await super.raw(method, path, { ...init, headers })
    for (const line of response.headers.getSetCookie()) this.#keep(line)
    return response
  }

  #keep(line: string): void {
    this.told.push(line)
    const [pair = '', ...attributes] = line.split('; ')
    const [name = '', value = ''] = [pair.slice(0, pair.indexOf('=')), pair.slice(pair.indexOf('=') + 1)]
    const path = attributes.find((one) => one.startsWith('Path='))?.slice(5) ?? '/'
    if (attributes.includes('Max-Age=0')) this.cookies.delete(name)
    else this.cookies.set(name, { value, path })
  }

  /** With these headers instead of those that say where it comes from. */
  async as(from: Record<string, string>, ask: (browser: Browser) => Promise<Reply>): Promise<Reply> {
    const before = this.from
    this.from = from
    return ask(this).finally(() => {
      this.from = before
    })
  }
}
