// The time that the recorder goes by: the server's clock, as long as that goes forward. Where it was set back, time goes on
// from where it had come, a little slower than it passes, until the clock has caught up. So nothing that was recorded
// later seems to be earlier, no duration is nothing, and no session waits for hours that come twice.

import type { Source } from './ids.ts'

/** A twentieth slower: two hours too many are gone after forty, and half an hour lasts a minute and a half longer. */
const PACE = 0.95
/** The last moment that a timestamp can name. A clock that stands beyond it is not believed. */
const LAST = Date.UTC(9999, 11, 31, 23, 59, 59, 999)

/** The same source, whose time is never earlier than what was recorded last, and never goes back. */
export function steady(source: Source, latest: number): Source {
  let time = latest
  let before = source.passed?.() ?? 0
  const now = () => {
    const clock = source.now()
    const passed = source.passed?.() ?? 0
    time = clock >= time && clock <= LAST ? clock : Math.min(LAST, time + PACE * Math.max(0, passed - before))
    before = passed
    return Math.floor(time)
  }
  // Ids sort as they were made, also beside those of the process before, which may have ended in this very millisecond.
  return { ...source, now, ulid: (at) => source.ulid(Math.max(at, latest + 1)) }
}
