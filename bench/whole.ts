// How many whole sessions a second: start, twenty times say, end, each call waiting for its answer, every session another
// user's. In process with named requests, and over HTTP.

import { join } from 'node:path'
import { system } from '../src/core/sessile.ts'
import { fed, sessileServer } from './children.ts'
import { type Contender, compare, type Row, saturate, scratch } from './measure.ts'
import { append, begun, end, open, said } from './sessile.ts'

const SAYS = 20
const CALLERS = 64

async function inProcess(folder: string, seconds: number): Promise<Contender> {
  const { sessile, close } = await open(folder, 0)
  let key = 0
  let users = 0
  const visit = async () => {
    const user_id = `w${users++}`
    const asking = () => ({ caller: system, key: `k${key++}` })
    const body = { user_id, performer_id: 'd' }
    const session_id = await begun(sessile, body, `k${key++}`)
    const record = said(user_id)
    for (let i = 0; i < SAYS; i++) await sessile.perform(append, { body: record, path: { session_id }, ...asking() })
    await sessile.perform(end, { body: { ...body, session_id }, ...asking() })
  }
  return { name: `Sessile in process, ${CALLERS} callers`, round: () => saturate(CALLERS, seconds, visit), close }
}

async function overHttp(folder: string, seconds: number): Promise<Contender> {
  const server = await sessileServer(folder)
  const { port, key } = server
  let run = 0
  const round = async () => {
    const load = { port, key, connections: CALLERS, seconds, says: SAYS, said: said(''), run: run++ }
    return Number(await fed('./visits.mjs', load))
  }
  return { name: `Sessile over HTTP, ${CALLERS} connections`, round, close: () => server.stop() }
}

export async function question({ rounds, seconds }: { rounds: number; seconds: number }): Promise<Row[]> {
  const { path, remove } = scratch()
  const contenders = [await inProcess(join(path, 'here'), seconds), await overHttp(join(path, 'there'), seconds)]
  const rows = await compare(`whole sessions: start, ${SAYS} × say, end`, 'sessions/s', contenders, { rounds })
  remove()
  return rows.map((row) => ({ ...row, note: `${Math.round(row.median * (SAYS + 2)).toLocaleString('en')} records/s` }))
}
