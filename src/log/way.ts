// The way to a file under `logs/`: step by step it must be what its name says. What is reached through a symbolic link, or
// under a name that the file system takes for another (`Ada` for `ada`, where it does not tell them apart), is not opened.

import { lstatSync, readlinkSync, realpathSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'

/** A data directory may be named by way of a link: what is in it may not. It need not be there yet. */
export function realHome(home: string): string {
  try {
    return realpathSync.native(home)
  } catch (error) {
    if ((error as { code?: string }).code !== 'ENOENT' || dirname(home) === home) throw error
    return join(realHome(dirname(home)), basename(home))
  }
}

/** Refuses a folder or a file that is not where its name says. */
export function checkWay(path: string): void {
  const real = realpathSync.native(path)
  if (real !== path) throw leadsElsewhere(path, `${real}: nothing is read or written through links`)
}

/** The same of a file that was opened by this path: where the system says what it opened, nothing need be looked for step by step. */
export function checkOpened(fd: number, path: string): void {
  if (nameOf(fd) !== path) checkWay(path)
}

function nameOf(fd: number): string | undefined {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`)
  } catch {
    return undefined
  }
}

/** Refuses a path whose nearest folder that is there, is not where its name says: what is to be made would be made elsewhere. */
export function checkWayTo(path: string): void {
  let there = path
  while (!lstatSync(there, { throwIfNoEntry: false })) there = dirname(there)
  checkWay(there)
}

export type Way = 'there' | 'nowhere' | 'elsewhere'

/** Where a path leads: to its own place, to nothing, or to somewhere else. */
export function wayOf(path: string): Way {
  try {
    if (!lstatSync(path, { throwIfNoEntry: false })) return 'nowhere'
    return realpathSync.native(path) === path ? 'there' : 'elsewhere'
  } catch {
    return 'nowhere'
  }
}

/** Refuses a file that is anything else than a file; one that is not there may be made. */
export function checkFile(path: string): void {
  const found = lstatSync(path, { throwIfNoEntry: false })
  if (found && !found.isFile()) throw leadsElsewhere(path, 'what is not a file')
}

const leadsElsewhere = (path: string, where: string) =>
  Object.assign(new Error(`${path} leads to ${where}`), { code: 'ELOOP', syscall: 'open' })
