// The seal: whatever is sealed checks, and whatever is done to a log afterwards is found, at the line where it was done.

import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { type Shelf, sessionLog } from '../src/core/log.ts'
import { contentOf, type Envelope, isErased, parseLine, type Recorded, scan } from '../src/core/record.ts'
import { Schemas } from '../src/core/schemas.ts'
import { check, genesis, SEAL_LENGTH, seal } from '../src/core/seal.ts'
import { type Finding, verify } from '../src/core/verify.ts'
import { features } from '../src/features/index.ts'

const schemas = new Schemas()
const SESSION = 'sess_01ARZ3NDEKTSV4RRFFQ69G5FAV'
const LOG = sessionLog('ada', SESSION)
const ORDERED_BY = '6a2f41a3-c54c-4f6b-8b0a-0d6f4e9f4a11'

// --- the seal again, from its description alone ------------------------------------------------------------------------

const sha256 = (...parts: (Buffer | string)[]) => {
  const digest = createHash('sha256')
  for (const part of parts) digest.update(part)
  return digest.digest()
}
const textOf = (bytes: Buffer) => bytes.toString('base64url')
const named = (name: string) => textOf(sha256(`sessile log v1\n${name}`))
const bytesOf = (text: string) => Buffer.from(text, 'base64url')

/** A line taken apart, as anyone could with a dozen lines of any language. */
function apart(line: Buffer) {
  const seal = line.subarray(-SEAL_LENGTH).toString()
  const [, salt = '', hash = ''] = /^,"salt":"([A-Za-z0-9_-]{22})","hash":"([A-Za-z0-9_-]{43})"\}$/.exec(seal) ?? []
  const content = line.subarray(0, -SEAL_LENGTH)
  return { content, salt: bytesOf(salt), hash: bytesOf(hash), commit: sha256(bytesOf(salt), content) }
}

// --- logs to do things to ----------------------------------------------------------------------------------------------

const envelopeAt = (seq: number, log = LOG): Envelope => {
  const [top, user, , session] = log.split('/')
  return {
    record_id: `6a2f41a3-c54c-4f6b-8b0a-${String(seq).padStart(12, '0')}`,
    seq,
    type: 'x.acme.pulse',
    v: 1,
    source: 'acme',
    user_id: user as string,
    ...(top === 'users' && session ? { session_id: session } : {}),
    performer_id: 'device-7',
    timestamp: new Date(Date.parse('2031-05-02T09:30:00Z') + seq).toISOString(),
  }
}

/** The lines of a log that holds these data, each with its newline. */
function linesOf(data: readonly unknown[], log = LOG): Buffer[] {
  let previous = genesis(log)
  return data.map((one, i) => {
    const { line, hash } = seal(previous, contentOf({ ...envelopeAt(i + 1, log), data: one }))
    previous = hash
    return line
  })
}

const without = (line: Buffer) => line.subarray(0, -1)

const shelfOf = (bytes: Buffer): Shelf => ({
  names: () => [LOG],
  read: (_, offset, length) => bytes.subarray(offset, offset + length),
})

function found(lines: readonly Buffer[], log = LOG): Finding[] {
  const all: Finding[] = []
  verify({ shelf: shelfOf(Buffer.concat(lines)), events: features.events, schemas }, log, (finding) => all.push(finding))
  return all
}
const firstBad = (lines: readonly Buffer[]) => found(lines)[0]?.line

/** What an erasure leaves of a line. */
function erased(line: Buffer, seq: number, { commit, hash } = apart(without(line))): Buffer {
  return Buffer.from(
    `{"seq":${seq},"commit":"${commit.toString('base64url')}","hash":"${hash.toString('base64url')}","erased_by":"${ORDERED_BY}"}\n`,
  )
}

/** Any text: every plane, control characters, U+2028, and halves of surrogate pairs. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: fc.integer({ max: 0xffff }).map((n) => String.fromCharCode(n)) }),
  fc.string({
    unit: fc.constantFrom(
      '\u2028',
      '\u2029',
      '\ud83d',
      '\udc00',
      '\u0000',
      '\u001f',
      '\u007f',
      '\n',
      '\r',
      '"',
      '\\',
      ',"salt":"',
      '\ufeff',
      '漢',
      '👩🏽‍🚀',
    ),
  }),
)
const anyData = fc.dictionary(
  anyText,
  fc.jsonValue({ stringUnit: 'binary' }).chain((json) => fc.oneof(fc.constant<unknown>(json), anyText)),
)
/** What stands before a seal is never nothing: it begins with a brace. */
const anyContent = anyText.map((text) => `{${text}`)
const hash32 = fc.uint8Array({ minLength: 32, maxLength: 32 }).map((bytes) => textOf(Buffer.from(bytes)))

describe('seal', () => {
  it('checks, whatever the content', () => {
    fc.assert(
      fc.property(hash32, anyContent, (previous, content) => {
        const { line, hash } = seal(previous, content)
        expect(check(previous, without(line))).toEqual({ ok: true, hash, erased: false })
      }),
      { numRuns: 500 },
    )
  })

  it('is what its description says', () => {
    fc.assert(
      fc.property(hash32, anyContent, (previous, content) => {
        const { line, hash } = seal(previous, content)
        const parts = apart(without(line))
        expect(parts.content).toEqual(Buffer.from(content))
        expect(textOf(parts.hash)).toBe(hash)
        expect(textOf(sha256(bytesOf(previous), parts.commit))).toBe(hash)
      }),
    )
  })

  it('is a suffix of fixed length, and the newline is the last byte and the only one', () => {
    fc.assert(
      fc.property(hash32, anyData, (previous, data) => {
        const content = contentOf({ ...envelopeAt(1), data })
        const { line } = seal(previous, content)
        expect(line.length).toBe(Buffer.byteLength(content) + SEAL_LENGTH + 1)
        expect(line.indexOf('\n')).toBe(line.length - 1)
        expect(line.subarray(-SEAL_LENGTH - 1).toString()).toMatch(/^,"salt":"[\w-]{22}","hash":"[\w-]{43}"\}\n$/)
        expect(parseLine(without(line))).toEqual({ ...envelopeAt(1), data: JSON.parse(JSON.stringify(data)) })
      }),
    )
  })

  it('does not check after another line, or with another content', () => {
    fc.assert(
      fc.property(hash32, hash32, anyContent, anyContent, (previous, other, content, changed) => {
        fc.pre(previous !== other && !Buffer.from(content).equals(Buffer.from(changed)))
        const line = without(seal(previous, content).line)
        expect(check(other, line).ok).toBe(false)
        expect(check(previous, Buffer.concat([Buffer.from(changed), line.subarray(-SEAL_LENGTH)])).ok).toBe(false)
      }),
    )
  })

  it('does not check after what has no hash, whatever was checked before', () => {
    const line = without(seal(genesis(LOG), '{').line)
    for (const none of ['', 'short', genesis(LOG).slice(0, 42), '!'.repeat(43)]) {
      expect(check(genesis(LOG), line).ok).toBe(true)
      expect(check(none, line).ok).toBe(false)
    }
  })

  it('has a salt of its own for every line, so that equal contents cannot be told to be equal', () => {
    const salts = Array.from({ length: 2000 }, () => apart(without(seal(genesis(LOG), 'same').line)).salt.toString('hex'))
    expect(new Set(salts).size).toBe(2000)
  })
})

describe('genesis', () => {
  const id = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
  const session = fc.stringMatching(/^sess_[0-9A-HJKMNP-TV-Z]{26}$/)

  it('is over the id of a session, whosever it is', () => {
    fc.assert(
      fc.property(id, session, (user, own) => {
        expect(genesis(sessionLog(user, own))).toEqual(named(own))
      }),
    )
    expect(genesis(sessionLog('sessions', SESSION))).toEqual(named(SESSION))
  })

  it('is over the path of every other log', () => {
    fc.assert(
      fc.property(id, (one) => {
        for (const log of [`accounts/${one}`, `users/${one}/user`, `audit/${one}`]) expect(genesis(log)).toEqual(named(log))
      }),
    )
  })

  it('is over the path also where a user is called sessions', () => {
    expect(genesis('users/sessions/user')).toEqual(named('users/sessions/user'))
  })
})

describe('verify', () => {
  const three = linesOf([{ text: 'one' }, { text: 'zwei – deux' }, {}])
  const bytes = Buffer.concat(three)
  /** Of every byte: its line, and whether later lines are checked against it. */
  const places = three.flatMap((line, i) => {
    const time = line.indexOf('"timestamp":"') + '"timestamp":"'.length
    const hash = line.length - '"}\n'.length - 43
    return [...line].map((byte, at) => ({
      line: i + 1,
      trusted: (at >= time && at < time + 24) || (at >= hash && at < hash + 43),
      ends: byte === 10,
    }))
  })

  it('finds nothing in a log that is as it was written', () => {
    fc.assert(
      fc.property(fc.array(anyData, { maxLength: 8 }), (data) => {
        expect(found(linesOf(data))).toEqual([])
      }),
    )
    expect(found(linesOf([{}, {}], 'accounts/ada'), 'accounts/ada')).toEqual([])
  })

  it('finds every bit that is flipped, and names the line', () => {
    const flipped = Buffer.from(bytes)
    const missed: string[] = []
    for (let at = 0; at < bytes.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        flipped[at] = (bytes[at] as number) ^ (1 << bit)
        const lines = found([flipped]).map(({ line }) => line)
        const { line, trusted, ends } = places[at] as (typeof places)[number]
        // The other lines are whole and nothing is said of them, but where they are checked against what was flipped.
        const alone = trusted || ends || flipped[at] === 10 || lines.every((one) => one === line)
        if (lines[0] !== line || !alone) missed.push(`byte ${at} bit ${bit} (line ${line}): ${lines}`)
      }
      flipped[at] = bytes[at] as number
    }
    expect(missed).toEqual([])
  })

  it('finds every bit that is flipped in an erased line, and names that line alone', () => {
    const whole = erased(three[1] as Buffer, 2)
    const hash = whole.indexOf('"hash":"') + '"hash":"'.length
    // Who ordered it is not sealed.
    const orderedBy = whole.indexOf(ORDERED_BY)
    for (let bit = 0; bit < 8 * (whole.length - 1); bit++) {
      const at = bit >> 3
      if (at >= orderedBy && at < orderedBy + ORDERED_BY.length) continue
      const line = Buffer.from(whole)
      line[at] = (line[at] as number) ^ (1 << (bit & 7))
      const lines = new Set(found(three.with(1, line)).map((finding) => finding.line))
      const trusted = (at >= hash && at < hash + 43) || line[at] === 10
      expect([bit, lines.has(2), trusted || lines.size === 1]).toEqual([bit, true, true])
    }
  })

  /** A log of some lines, and two places in it. */
  const logAndPlaces = fc
    .array(anyData, { minLength: 2, maxLength: 8 })
    .chain((data) => fc.tuple(fc.constant(data), fc.nat({ max: data.length - 1 }), fc.nat({ max: data.length - 1 })))

  it('finds two lines that changed places', () => {
    fc.assert(
      fc.property(logAndPlaces, ([data, a, b]) => {
        fc.pre(a !== b)
        const lines = linesOf(data)
        const swapped = lines.map((line, i) => (i === a ? lines[b] : i === b ? lines[a] : line) as Buffer)
        expect(firstBad(swapped)).toBe(Math.min(a, b) + 1)
      }),
    )
  })

  it('finds a line that is missing, where the next one stands in its place', () => {
    fc.assert(
      fc.property(logAndPlaces, ([data, at]) => {
        fc.pre(at < data.length - 1)
        expect(firstBad(linesOf(data).toSpliced(at, 1))).toBe(at + 1)
      }),
    )
  })

  it('finds a line that stands there twice', () => {
    fc.assert(
      fc.property(logAndPlaces, ([data, at]) => {
        const lines = linesOf(data)
        expect(firstBad(lines.toSpliced(at, 0, lines[at] as Buffer))).toBe(at + 2)
      }),
    )
  })

  it('finds a line from elsewhere, at its own place', () => {
    fc.assert(
      fc.property(logAndPlaces, anyData, ([data, at], other) => {
        const foreign = linesOf([...data, other], sessionLog('ada', `${SESSION.slice(0, -1)}W`))[at] as Buffer
        expect(firstBad(linesOf(data).toSpliced(at, 0, foreign))).toBe(at + 1)
        expect(firstBad(linesOf(data).toSpliced(at, 1, foreign))).toBe(at + 1)
      }),
    )
  })

  it('finds a line that was put in with a seal that fits, at the line that no longer follows', () => {
    fc.assert(
      fc.property(logAndPlaces, anyData, ([data, at], other) => {
        const lines = linesOf(data)
        const before = at === 0 ? genesis(LOG) : textOf(apart(without(lines[at - 1] as Buffer)).hash)
        const { line } = seal(before, contentOf({ ...envelopeAt(at + 1), data: other }))
        expect(firstBad(lines.toSpliced(at, 0, line))).toBe(at + 2)
        if (at < data.length - 1) expect(firstBad(lines.toSpliced(at, 1, line))).toBe(at + 2)
      }),
    )
  })

  it('finds an end that was cut within a line', () => {
    for (let cut = 1; cut < (three[2] as Buffer).length; cut++) expect(firstBad([bytes.subarray(0, -cut)])).toBe(3)
  })

  it('finds a record that is sealed well and stands in the wrong log, at the wrong seq, or before its time', () => {
    const wrong = (change: Partial<Recorded>) => {
      const [first] = linesOf([{}])
      const { line } = seal(textOf(apart(without(first as Buffer)).hash), contentOf({ ...envelopeAt(2), data: {}, ...change }))
      return found([first as Buffer, line]).map(({ line, what }) => `${line}: ${what}`)
    }
    expect(wrong({})).toEqual([])
    expect(wrong({ seq: 3 })).toEqual(['2: its seq is 3, not 2'])
    expect(wrong({ user_id: 'bob' })).toEqual(['2: it belongs to the user bob'])
    expect(wrong({ session_id: `${SESSION.slice(0, -1)}W` })).toEqual([`2: it belongs to the session ${SESSION.slice(0, -1)}W`])
    expect(wrong({ timestamp: '2031-05-02T09:30:00.000Z' })[0]).toMatch(/^2: its timestamp .* is earlier/)
    expect(wrong({ type: 'session.ended', data: { reason: 'bored' } })[0]).toMatch(/^2: data\.reason must be one of/)
    expect(wrong({ type: 'nobody.knows' })).toEqual(['2: nobody.knows is not a registered event'])
    expect(wrong({ v: 2 })[0]).toMatch(/^2: v is not a version/)
    expect(wrong({ source: 'Acme' })[0]).toMatch(/^2: source must match pattern/)
  })

  it('finds a field that no record has, sealed well', () => {
    const { line } = seal(genesis(LOG), `${contentOf({ ...envelopeAt(1), data: {} })},"colour":"red"`)
    expect(found([line])).toEqual([{ log: LOG, line: 1, what: 'colour is not a known field' }])
  })

  it('finds a seal that is spelled in another way, though it means the same', () => {
    const whole = linesOf([{ a: 1 }, { b: 2 }])
    const wiped = whole.with(0, erased(whole[0] as Buffer, 1))
    const ends = [/(?<="salt":"[\w-]{21})./, /(?<="hash":"[\w-]{42})./, /(?<="commit":"[\w-]{42})./]
    const alphabet = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/=']
    for (const lines of [whole, wiped]) {
      const text = (lines[0] as Buffer).toString()
      for (const end of ends.filter((one) => one.test(text))) {
        for (const other of alphabet.filter((one) => one !== end.exec(text)?.[0])) {
          expect(firstBad(lines.with(0, Buffer.from(text.replace(end, other))))).toBe(1)
        }
      }
    }
  })

  it('finds a letter of a salt that is none, or is read by some as the one that stood there', () => {
    for (const [letter, others] of [
      ['A', '*+/=. \u0000'],
      ['-', '+'],
      ['_', '/'],
    ] as const) {
      let [text, salt, at] = ['', '', -1]
      while (at < 0) {
        text = (linesOf([{ a: 1 }])[0] as Buffer).toString()
        salt = /(?<="salt":")[\w-]{22}/.exec(text)?.[0] as string
        at = salt.slice(0, -1).indexOf(letter)
      }
      for (const other of others) {
        const spelled = salt.slice(0, at) + other + salt.slice(at + 1)
        const line = Buffer.from(text.replace(salt, () => spelled))
        expect(check(genesis(LOG), without(line))).toEqual({ ok: false, why: 'the seal is malformed' })
        expect(firstBad([line])).toBe(1)
      }
    }
  })
})

describe('an erased line', () => {
  const erasedAt = (lines: Buffer[], at: number) => lines.toSpliced(at, 1, erased(lines[at] as Buffer, at + 1))

  it('keeps the log verifying, whichever lines are erased', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(anyData, fc.boolean()), { minLength: 1, maxLength: 8 }), (all) => {
        const lines = linesOf(all.map(([data]) => data))
        const left = lines.map((line, i) => (all[i]?.[1] ? erased(line, i + 1) : line))
        expect(found(left)).toEqual([])
        for (const [i, line] of left.entries()) expect(isErased(parseLine(without(line)))).toBe(all[i]?.[1])
      }),
    )
  })

  it('holds nothing of what it said, not even a hash of it alone', () => {
    const line = linesOf([{ text: 'a secret' }])[0] as Buffer
    const left = erased(line, 1).toString()
    expect(Object.keys(JSON.parse(left))).toEqual(['seq', 'commit', 'hash', 'erased_by'])
    expect(left).not.toContain(apart(without(line)).salt.toString('base64url'))
    expect(apart(without(line)).commit).not.toEqual(sha256(apart(without(line)).content))
  })

  it.each(['commit', 'hash', 'seq'])('with another %s is found', (field) => {
    for (const at of [0, 1, 2]) {
      const lines = erasedAt(linesOf([{ a: 1 }, { b: 2 }, { c: 3 }]), at)
      const value = JSON.parse((lines[at] as Buffer).toString())
      value[field] = field === 'seq' ? at + 2 : sha256('another').toString('base64url')
      lines[at] = Buffer.from(`${JSON.stringify(value)}\n`)
      expect(firstBad(lines)).toBe(at + 1)
    }
  })

  it('with any bit of its seq, its commit or its hash flipped is found, and so is one of any other shape', () => {
    const lines = erasedAt(linesOf([{ a: 1 }, { b: 2 }, { c: 3 }]), 1)
    const whole = lines[1] as Buffer
    const missed: number[] = []
    for (let at = 0; at < whole.indexOf('"erased_by":"') + '"erased_by":"'.length; at++) {
      for (let bit = 0; bit < 8; bit++) {
        const flipped = Buffer.from(whole)
        flipped[at] = (whole[at] as number) ^ (1 << bit)
        if (firstBad(lines.with(1, flipped)) !== 2) missed.push(at)
      }
    }
    expect(missed).toEqual([])
  })

  it('does not hide that a line before or after it was touched', () => {
    const lines = erasedAt(linesOf([{ a: 1 }, { b: 2 }, { c: 3 }]), 1)
    const touched = (at: number) => lines.with(at, Buffer.from((lines[at] as Buffer).toString().replace(/"[ac]":/, '"z":')))
    expect(firstBad(touched(0))).toBe(1)
    expect(firstBad(touched(2))).toBe(3)
    expect(firstBad(lines.toSpliced(1, 1))).toBe(2)
  })
})

describe('scan', () => {
  const word = (pattern: RegExp) => fc.stringMatching(pattern)
  const opaque = word(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/)
  /** Any envelope that the published schema takes. */
  const envelope: fc.Arbitrary<Envelope> = fc.record(
    {
      record_id: fc.uuid({ version: 4 }),
      seq: fc.integer({ min: 1 }),
      type: fc.oneof(
        word(/^[a-z][a-z0-9_-]{0,20}\.[a-z0-9][a-z0-9_-]{0,20}$/),
        word(/^x\.[a-z0-9][a-z0-9_-]{31}\.[a-z0-9][a-z0-9_-]{63}$/),
      ),
      v: fc.integer({ min: 1, max: 999_999 }),
      source: word(/^[a-z][a-z0-9_.-]{0,63}$/),
      user_id: opaque,
      session_id: word(/^sess_[0-9A-HJKMNP-TV-Z]{26}$/),
      performer_id: opaque,
      timestamp: fc
        .date({ min: new Date(0), max: new Date('9999-12-31T23:59:59.999Z'), noInvalidDate: true })
        .map((date) => date.toISOString()),
      command_id: word(/^[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{22}$/),
    },
    { requiredKeys: ['record_id', 'seq', 'type', 'v', 'source', 'user_id', 'performer_id', 'timestamp'], noNullPrototype: true },
  )

  it('reads of a line what JSON.parse reads, and says where its data begins', () => {
    fc.assert(
      fc.property(envelope, anyData, (given, data) => {
        const line = without(seal(genesis(LOG), contentOf({ ...given, data })).line)
        const { data: parsed, salt, hash, ...rest } = JSON.parse(line.toString())
        expect(schemas.fault('record', 1, { ...rest, data: parsed, salt, hash }, '')).toBeUndefined()
        const scanned = scan(line)
        expect(scanned?.envelope).toEqual(rest)
        expect(Object.keys(scanned?.envelope ?? {})).toEqual(Object.keys(rest))
        expect(JSON.parse(line.toString('utf8', scanned?.data, line.length - SEAL_LENGTH))).toEqual(parsed)
        expect(parseLine(line)).toEqual({ ...rest, data: parsed })
      }),
      { numRuns: 300 },
    )
  })

  it('reads the longest envelope there can be', () => {
    const longest = {
      record_id: ORDERED_BY,
      seq: 999_999_999_999_999,
      type: `x.${'a'.repeat(32)}.${'b'.repeat(64)}`,
      v: 999_999,
      source: 's'.repeat(64),
      user_id: 'u'.repeat(64),
      session_id: SESSION,
      performer_id: 'p'.repeat(64),
      timestamp: '2031-05-02T09:30:00.000Z',
      command_id: `${'c'.repeat(22)}.${'d'.repeat(22)}`,
    }
    const line = without(seal(genesis(LOG), contentOf({ ...longest, data: {} })).line)
    expect(schemas.fault('record', 1, JSON.parse(line.toString()), '')).toBeUndefined()
    expect(scan(line)?.envelope).toEqual(longest)
  })

  it('is not led astray by data that look like an envelope', () => {
    const [line] = linesOf([
      { '","seq":2,"type":"x': '{"record_id":"', data: { seq: 9, user_id: 'bob' }, user_id: 'bob', hash: 'x' },
    ])
    expect(scan(without(line as Buffer))?.envelope).toEqual(envelopeAt(1))
  })

  it.each([
    '',
    '{}',
    '{"seq":1}',
    '{"record_id":"x","seq":1}',
    'not JSON',
    '{"seq":1,"commit":"","hash":"","erased_by":""}',
    '\u0000',
  ])('reads nothing of %j', (text) => expect(scan(Buffer.from(text))).toBeUndefined())
})
