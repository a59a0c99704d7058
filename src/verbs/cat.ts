// Prints the records of a session, a user or a day's audit trail: the log's own lines, or sentences for people.

import { dim, exit, Printout, say, text, Usage, type Verb, visible } from '../cli/verb.ts'
import { linesOf } from '../core/log.ts'
import { isErased, parseLine } from '../core/record.ts'
import { features } from '../features/index.ts'
import { FileShelf } from '../log/shelf.ts'

export const catVerb: Verb = {
  does: 'Print the records of a session, a user or a day’s audit trail, as the lines they are or as sentences.',
  usage: 'sessile cat (SESSION_ID | --user ID | --audit DAY) [--says]',
  options: { user: { type: 'string' }, audit: { type: 'string' }, says: { type: 'boolean' }, json: { type: 'boolean' } },
  words: 1,
  async run({ config, values, words: [session] }) {
    const shelf = new FileShelf(config.home)
    const [user, day] = [text(values.user), text(values.audit)]
    const named = [session, user, day].filter((name) => name !== undefined)
    if (named.length !== 1) throw new Usage('cat names a session, a user with --user, or a day of the trail with --audit')
    const out = new Printout()
    let any = false
    try {
      for (const log of shelf.names()) {
        if (!isOf(log, { session, user, day })) continue
        any = true
        for (const { bytes } of linesOf(shelf, log))
          await out.add(values.says ? Buffer.from(sentence(bytes, config.colour)) : bytes)
      }
    } finally {
      await out.flush()
    }
    if (any) return exit.done
    say(`There is no log of ${named[0]} in ${config.home}.`)
    return exit.found
  },
}

/** Is this log the one that was named, or one of its parts? */
function isOf(log: string, { session, user, day }: Record<'session' | 'user' | 'day', string | undefined>): boolean {
  if (session !== undefined) return log.endsWith(`/sessions/${session}`)
  return user !== undefined ? log.startsWith(`users/${user}/`) : log === `audit/${day}` || log.startsWith(`audit/${day}.`)
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
