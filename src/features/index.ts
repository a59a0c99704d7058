// The features: this list is the only one.

import { gather } from '../core/feature.ts'
import { accountsFeature } from './accounts.ts'
import { assignmentsFeature } from './assignments.ts'
import { auditFeature } from './audit.ts'
import { emergencyFeature } from './emergency.ts'
import { factorsFeature } from './factors.ts'
import { identitiesFeature } from './identities.ts'
import { keysFeature } from './keys.ts'
import { listsFeature } from './lists.ts'
import { ownAccountFeature } from './own-account.ts'
import { passwordsFeature } from './passwords.ts'
import { recordsFeature } from './records.ts'
import { sessionsFeature } from './sessions.ts'
import { signinsFeature } from './signins.ts'
import { transcriptsFeature } from './transcripts.ts'

export const features = gather(
  [
    ...[sessionsFeature, listsFeature, transcriptsFeature, recordsFeature],
    ...[keysFeature, accountsFeature, passwordsFeature, factorsFeature, signinsFeature, ownAccountFeature, identitiesFeature],
    ...[assignmentsFeature, emergencyFeature, auditFeature],
  ],
  new URL('.', import.meta.url),
)
