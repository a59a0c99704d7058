// The fence of a recorder that was taken over: whatever it changes on the disk, it first looks whether the data is still
// its own, and again after each sync. One that was stopped in its tracks and wakes beside its successor thus changes
// nothing and acknowledges nothing.
//
// WHAT A LOOK CANNOT DO. Between the look and the act the process may be stopped, and act long after. So each single act
// is such that it harms nothing then: the journal's segments of an older epoch have lost their names, and whatever is still
// written to them is read by nobody; a line copied to its file is one that the successor found in the journal and put at
// the same place; a segment made by the old one belongs to an older epoch, which the next start removes; the views'
// database was made anew, in files of its own.

import { SyncFailed } from '../core/log.ts'
import type { Disk } from './disk.ts'

/** Another process holds the data now: this one must end, and may change nothing more. */
export class TakenOver extends SyncFailed {}

export function fenced(disk: Disk, assertOurs: () => void): Disk {
  return {
    open: (path, make) => {
      if (make) assertOurs()
      return disk.open(path, make)
    },
    write: (fd, bytes, position) => {
      assertOurs()
      return disk.write(fd, bytes, position)
    },
    truncate: (fd, length) => {
      assertOurs()
      disk.truncate(fd, length)
    },
    makeFolder: (path) => {
      assertOurs()
      disk.makeFolder(path)
    },
    rename: (from, to) => {
      assertOurs()
      disk.rename(from, to)
    },
    remove: (path) => {
      assertOurs()
      disk.remove(path)
    },
    removeLarge: async (path) => {
      assertOurs()
      await disk.removeLarge(path)
    },
    sync: async (fd, here) => {
      await disk.sync(fd, here)
      assertOurs()
    },
    syncNow: (fd) => {
      disk.syncNow(fd)
      assertOurs()
    },
    syncFolder: (path) => disk.syncFolder(path),
    syncFolderNow: (path) => disk.syncFolderNow(path),
    openToRead: (path) => disk.openToRead(path),
    read: (fd, bytes, position) => disk.read(fd, bytes, position),
    size: (fd) => disk.size(fd),
    close: (fd) => disk.close(fd),
    list: (path) => disk.list(path),
    leads: (path) => disk.leads(path),
    exists: (path) => disk.exists(path),
    sizeAt: (path) => disk.sizeAt(path),
    identity: (path) => disk.identity(path),
    keepRoom: (path, bytes) => {
      assertOurs()
      return disk.keepRoom?.(path, bytes) ?? true
    },
    hold: (path) => disk.hold(path),
  }
}

/** Where a sync fails that nobody waits for, as when lines are set aside, that is the end, too: it must not be tried again. */
export function endingAtSyncs(disk: Disk, lost: (error: Error) => void): Disk {
  const orEnd = (sync: () => void) => {
    try {
      sync()
    } catch (error) {
      if (error instanceof SyncFailed) lost(error)
      throw error
    }
  }
  return {
    ...disk,
    syncNow: (fd) => orEnd(() => disk.syncNow(fd)),
    syncFolderNow: (path) => orEnd(() => disk.syncFolderNow(path)),
  }
}
