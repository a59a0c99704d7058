// An identity provider for tests: it publishes its keys, sends browsers back with a code, and gives an id_token for the code
// to whoever proves that they asked. What it says can be twisted.

import { createHash, randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { exportJWK, generateKeyPair, type JWTHeaderParameters, type JWTPayload, SignJWT } from 'jose'
import type { Settings } from '../src/core/settings.ts'
import { later } from './harness.ts'

export interface Person {
  sub: string
  email?: string
  email_verified?: boolean
}

/** What it does otherwise than it should. */
export interface Twist {
  claims?: JWTPayload
  header?: Partial<JWTHeaderParameters>
  /** Signs with a key that it has not published. */
  foreignKey?: boolean
  /** Says so many seconds ago, or from now. */
  seconds?: number
  raw?: (id_token: string) => string
}

export interface IdentityProvider {
  identity: NonNullable<Settings['identity']>
  twist: Twist
  /** What a browser does there: whoever is at it agrees, and is sent back. */
  visit(url: string, person: Person): { code: string; state: string }
  /** How often a code was exchanged, or tried to be. */
  exchanges: number
}

const CLIENT = 'sessile'
const SECRET = 'the secret of this client'

export async function identityProvider(now: () => number = Date.now): Promise<IdentityProvider> {
  const [own, foreign] = await Promise.all([generateKeyPair('ES256'), generateKeyPair('ES256')])
  const kid = randomUUID()
  const keys = [{ ...(await exportJWK(own.publicKey)), kid, alg: 'ES256', use: 'sig' }]
  const codes = new Map<string, { person: Person; asked: URLSearchParams }>()

  const server = createServer(async (request, response) => {
    const answer = (status: number, body: unknown) => {
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    }
    if (request.url === '/.well-known/openid-configuration')
      answer(200, {
        issuer,
        authorization_endpoint: `${issuer}/authorize`,
        token_endpoint: `${issuer}/token`,
        jwks_uri: `${issuer}/keys`,
      })
    else if (request.url === '/keys') answer(200, { keys })
    else if (request.url === '/token') {
      provider.exchanges++
      let body = ''
      for await (const chunk of request) body += chunk
      const given = new URLSearchParams(body)
      const code = codes.get(given.get('code') ?? '')
      codes.delete(given.get('code') ?? '')
      const challenge = createHash('sha256')
        .update(given.get('code_verifier') ?? '')
        .digest('base64url')
      const client = Buffer.from(`${CLIENT}:${encodeURIComponent(SECRET)}`).toString('base64')
      const right =
        request.headers.authorization === `Basic ${client}` &&
        given.get('grant_type') === 'authorization_code' &&
        code?.asked.get('code_challenge') === challenge &&
        code.asked.get('redirect_uri') === given.get('redirect_uri')
      if (!code || !right) answer(400, { error: 'invalid_grant' })
      else answer(200, { token_type: 'Bearer', access_token: 'unused', id_token: await idToken(code) })
    } else answer(404, {})
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  later(() => new Promise<void>((resolve) => void server.close(() => resolve())))
  later(() => server.closeAllConnections())
  const issuer = `http://127.0.0.1:${(server.address() as { port: number }).port}`

  const idToken = async ({ person, asked }: { person: Person; asked: URLSearchParams }) => {
    const { claims, header, foreignKey, seconds = 0, raw } = provider.twist
    const at = Math.floor(now() / 1000) + seconds
    const said = { iss: issuer, aud: CLIENT, nonce: asked.get('nonce'), iat: at, exp: at + 300, ...person, ...claims }
    const token = await new SignJWT(said as JWTPayload)
      .setProtectedHeader({ alg: 'ES256', kid, ...header })
      .sign((foreignKey ? foreign : own).privateKey)
    return raw ? raw(token) : token
  }

  const provider: IdentityProvider = {
    identity: { issuer, clientId: CLIENT, clientSecret: SECRET, redirect: 'http://127.0.0.1/welcome' },
    twist: {},
    exchanges: 0,
    visit: (url, person) => {
      const asked = new URL(url).searchParams
      if (asked.get('client_id') !== CLIENT || asked.get('code_challenge_method') !== 'S256') throw new Error(`asked for ${url}`)
      const code = randomUUID()
      codes.set(code, { person, asked })
      return { code, state: asked.get('state') ?? '' }
    },
  }
  return provider
}
