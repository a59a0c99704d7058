// Asks a running service over its own door, with the library that serves it: `fetch` is another one, and to load it takes
// a tenth of a second of a processor, which a rebuild takes from whoever records beside it.

import { request } from 'node:http'

/** Did it do what it was asked for? */
export const isGood = (status: number) => status >= 200 && status < 300

interface Asking {
  method?: string
  headers?: Record<string, string>
  body?: string | undefined
  /** So many milliseconds may it take; where none are told, for ever, or until it is called off. */
  within?: number
  signal?: AbortSignal
}

/** The whole answer. Each is asked over a connection of its own: one that was kept may be gone by the time of the next. */
export function asked(
  url: URL,
  { method = 'GET', headers = {}, body, within, signal }: Asking = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': `${Buffer.byteLength(body)}` }
    const asking = request(url, { method, headers: { ...headers, ...length }, agent: false, ...(signal && { signal }) })
    const late = within === undefined ? undefined : setTimeout(() => asking.destroy(new Error('no answer in time')), within)
    let begun = false
    // Whatever has not begun by then does not come any more.
    asking.on('close', () => {
      clearTimeout(late)
      if (!begun) reject(new Error('no answer'))
    })
    asking.on('error', reject)
    asking.on('response', (response) => {
      begun = true
      const chunks: Buffer[] = []
      response.on('error', reject)
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => resolve({ status: response.statusCode as number, text: Buffer.concat(chunks).toString() }))
    })
    asking.end(body)
  })
}
