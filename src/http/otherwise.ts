// Addresses that are written otherwise than we would: whatever reads differently to somebody is read by Hono, from objects of the
// web's own, which its adapter makes of each request. This is loaded with the first of them. To name these objects is to have Node
// load all that can fetch, too: ten MiB, which hardly anybody ever needs.

import type { IncomingMessage, ServerResponse } from 'node:http'
import { getRequestListener, type HttpBindings, RequestError } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { Refusal } from '../core/errors.ts'
import type { Exchange } from './frame.ts'

export type Listener = (incoming: IncomingMessage, outgoing: ServerResponse) => void

export type Bound = { Bindings: HttpBindings & Exchange }

interface Ways {
  /** Answers the request wherever it leads. */
  answer(request: Request, env: Bound['Bindings']): Promise<unknown> | unknown
  /** The answer where it cannot lead anywhere. */
  unrouted(error: unknown): Response
}

export const listenerOf = ({ answer, unrouted }: Ways): Listener =>
  getRequestListener(
    async (request, env) => {
      await answer(request, env as Bound['Bindings'])
      // Answers are written by the frame, also those to HEAD, of which Hono would make another one.
      return RESPONSE_ALREADY_SENT
    },
    { errorHandler: (error) => unrouted(error instanceof RequestError ? noUrl() : error) },
  )

/** A request may be one of HTTP, and yet name no address that could be looked up. */
const noUrl = () => new Refusal('invalid', 'not-http', 'The host and the address make no URL.')
