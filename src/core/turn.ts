// Others get their turn of the event loop before whoever waits for this goes on.

export const turn = () => new Promise<void>((resolve) => setImmediate(resolve))
