// Prints what is published from what the features declare: a JSON Schema per event and version, one for a record's
// envelope, the tables of the views, and the page of the policy.

import * as z from 'zod'
import type { Gathered } from './feature.ts'
import { opaqueId, sessionId } from './fields.ts'
import { type Action, actions, policy, reaches, roles, withoutFactor } from './policy.ts'
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
    session_id: sessionId.optional(),
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

/** Who may do what, and what each route asks of whoever calls it. */
export function policyPage({ commands, queries, events }: Gathered): string {
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |\n`
  const head = (cells: readonly string[]) => row(cells) + row(cells.map(() => '---'))
  const of = (action: Action) => roles.map((role) => policy[action][role])
  const routes = [...queries, ...commands].filter(({ at }) => at !== undefined)
  const pathOf = ({ at = '' }) => at.split(' ').reverse().join(' ')
  return [
    '# Who may do what\n',
    'Printed from `src/core/policy.ts` and from what the routes declare, by `npm run print`. What is not named here is refused.\n',
    head(['action', '', ...roles]) +
      Object.entries(actions)
        .map(([action, words]) => row([action, words, ...of(action as Action)]))
        .join(''),
    head(['whose data', '']) +
      Object.entries(reaches)
        .map(([reach, words]) => row([reach, words]))
        .join(''),
    `Where a second factor is demanded (\`SESSILE_SECOND_FACTOR\`), whoever signs in with a password and without one may do nothing but: ${withoutFactor.join(', ')}.\n`,
    '## Routes\n',
    head(['route', 'action', ...roles]) +
      routes
        .sort((a, b) => (pathOf(a) < pathOf(b) ? -1 : 1))
        .map(({ at, may }) => row([`\`${at}\``, may, ...of(may)]))
        .join(''),
    '## Records\n',
    'A record that is `clinical` is told to those alone who may `read notes`, in every way of reading.\n',
    head(['record', 'is', 'of']) +
      events.all.map(({ type, sensitivity, home }) => row([`\`${type}\``, sensitivity, `the log of the ${home}`])).join(''),
  ].join('\n')
}
