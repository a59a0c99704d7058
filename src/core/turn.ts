// Others get their turn of the event loop before whoever waits for this goes on.

export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

const SLICE_MS = 5

/** For a loop that may be long, called each time round: what it returns now and then is to be waited for. */
export function pacer(): () => Promise<void> | undefined {
  let until = performance.now() + SLICE_MS
  return () => {
    if (performance.now() <= until) return undefined
    return turn().then(() => {
      until = performance.now() + SLICE_MS
    })
  }
}
