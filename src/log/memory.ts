// A log that lives as long as its process: for tests, and the proof that the contract says enough to be met twice.

import type { Between, JournalLine, Line, Log } from '../core/log.ts'
import { seal } from '../core/seal.ts'

export class MemoryLog implements Log {
  readonly journal = 'memory'
  readonly due = false
  readonly overfull = false
  readonly roomy = true
  readonly damaged: ReadonlyMap<string, string> = new Map()
  #lines: JournalLine[] = []
  readonly #logs = new Map<string, Buffer[]>()
  #dropped = 0
  #unsynced = 0

  get lsn(): number {
    return this.#dropped + this.#lines.length
  }

  get durable(): number {
    return this.lsn - this.#unsynced
  }

  write(lines: readonly Line[]): void {
    for (const line of lines) {
      const { follows, bytes: content } = line
      let bytes = content as Buffer
      if (follows !== undefined && typeof content === 'string') {
        const sealed = seal(typeof follows === 'string' ? follows : (follows.hash as string), content)
        bytes = sealed.line
        line.hash = sealed.hash
      }
      line.follows = undefined
      this.#lines.push({ ...line, bytes, lsn: this.lsn + 1 })
    }
    this.#unsynced += lines.length
  }

  async sync(): Promise<void> {
    const written = this.#lines.slice(this.#lines.length - this.#unsynced)
    this.#unsynced = 0
    await Promise.resolve()
    for (const line of written) {
      const own = this.#logs.get(line.log)
      if (own) own.push(line.bytes)
      else this.#logs.set(line.log, [line.bytes])
    }
  }

  /** Nothing is ever refused here. */
  takeBack(): void {}

  settle(): void {}

  settling(): Iterable<void> {
    return []
  }

  copySome(): boolean {
    return false
  }

  giveRoom(): void {}

  /** Nobody else can reach it. */
  assertOurs(): void {}

  since(lsn: number): JournalLine[][] | undefined {
    if (lsn > this.lsn || lsn < this.#dropped) return undefined
    return [this.#lines.slice(lsn - this.#dropped)]
  }

  names(): Iterable<string> {
    return [...this.#logs.keys()].sort()
  }

  read(log: string, offset: number, length: number): Buffer {
    return Buffer.concat(this.#logs.get(log) ?? []).subarray(offset, offset + length)
  }

  async checkpoint({ batches, views }: Between): Promise<void> {
    const upTo = await batches(() => this.lsn)
    await views()
    this.#lines = this.#lines.slice(upTo - this.#dropped)
    this.#dropped = upTo
  }

  close(): void {}
}
