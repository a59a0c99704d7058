// The tables of the views' database, and typed access to their rows: prepared statements, one per shape of a call.

import { createHash } from 'node:crypto'
import Database from 'better-sqlite3'
import type { Gathered } from './feature.ts'
import {
  type Columns,
  type Findable,
  indexesOf,
  type Parameter,
  type Read,
  type Readable,
  type Row,
  type Rows,
  tableOf,
  type View,
} from './view.ts'

// From Node 24.19 on, the process aborts when a connection or a statement of better-sqlite3 12 is collected as garbage
// outside of JavaScript (nodejs/node#65446). Version 13 is free of that, and does not run on Node 20. So none is ever
// garbage: connections and statements are kept until the process ends. There are a few dozen, and as many more for each
// rebuild, and each time the views are brought back: where that fails it is tried ever more seldom. For the same reason nothing here calls `pragma()` or `iterate()`, which make objects of their own.
const kept: object[] = []
const ROWS_AT_ONCE = 1000

export function openDatabase(file: string, options: Database.Options = {}): Database.Database {
  const db = new Database(file, options)
  const prepare = db.prepare.bind(db)
  db.prepare = ((text: string) => {
    const statement = prepare(text)
    kept.push(statement)
    return statement
  }) as typeof db.prepare
  kept.push(db)
  return db
}

/** What the core itself keeps beside the features' views: how far each log and each named command has come. */
export const ownTables = `-- How far the views have come: the journal, the place in order, the latest timestamp, the shape of the tables.
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- The end of every log.
CREATE TABLE logs (
  log TEXT PRIMARY KEY, -- its path under logs/, without its ending
  seq INTEGER NOT NULL, -- of its last record
  hash TEXT NOT NULL, -- of its last line
  size INTEGER NOT NULL, -- in bytes
  at INTEGER NOT NULL -- when it last grew, milliseconds since 1970
) STRICT, WITHOUT ROWID;
-- The logs that a rebuild found damaged: nothing after the damage is in the views, and they take no more records.
CREATE TABLE damaged (
  log TEXT PRIMARY KEY,
  why TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Where the records of each named request stand, so that a retry is known again. Written in sorted runs (meta: runs).
CREATE TABLE commands (
  run INTEGER NOT NULL,
  first INTEGER NOT NULL, -- the key of its first name: 52 bits of the digest of the caller and its Idempotency-Key
  chunk BLOB NOT NULL, -- names in the order of their keys, each with its log and where in it the first record begins
  PRIMARY KEY (run, first)
) STRICT, WITHOUT ROWID;
`

/** The whole schema, as it is printed for analysts. */
export const schemaSql = (views: readonly View[]) =>
  [ownTables, ...views.map((view) => tableOf(view) + indexesOf(view).join(''))].join('\n')

/** Changes when a table or the code of a fold changes: views made by other code are not trusted, but rebuilt. */
export const fingerprint = ({ views, code }: Pick<Gathered, 'views' | 'code'>): string =>
  createHash('sha256').update(schemaSql(views)).update(code).digest('hex')

/** Which tables and indexes a database really has. */
export function shapeOf(tables: Tables): string {
  const made = tables.sql('SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY name').raw().all()
  return createHash('sha256').update(JSON.stringify(made)).digest('hex')
}

/** One connection, its prepared statements, and the rows of each view over it. */
export class Tables {
  readonly db: Database.Database
  readonly #statements = new Map<string, Database.Statement>()
  readonly #rows = new Map<string, Rows<Columns>>()

  /** Remembers rows by key while it is the only one to write them: most commands ask for the same few again and again. */
  readonly #remembers: boolean
  readonly #remembered = new Map<string, Map<unknown, Row<Columns>>>()

  constructor(file: string, options: Database.Options = {}, remembers = false) {
    this.#remembers = remembers
    this.db = openDatabase(file, { timeout: 2000, ...options })
  }

  sql(text: string): Database.Statement {
    let statement = this.#statements.get(text)
    if (!statement) {
      statement = this.db.prepare(text)
      this.#statements.set(text, statement)
    }
    return statement
  }

  /** Puts a value of `meta`. */
  note(key: string, value: string): void {
    this.sql('INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)').run(key, value)
  }

  readonly read: Read = <C extends Columns>(view: View<C>): Readable<C> => this.rows(view)

  rows<C extends Columns>(view: View<C>): Rows<C> {
    let rows = this.#rows.get(view.name)
    if (!rows) {
      rows = rowsOf(this, view as unknown as View) as Rows<Columns>
      this.#rows.set(view.name, rows)
    }
    return rows as unknown as Rows<C>
  }

  /** The rows of a view that were asked for by key lately; none where others may write them. */
  recent(view: string): Map<unknown, Row<Columns>> | undefined {
    if (!this.#remembers) return undefined
    const rows = this.#remembered.get(view) ?? new Map<unknown, Row<Columns>>()
    this.#remembered.set(view, rows)
    return rows
  }

  /** Rows were taken back: what is remembered of them may be wrong. */
  forget(): void {
    for (const rows of this.#remembered.values()) rows.clear()
  }

  /** Every row in the order of its key, some at a time. */
  *rowsIn(name: string, keys: readonly string[]): Generator<Record<string, Parameter>> {
    const order = `ORDER BY ${keys.join(', ')} LIMIT ${ROWS_AT_ONCE}`
    let rows = this.sql(`SELECT * FROM ${name} ${order}`).all() as Record<string, Parameter>[]
    while (rows.length > 0) {
      yield* rows
      const last = rows.at(-1) as Record<string, Parameter>
      const beyond = `(${keys.join(', ')}) > (${keys.map(() => '?').join(', ')})`
      rows = this.sql(`SELECT * FROM ${name} WHERE ${beyond} ${order}`).all(...keys.map((key) => last[key])) as Record<
        string,
        Parameter
      >[]
    }
  }

  close(): void {
    this.#statements.clear()
    this.#rows.clear()
    this.db.close()
  }
}

const MOST_RECENT = 16_384

/** Is this the only column that is asked about? */
function isAlone(where: object, column: string): boolean {
  for (const name in where) if (name !== column) return false
  return column in where
}

/**
 * Makes rows of the values that SQLite gives: to have it make the objects as well takes twice as long. What is copied has
 * the same room in each, for all that will be put there.
 */
function rowsWith(columns: readonly string[]): (values: unknown) => Row<Columns> {
  const blank = Object.fromEntries(columns.map((column) => [column, null])) as Record<string, Parameter>
  return (values) => {
    const row = { ...blank }
    for (let i = 0; i < columns.length; i++) row[columns[i] as string] = (values as Parameter[])[i] as Parameter
    return row as Row<Columns>
  }
}

function rowsOf(tables: Tables, { name, columns, key }: View): Rows<Columns> {
  const all = Object.keys(columns)
  const own = key[0] as string
  const put = `INSERT INTO ${name} (${all.join(', ')}) VALUES (${all.map(() => '?').join(', ')})`
  const having = (columns: readonly string[]) => {
    const [select, rowOf] = [`SELECT ${columns.join(', ')} FROM ${name}`, rowsWith(columns)]
    const find = (rest: string, ...parameters: Parameter[]) => tables.sql(`${select} ${rest}`).raw().all(parameters).map(rowOf)
    return { select, rowOf, find }
  }
  const { select, rowOf, find } = having(all)
  const byKey = `${select} WHERE ${own} = ?`
  const fewer = new WeakMap<readonly string[], Findable<Columns>>()
  const recent = tables.recent(name)
  const equal = (where: object, between: string) =>
    Object.keys(where)
      .map((column) => `${column} = ?`)
      .join(between)

  const get = (text: string, parameters: Parameter[]): Row<Columns> | undefined => {
    const values = tables.sql(text).raw().get(parameters)
    return values === undefined ? undefined : rowOf(values)
  }
  const getByKey = (value: Parameter): Row<Columns> | undefined => {
    const known = recent?.get(value)
    if (known) return known
    const row = get(byKey, [value])
    if (!row || !recent) return row
    if (recent.size >= MOST_RECENT) recent.delete(recent.keys().next().value)
    recent.set(value, row)
    return row
  }
  return {
    put: (row) => void tables.sql(put).run(all.map((column) => (row as Row<Columns>)[column] ?? null)),
    set: (where, changes) => {
      tables
        .sql(`UPDATE ${name} SET ${equal(changes, ', ')} WHERE ${equal(where, ' AND ')}`)
        .run(...Object.values(changes), ...Object.values(where))
      if (own in where) recent?.delete(where[own])
      else recent?.clear()
    },
    get: (where) => {
      if (isAlone(where, own)) return getByKey(where[own] as Parameter)
      return get(`${select} WHERE ${equal(where, ' AND ')}`, Object.values(where) as Parameter[])
    },
    find,
    only: (columns) => {
      const some = fewer.get(columns) ?? having(columns)
      fewer.set(columns, some)
      return some as Findable<never>
    },
    one: <T>(select: string, rest: string, ...parameters: Parameter[]) =>
      tables.sql(`SELECT ${select} FROM ${name} ${rest}`).raw(false).get(parameters) as T | undefined,
  }
}

export interface SqliteError extends Error {
  code: string
}
export const isSqlite = (error: unknown): error is SqliteError =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' && error.code.startsWith('SQLITE_')
export const isFull = (error: unknown) => isSqlite(error) && error.code === 'SQLITE_FULL'
/**
 * The database itself is damaged, and not merely locked or full. After a failed sync nobody knows whether it is: another
 * sync of the same file could succeed and mean nothing.
 */
export const isDamage = (code: string) => /^SQLITE_(CORRUPT|NOTADB|IOERR_FSYNC|IOERR_DIR_FSYNC)/.test(code)
