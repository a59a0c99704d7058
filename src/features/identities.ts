// Identities: signing in through an outside identity provider (OpenID Connect, authorization code with PKCE). What the
// provider says is believed where it is signed by one of its published keys, is meant for us, and answers what this very
// browser asked. An identity opens an account only after an admin has invited that account under the e-mail address that the
// provider vouches for; from then on it is known by its subject, whatever becomes of the address.

import { hash } from 'node:crypto'
import { createRemoteJWKSet, errors, type JWTPayload, jwtVerify } from 'jose'
import * as z from 'zod'
import { command } from '../core/command.ts'
import type { Refusal } from '../core/errors.ts'
import { events } from '../core/event.ts'
import type { Feature } from '../core/feature.ts'
import type { Settings } from '../core/settings.ts'
import { type Read, view } from '../core/view.ts'
import { accepted, accountName, accounts, activeAccount, byItself, nameOf } from './accounts.ts'
import { as, beginning, device, GONE, leaving, newTokens, telling, tellsOf, tokens } from './signins.ts'

/** So long a browser may take at the provider. */
const FLOW_MS = 10 * 60 * 1000
const PATIENCE_MS = 10_000
const DISCOVERED_MS = 60 * 60 * 1000
/** Clocks differ. */
const TOLERANCE_SECONDS = 60
/** Those of public keys alone: a shared secret would let the provider's other clients sign. */
const ALGORITHMS = ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA']

export const { linked } = events(
  'identity',
  { home: 'account', source: 'identities' },
  {
    linked: {
      v: 1,
      does: 'An account was linked to an identity at an outside provider, which opens it from then on.',
      data: z.strictObject({ issuer: z.string().max(500), subject: z.string().min(1).max(255) }),
      says: ({ user_id, data }) => `${user_id} signs in through ${data.issuer}.`,
      sensitivity: 'plain',
    },
  },
)

const columns = {
  identity: 'TEXT PRIMARY KEY -- the issuer and its subject',
  account_id: 'TEXT NOT NULL',
  linked_at: 'TEXT NOT NULL',
} as const

const identityOf = (issuer: string, subject: string) => JSON.stringify([issuer, subject])

export const identities = view('identities', 'Which account an outside identity opens.', columns, { indexes: ['(account_id)'] }).on(
  linked,
  ({ user_id, timestamp, data: { issuer, subject } }, rows) =>
    rows.put({ identity: identityOf(issuer, subject), account_id: user_id, linked_at: timestamp }),
)

// --- the provider -----------------------------------------------------------------------------------------------------

type Provider = NonNullable<Settings['identity']>

interface Discovered {
  authorization_endpoint: string
  token_endpoint: string
  keys: ReturnType<typeof createRemoteJWKSet>
  at: number
}

const discoveries = new Map<string, Discovered>()

const discovery = z.object({ issuer: z.string(), authorization_endpoint: z.url(), token_endpoint: z.url(), jwks_uri: z.url() })

async function discover({ issuer }: Provider): Promise<Discovered> {
  const known = discoveries.get(issuer)
  if (known && performance.now() - known.at < DISCOVERED_MS) return known
  const told = discovery.parse(await answerOf(`${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`))
  if (told.issuer !== issuer) throw new Error(`it calls itself ${told.issuer}`)
  const { authorization_endpoint, token_endpoint, jwks_uri } = told
  const keys = createRemoteJWKSet(new URL(jwks_uri), { timeoutDuration: PATIENCE_MS })
  const found = { authorization_endpoint, token_endpoint, keys, at: performance.now() }
  discoveries.set(issuer, found)
  return found
}

async function answerOf(url: string, init: RequestInit = {}): Promise<unknown> {
  const response = await fetch(url, { ...init, redirect: 'error', signal: AbortSignal.timeout(PATIENCE_MS) })
  if (!response.ok) throw new Error(`it answered ${response.status}`)
  return response.json()
}

/** Exchanges the code for what the provider says of whoever came with it. */
async function identityFor(
  provider: Provider,
  { code, flow, now }: { code: string; flow: Flow; now: number },
): Promise<JWTPayload> {
  const { issuer, clientId, clientSecret, redirect } = provider
  const { token_endpoint, keys } = await discover(provider)
  const proof =
    clientSecret && Buffer.from(`${encodeURIComponent(clientId)}:${encodeURIComponent(clientSecret)}`).toString('base64')
  const body = new URLSearchParams({
    grant_type: 'authorization_code',
    code,
    redirect_uri: redirect,
    client_id: clientId,
    code_verifier: flow.verifier,
  })
  const headers: Record<string, string> = proof ? { authorization: `Basic ${proof}` } : {}
  const { id_token } = z.object({ id_token: z.string() }).parse(await answerOf(token_endpoint, { method: 'POST', body, headers }))
  const { payload } = await jwtVerify(id_token, keys, {
    algorithms: ALGORITHMS,
    issuer,
    audience: clientId,
    requiredClaims: ['sub', 'iat', 'exp', 'nonce'],
    clockTolerance: TOLERANCE_SECONDS,
    currentDate: new Date(now),
  })
  if (payload.nonce !== flow.nonce) throw new errors.JWTClaimValidationFailed('another nonce', payload, 'nonce')
  // Where it is for several, it must say which of them asked.
  const { aud, azp = Array.isArray(aud) && aud.length > 1 ? undefined : clientId } = payload
  if (azp !== clientId) throw new errors.JWTClaimValidationFailed('another client', payload, 'azp')
  return payload
}

// --- the way there and back -------------------------------------------------------------------------------------------

/** What a browser carries to the provider and back; sealed, so that nobody can make one up. */
interface Flow {
  state: string
  nonce: string
  verifier: string
  until: number
}

const SEALED_ABOUT = 'identity'

const off = { 'identity-off': 'refused', 'identity-unavailable': 'unavailable' } as const
type Off = (reason: keyof typeof off, detail: string) => Refusal

function providerOf({ identity }: Settings, refuse: Off): Provider {
  if (!identity) throw refuse('identity-off', 'No identity provider is set up here.')
  return identity
}

const begin = command({
  at: 'POST /api/v1/identity/begin',
  does: 'Begin to sign in through the identity provider: gives the address to send the browser to, which comes back to /welcome.',
  may: 'sign in',
  named: false,
  carries: true,
  input: z.strictObject({}),
  output: z.object({ url: z.string() }),
  whose: () => [],
  refuses: off,
  prepare: async ({ settings, vault, now, secret, refuse }) => {
    const provider = providerOf(settings, refuse)
    const { authorization_endpoint } = await discover(provider).catch((error: Error) => {
      throw refuse('identity-unavailable', `The identity provider cannot be asked: ${error.message}.`)
    })
    const flow: Flow = { state: secret(), nonce: secret(), verifier: secret(), until: now + FLOW_MS }
    const url = new URL(authorization_endpoint)
    const asked = {
      response_type: 'code',
      client_id: provider.clientId,
      redirect_uri: provider.redirect,
      scope: 'openid email',
      state: flow.state,
      nonce: flow.nonce,
      code_challenge: hash('sha256', flow.verifier, 'base64url'),
      code_challenge_method: 'S256',
    }
    for (const [name, value] of Object.entries(asked)) url.searchParams.set(name, value)
    return { url: url.href, carried: { value: vault.seal(JSON.stringify(flow), SEALED_ABOUT), seconds: FLOW_MS / 1000 } }
  },
  decide: ({ prepared: { url, carried }, reveal }) => {
    // It leaves nothing behind but what the browser carries: nothing has happened yet.
    reveal({ url, carried: { identity: carried } })
    return []
  },
  answer: () => ({}),
})

/** What this browser was sent away with; undefined where it was not, or too long ago, or comes back with another's answer. */
function flowOf(
  sealed: string | undefined,
  state: string,
  now: number,
  unseal: (sealed: string) => string | undefined,
): Flow | undefined {
  const text = sealed === undefined ? undefined : unseal(sealed)
  const flow = text === undefined ? undefined : (JSON.parse(text) as Flow)
  return flow && flow.state === state && now < flow.until ? flow : undefined
}

const finish = command({
  at: 'POST /api/v1/identity/finish',
  does: 'Sign in with what the identity provider sent the browser back with.',
  may: 'sign in',
  named: false,
  tries: ({ state }) => state,
  carries: true,
  makes: true,
  input: z.strictObject({ code: z.string().min(1).max(2000), state: z.string().max(100), device, as }),
  output: tokens,
  whose: () => [],
  refuses: { ...off, 'identity-failed': 'unauthenticated', 'identity-unknown': 'refused' },
  prepare: async ({ input: { code, state }, carried, read, settings, vault, now, ulid, refuse }) => {
    const provider = providerOf(settings, refuse)
    const flow = flowOf(carried?.identity, state, now, (sealed) => vault.unseal(sealed, SEALED_ABOUT))
    if (!flow) throw refuse('identity-failed', 'This browser was not sent to the provider for this, or too long ago: begin again.')
    const told = await identityFor(provider, { code, flow, now }).catch(() => {
      throw refuse('identity-failed', 'What the identity provider said could not be verified: begin again.')
    })
    const identity = { issuer: provider.issuer, subject: told.sub as string }
    const email = told.email_verified === true && typeof told.email === 'string' ? told.email : undefined
    const account_id = accountFor(read, identity, email, now)?.account_id
    if (account_id === undefined) throw refuse('identity-unknown', NO_ACCOUNT)
    return { identity, email, account_id, ...(await newTokens({ vault, now }, { account_id, signin_id: `sign_${ulid()}` })) }
  },
  decide: ({ input, caller, prepared: { identity, email, account_id, kept, made }, read, now, refuse, reveal }) => {
    const found = accountFor(read, identity, email, now)
    if (found?.account_id !== account_id) throw refuse('identity-unknown', NO_ACCOUNT)
    const { carried, ...told } = telling(made, input.as)
    reveal({ ...told, carried: { ...carried, identity: GONE } })
    const owner = byItself(account_id)
    const first = found.isNew ? [linked(owner, identity), accepted(owner, {})] : []
    return [beginning(owner, 'identity', input.device, kept), ...first, ...leaving(read, caller, input.as)]
  },
  answer: tellsOf,
})

const NO_ACCOUNT = 'No account is open to this identity: ask an admin for an invitation under the address that the provider knows.'

/** The account that an identity opens: the one it is linked to, or the one that was invited under its address. */
function accountFor(
  read: Read,
  { issuer, subject }: { issuer: string; subject: string },
  email: string | undefined,
  now: number,
): { account_id: string; isNew: boolean } | undefined {
  const row = read(identities).get({ identity: identityOf(issuer, subject) })
  if (row) return activeAccount(read, row.account_id) && { account_id: row.account_id, isNew: false }
  // Of ASCII alone: among other letters there are some whose small form is one of these, and the address another's.
  const named = accountName.safeParse(email).success ? read(accounts).get({ name: nameOf(email as string) }) : undefined
  const isInvited = named?.deactivated_at === null && now < Date.parse(named.invitation_expires_at ?? '')
  return named && isInvited ? { account_id: named.account_id, isNew: true } : undefined
}

export const identitiesFeature: Feature = {
  name: 'identities',
  events: [linked],
  views: [identities],
  commands: [begin, finish],
}
