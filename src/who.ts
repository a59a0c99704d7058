// Who holds a credential: the owner of the files by a token that only they can read, a device or an admin by a key, a
// person by the access token of a sign-in.

import { digest } from './core/ids.ts'
import type { Caller } from './core/policy.ts'
import type { Sessile } from './core/sessile.ts'
import { holderOf } from './features/keys.ts'
import { signedIn } from './features/signins.ts'
import type { IdentifyParts } from './http/identify.ts'

const operatorCaller: Caller = { account_id: 'operator', role: 'admin', users: 'all', system: true, operator: true }

/** `running`: Sessile once it has recovered, and the digest of the operator's token. */
export function whoHolds(
  running: () => { sessile: Sessile | undefined; operator: string | undefined },
): Pick<IdentifyParts, 'holder' | 'bearer'> {
  const byKey = (secret: string): Caller | undefined => {
    const { sessile, operator } = running()
    // Secrets are compared by their digests, of which time may tell what it will.
    const stated = digest(secret)
    if (stated === operator) return operatorCaller
    return sessile?.reading((read) => holderOf(read, stated))
  }
  const bearer = async (token: string): Promise<Caller | undefined> => {
    const { sessile } = running()
    if (!sessile) return undefined
    const now = sessile.source.now()
    const claims = await sessile.vault.verify('access', token, now)
    return claims && sessile.reading((read) => signedIn(read, claims, { now, settings: sessile.settings }))
  }
  return {
    bearer,
    // A token begins as every header of JSON does. A key that happens to begin so is still a key.
    holder: (secret) => (secret.startsWith('eyJ') ? bearer(secret).then((caller) => caller ?? byKey(secret)) : byKey(secret)),
  }
}
