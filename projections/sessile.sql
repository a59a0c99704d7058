-- How far the views have come: the journal, the place in order, the latest timestamp, the shape of the tables.
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- The end of every log.
CREATE TABLE logs (
  log TEXT PRIMARY KEY, -- its path under logs/, without its ending
  seq INTEGER NOT NULL, -- of its last record
  hash TEXT NOT NULL, -- of its last line
  size INTEGER NOT NULL, -- in bytes
  at INTEGER NOT NULL -- when it last grew, milliseconds since 1970
) STRICT, WITHOUT ROWID;
-- The logs that a rebuild found damaged: nothing after the damage is in the views, and they take no more records.
CREATE TABLE damaged (
  log TEXT PRIMARY KEY,
  why TEXT NOT NULL
) STRICT, WITHOUT ROWID;
-- Where the records of each named request stand, so that a retry is known again. Written in sorted runs (meta: runs).
CREATE TABLE commands (
  run INTEGER NOT NULL,
  first INTEGER NOT NULL, -- the key of its first name: 52 bits of the digest of the caller and its Idempotency-Key
  chunk BLOB NOT NULL, -- names in the order of their keys, each with its log and where in it the first record begins
  PRIMARY KEY (run, first)
) STRICT, WITHOUT ROWID;

-- The sessions that were given up because their logs are damaged.
CREATE TABLE abandoned (
  session_id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL, -- whose session it is
  abandoned_at TEXT NOT NULL -- the time of the server
) STRICT, WITHOUT ROWID;

-- Every session: one row from its start on.
CREATE TABLE sessions (
  session_id TEXT PRIMARY KEY,
  user_id TEXT NOT NULL, -- whose session it is
  session_number INTEGER NOT NULL, -- the how-manieth of this user, never reused
  kind TEXT NOT NULL, -- capture, voice, video, therapy or workflow
  exclusive INTEGER NOT NULL, -- 1 where a user has at most one active session of this kind
  status TEXT NOT NULL, -- active or closed
  started_at TEXT NOT NULL, -- the time of the server
  started_by TEXT NOT NULL, -- an account, a device or system
  ended_at TEXT, -- the time of the server; NULL while active, and where nobody knows
  ended_by TEXT,
  end_reason TEXT, -- completed, disconnected, idle-timeout or longest-length; abandoned where its log is damaged before its end
  duration_seconds REAL, -- from start to end; NULL where ended_at is
  crisis_detected INTEGER NOT NULL, -- 1 where a crisis was flagged
  is_training_data INTEGER, -- capture: 1 where the recording may train a model
  training_intent_label TEXT, -- capture: what the user was asked to express
  session_notes TEXT, -- capture: a remark on the recording
  counselor_category TEXT, -- voice, video: what sort of counsellor was called
  room_name TEXT, -- voice, video: the room of the call
  language TEXT, -- therapy: the language spoken
  session_date TEXT, -- therapy: the day of the sitting
  site_name TEXT, -- workflow: the site that the job is about
  site_description TEXT, -- workflow: what the site is
  project_key TEXT, -- workflow: the project that tickets go to
  llm_provider_choice TEXT -- workflow: the model provider that was chosen
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX sessions_1 ON sessions (user_id, kind) WHERE status = 'active' AND exclusive = 1;
CREATE UNIQUE INDEX sessions_2 ON sessions (user_id, session_number);
CREATE INDEX sessions_3 ON sessions (started_at, session_id);
CREATE INDEX sessions_4 ON sessions (user_id, started_at, session_id);
CREATE INDEX sessions_5 ON sessions (kind, started_at) WHERE status = 'active';
CREATE INDEX sessions_6 ON sessions (kind, started_at, session_id);

-- Every key that was made.
CREATE TABLE keys (
  key_id TEXT PRIMARY KEY,
  account_id TEXT NOT NULL, -- the account or device that holds it
  role TEXT NOT NULL, -- device or admin
  users TEXT NOT NULL, -- JSON: 'all', or the ids of the users in its scope
  system INTEGER NOT NULL, -- 1 where it may record in the name of the system
  name TEXT, -- what people call it
  secret_sha256 TEXT NOT NULL,
  created_at TEXT NOT NULL,
  revoked_at TEXT -- NULL while it works
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX keys_1 ON keys (secret_sha256);
CREATE INDEX keys_2 ON keys (created_at, key_id);

-- Every account of a person.
CREATE TABLE accounts (
  account_id TEXT PRIMARY KEY, -- of a patient the id of the user
  name TEXT NOT NULL, -- what it signs in by, in lower case
  role TEXT NOT NULL, -- patient, therapist, researcher, analyst or admin
  password_hash TEXT, -- Argon2id; NULL while it has no password
  invitation_sha256 TEXT, -- of the link that is open; NULL for none
  invitation_expires_at TEXT,
  created_at TEXT NOT NULL,
  deactivated_at TEXT -- NULL while it may sign in
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX accounts_1 ON accounts (name);
CREATE UNIQUE INDEX accounts_2 ON accounts (invitation_sha256) WHERE invitation_sha256 IS NOT NULL;

-- Every second factor.
CREATE TABLE factors (
  factor_id TEXT PRIMARY KEY,
  account_id TEXT NOT NULL,
  sealed TEXT NOT NULL, -- the secret, which only Sessile can read
  confirmed_at TEXT, -- NULL until a code has confirmed it
  last_step INTEGER NOT NULL, -- the latest period of which a code was taken
  recovery TEXT NOT NULL, -- JSON: the SHA-256 of each recovery code that was not used
  removed_at TEXT -- NULL while it counts, or may be confirmed
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX factors_1 ON factors (account_id) WHERE removed_at IS NULL;

-- Every sign-in: a family of tokens.
CREATE TABLE signins (
  signin_id TEXT PRIMARY KEY,
  account_id TEXT NOT NULL,
  by TEXT NOT NULL, -- what it was proved by
  second TEXT, -- the second factor that proved it; NULL for none
  device TEXT, -- what people call it
  refresh_sha256 TEXT NOT NULL, -- of the refresh token that is good
  before_sha256 TEXT, -- of the one before
  refreshed_at TEXT NOT NULL,
  expires_at TEXT NOT NULL, -- unless it is refreshed by then
  began_at TEXT NOT NULL,
  ended_at TEXT -- NULL while it was not ended
) STRICT, WITHOUT ROWID;
CREATE INDEX signins_1 ON signins (account_id) WHERE ended_at IS NULL;

-- Which account an outside identity opens.
CREATE TABLE identities (
  identity TEXT PRIMARY KEY, -- the issuer and its subject
  account_id TEXT NOT NULL,
  linked_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX identities_1 ON identities (account_id);

-- Every assignment of a therapist to a user.
CREATE TABLE assignments (
  assignment_id TEXT PRIMARY KEY,
  therapist_id TEXT NOT NULL, -- the account that is assigned
  user_id TEXT NOT NULL, -- whose data is within its reach
  relationship_type TEXT NOT NULL, -- in the words of whoever assigned it
  begun_at TEXT NOT NULL,
  begun_by TEXT NOT NULL,
  ended_at TEXT, -- NULL while it is active
  ended_by TEXT
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX assignments_1 ON assignments (therapist_id, user_id) WHERE ended_at IS NULL;
CREATE INDEX assignments_2 ON assignments (begun_at, assignment_id);
CREATE INDEX assignments_3 ON assignments (therapist_id, begun_at, assignment_id);
CREATE INDEX assignments_4 ON assignments (user_id, begun_at, assignment_id);

-- Every emergency access that was taken.
CREATE TABLE emergencies (
  access_id TEXT PRIMARY KEY,
  therapist_id TEXT NOT NULL, -- the account that took it
  user_id TEXT NOT NULL, -- whose data is within its reach
  reason TEXT NOT NULL, -- in the words of the therapist
  opened_at TEXT NOT NULL,
  until TEXT NOT NULL -- from then on it is over
) STRICT, WITHOUT ROWID;
CREATE INDEX emergencies_1 ON emergencies (therapist_id, until);
CREATE INDEX emergencies_2 ON emergencies (opened_at, access_id);
CREATE INDEX emergencies_3 ON emergencies (user_id, opened_at, access_id);

-- Every answer to a question and every refusal.
CREATE TABLE audit (
  audit_id TEXT PRIMARY KEY, -- when it was, and its place among the records of its log
  record_id TEXT NOT NULL, -- the record
  account_id TEXT NOT NULL, -- who asked; anonymous for somebody who did not prove who they are
  role TEXT NOT NULL, -- of whoever asked
  proved_by TEXT, -- what they proved it by: the id of a key, or of a sign-in
  route TEXT NOT NULL, -- what was asked, as the contract writes it
  users TEXT NOT NULL, -- JSON: the ids of those whose data was asked for or shown
  session_id TEXT, -- the session that was read
  emergency INTEGER NOT NULL, -- 1 where it was shown by emergency access
  outcome TEXT NOT NULL, -- read or refused
  reason TEXT, -- why it was refused
  request_id TEXT NOT NULL,
  address TEXT
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_1 ON audit (account_id, audit_id);

-- Whose data each entry of the trail is about.
CREATE TABLE concerned (
  concerned_id TEXT PRIMARY KEY -- the user, a space, and the audit_id
) STRICT, WITHOUT ROWID;
