// The command line, whole: every verb, and what is said where a word is none.

import { begin, perform } from './cli/program.ts'
import { exit, put, say, Usage, type Verb } from './cli/verb.ts'
import { accountsVerb } from './verbs/accounts.ts'
import { backupVerb } from './verbs/backup.ts'
import { catVerb } from './verbs/cat.ts'
import { doctorVerb } from './verbs/doctor.ts'
import { infoVerb } from './verbs/info.ts'
import { keysVerb } from './verbs/keys.ts'
import { rebuildVerb } from './verbs/rebuild.ts'
import { recoverVerb } from './verbs/recover.ts'
import { replayVerb } from './verbs/replay.ts'
import { restoreVerb } from './verbs/restore.ts'
import { secretsVerb } from './verbs/secrets.ts'
import { serveVerb } from './verbs/serve.ts'
import { verifyVerb } from './verbs/verify.ts'

const verbs: Record<string, Verb> = {
  serve: serveVerb,
  keys: keysVerb,
  accounts: accountsVerb,
  secrets: secretsVerb,
  info: infoVerb,
  cat: catVerb,
  verify: verifyVerb,
  doctor: doctorVerb,
  recover: recoverVerb,
  rebuild: rebuildVerb,
  replay: replayVerb,
  backup: backupVerb,
  restore: restoreVerb,
}

const help = () => `sessile: the record of sessions

${Object.entries(verbs)
  .map(([name, { does }]) => `  ${name.padEnd(8)} ${does}`)
  .join('\n')}

  sessile VERB --help   how to call it

The data directory is the current folder, or SESSILE_HOME.
Exit codes: 0 done; 1 something is wrong with the data, or was refused; 2 the call's words are off;
            3 something acknowledged is lost; 4 another process holds the data;
            5 the log cannot be trusted as it is; 70 a sync failed, and the next start reads the log anew.
`

begin(async () => {
  const [name, ...args] = process.argv.slice(2)
  if (name === undefined) {
    say(help())
    return exit.usage
  }
  if (name === 'help' || name === '--help' || name === '-h') {
    await put(help())
    return exit.done
  }
  const verb = Object.hasOwn(verbs, name) ? verbs[name] : undefined
  if (!verb) throw new Usage(`there is no verb ${name}: sessile help lists them`)
  return perform(verb, args)
})
