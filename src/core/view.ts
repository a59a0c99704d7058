// Views: tables folded from records. A feature declares the columns (with a comment for the analysts who will query
// them) and, per event, what a record does to the rows.

import type { z } from 'zod'
import type { Event } from './event.ts'
import type { Recorded } from './record.ts'

type Column = `${'TEXT' | 'INTEGER' | 'REAL' | 'BLOB'}${string}`
export type Columns = Record<string, Column>

type Affinity<C> = C extends `TEXT${string}` ? string : C extends `BLOB${string}` ? Buffer : number
type Always = `${string}${'NOT NULL' | 'PRIMARY KEY'}${string}`
type Value<C> = C extends Always ? Affinity<C> : Affinity<C> | null

/** A row, its types read off the columns' SQL. */
export type Row<C extends Columns> = { [K in keyof C]: Value<C[K]> }
/** A new row: columns that may be NULL may be left out. */
export type NewRow<C extends Columns> = { [K in keyof C as C[K] extends Always ? K : never]: Value<C[K]> } & {
  [K in keyof C as C[K] extends Always ? never : K]?: Value<C[K]> | undefined
}
export type Parameter = string | number | Buffer | null

/** The rows of one view, for a fold to write. */
export interface Rows<C extends Columns> extends Readable<C> {
  put(row: NewRow<C>): void
  set(where: Partial<Row<C>>, changes: Partial<Row<C>>): void
}

/** Rows that can be looked for. `rest` is SQL after `SELECT … FROM <view>`; values go in as parameters. */
export interface Findable<C extends Columns> {
  find(rest: string, ...parameters: Parameter[]): Row<C>[]
}

/** The rows of one view, for anyone to read. */
export interface Readable<C extends Columns> extends Findable<C> {
  get(where: Partial<Row<C>>): Row<C> | undefined
  /** The same rows with these columns alone, for whoever looks for many. What is made for it is kept as long as this very array is. */
  only<const K extends keyof C & string>(columns: readonly K[]): Findable<Pick<C, K>>
  one<T>(select: string, rest: string, ...parameters: Parameter[]): T | undefined
}

/** Reads any view as it stands: for a command, as it stands within the batch; for a query, what is durable. */
export type Read = <C extends Columns>(view: View<C>) => Readable<C>

type Fold = (record: Recorded, rows: Rows<Columns>, read: Read) => void

export interface View<C extends Columns = Columns> {
  readonly name: string
  readonly does: string
  readonly columns: C
  readonly key: readonly string[]
  readonly indexes: readonly string[]
  readonly folds: ReadonlyMap<string, Fold>
  /**
   * `read`: other views, as far as they have come. Records of different logs come in any order in a rebuild: a fold that
   * looks at what others have made of another log must come to the same rows whichever came first.
   */
  on<S extends z.ZodType>(event: Event<S>, fold: (record: Recorded<z.infer<S>>, rows: Rows<C>, read: Read) => void): View<C>
}

/** Declares a view. `indexes` are what stands after `CREATE [UNIQUE] INDEX … ON <view>`, `UNIQUE` first where it is one. */
export function view<const C extends Columns>(
  name: string,
  does: string,
  columns: C,
  { indexes = [] }: { indexes?: string[] } = {},
): View<C> {
  const folds = new Map<string, Fold>()
  const key = Object.keys(columns).filter((column) => columns[column]?.includes('PRIMARY KEY'))
  if (key.length !== 1) throw new Error(`view ${name} needs one primary key`)
  const made: View<C> = {
    name,
    does,
    columns,
    key,
    indexes,
    folds,
    on(event, fold) {
      if (folds.has(event.type)) throw new Error(`view ${name} folds ${event.type} twice`)
      folds.set(event.type, fold as unknown as Fold)
      return made
    },
  }
  return made
}

/** The SQL that makes a view, each column's comment beside it. */
export function tableOf({ name, does, columns }: View): string {
  const entries = Object.entries(columns)
  const lines = entries.map(([column, text], i) => {
    const [sql, comment] = text.split(' -- ')
    return `  ${column} ${sql}${i < entries.length - 1 ? ',' : ''}${comment ? ` -- ${comment}` : ''}`
  })
  return `-- ${does}\nCREATE TABLE ${name} (\n${lines.join('\n')}\n) STRICT, WITHOUT ROWID;\n`
}

export function indexesOf({ name, indexes }: View): string[] {
  return indexes.map((text, i) => {
    const unique = text.startsWith('UNIQUE ')
    return `CREATE ${unique ? 'UNIQUE ' : ''}INDEX ${name}_${i + 1} ON ${name} ${unique ? text.slice(7) : text};\n`
  })
}
