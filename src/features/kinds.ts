// The kinds of sessions, as data: what each may record at its start and which rules bind it. This is the only place
// where a kind means anything; everywhere else it is a word in a column.

import * as z from 'zod'
import { day } from '../core/fields.ts'
import type { Settings } from '../core/settings.ts'

const text = (most: number) => z.string().max(most)

/** Every attribute that some kind records at start: its schema, and the column of `sessions` that holds it. */
export const attributes = {
  is_training_data: { schema: z.boolean(), column: 'INTEGER -- capture: 1 where the recording may train a model' },
  training_intent_label: { schema: text(200), column: 'TEXT -- capture: what the user was asked to express' },
  session_notes: { schema: text(4000), column: 'TEXT -- capture: a remark on the recording' },
  counselor_category: { schema: text(100), column: 'TEXT -- voice, video: what sort of counsellor was called' },
  room_name: { schema: text(200), column: 'TEXT -- voice, video: the room of the call' },
  language: { schema: text(35), column: 'TEXT -- therapy: the language spoken' },
  session_date: { schema: day, column: 'TEXT -- therapy: the day of the sitting' },
  site_name: { schema: text(200), column: 'TEXT -- workflow: the site that the job is about' },
  site_description: { schema: text(4000), column: 'TEXT -- workflow: what the site is' },
  project_key: { schema: text(100), column: 'TEXT -- workflow: the project that tickets go to' },
  llm_provider_choice: { schema: text(100), column: 'TEXT -- workflow: the model provider that was chosen' },
} as const

export type Attribute = keyof typeof attributes
type Attributes = { [A in Attribute]: z.infer<(typeof attributes)[A]['schema']> }

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
export const kind = z.enum(kindNames)

export const rulesOf = (kind: string): Rules => kinds[kind as Kind]

/** The schemas of all attributes, each optional: what a start may carry. */
export const attributeSchemas = Object.fromEntries(
  Object.entries(attributes).map(([name, { schema }]) => [name, schema.optional()]),
) as { [A in Attribute]: z.ZodOptional<(typeof attributes)[A]['schema']> }

export const attributeNames = Object.keys(attributes) as Attribute[]

/** The attributes among these that the kind does not have. */
export const foreignTo = (kind: Kind, given: object) =>
  Object.keys(given).filter((name) => name in attributes && !rulesOf(kind).attributes.includes(name as Attribute))

/** How long a session of this kind may be idle, and how long it may last, in seconds; 0 for no limit. */
export const limitsOf = (kind: string, { idle, longest }: Settings) => ({
  idle: idle[kind] ?? rulesOf(kind).idle,
  longest: longest[kind] ?? rulesOf(kind).longest,
})

/** The kinds whose calls a list shows under this mode. */
export const kindsOfMode = (mode: 'voice' | 'video') => kindNames.filter((name) => kinds[name].mode === mode)
