// What does the audit trail cost whoever reads? The same questions to the same data, by 64 readers and by one: once as it
// is, with a record of each that is durable before it is answered, and once with nothing written down.

import type { Caller } from '../src/core/policy.ts'
import type { Query } from '../src/core/query.ts'
import type { Sessile } from '../src/core/sessile.ts'
import { features } from '../src/features/index.ts'
import { compare, type Row, saturate, scratch } from './measure.ts'
import { open, Traceless } from './sessile.ts'

const READERS = 64
const SESSIONS = 1000

const query = (at: string) => features.queries.find((query) => query.at === at) as Query
const questions = [
  { name: 'is this session active?', of: query('POST /session_manager/sessions.validate') },
  { name: 'sessions of a user', of: query('GET /api/v1/users/{user_id}/sessions') },
]

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const { sessile, ids, close } = await open(path, SESSIONS)
  const rows: Row[] = []
  const reader: Caller = { account_id: 'reader', role: 'admin', users: 'all', system: false }
  for (const { name, of } of questions) {
    for (const readers of [READERS, 1]) {
      const asking = (who: Sessile) => () =>
        saturate(readers, seconds, (caller, n) => {
          const i = (caller * 17 + n) % SESSIONS
          const input = { user_id: `u${i}`, ...(of === questions[0]?.of ? { session_id: ids[i] } : {}) }
          return who.ask(of, { input, caller: reader })
        })
      const contenders = [
        { name: 'nothing written down', round: asking(new Traceless(sessile)) },
        { name: 'each read in the trail', round: asking(sessile) },
      ]
      const by = readers === 1 ? 'one reader' : `${readers} readers`
      rows.push(...(await compare(`${name}, ${by}`, 'reads/s', contenders, { rounds, yardstick: 'nothing written down' })))
    }
  }
  await close()
  remove()
  return rows
}
