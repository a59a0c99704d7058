// Asks a running service over its own door, with the library that serves it: `fetch` is another one, and to load it takes
// a tenth of a second of a processor, which a rebuild takes from whoever records beside it.

import { request } from 'node:http'

/** Did it do what it was asked for? */
export const isGood = (status: number) => status >= 200 && status < 300

interface Asking {
  method?: string
  headers?: Record<string, string>
  body?: string | undefined
  /** So many milliseconds may it take; where none are told, for ever. */
  within?: number
}

/** The whole answer. Each is asked over a connection of its own: one that was kept may be gone by the time of the next. */
export function asked(
  url: URL,
  { method = 'GET', headers = {}, body, within }: Asking = {},
): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const asking = request(url, { method, headers, agent: false })
    const late = within === undefined ? undefined : setTimeout(() => asking.destroy(new Error('no answer in time')), within)
    const failed = (error: Error) => {
      clearTimeout(late)
      reject(error)
    }
    asking.on('error', failed)
    asking.on('response', (response) => {
      const chunks: Buffer[] = []
      response.on('error', failed)
      response.on('data', (chunk: Buffer) => chunks.push(chunk))
      response.on('end', () => {
        clearTimeout(late)
        resolve({ status: response.statusCode as number, text: Buffer.concat(chunks).toString() })
      })
    })
    asking.end(body)
  })
}
