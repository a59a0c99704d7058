// The place where views lie: one file, whose name leads to those that are live.

import { closeSync, fsyncSync, openSync, renameSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'

/** Puts a finished database in the place of the live one, in one step that a crash cannot halve, and makes that last. */
export function replace(live: string, fresh: string): void {
  put(live, fresh)
  settle(live)
}

/** The same, where nobody can wait: until it is settled, a crash of the system may bring back what was there, as it was last hardened. */
export function put(live: string, fresh: string): void {
  clearing(live, () => {
    remove(`${live}-wal`)
    remove(`${live}-shm`)
    syncPath(dirname(live))
    renameSync(fresh, live)
  })
}

export const settle = (live: string) => syncPath(dirname(live))

/** What stands in the way of the views is not removed where it may be somebody's: it is said what it is. */
export function clearing<T>(file: string, work: () => T): T {
  try {
    return work()
  } catch (error) {
    const { code, message, syscall } = error as NodeJS.ErrnoException
    const why = `The views cannot be put into ${dirname(file)}: ${message}. They are made of the logs, which are not concerned: move what is in their way, or let this account write there, and start again.`
    throw Object.assign(new Error(why, { cause: error }), { code, syscall })
  }
}

export function remove(file: string): void {
  rmSync(file, { force: true })
}

export function syncPath(path: string): void {
  const fd = openSync(path, 'r')
  try {
    fsyncSync(fd)
  } finally {
    closeSync(fd)
  }
}
