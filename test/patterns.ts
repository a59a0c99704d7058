// Patterns taken apart: a parser for regular expressions, the question whether a backtracking matcher can be made slow by
// one, and texts that fit one. Used to look at every pattern of the source and of the published schemas.

export type Node =
  | { is: 'letters'; has: Uint8Array }
  | { is: 'row'; parts: Node[] }
  | { is: 'either'; ways: Node[] }
  | { is: 'repeat'; what: Node; least: number; most: number }
  /** `^`, `$`, `\b`: takes no letter, and may fail. */
  | { is: 'edge'; at: 'start' | 'end' | 'other' }
  | { is: 'look'; what: Node }

/** Letters are told apart up to 127; all beyond it are one letter more, and a class that names any of them has it. */
const BEYOND = 128
const none = () => new Uint8Array(BEYOND + 1)
const of = (text: string) => {
  const has = none()
  for (const c of text) has[Math.min(c.codePointAt(0) as number, BEYOND)] = 1
  return has
}
const range = (from: number, to: number, has = none()) => {
  for (let c = Math.min(from, BEYOND); c <= Math.min(to, BEYOND); c++) has[c] = 1
  return has
}
const not = (has: Uint8Array) => has.map((on, c) => (c === BEYOND ? 1 : 1 - on))
const both = (a: Uint8Array, b: Uint8Array) => a.map((on, i) => on | (b[i] as number))

const DIGITS = of('0123456789')
const WORD = of('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_')
const SPACE = both(of(' \t\n\v\f\r'), range(BEYOND, BEYOND))
const shorthand: Record<string, Uint8Array> = {
  d: DIGITS,
  D: not(DIGITS),
  w: WORD,
  W: not(WORD),
  s: SPACE,
  S: not(SPACE),
}
const named: Record<string, string> = { n: '\n', r: '\r', t: '\t', f: '\f', v: '\v', 0: '\0' }

export function parsePattern(source: string, flags = ''): Node {
  const parser = new Parser(source, flags)
  const node = parser.either()
  if (parser.at < source.length) throw new Error(`cannot read /${source}/ from character ${parser.at}`)
  return node
}

class Parser {
  at = 0
  readonly #source: string
  readonly #flags: string
  constructor(source: string, flags: string) {
    this.#source = source
    this.#flags = flags
  }

  get #next(): string {
    return this.#source[this.at] ?? ''
  }

  #take(text: string): boolean {
    if (!this.#source.startsWith(text, this.at)) return false
    this.at += text.length
    return true
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    const found = new RegExp(pattern.source, 'y')
    found.lastIndex = this.at
    const taken = found.exec(this.#source)
    if (taken) this.at = found.lastIndex
    return taken
  }

  either(): Node {
    const ways = [this.#row()]
    while (this.#take('|')) ways.push(this.#row())
    return ways.length === 1 ? (ways[0] as Node) : { is: 'either', ways }
  }

  #row(): Node {
    const parts: Node[] = []
    while (this.at < this.#source.length && this.#next !== '|' && this.#next !== ')') parts.push(this.#repeat(this.#one()))
    return { is: 'row', parts }
  }

  #repeat(what: Node): Node {
    const [least, most] = this.#times()
    if (least === 1 && most === 1) return what
    this.#take('?')
    return { is: 'repeat', what, least, most }
  }

  #times(): [number, number] {
    if (this.#take('*')) return [0, Number.POSITIVE_INFINITY]
    if (this.#take('+')) return [1, Number.POSITIVE_INFINITY]
    if (this.#take('?')) return [0, 1]
    const counted = this.#match(/\{(\d+)(,?)(\d*)\}/)
    if (!counted) return [1, 1]
    const least = Number(counted[1])
    return [least, counted[2] === '' ? least : counted[3] === '' ? Number.POSITIVE_INFINITY : Number(counted[3])]
  }

  #one(): Node {
    if (this.#take('(')) return this.#group()
    if (this.#take('[')) return { is: 'letters', has: this.#folded(this.#letters()) }
    if (this.#take('^')) return { is: 'edge', at: 'start' }
    if (this.#take('$')) return { is: 'edge', at: 'end' }
    if (this.#take('.')) return { is: 'letters', has: this.#flags.includes('s') ? not(none()) : not(of('\n\r')) }
    if (/\\[bB]/y.test(this.#source.slice(this.at, this.at + 2))) {
      this.at += 2
      return { is: 'edge', at: 'other' }
    }
    if (/\\[1-9k]/y.test(this.#source.slice(this.at, this.at + 2))) throw new Error(`/${this.#source}/ refers to what it found`)
    return { is: 'letters', has: this.#folded(this.#letter().has) }
  }

  #group(): Node {
    const look = this.#match(/\?<?[=!]/)
    if (!look) this.#match(/\?:|\?<\w+>/)
    const inner = this.either()
    if (!this.#take(')')) throw new Error(`/${this.#source}/ opens a group and does not close it`)
    return look ? { is: 'look', what: inner } : inner
  }

  /** One letter or a shorthand, as it stands within a class or outside. */
  #letter(): { has: Uint8Array; code: number | undefined } {
    const code = (value: number) => ({ has: range(value, value), code: value })
    if (!this.#take('\\')) {
      const c = String.fromCodePoint(this.#source.codePointAt(this.at) as number)
      this.at += c.length
      return code(c.codePointAt(0) as number)
    }
    const hex = this.#match(/x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]+)\}/)
    if (hex) return code(Number.parseInt(hex[1] ?? hex[2] ?? (hex[3] as string), 16))
    const c = this.#next
    this.at++
    if (c === 'p' || c === 'P') {
      this.#match(/\{[^}]*\}/)
      return { has: not(none()), code: undefined }
    }
    const short = shorthand[c]
    return short ? { has: short, code: undefined } : code((named[c] ?? c).charCodeAt(0))
  }

  #letters(): Uint8Array {
    const inverse = this.#take('^')
    let has = none()
    while (!this.#take(']')) {
      const from = this.#letter()
      if (this.#next === '-' && this.#source[this.at + 1] !== ']' && from.code !== undefined) {
        this.at++
        const to = this.#letter()
        if (to.code === undefined) throw new Error(`/${this.#source}/ has a range without an end`)
        has = range(from.code, to.code, has)
      } else has = both(has, from.has)
    }
    return inverse ? not(has) : has
  }

  #folded(has: Uint8Array): Uint8Array {
    if (!this.#flags.includes('i')) return has
    const folded = has.slice()
    for (let c = 0x41; c <= 0x5a; c++) folded[c] = folded[c + 0x20] = (has[c] as number) | (has[c + 0x20] as number)
    return folded
  }
}

// --- can it be made slow? -----------------------------------------------------------------------------------------------
//
// The pattern becomes an automaton. A backtracking matcher tries every way through it, so what makes it slow is one text
// with many ways: a state that comes back to itself on one text by two ways (then the ways double with each turn), or two
// states in a row that both come back to themselves on a text that also leads from the first to the second (then they
// grow as a power of the length). A pattern that may begin anywhere has one such state in front of it, which takes any
// letter. From a state where the match has been found already, whatever comes, nobody turns back, and it is left out.

/** A counted repetition of so many is taken for an endless one: ways that grow up to it are too many already. */
const ENDLESS = 8

interface State {
  steps: { has: Uint8Array; to: number }[]
  free: number[]
  /** Free steps that only some texts may take. */
  guarded: number[]
}

class Automaton {
  readonly states: State[] = []
  add(): number {
    return this.states.push({ steps: [], free: [], guarded: [] }) - 1
  }
  at(state: number): State {
    return this.states[state] as State
  }

  /** Builds the way of a node from a state on; returns where it ends. */
  build(node: Node, from: number): number {
    if (node.is === 'letters') {
      const to = this.add()
      this.at(from).steps.push({ has: node.has, to })
      return to
    }
    if (node.is === 'row') return node.parts.reduce((at, part) => this.build(part, at), from)
    if (node.is === 'either') {
      const to = this.add()
      for (const way of node.ways) {
        const begin = this.add()
        this.at(from).free.push(begin)
        this.at(this.build(way, begin)).free.push(to)
      }
      return to
    }
    if (node.is === 'repeat') return this.#repeat(node, from)
    const to = this.add()
    this.at(from).guarded.push(to)
    // What is only looked at is a pattern of its own, and takes nothing from this one.
    return to
  }

  #repeat({ what, least, most }: Extract<Node, { is: 'repeat' }>, from: number): number {
    const endless = most === Number.POSITIVE_INFINITY || most - least >= ENDLESS
    let at = from
    for (let i = 0; i < Math.min(least, ENDLESS); i++) at = this.build(what, at)
    if (endless || least > ENDLESS) {
      const [loop, out] = [this.add(), this.add()]
      this.at(at).free.push(loop)
      this.at(this.build(what, loop)).free.push(loop)
      this.at(loop).free.push(out)
      return out
    }
    const out = this.add()
    for (let i = least; i < most; i++) {
      this.at(at).free.push(out)
      at = this.build(what, at)
    }
    this.at(at).free.push(out)
    return out
  }

  /** The states that are reached without a letter, each as often as there are ways to it, up to twice. */
  closure(from: number, guarded = true): Map<number, number> {
    const ways = new Map<number, number>()
    const walk = (state: number, on: Set<number>) => {
      if (on.has(state)) {
        // Round and round without a letter: what follows can be reached by one round, or by the next.
        ways.set(state, 2)
        return
      }
      const seen = ways.get(state) ?? 0
      if (seen >= 2) return
      ways.set(state, seen + 1)
      const { free, guarded: guards } = this.at(state)
      for (const to of guarded ? [...free, ...guards] : free) walk(to, new Set([...on, state]))
    }
    walk(from, new Set())
    return ways
  }
}

interface Step {
  has: Uint8Array
  to: number
}

const meet = (...all: Uint8Array[]) => {
  for (let c = 0; c <= BEYOND; c++) if (all.every((has) => has[c] === 1)) return true
  return false
}

/** How many ways a text may have through a pattern: `one`, or as its length to a power, or doubling with each letter. */
export function growthOf(source: string, flags = ''): 'linear' | 'polynomial' | 'exponential' {
  const node = parsePattern(source, flags)
  const inner = looksIn(node).map((look) => growth(look, true))
  const own = growth(node, !beginsAtStart(node) && !flags.includes('y'))
  return [...inner, own].sort((a, b) => ORDER.indexOf(b) - ORDER.indexOf(a))[0] as (typeof ORDER)[number]
}

const ORDER = ['linear', 'polynomial', 'exponential'] as const

function looksIn(node: Node): Node[] {
  if (node.is === 'look') return [node.what, ...looksIn(node.what)]
  if (node.is === 'row') return node.parts.flatMap(looksIn)
  if (node.is === 'either') return node.ways.flatMap(looksIn)
  return node.is === 'repeat' ? looksIn(node.what) : []
}

function beginsAtStart(node: Node): boolean {
  if (node.is === 'edge') return node.at === 'start'
  if (node.is === 'row') return node.parts.length > 0 && beginsAtStart(node.parts[0] as Node)
  return node.is === 'either' && node.ways.every(beginsAtStart)
}

function growth(node: Node, anywhere: boolean): 'linear' | 'polynomial' | 'exponential' {
  const automaton = new Automaton()
  const start = automaton.add()
  if (anywhere) automaton.at(start).steps.push({ has: not(none()), to: start })
  const end = automaton.build(node, start)
  const settled = automaton.states.map((_, state) => automaton.closure(state, false).has(end))
  // Steps from letter to letter: what is reached by free steps in two ways is there twice.
  const steps: Step[][] = automaton.states.map((_, state) =>
    [...automaton.closure(state)].flatMap(([reached, ways]) =>
      settled[reached] && reached !== end
        ? []
        : Array.from({ length: ways }, () => automaton.at(reached).steps.filter(({ to }) => !settled[to])).flat(),
    ),
  )
  const loops = inLoops(steps)
  if (loops.some((on, state) => on && doubles(steps, state))) return 'exponential'
  const looping = [...loops.keys()].filter((state) => loops[state])
  return looping.some((one) => looping.some((other) => one !== other && follows(steps, one, other))) ? 'polynomial' : 'linear'
}

/** Which states come back to themselves. */
function inLoops(steps: Step[][]): boolean[] {
  return steps.map((_, state) => {
    const seen = new Set<number>()
    const queue = (steps[state] as Step[]).map(({ to }) => to)
    for (let next = queue.pop(); next !== undefined; next = queue.pop()) {
      if (next === state) return true
      if (seen.has(next)) continue
      seen.add(next)
      for (const { to } of steps[next] as Step[]) queue.push(to)
    }
    return false
  })
}

/** Does a state come back to itself on one text by two ways? */
function doubles(steps: Step[][], state: number): boolean {
  const seen = new Set<string>()
  const queue: [number, number, boolean][] = [[state, state, false]]
  for (let next = queue.pop(); next; next = queue.pop()) {
    const [a, b, apart] = next
    const [fromA, fromB] = [steps[a] as Step[], steps[b] as Step[]]
    for (let i = 0; i < fromA.length; i++) {
      for (let j = 0; j < fromB.length; j++) {
        const [one, other] = [fromA[i] as Step, fromB[j] as Step]
        if (!meet(one.has, other.has)) continue
        const parted = apart || a !== b || i !== j || one.to !== other.to
        if (parted && one.to === state && other.to === state) return true
        const key = `${one.to} ${other.to} ${parted}`
        if (seen.has(key)) continue
        seen.add(key)
        queue.push([one.to, other.to, parted])
      }
    }
  }
  return false
}

/** Where three states can be after one letter that all of them take. */
function* together(steps: Step[][], a: number, b: number, c: number): Generator<[number, number, number]> {
  for (const one of steps[a] as Step[]) {
    for (const other of steps[b] as Step[]) {
      if (!meet(one.has, other.has)) continue
      for (const third of steps[c] as Step[]) if (meet(one.has, other.has, third.has)) yield [one.to, other.to, third.to]
    }
  }
}

/** Is there a text on which the first comes back to itself, the second does so too, and the first leads to the second? */
function follows(steps: Step[][], first: number, second: number): boolean {
  const seen = new Set<string>()
  const queue: [number, number, number][] = [[first, first, second]]
  for (let next = queue.pop(); next; next = queue.pop()) {
    for (const [a, b, c] of together(steps, ...next)) {
      if (a === first && b === second && c === second) return true
      const key = `${a} ${b} ${c}`
      if (seen.has(key)) continue
      seen.add(key)
      queue.push([a, b, c])
    }
  }
  return false
}

/** The steps that a matcher takes which tries one way after the other, and turns back where it fails. For patterns from `^` to `$`. */
export function stepsOf(source: string, text: string): number {
  let steps = 0
  const match = (node: Node, at: number, go: (at: number) => boolean): boolean => {
    steps++
    if (node.is === 'letters') return at < text.length && node.has[text.charCodeAt(at)] === 1 && go(at + 1)
    if (node.is === 'either') return node.ways.some((way) => match(way, at, go))
    if (node.is === 'row') {
      const from = (i: number, at: number): boolean =>
        i === node.parts.length ? go(at) : match(node.parts[i] as Node, at, (to) => from(i + 1, to))
      return from(0, at)
    }
    if (node.is === 'repeat') {
      const again = (times: number, at: number): boolean =>
        (times < node.most && match(node.what, at, (to) => to > at && again(times + 1, to))) || (times >= node.least && go(at))
      return again(0, at)
    }
    return node.is === 'edge' && (node.at === 'start' ? at === 0 : at === text.length) && go(at)
  }
  match(parsePattern(source), 0, () => true)
  return steps
}

// --- texts that fit -----------------------------------------------------------------------------------------------------

/** The letters of each place that can be seen on paper. */
const shown = new WeakMap<Node, number[]>()

/** A text that fits a pattern without looks; `upTo(n)` draws a whole number from 0 to n. */
export function textFor(node: Node, upTo: (most: number) => number, longest = 12): string {
  if (node.is === 'row') return node.parts.map((part) => textFor(part, upTo, longest)).join('')
  if (node.is === 'either') return textFor(node.ways[upTo(node.ways.length - 1)] as Node, upTo, longest)
  if (node.is === 'repeat') {
    const times = node.least + upTo(Math.min(node.most - node.least, longest))
    return Array.from({ length: times }, () => textFor(node.what, upTo, longest)).join('')
  }
  if (node.is !== 'letters') return ''
  const letters = shown.get(node) ?? [...node.has.keys()].filter((c) => node.has[c] === 1 && c > 32 && c < 127)
  shown.set(node, letters)
  return String.fromCharCode(letters[upTo(letters.length - 1)] as number)
}
