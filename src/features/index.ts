// The features: this list is the only one.

import { gather } from '../core/feature.ts'
import { assignmentsFeature } from './assignments.ts'
import { emergencyFeature } from './emergency.ts'
import { keysFeature } from './keys.ts'
import { listsFeature } from './lists.ts'
import { recordsFeature } from './records.ts'
import { sessionsFeature } from './sessions.ts'
import { transcriptsFeature } from './transcripts.ts'

export const features = gather(
  [sessionsFeature, listsFeature, transcriptsFeature, recordsFeature, keysFeature, assignmentsFeature, emergencyFeature],
  new URL('.', import.meta.url),
)
