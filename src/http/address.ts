// Where a request comes from, as far as it can be believed: the other end of the connection, or what a proxy that is
// trusted says of the one at its own other end.

import { BlockList, isIP } from 'node:net'
import type { Incoming } from './whole.ts'

/** Nobody says more than this of the way that a request has come. */
const MOST_STEPS = 32

export class Proxies {
  readonly #trusted = new BlockList()
  readonly #none: boolean

  constructor(trusted: readonly Network[]) {
    this.#none = trusted.length === 0
    for (const { address, bits, type } of trusted) this.#trusted.addSubnet(address, bits, type)
  }

  /**
   * The address of whoever asks. Proxies write down from left to right whom they were asked by, and anybody can make up the
   * beginning: so it is read from the right, as long as whoever wrote is trusted. X-Forwarded-For alone counts, since a
   * proxy that writes one header lets another through as it came.
   */
  addressOf({ socket, headers }: Incoming): string {
    let address = plain(socket.remoteAddress ?? '')
    if (this.#none) return address
    const steps = String(headers['x-forwarded-for'] ?? '')
      .split(',')
      .slice(-MOST_STEPS)
    while (steps.length > 0 && this.#isTrusted(address)) {
      const before = plain(steps.pop()?.trim() ?? '')
      if (isIP(before) === 0) break
      address = before
    }
    return address
  }

  #isTrusted(address: string): boolean {
    return this.#trusted.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4')
  }
}

/** An address, or all that begin with the same bits. */
export interface Network {
  address: string
  bits: number
  type: 'ipv4' | 'ipv6'
}

/** The network that a text names; undefined where it names none. */
export function networkOf(text: string): Network | undefined {
  const [address = '', bits, ...more] = text.split('/')
  const version = isIP(address)
  const most = version === 6 ? 128 : 32
  if (version === 0 || more.length > 0 || (bits !== undefined && (!/^\d{1,3}$/.test(bits) || Number(bits) > most))) return undefined
  return { address, bits: bits === undefined ? most : Number(bits), type: version === 6 ? 'ipv6' : 'ipv4' }
}

/** An IPv4 address as such, also where it came by way of IPv6. */
const plain = (address: string) => (address.startsWith('::ffff:') && address.includes('.') ? address.slice(7) : address)

/** Whom an address stands for: of IPv6, everybody has 2^64 of them and more. */
export function neighbourhood(address: string): string {
  if (!address.includes(':')) return address
  const [head = '', tail] = address.split('::')
  const groups = (part: string) => (part === '' ? [] : part.split(':'))
  const [before, after] = [groups(head), groups(tail ?? '')]
  const whole =
    tail === undefined ? before : [...before, ...Array(Math.max(0, 8 - before.length - after.length)).fill('0'), ...after]
  const first = whole.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16))
  return `${first.join(':')}::/64`
}
