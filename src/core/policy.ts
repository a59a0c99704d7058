// Who may do what: one table, read by everything, and everything that it does not name is denied.

import { Refusal } from './errors.ts'

export const roles = ['device', 'admin'] as const
export type Role = (typeof roles)[number]
export type Action = 'record' | 'read' | 'keep keys' | 'operate'

/** Who is asking, as far as it has been proved. */
export interface Caller {
  account_id: string
  role: Role
  /** The users whose data is in this caller's scope. */
  users: 'all' | readonly string[]
  /** May this caller record as `system`? */
  system: boolean
  /** Does this caller own the files? Proved by a token that only they can read, and by no key. */
  operator?: boolean
}

type Reach = 'none' | 'in scope' | 'all'

const policy: Record<Action, Record<Role, Reach>> = {
  record: { device: 'in scope', admin: 'all' },
  read: { device: 'in scope', admin: 'all' },
  'keep keys': { device: 'none', admin: 'all' },
  operate: { device: 'none', admin: 'all' },
}

/** The users whom the caller may do this to: all, or a list. */
export function reach(caller: Caller, action: Action): 'all' | readonly string[] {
  const reach = policy[action][caller.role]
  if (reach === 'all') return 'all'
  return reach === 'in scope' ? caller.users : []
}

/** Refuses unless the caller may do this to the data of all these users. */
export function permit(caller: Caller, action: Action, users: readonly string[]): void {
  const within = reach(caller, action)
  if (within === 'all') return
  if (within.length > 0 && users.every((user) => within.includes(user))) return
  throw new Refusal('forbidden', 'forbidden', 'This key does not reach that far.')
}

/** Refuses a record in the system's name from those who may not speak for it. */
export function permitPerformer(caller: Caller, performer: string): void {
  if (performer !== 'system' || caller.system || caller.role === 'admin') return
  throw new Refusal('forbidden', 'not-the-system', 'This key may not record in the name of the system.')
}
