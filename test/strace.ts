// Sessile under strace: which system calls touch its data, and one of them killed or refused by the kernel.

import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

/** The calls that change what is on the disk, or decide where it goes. */
export const CALLS = [
  'openat',
  'pwrite64',
  'fdatasync',
  'fsync',
  'rename',
  'renameat2',
  'unlink',
  'unlinkat',
  'ftruncate',
  'mkdir',
] as const

export type CallName = (typeof CALLS)[number]

/** Fails in plain words where a program is missing that a suite cannot do without. */
export function needs(program: string, how: string): void {
  try {
    execFileSync('sh', ['-c', `command -v ${program}`])
  } catch {
    throw new Error(`this suite needs ${program}, which is not installed: ${how}`)
  }
}

/** The command before a command: writes every call to a file; with `inject`, the kernel does that to some of them. */
export function strace(trace: string, inject: string[] = []): string[] {
  const what = `trace=${CALLS.join(',')}`
  // As a grandchild: the traced process is ours, and its exit code, too.
  return ['strace', '-D', '-f', '-ttt', '-y', '-qq', '-o', trace, '-e', what, ...inject]
}

/** One thread for what Node does beside its loop, so that the calls of one run are those of the next. */
export const ONE_THREAD = { UV_THREADPOOL_SIZE: '1' }

export interface Call {
  thread: string
  /** When it began, in seconds. */
  at: number
  name: CallName
  /** The how-manieth call of this name in its thread, from 1. */
  nth: number
  /** What it was called with, as strace writes it. */
  with: string
  /** Was it refused by the kernel because it had been told to? */
  injected: boolean
}

/** The calls of a trace in the order in which they began. */
export function callsOf(trace: string): Call[] {
  const calls: Call[] = []
  const count = new Map<string, number>()
  const last = new Map<string, Call>()
  for (const line of readFileSync(trace, 'utf8').split('\n')) {
    const [, thread = '', at = '', rest = ''] = /^(\d+)\s+([\d.]+) (.*)$/.exec(line) ?? []
    const name = CALLS.find((name) => rest.startsWith(`${name}(`))
    if (name !== undefined) {
      const nth = (count.get(`${thread} ${name}`) ?? 0) + 1
      count.set(`${thread} ${name}`, nth)
      const call = { thread, at: Number(at), name, nth, with: rest.slice(name.length + 1), injected: rest.includes('(INJECTED)') }
      calls.push(call)
      last.set(thread, call)
    } else if (rest.startsWith('<...')) {
      const call = last.get(thread)
      if (call && rest.includes('(INJECTED)')) call.injected = true
    }
  }
  return calls
}

/** The file or folder under `home` that a call is about. */
export const pathIn = (home: string, call: Call): string | undefined =>
  [...call.with.matchAll(/[<"](\/[^>"]*)[>"]/g)]
    .map(([, path]) => path as string)
    .find((path) => path.startsWith(`${home}/`) || path === home)
