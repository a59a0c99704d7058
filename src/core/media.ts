// Law 12: no raw media in a log. Strict schemas leave no room for it in most fields; this looks for it in all of them,
// since free text and vendors' own records could carry anything.

const DATA_URL = /\bdata:[a-z]{1,32}\/[a-z0-9.+-]{1,64}[;,]/i
const RUN = /[A-Za-z0-9+/_=-]+/g
const LONGEST_RUN = 1024
const WRAPPED = /^[A-Za-z0-9+/]{60,76}$/
const MOST_WRAPPED = 8

/** Numbers in one record beyond which it is a signal or a picture and not a measurement. */
const MOST_NUMBERS = 4096
const DEEPEST = 64

/** Where in this value there is raw media, and what it looks like; undefined where there is none. */
export function rawMedia(value: unknown, path = 'data'): { path: string; message: string } | undefined {
  const found = look(value, { numbers: 0 }, 0)
  return found && { path: [path, ...found.under].join('.'), message: found.message }
}

/** `under`: the way from the value to what was found. It is put together on the way back, since nearly always there is none. */
interface Found {
  under: string[]
  message: string
}

function look(value: unknown, seen: { numbers: number }, depth: number): Found | undefined {
  if (typeof value === 'string') return lookAtText(value)
  if (typeof value === 'number') {
    return ++seen.numbers > MOST_NUMBERS ? here(`holds more than ${MOST_NUMBERS} numbers: store them as an artifact`) : undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  if (depth > DEEPEST) return here('is nested too deeply')
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const found = look(value[i], seen, depth + 1)
      if (found) return below(String(i), found)
    }
    return undefined
  }
  for (const key of Object.keys(value)) {
    const named = lookAtText(key)
    if (named) return named
    const found = look((value as Record<string, unknown>)[key], seen, depth + 1)
    if (found) return below(key, found)
  }
  return undefined
}

const here = (message: string): Found => ({ under: [], message })
const below = (step: string, { under, message }: Found): Found => ({ under: [step, ...under], message })

function lookAtText(text: string): Found | undefined {
  if (text.length < 12) return undefined
  // Searching for the word first is several times faster than the pattern, and nearly no text holds it.
  if (/data:/i.test(text) && DATA_URL.test(text)) return here('holds a data: URL: store the bytes as an artifact')
  if (text.length >= 480 && (hasLongRun(text) || isWrapped(text))) {
    return here('looks like encoded bytes: store them as an artifact')
  }
  return undefined
}

/** A run of such letters that no language has words for. Each run is matched once, so this takes one pass. */
function hasLongRun(text: string): boolean {
  for (const [run] of text.matchAll(RUN)) if (run.length >= LONGEST_RUN) return true
  return false
}

/** Encoded bytes broken into lines of even length, as mail does. */
function isWrapped(text: string): boolean {
  let lines = 0
  for (const line of text.split(/\r?\n/)) {
    lines = WRAPPED.test(line) ? lines + 1 : 0
    if (lines >= MOST_WRAPPED) return true
  }
  return false
}
