// Prints the records of a session or a user: the log's own lines, or sentences for people.

import { linesOf } from '../core/log.ts'
import { isErased, parseLine } from '../core/record.ts'
import { features } from '../features/index.ts'
import { FileShelf } from '../log/shelf.ts'
import { dim, exit, put, say, text, Usage, type Verb, visible } from './verb.ts'

export const catVerb: Verb = {
  does: 'Print the records of a session or a user, as the lines they are or as sentences.',
  usage: 'sessile cat (SESSION_ID | --user ID) [--says]',
  options: { user: { type: 'string' }, says: { type: 'boolean' }, json: { type: 'boolean' } },
  words: 1,
  async run({ config, values, words: [session] }) {
    const shelf = new FileShelf(config.home)
    const user = text(values.user)
    if ((session === undefined) === (user === undefined)) throw new Usage('cat names a session, or a user with --user')
    const logs = logsOf(shelf, session, user)
    let any = false
    for (const log of logs) {
      any = true
      for (const { bytes } of linesOf(shelf, log))
        await put(values.says ? `${sentence(bytes, config.colour)}\n` : Buffer.concat([bytes, NEWLINE]))
    }
    if (any) return exit.done
    say(`There is no log of ${session ?? user} in ${config.home}.`)
    return exit.found
  },
}

const NEWLINE = Buffer.from('\n')

function* logsOf(shelf: FileShelf, session: string | undefined, user: string | undefined): Generator<string> {
  for (const log of shelf.names())
    if (session !== undefined ? log.endsWith(`/sessions/${session}`) : log.startsWith(`users/${user}/`)) yield log
}

function sentence(bytes: Buffer, colour: boolean): string {
  try {
    const record = parseLine(bytes)
    if (isErased(record)) return `${dim(`#${record.seq}`, colour)} (erased by order of ${visible(record.erased_by)})`
    const says = features.events.named(record.type)?.says(features.events.upcast(record)) ?? record.type
    return `${dim(record.timestamp, colour)} ${visible(says)}`
  } catch {
    // Only a line that the recorder did not write ends here, and one of them must not hide the others.
    return '(this line is not a record: sessile verify says what is wrong with it)'
  }
}
