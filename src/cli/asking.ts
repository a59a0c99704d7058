// Asks a running service over its own door, with the library that serves it: `fetch` is another one, and to load it takes
// a tenth of a second of a processor, which a rebuild takes from whoever records beside it.

import { request } from 'node:http'

/** Did it do what it was asked for? */
export const isGood = (status: number) => status >= 200 && status < 300

interface Asking {
  method?: string
  headers?: Record<string, string>
  body?: string | undefined
  /** Until it is called off it may take for ever. */
  signal?: AbortSignal
}

/** The whole answer. Each is asked over a connection of its own: one that was kept may be gone by the time of the next. */
export function asked(
  url: URL,
  { method = 'GET', headers = {}, body, signal }: Asking = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const length = body === undefined ? {} : { 'content-length': `${Buffer.byteLength(body)}` }
    const asking = request(url, { method, headers: { ...headers, ...length }, agent: false, ...(signal && { signal }) })
    let begun = false
    // Whatever has not begun by then does not come any more.
    asking.on('close', () => begun || reject(new Error('no answer')))
    asking.on('error', reject)
    asking.on('response', (response) => {
      begun = true
      let text = ''
      response.setEncoding('utf8')
      response.on('error', reject)
      response.on('data', (part: string) => {
        text += part
      })
      response.on('end', () => resolve({ status: response.statusCode as number, text }))
    })
    asking.end(body)
  })
}
