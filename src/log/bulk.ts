// Many lines into many files, for copies of whole data directories: gathered before they are written, and synced at the end.

import { dirname } from 'node:path'
import { type Disk, each, withFile, writeAll } from './disk.ts'

const AT_ONCE = 1024 * 1024

/** Writes one after the other what the work gives, from this place on; returns where that ends. */
export function gathering(disk: Disk, fd: number, from: number, work: (write: (bytes: Buffer) => void) => void): number {
  let [end, waiting, length] = [from, [] as Buffer[], 0]
  const flush = () => {
    writeAll(disk, fd, Buffer.concat(waiting, length), end)
    end += length
    waiting = []
    length = 0
  }
  work((bytes) => {
    waiting.push(bytes)
    length += bytes.length
    if (length >= AT_ONCE) flush()
  })
  flush()
  return end
}

/** Makes a file of these pieces and of nothing else. It is durable once it is hardened. */
export function filled(disk: Disk, path: string, pieces: Iterable<Buffer>): void {
  disk.makeFolder(dirname(path))
  withFile(disk, path, true, (fd) => {
    const end = gathering(disk, fd, 0, (write) => {
      for (const piece of pieces) write(piece)
    })
    disk.truncate(fd, end)
  })
}

/** Makes files durable, and the names that lead to them from this folder on. */
export async function hardened(disk: Disk, paths: Iterable<string>, root: string): Promise<void> {
  const folders = new Set([dirname(root), root])
  for (const path of paths)
    for (let folder = dirname(path); folder.length > root.length; folder = dirname(folder)) folders.add(folder)
  await each([...paths], async (path) => {
    const fd = disk.open(path, false)
    await disk.sync(fd).finally(() => disk.close(fd))
  })
  await each([...folders], (folder) => disk.syncFolder(folder))
}
