// What a deployment may set and features may read. The environment itself is read in config.ts alone.

export const secondFactors = ['off', 'staff', 'all'] as const
export type SecondFactor = (typeof secondFactors)[number]

export interface Settings {
  /** Is what is out of a caller's reach refused as if it were not there? */
  conceal: boolean
  /** Per kind, seconds without a record after which the system closes a session; 0 for never. Overrides the kind's own. */
  idle: Readonly<Record<string, number>>
  /** Per kind, the longest a session may last, in seconds. Overrides the kind's own. */
  longest: Readonly<Record<string, number>>
  /** May anybody make an account for themselves? */
  signUp: boolean
  /** May one sign in with a password? */
  passwords: boolean
  /** Of whom a second factor is demanded: of nobody, of all but patients, or of all. An identity provider sees to it for its own. */
  secondFactor: SecondFactor
  /** The identity provider through which one may sign in, and the address that it sends browsers back to. */
  identity: { issuer: string; clientId: string; clientSecret: string | undefined; redirect: string } | undefined
}
