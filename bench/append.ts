// How fast can durable records be appended in process? Against a bare file with natural group commit (L): whatever has
// queued while the last sync was under way is written and synced at once. Every contender answers each caller after the sync.

import { type Contender, compare, leaveOut, type Row, saturate, scratch } from './measure.ts'
import { bareFile, filePerSession, type Opening, type Store, sessile, sessileBy, sqlite } from './stores.ts'
import { emmettPostgres, emmettSqlite, redis } from './yardsticks.ts'

/** Everything here that claims to be durable, by the name that `bench/syncs.ts` asks for it with. */
export const durable = { bareFile, filePerSession, sqlite, emmettSqlite, emmettPostgres, redis, sessile } satisfies Record<
  string,
  Opening
>

const contending = ({ name, call, records = 1, close }: Store, callers: number, seconds: number): Contender => ({
  name,
  round: async () => records * (await saturate(callers, seconds, call)),
  close,
})

interface Effort {
  rounds: number
  seconds: number
}

/** Lets these stores take turns; the first is the yardstick of the others. */
export async function race(question: string, openings: [Opening, number][], { rounds, seconds }: Effort): Promise<Row[]> {
  const { path, remove } = scratch()
  const contenders: Contender[] = []
  for (const [open, callers] of openings) {
    const store = await open(path, callers)
    if (typeof store === 'string') leaveOut(store)
    else contenders.push(contending(store, callers, seconds))
  }
  const rows = await compare(question, 'records/s', contenders, { rounds, yardstick: contenders[0]?.name as string })
  remove()
  return rows
}

/** A hundred records an append are as many under way as 6,400 callers with one each. */
export const hundreds = (effort: Effort): Promise<Row[]> =>
  race(
    'append in process, 64 callers, 100 records an append',
    [
      [bareFile, 6400],
      [sessileBy(100), 64],
    ],
    effort,
  )

export async function question(effort: Effort): Promise<Row[]> {
  const rows: Row[] = []
  for (const callers of [1, 64, 1024]) {
    // One connection at a time, or thirty-two, have nothing to gain from a thousand callers.
    const stores = callers > 64 ? [bareFile, filePerSession, sqlite, redis, sessile] : Object.values(durable)
    rows.push(
      ...(await race(
        `append in process, ${callers.toLocaleString('en')} ${callers === 1 ? 'caller' : 'callers'}`,
        stores.map((open) => [open, callers]),
        effort,
      )),
    )
  }
  return [...rows, ...(await hundreds(effort))]
}
