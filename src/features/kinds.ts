// The kinds of sessions, as data: what each may record at its start and which rules bind it. This is the only place
// where a kind means anything; everywhere else it is a word in a column.

import type { Settings } from '../core/settings.ts'
import type { Attribute, Attributes } from './attributes.ts'

interface Rules {
  does: string
  /** At most one active session of this kind per user. */
  exclusive: boolean
  /** What a list calls the mode of a call. */
  mode: 'voice' | 'video' | null
  /** Seconds; the longest that a session may last. */
  longest: number
  /** Seconds without a record after which the system closes it; 0 for never. */
  idle: number
  attributes: readonly Attribute[]
  defaults: Partial<Attributes>
}

const DAY = 24 * 60 * 60
const HALF_HOUR = 30 * 60

export const kinds = {
  capture: {
    does: 'a device recording a user',
    exclusive: true,
    mode: null,
    longest: DAY,
    idle: HALF_HOUR,
    attributes: ['is_training_data', 'training_intent_label', 'session_notes'],
    defaults: { is_training_data: false },
  },
  voice: {
    does: 'a counselling call by voice',
    exclusive: true,
    mode: 'voice',
    longest: DAY,
    idle: HALF_HOUR,
    attributes: ['counselor_category', 'room_name'],
    defaults: {},
  },
  video: {
    does: 'a counselling call by video',
    exclusive: true,
    mode: 'video',
    longest: DAY,
    idle: HALF_HOUR,
    attributes: ['counselor_category', 'room_name'],
    defaults: {},
  },
  therapy: {
    does: "a therapist's session with a patient",
    exclusive: false,
    mode: null,
    longest: DAY,
    idle: HALF_HOUR,
    attributes: ['language', 'session_date'],
    defaults: {},
  },
  workflow: {
    does: 'a staged job that can be resumed',
    exclusive: false,
    mode: null,
    longest: DAY,
    idle: 0,
    attributes: ['site_name', 'site_description', 'project_key', 'llm_provider_choice'],
    defaults: {},
  },
} as const satisfies Record<string, Rules>

export type Kind = keyof typeof kinds
export const kindNames = Object.keys(kinds) as [Kind, ...Kind[]]

export const rulesOf = (kind: string): Rules => kinds[kind as Kind]

/** How long a session of this kind may be idle, and how long it may last, in seconds; 0 for no limit. */
export const limitsOf = (kind: string, { idle, longest }: Settings) => ({
  idle: idle[kind] ?? rulesOf(kind).idle,
  longest: longest[kind] ?? rulesOf(kind).longest,
})

/** The kinds whose calls a list shows under this mode. */
export const kindsOfMode = (mode: 'voice' | 'video') => kindNames.filter((name) => kinds[name].mode === mode)
