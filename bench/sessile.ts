// Sessile as the benchmarks use it: in this process, with everything on, a thousand sessions begun.

import { readConfig } from '../src/config.ts'
import { atRoute } from '../src/core/feature.ts'
import { Sessile, system } from '../src/core/sessile.ts'
import { features } from '../src/features/index.ts'
import { openLog, openRecorder } from '../src/open.ts'

/** As whoever sets nothing but a folder has it. */
export const configOf = (home: string) => readConfig({ SESSILE_HOME: home, SESSILE_PORT: '0', SESSILE_LOG_LEVEL: 'silent' })

export const start = atRoute(features.commands, 'POST /session_manager/sessions.start')
export const append = atRoute(features.commands, 'POST /api/v1/sessions/{session_id}/records')
export const end = atRoute(features.commands, 'POST /session_manager/sessions.end')

/** What somebody said: with its envelope and seal a line of about 400 bytes, 50 of them what was said. */
export const said = (user_id: string) => ({
  type: 'transcript.said',
  source: 'transcriber',
  user_id,
  performer_id: 'device-7',
  data: { speaker: 'user', text: 'I would like some water, and the window open.', at: '2031-05-02T09:30:00Z' },
})

export interface Session {
  user_id: string
  session_id: string
}

export const recordsOf = (session_id: string) => `/api/v1/sessions/${session_id}/records`

/** For each session the request that appends to it: what somebody said, or an array of so many of these. */
export const requestsTo = (sessions: Session[], records = 1) =>
  sessions.map(({ user_id, session_id }) => ({
    path: recordsOf(session_id),
    body: JSON.stringify(records === 1 ? said(user_id) : Array.from({ length: records }, () => said(user_id))),
  }))

/** Begins a session and returns its id. */
export async function begun(sessile: Sessile, body: { user_id: string; performer_id: string }, key?: string): Promise<string> {
  const { session_id } = (await sessile.perform(start, { body, caller: system, key })) as { session_id: string }
  return session_id
}

/** Reads, and leaves no trace: this is what is measured against, and stands nowhere else. */
export class Traceless extends Sessile {
  override async note(): Promise<void> {}
}

export interface Opened {
  sessile: Sessile
  ids: string[]
  close(): Promise<void>
}

export async function open(home: string, sessions: number): Promise<Opened> {
  const config = configOf(home)
  const sessile = await openRecorder(openLog({ config }), { config })
  const ids: string[] = []
  for (let i = 0; i < sessions; i += 500) {
    const some = Array.from({ length: Math.min(500, sessions - i) }, (_, n) => i + n)
    await Promise.all(
      some.map(async (n) => {
        ids[n] = await begun(sessile, { user_id: `u${n}`, performer_id: 'd' })
      }),
    )
  }
  // What beginning so many sessions left to be synced is not part of what is measured next.
  await sessile.recorder.checkpoint()
  return { sessile, ids, close: () => sessile.recorder.close() }
}
