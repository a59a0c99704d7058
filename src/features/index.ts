// The features: this list is the only one.

import { gather } from '../core/feature.ts'
import { keysFeature } from './keys.ts'
import { listsFeature } from './lists.ts'
import { recordsFeature } from './records.ts'
import { sessionsFeature } from './sessions.ts'
import { transcriptsFeature } from './transcripts.ts'

export const features = gather(
  [sessionsFeature, listsFeature, transcriptsFeature, recordsFeature, keysFeature],
  new URL('.', import.meta.url),
)
