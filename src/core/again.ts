// Trying again what failed: soon at first, then ever more seldom, since each try may cost something that is not had back;
// and at once when the disk has room that it did not have.

const SOON_MS = 500
const SELDOM_MS = 60_000

interface Trying {
  failed: (error: Error) => void
  /** Does the disk have room? */
  roomy: () => boolean
}

/** Until an attempt succeeds. */
export async function tryAgain(attempt: () => Promise<void>, { failed, roomy }: Trying): Promise<void> {
  const succeeds = () =>
    attempt().then(
      () => true,
      (error: Error) => {
        failed(error)
        return false
      },
    )
  // Whoever may not look any more finds that out by their next attempt.
  const hasRoom = () => {
    try {
      return roomy()
    } catch {
      return false
    }
  }
  for (let wait = SOON_MS; !(await succeeds()); wait = Math.min(2 * wait, SELDOM_MS)) {
    const until = performance.now() + wait
    let had = true
    do {
      await new Promise((resolve) => setTimeout(resolve, SOON_MS).unref())
      const has = hasRoom()
      if (has && !had) break
      had = has
    } while (performance.now() < until)
  }
}
