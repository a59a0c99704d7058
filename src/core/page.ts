// Pages of a view, newest first. A cursor names the last row that was given, so that rows which come or go shift nobody's page.

import * as z from 'zod'
import { Refusal } from './errors.ts'
import { whole } from './query.ts'
import type { Columns, Findable, Parameter, Row } from './view.ts'

/** What every question for pages may say. */
export const paging = {
  limit: whole(1, 200).default(50),
  cursor: z.string().max(200).optional().describe('the next_cursor of the page before'),
}

/** What every page says beside its rows. */
export const paged = { next_cursor: z.string().nullable(), has_more: z.boolean() }

/** How every question for pages may be refused. */
export const pageRefuses = { 'bad-cursor': 'invalid' } as const

/** What rows must fulfil: SQL, and the values that go in as parameters. */
export class Where {
  readonly #parts: string[] = []
  readonly values: Parameter[] = []

  need(sql: string, ...values: Parameter[]): void {
    this.#parts.push(sql)
    this.values.push(...values)
  }

  /** The column has one of these values. */
  needOneOf(column: string, these: readonly string[]): void {
    if (these.length === 1) this.need(`${column} = ?`, these[0] as string)
    else this.need(`${column} IN (SELECT value FROM json_each(?))`, JSON.stringify(these))
  }

  /** One of two columns has one of these values. */
  needOneOfEither([one, other]: [string, string], these: readonly string[]): void {
    const among = 'IN (SELECT value FROM json_each(?))'
    this.need(`(${one} ${among} OR ${other} ${among})`, JSON.stringify(these), JSON.stringify(these))
  }

  get sql(): string {
    return this.#parts.length > 0 ? `WHERE ${this.#parts.join(' AND ')}` : ''
  }
}

interface Turned {
  limit: number
  offset?: number
  cursor?: string | undefined
}

/** One page of the rows, newest first by a time and an id. */
export function pageOf<C extends Columns, K extends keyof C & string>(
  rows: Findable<C>,
  where: Where,
  [time, id]: [K, K],
  { limit, offset = 0, cursor }: Turned,
): { rows: Row<C>[]; next_cursor: string | null; has_more: boolean } {
  if (cursor !== undefined) where.need(`(${time}, ${id}) < (?, ?)`, ...namedBy(cursor))
  const order = `ORDER BY ${time} DESC, ${id} DESC LIMIT ? OFFSET ?`
  const found = rows.find(`${where.sql} ${order}`, ...where.values, limit + 1, offset)
  const has_more = found.length > limit
  const shown = found.slice(0, limit)
  const last = shown.at(-1)
  return {
    rows: shown,
    next_cursor: has_more && last ? cursorTo(last[time] as string, last[id] as string) : null,
    has_more,
  }
}

/** The cursor of a row that is found by a time and an id. */
export const cursorTo = (time: string, id: string): string => Buffer.from(`${time} ${id}`).toString('base64url')

export const badCursor = () => new Refusal('invalid', 'bad-cursor', 'The cursor is not one that a page gave.')

/** The time and the id that a cursor names. */
export function namedBy(cursor: string): [string, string] {
  const found = /^([0-9TZ:.-]{24}) ([A-Za-z0-9._-]{1,64})$/.exec(Buffer.from(cursor, 'base64url').toString('latin1'))
  if (!found) throw badCursor()
  return [found[1] as string, found[2] as string]
}
