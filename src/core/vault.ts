// What features need of the secrets that no log holds: tokens that only this Sessile can have made, and texts that only
// it can read. Where the secrets lie is not known here.

/** What a token is for. One kind never passes for another. */
export type TokenKind = 'access' | 'refresh'

/** Whose token it is, of which sign-in, and until when, in milliseconds. */
export interface Claims {
  account_id: string
  signin_id: string
  until: number
}

/** What may be told of a key. */
export interface ShownKey {
  kid: string
  made_at: string
  /** It signs new tokens, or only checks until then what it has signed; it seals, or only opens what it has sealed. */
  use: 'signs' | 'checks' | 'seals' | 'opens'
  until: string | null
}

export interface Vault {
  /** Has the keys at hand; makes those that are missing. */
  ready(now: number): Promise<void>
  sign(kind: TokenKind, claims: Claims, now: number): Promise<string>
  /** What a token says, if it was signed here, is of this kind, and has not run out; undefined for every other text. */
  verify(kind: TokenKind, token: string, now: number): Promise<Claims | undefined>
  /** Makes a text unreadable to all but this Sessile; `about` says what it is about, and must be said again to read it. */
  seal(text: string, about: string): string
  /** Undefined where it was not sealed here, or not about this. */
  unseal(sealed: string, about: string): string | undefined
  /** New keys sign and seal from now on. The older ones check what they have signed until it has run out, and then go; they open what they have sealed. */
  rotate(now: number): Promise<ShownKey[]>
  list(now: number): Promise<ShownKey[]>
}
