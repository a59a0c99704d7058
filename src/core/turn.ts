// Others get their turn of the event loop before whoever waits for this goes on.

export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** Things that come some at a time: others get their turn in between, and each by itself would cost more than what it is. */
export type Some<T> = AsyncIterable<readonly T[]>

/** So many bytes of a log are gone over at a time. */
export const SOME_BYTES = 64 * 1024

const SLICE_MS = 1

/** For a loop that may be long, called each time round: what it returns now and then is to be waited for. */
export function pacer(slice = SLICE_MS): () => Promise<void> | undefined {
  let until = performance.now() + slice
  return () => {
    if (performance.now() <= until) return undefined
    return turn().then(() => {
      until = performance.now() + slice
    })
  }
}

/** So many milliseconds from now. */
export const after = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))

const BURST_MS = 1

/** Nothing is done for a moment, so that there is a processor for whoever needs one. */
export const pause = () => after(BURST_MS)

const BREATH_MS = 5

/** For whoever holds others up again and again, each time for a moment: time for them to catch up in between. */
export const breath = () => after(BREATH_MS)

/** So large a share of as many as the time before. */
const HARDLY_FEWER = 0.75

/** For work that grows while it is done: is it worth going over again, as long as so many are left and they become fewer each time? */
export function dwindling(few: number): (left: number) => boolean {
  let before = Number.POSITIVE_INFINITY
  return (left) => {
    const again = left > few && left <= HARDLY_FEWER * before
    before = left
    return again
  }
}

/** For a process that works beside another: half of the time nobody has to wait for a processor that it holds. */
export function resting(): () => Promise<void> {
  let until = performance.now() + BURST_MS
  return async () => {
    if (performance.now() < until) return
    await pause()
    until = performance.now() + BURST_MS
  }
}
