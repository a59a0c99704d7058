// What a session may be told of itself when it starts, beside who sits there. Which of it each kind has is in kinds.ts.

import * as z from 'zod'
import { day } from '../core/fields.ts'

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
export type Attributes = { [A in Attribute]: z.infer<(typeof attributes)[A]['schema']> }

/** The schemas of all attributes, each optional: what a start may carry. */
export const attributeSchemas = Object.fromEntries(
  Object.entries(attributes).map(([name, { schema }]) => [name, schema.optional()]),
) as { [A in Attribute]: z.ZodOptional<(typeof attributes)[A]['schema']> }

export const attributeNames = Object.keys(attributes) as Attribute[]
