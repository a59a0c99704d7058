// Draws from a seed: numbers, texts that are meant to hurt, and values that fit a JSON Schema. The same seed draws the same.

import { Chance } from './chance.ts'
import { type Node, parsePattern, textFor } from './patterns.ts'

export class Draw extends Chance {
  upTo = (most: number): number => this.below(most + 1)
  chance = (of: number): boolean => this.next() < of
}

/** Texts that break whatever puts them somewhere without thinking: lines, terminals, headers, streams, SQL, paths, patterns. */
export const HOSTILE = [
  '',
  ' ',
  '\u0000',
  'a\u0000b',
  'two\nlines',
  'a return\r\nSet-Cookie: a=b',
  'data: x\n\nevent: fake\n\n',
  'line\u2028and\u2029paragraph and next\u0085line',
  '\u001b[2J\u001b[31mred\u001b]0;title\u0007',
  '\u009b31m eight bits\u009c',
  'right\u202eto\u2066left\u2069 \u200e\u200f\u061c',
  '\ufeffmarked',
  '\u0301combining, \ud83d\ude00, \udbff\udfff, \uffff',
  '"quoted" \\back\\slash/ \\u0000 \\n',
  '{"record_id":"x"}\n',
  "'; DROP TABLE sessions; --",
  '%s %n %00 %0d%0a',
  '../../etc/passwd',
  '..%2f..%2f',
  '.',
  '..',
  '.journal',
  'quarantine',
  'con',
  'NUL.txt',
  '__proto__',
  'constructor',
  'prototype',
  'hasOwnProperty',
  'toString',
  '-1',
  '1e400',
  'NaN',
  'null',
  '<script>alert(1)</script>',
  '{{7*7}} #{7*7} %{7*7}',
  'data:image/png;base64,AAAA',
  'x'.repeat(64),
  'x'.repeat(65),
  'é'.repeat(300),
  '😀'.repeat(150),
]

export interface Schema {
  type?: string | undefined
  properties?: Record<string, Schema>
  required?: string[]
  additionalProperties?: boolean | Schema
  propertyNames?: Schema
  items?: Schema
  anyOf?: Schema[]
  enum?: unknown[]
  const?: unknown
  pattern?: string
  minLength?: number
  maxLength?: number
  minimum?: number
  maximum?: number
  minItems?: number
  maxItems?: number
  $ref?: string
  $defs?: Record<string, Schema>
}

const WORDS = [
  'water',
  'I would like',
  'yesterday',
  'größer',
  '水をください',
  'ну вот',
  '😀 ok',
  'line\nbreak',
  'tab\there',
  '"so"',
]

/** A value that fits; `named` says what a field of this name is given, where the schema alone cannot know. */
export function fitting(
  schema: Schema,
  draw: Draw,
  named: (name: string) => unknown = () => undefined,
  root = schema,
  depth = 0,
): unknown {
  const inner = (of: Schema) => fitting(of, draw, named, root, depth + 1)
  if (schema.$ref !== undefined) {
    const to = root.$defs?.[schema.$ref.split('/').at(-1) as string] as Schema
    // An open value could go on for ever: beyond a few steps it is one that holds no other.
    return inner(
      depth > 4 ? { ...to, anyOf: (to.anyOf as Schema[]).filter(({ type }) => type !== 'array' && type !== 'object') } : to,
    )
  }
  if ('const' in schema) return schema.const
  if (schema.enum) return draw.pick(schema.enum)
  if (schema.anyOf) return inner(draw.pick(schema.anyOf))
  if (schema.type === 'object') return objectFor(schema, draw, named, inner)
  if (schema.type === 'array') {
    const { minItems = 0, maxItems = 4 } = schema
    return Array.from({ length: minItems + draw.upTo(Math.min(maxItems - minItems, 4)) }, () => inner(schema.items ?? {}))
  }
  if (schema.type === 'boolean') return draw.chance(0.5)
  if (schema.type === 'null') return null
  if (schema.type === 'integer' || schema.type === 'number') return numberFor(schema, draw)
  return textOf(schema, draw)
}

function objectFor(schema: Schema, draw: Draw, named: (name: string) => unknown, inner: (of: Schema) => unknown): unknown {
  const fields: [string, unknown][] = []
  for (const [name, of] of Object.entries(schema.properties ?? {})) {
    if (!schema.required?.includes(name) && draw.chance(0.6)) continue
    fields.push([name, named(name) ?? inner(of)])
  }
  if (typeof schema.additionalProperties === 'object')
    for (let i = draw.upTo(3); i > 0; i--) fields.push([`${draw.pick(WORDS)} ${i}`, inner(schema.additionalProperties)])
  return Object.fromEntries(fields)
}

function numberFor({ type, minimum = -1e6, maximum = 1e6 }: Schema, draw: Draw): number {
  const [from, to] = [Math.max(minimum, -1e9), Math.min(maximum, 1e9)]
  if (draw.chance(0.1)) return minimum
  const value = from + draw.next() * (to - from)
  return type === 'integer' ? Math.round(value) : value
}

const known = new Map<string, Node>()

function textOf({ pattern, minLength = 0, maxLength = 200 }: Schema, draw: Draw): string {
  if (pattern !== undefined) {
    const parsed = known.get(pattern) ?? parsePattern(pattern)
    known.set(pattern, parsed)
    return textFor(parsed, draw.upTo)
  }
  const text = Array.from({ length: 1 + draw.upTo(4) }, () => draw.pick(WORDS)).join(' ')
  return text.slice(0, Math.max(minLength, maxLength)).replace(/[\ud800-\udbff]$/, '')
}

/** A place in a value: how it is read, and how it is given another. */
export interface Place {
  path: string
  value: unknown
  put(value: unknown): void
  drop(): void
}

/** Every place of a value, from the outside in. */
export function placesIn(value: unknown, path = ''): Place[] {
  if (typeof value !== 'object' || value === null) return []
  const holder = value as Record<string, unknown>
  return Object.keys(holder).flatMap((name) => {
    const at = path === '' ? name : `${path}.${name}`
    const put = (given: unknown) =>
      Object.defineProperty(holder, name, { value: given, enumerable: true, configurable: true, writable: true })
    const drop = () => (Array.isArray(value) ? void value.splice(Number(name), 1) : void delete holder[name])
    return [{ path: at, value: holder[name], put, drop }, ...placesIn(holder[name], at)]
  })
}
