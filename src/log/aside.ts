// What lies in the quarantine, by its name: lines that could not go to their log bear its name and their place there, so
// that setting them aside again changes nothing.

export const asideName = (log: string, offset: number) => `${log.replaceAll('/', '~')}@${offset}.lines`

/** Whose lines those are; undefined where a name is none of these. */
export function asideIn(name: string): { log: string; offset: number } | undefined {
  const [, log, offset] = /^(.*)@(\d{1,15})\.lines$/.exec(name) ?? []
  return log === undefined ? undefined : { log: log.replaceAll('~', '/'), offset: Number(offset) }
}
