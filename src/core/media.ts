// Law 12: no raw media in a log. Strict schemas leave no room for it in most fields; this looks for it in all of them,
// since free text and vendors' own records could carry anything.

const DATA_URL = /\bdata:[a-z]{1,32}\/[a-z0-9.+-]{1,64}[;,]/i
const LONG_RUN = /[A-Za-z0-9+/_=-]{1024}/
const WRAPPED = /(?:[A-Za-z0-9+/]{60,76}\r?\n){8}/

/** Numbers in one record beyond which it is a signal or a picture and not a measurement. */
const MOST_NUMBERS = 4096
const DEEPEST = 64

/** Where in this value there is raw media, and what it looks like; undefined where there is none. */
export function rawMedia(value: unknown, path = 'data'): { path: string; message: string } | undefined {
  return look(value, path, { numbers: 0 }, 0)
}

function look(
  value: unknown,
  path: string,
  seen: { numbers: number },
  depth: number,
): { path: string; message: string } | undefined {
  if (typeof value === 'string') return lookAtText(value, path)
  if (typeof value === 'number') {
    return ++seen.numbers > MOST_NUMBERS
      ? { path, message: `holds more than ${MOST_NUMBERS} numbers: store them as an artifact` }
      : undefined
  }
  if (typeof value !== 'object' || value === null) return undefined
  if (depth > DEEPEST) return { path, message: 'is nested too deeply' }
  if (Array.isArray(value)) {
    for (let i = 0; i < value.length; i++) {
      const found = look(value[i], `${path}.${i}`, seen, depth + 1)
      if (found) return found
    }
    return undefined
  }
  for (const key of Object.keys(value)) {
    const found = lookAtText(key, path) ?? look((value as Record<string, unknown>)[key], `${path}.${key}`, seen, depth + 1)
    if (found) return found
  }
  return undefined
}

function lookAtText(text: string, path: string) {
  if (text.length < 12) return undefined
  // Searching for the word first is several times faster than the pattern, and nearly no text holds it.
  if (/data:/i.test(text) && DATA_URL.test(text)) return { path, message: 'holds a data: URL: store the bytes as an artifact' }
  if (text.length >= 480 && (LONG_RUN.test(text) || WRAPPED.test(text))) {
    return { path, message: 'looks like encoded bytes: store them as an artifact' }
  }
  return undefined
}
