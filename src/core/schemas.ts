// The published contract of the log. Ajv compiles the printed files themselves, not the Zod they came from: what is
// published is what is obeyed, on write and on replay. One validator per type and version, compiled when first needed.

import { readFileSync } from 'node:fs'
import { Ajv2020, type ValidateFunction } from 'ajv/dist/2020.js'
import { type Fault, notRecorded } from './errors.ts'

const folder = new URL('../../schemas/', import.meta.url)

export class Schemas {
  readonly #ajv = new Ajv2020({ validateFormats: false, strict: true, strictRequired: false })
  /** By name, and by version. */
  readonly #compiled = new Map<string, ValidateFunction[]>()

  /** What is wrong with this value, or undefined where it fits `<name>.v<v>.json`. */
  fault(name: string, v: number, value: unknown, under = 'data'): Fault | undefined {
    const validate = this.#compiled.get(name)?.[v] ?? this.#compile(name, v)
    if (validate(value)) return undefined
    const [error] = validate.errors ?? []
    return { path: placeOf(under, error), message: messageOf(error) }
  }

  #compile(name: string, v: number): ValidateFunction {
    const validate = this.#ajv.compile(JSON.parse(textOf(`${name}.v${v}.json`)) as object)
    const versions = this.#compiled.get(name) ?? []
    versions[v] = validate
    this.#compiled.set(name, versions)
    return validate
  }
}

/** Without it nothing can be checked, so nothing is recorded; the next request tries again. */
function textOf(file: string): string {
  try {
    return readFileSync(new URL(file, folder), 'utf8')
  } catch {
    throw notRecorded(`the schema ${file} cannot be read`, false)
  }
}

type AjvError = NonNullable<ValidateFunction['errors']>[number]

function placeOf(under: string, error: AjvError | undefined): string {
  const inner = (error?.instancePath ?? '')
    .split('/')
    .slice(1)
    .map((step) => step.replaceAll('~1', '/').replaceAll('~0', '~'))
  const named = (error?.params as { missingProperty?: string; additionalProperty?: string } | undefined) ?? {}
  const last = named.missingProperty ?? named.additionalProperty
  return [under, ...inner, ...(last === undefined ? [] : [last])].filter((step) => step !== '').join('.')
}

function messageOf(error: AjvError | undefined): string {
  const params = error?.params as { allowedValues?: unknown[] } | undefined
  if (error?.keyword === 'additionalProperties') return 'is not a known field'
  if (error?.keyword === 'required') return 'is required'
  if (error?.keyword === 'enum') return `must be one of ${params?.allowedValues?.join(', ')}`
  return error?.message ?? 'does not fit'
}
