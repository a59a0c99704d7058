// Concealment: where a deployment wishes it, what is out of a caller's reach is refused in the very words in which the same
// route refuses what is not there. What was really refused goes with it, for the trail alone.

import type { Command, Refuses } from './command.ts'
import { Refusal } from './errors.ts'
import type { Action } from './policy.ts'

/** These tell a caller about themselves, and of nobody's data whether it is there. */
const OF_THE_CALLER = ['not-the-system', 'not-yourself', 'second-factor-missing']
const ofOneself: readonly Action[] = ['sign in', 'own account']

type Asked = Pick<Command, 'may' | 'refuses'>

/** The reason for which a route says that something is not there. */
export const absentReason = (refuses: Refuses): string =>
  Object.keys(refuses).find((reason) => refuses[reason] === 'not-found') ?? 'not-found'

export function concealed(error: unknown, asked: Asked): unknown {
  if (!(error instanceof Refusal) || !tellsOfOthers(error, asked)) return error
  return new Refusal('not-found', absentReason(asked.refuses), 'There is nothing here that you may reach.', { hides: error })
}

function tellsOfOthers({ kind, reason }: Refusal, { may, refuses }: Asked): boolean {
  if (reason === 'forbidden') return true
  if (ofOneself.includes(may)) return false
  return kind === 'forbidden' ? !OF_THE_CALLER.includes(reason) : refuses[reason] === 'not-found'
}
