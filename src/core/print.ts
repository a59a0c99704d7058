// Prints what is published from what the features declare: a JSON Schema per event and version, one for a record's
// envelope, and the tables of the views.

import { z } from 'zod'
import type { Gathered } from './feature.ts'
import { opaqueId } from './ids.ts'
import { schemaSql } from './tables.ts'

const sealText = (length: number) => z.string().regex(new RegExp(`^[A-Za-z0-9_-]{${length}}$`))

/** One line of a log. Its `data` is checked by the schema of its type and version. */
const envelope = z
  .strictObject({
    record_id: z.string().regex(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/),
    seq: z.int().min(1),
    type: z.string().regex(/^[a-z][a-z0-9_-]*(\.[a-z0-9][a-z0-9_-]*){1,2}$/),
    v: z.int().min(1),
    source: z.string().regex(/^[a-z][a-z0-9_.-]{0,63}$/),
    user_id: opaqueId,
    session_id: z
      .string()
      .regex(/^sess_[0-9A-HJKMNP-TV-Z]{26}$/)
      .optional(),
    performer_id: opaqueId,
    timestamp: z.string().regex(/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$/),
    command_id: z
      .string()
      .regex(/^[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{22}$/)
      .optional(),
    data: z.record(z.string(), z.unknown()),
    salt: sealText(22),
    hash: sealText(43),
  })
  .describe('One line of a log. The fields stand in this order; salt and hash are the seal.')

/** The JSON Schema of a Zod schema, as it is published. */
export function jsonSchema(schema: z.ZodType, io: 'input' | 'output' = 'output'): Record<string, unknown> {
  return z.toJSONSchema(schema, { io, target: 'draft-2020-12', override: keepDefault }) as Record<string, unknown>
}

/** Of what is read from another form first, Zod drops what stands in for it where it is not given. */
const keepDefault: NonNullable<Parameters<typeof z.toJSONSchema>[1]>['override'] = ({ zodSchema, jsonSchema }) => {
  const { def } = zodSchema._zod
  if (def.type === 'default') jsonSchema.default ??= def.defaultValue as typeof jsonSchema.default
}

const text = (value: unknown) => `${JSON.stringify(value, null, 2)}\n`

/** The schemas by file name. */
export function schemaFiles({ events }: Gathered): Map<string, string> {
  const files = new Map<string, string>([['record.v1.json', text(titled('record.v1', envelope))]])
  for (const { type, v, data, does, older } of events.all) {
    files.set(`${type}.v${v}.json`, text(titled(`${type}.v${v}`, data.describe(does))))
    for (const old of older) files.set(`${type}.v${old.v}.json`, text(titled(`${type}.v${old.v}`, old.data)))
  }
  return files
}

function titled(title: string, schema: z.ZodType): Record<string, unknown> {
  const { $schema, ...rest } = jsonSchema(schema)
  return { $schema, $id: `https://sessile.example/schemas/${title}.json`, title, ...rest }
}

/** The tables by file name. */
export function projectionFiles({ views }: Gathered): Map<string, string> {
  return new Map([['sessile.sql', schemaSql(views)]])
}
