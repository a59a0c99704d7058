// What is said in a session, as transcribers and callers post it, and the flag that a classifier raises.

import * as z from 'zod'
import { events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import { instant } from '../core/fields.ts'
import type { Recorded } from '../core/record.ts'
import type { Standing } from '../core/standing.ts'
import type { Some } from '../core/turn.ts'

const speaker = z.string().min(1).max(64)
const confidence = z.number().min(0).max(1)
const offset = z.number().min(0)

export const { said } = events(
  'transcript',
  { home: 'session', source: 'transcriber' },
  {
    said: {
      v: 1,
      does: 'Somebody said something. Of the records with one segment_id, the last one stands.',
      data: z.strictObject({
        speaker: speaker.describe('user, bot, therapist, patient, or another'),
        text: z.string().max(100_000),
        at: instant.describe('when, on the device’s clock'),
        lang: z.string().max(35).optional(),
        confidence: confidence.optional(),
        segment_id: z.string().min(1).max(128).optional(),
        words: z
          .array(
            z.strictObject({
              text: z.string().max(500),
              start: offset.optional(),
              end: offset.optional(),
              confidence: confidence.optional(),
            }),
          )
          .max(1000)
          .optional(),
      }),
      says: ({ data }) => `${data.speaker} said: ${data.text}`,
      downstream: true,
    },
  },
)

export const { flagged } = events(
  'crisis',
  { home: 'session', source: 'classifier' },
  {
    flagged: {
      v: 1,
      does: 'Something in the session called for immediate attention.',
      data: z.strictObject({ note: z.string().max(1000).optional(), segment_id: z.string().min(1).max(128).optional() }),
      says: ({ source }) => `A crisis was flagged by ${source}.`,
      sensitivity: 'clinical',
      downstream: true,
    },
  },
)

type Said = Recorded<z.infer<typeof said.data>>

export const utterance = z.object({ timestamp: z.string(), speaker: z.string(), text: z.string() })

/** The transcript: in the order of speaking, a later record of a segment in the place of the earlier one. */
export async function* transcriptOf(standing: (which: Standing) => Some<Recorded>): Some<z.infer<typeof utterance>> {
  const keyOf = (record: Recorded) => (record as Said).data.segment_id
  for await (const some of standing({ type: said.type, keyOf })) {
    yield some.map((record) => {
      const { at, speaker, text } = (record as Said).data
      return { timestamp: at, speaker, text }
    })
  }
}

export const transcriptsFeature: Feature = { name: 'transcripts', events: [said, flagged] }
