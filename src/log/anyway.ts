// Reading a file of which the disk has lost a part: what cannot be read is zeros, and everything else is there.

import { closeSync, fstatSync, openSync, readFileSync, readSync } from 'node:fs'
import { codeOf } from './disk.ts'

/** As little as a disk loses at a time. */
const BLOCK = 4096

export function readAnyway(path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    if (codeOf(error) !== 'EIO') throw error
    return inBlocks(path)
  }
}

function inBlocks(path: string): Buffer {
  const fd = openSync(path, 'r')
  try {
    const bytes = Buffer.alloc(fstatSync(fd).size)
    for (let at = 0; at < bytes.length; at += BLOCK) {
      const block = bytes.subarray(at, at + BLOCK)
      try {
        readSync(fd, block, 0, block.length, at)
      } catch (error) {
        if (codeOf(error) !== 'EIO') throw error
        block.fill(0)
      }
    }
    return bytes
  } finally {
    closeSync(fd)
  }
}
