// Who may do what: one table, read by everything, and everything that it does not name is denied.

import { Refusal } from './errors.ts'

export const roles = ['nobody', 'device', 'patient', 'therapist', 'researcher', 'analyst', 'admin'] as const
/** `nobody` is whoever has not proved who they are. */
export type Role = (typeof roles)[number]

/** What there is to do, in the words of the contract. */
export const actions = {
  record: 'start, end and append, and ask whether a session is active',
  read: 'sessions, transcripts, audio',
  'read notes': 'notes, diagnoses, private entries',
  replay: 'replay and research export',
  analyse: 'SQL over the analysis views',
  'sign in': 'sign up, accept an invitation, sign in, refresh',
  'own account': 'one’s own sign-ins, password and second factor',
  'see assignments': 'who is assigned to whom',
  'break glass': 'emergency access, for a reason and for an hour',
  administer: 'accounts, keys, assignments, erasure, the audit trail',
  operate: 'what Sessile does by itself',
} as const
export type Action = keyof typeof actions

/** Whose data may be reached. */
export const reaches = {
  '–': 'nobody’s: refused',
  open: 'nobody’s, and yet it may be done, also by whoever has not proved who they are',
  self: 'one’s own; a therapist’s own assignments',
  'in scope': 'of the users whom the key names',
  assigned: 'of the users assigned to the therapist at this moment, and of those reached by emergency access',
  pseudonymous: 'of those who consented and of training data, under pseudonyms, and of nobody by name',
  all: 'everybody’s, and what is nobody’s',
} as const
type Reach = keyof typeof reaches

/** Who is asking, as far as it has been proved. */
export interface Caller {
  account_id: string
  role: Role
  /** The users in this caller's reach: those in a key's scope, those assigned to a therapist, oneself. */
  users: 'all' | readonly string[]
  /** Those of them who are within reach by emergency access alone, and until when. */
  emergencies?: ReadonlyMap<string, string>
  /** May this caller record as `system`? */
  system: boolean
  /** What it was proved by: the id of a key, or of a sign-in. */
  by?: string
  /** Is a second factor demanded of this caller, by which the sign-in was not proved? */
  lacksFactor?: boolean
  /** Does this caller own the files? Proved by a token that only they can read, and by no key. */
  operator?: boolean
}

export const policy: Record<Action, Record<Role, Reach>> = {
  // biome-ignore format: it is read as a table
  record:            { nobody: '–',    device: 'in scope', patient: 'self', therapist: 'assigned', researcher: '–',            analyst: '–',            admin: 'all' },
  // biome-ignore format: it is read as a table
  read:              { nobody: '–',    device: '–',        patient: 'self', therapist: 'assigned', researcher: '–',            analyst: '–',            admin: 'all' },
  // biome-ignore format: it is read as a table
  'read notes':      { nobody: '–',    device: '–',        patient: '–',    therapist: 'assigned', researcher: '–',            analyst: '–',            admin: 'all' },
  // biome-ignore format: it is read as a table
  replay:            { nobody: '–',    device: '–',        patient: '–',    therapist: '–',        researcher: 'pseudonymous', analyst: '–',            admin: 'all' },
  // biome-ignore format: it is read as a table
  analyse:           { nobody: '–',    device: '–',        patient: '–',    therapist: '–',        researcher: 'pseudonymous', analyst: 'pseudonymous', admin: 'all' },
  // biome-ignore format: it is read as a table
  'sign in':         { nobody: 'open', device: 'open',     patient: 'open', therapist: 'open',     researcher: 'open',         analyst: 'open',         admin: 'open' },
  // biome-ignore format: it is read as a table
  'own account':     { nobody: '–',    device: '–',        patient: 'self', therapist: 'self',     researcher: 'self',         analyst: 'self',         admin: 'self' },
  // biome-ignore format: it is read as a table
  'see assignments': { nobody: '–',    device: '–',        patient: 'self', therapist: 'self',     researcher: '–',            analyst: '–',            admin: 'all' },
  // biome-ignore format: it is read as a table
  'break glass':     { nobody: '–',    device: '–',        patient: '–',    therapist: 'all',      researcher: '–',            analyst: '–',            admin: '–' },
  // biome-ignore format: it is read as a table
  administer:        { nobody: '–',    device: '–',        patient: '–',    therapist: '–',        researcher: '–',            analyst: '–',            admin: 'all' },
  // biome-ignore format: it is read as a table
  operate:           { nobody: '–',    device: '–',        patient: '–',    therapist: '–',        researcher: '–',            analyst: '–',            admin: 'all' },
}

/** What may be done without a second factor that is demanded: set one up, sign in with it, and sign out. */
export const withoutFactor: readonly Action[] = ['sign in', 'own account']

/** Refuses whoever lacks a second factor that is demanded, before anything is looked for. */
export function demandFactor({ lacksFactor }: Caller, action: Action): void {
  if (!lacksFactor || withoutFactor.includes(action)) return
  const how = 'Set up a second factor (POST /api/v1/account/totp) where you have none, and sign in with its code.'
  throw new Refusal('forbidden', 'second-factor-missing', how)
}

/** The users whom the caller may do this to, by name: all, or a list; undefined where the table has nothing for the caller. */
function within({ role, account_id, users }: Caller, action: Action): 'all' | readonly string[] | undefined {
  const reach = policy[action][role]
  if (reach === 'all') return 'all'
  if (reach === 'self') return [account_id]
  return reach === 'in scope' || reach === 'assigned' ? users : undefined
}

/** The users whom the caller may do this to. Refuses where there cannot be any. */
export function reach(caller: Caller, action: Action): 'all' | readonly string[] {
  const users = within(caller, action)
  if (!users) throw caller.role === 'nobody' ? unproved() : forbidden(caller, action)
  return users
}

/** May the caller do this to the data of all these users? What is nobody's is for those who reach all. */
export function permits(caller: Caller, action: Action, users: readonly string[]): boolean {
  if (isOpen(action, caller)) return true
  const reached = within(caller, action) ?? []
  return reached === 'all' || (users.length > 0 && users.every((user) => reached.includes(user)))
}

/** Refuses unless the caller may do this to the data of all these users. */
export function permit(caller: Caller, action: Action, users: readonly string[]): void {
  if (!permits(caller, action, users)) throw forbidden(caller, action)
}

/** May this be done without reaching anybody's data? */
export const isOpen = (action: Action, { role }: Caller) => policy[action][role] === 'open'

/** Whoever has not proved who they are. */
export const nobody: Caller = { account_id: 'anonymous', role: 'nobody', users: [], system: false }

export const unproved = () =>
  new Refusal(
    'unauthenticated',
    'unauthenticated',
    'A request says who asks: Authorization: Bearer …, with a key or an access token.',
  )

/** What somebody is told who may do such a thing, and not here. */
const beyond: Partial<Record<Reach, string>> = {
  self: 'You reach what is your own, and nobody else’s.',
  'in scope': 'This key does not reach that user.',
  assigned: 'You are not assigned to that user, or no longer. Where it cannot wait, there is emergency access.',
}

const forbidden = ({ role }: Caller, action: Action) =>
  new Refusal('forbidden', 'forbidden', beyond[policy[action][role]] ?? `This is not for the role ${role}: ${actions[action]}.`)

/** Refuses a record in the name of somebody for whom the caller may not speak. A device says who performed what it saw. */
export function permitPerformer(caller: Caller, performer: string): void {
  if (caller.role === 'admin') return
  if (performer === 'system') {
    if (!caller.system) throw new Refusal('forbidden', 'not-the-system', 'This caller may not record in the name of the system.')
  } else if (caller.role !== 'device' && performer !== caller.account_id) {
    throw new Refusal('forbidden', 'not-yourself', 'Whoever signs in records in their own name.')
  }
}
