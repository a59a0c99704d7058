// How much is held, or done at a time, before something happens that happens seldom. All such bounds stand here, so that
// a simulation can make them small: then what is rare comes often.

export const bounds = {
  /** Commands decided before what they made is written. */
  batch: 1024,
  /** With so many lines a second and more, and more than so many at a time, a thread of its own writes them. */
  busy: 2000,
  busyAtOnce: 4,
  /** A round of what trails the views begins when so many names or ends of logs wait, and goes on in steps of so many rows. */
  names: 28_000,
  heads: 8192,
  rowsAStep: 512,
  rowsAtLeast: 128,
  /** Rows that may be owed till there is leisure for them: what is more is written at once. */
  rowsOwed: 1024,
  /** Ends of logs that a rebuild need not ask for: the recorder puts so many into the new views within a few milliseconds. */
  endsAtOnce: 2000,
  /** And so many at a time. */
  endsInTurn: 64,
  /** Logs whose ends are known without asking. */
  knownHeads: 32_768,
  /** This many runs of about the same size are merged into one; smaller ones count as being of this size. */
  mergedRuns: 16,
  smallestRun: 4096,
  namesInChunk: 64,
  /** What tells new names from old ones. */
  filterBits: 2 ** 25,
  /** Files of logs that stay open, and files whose length is remembered. */
  openFiles: 1024,
  knownEnds: 32_768,
  /** Files of logs that are synced one after the other while others record, and not several at a time. */
  filesInTurn: 2000,
  /** So many logs are gone over before a thread that reads ahead is worth its start. */
  fewLogs: 1000,
  /** Keys of records that replace each other which are held while a log is told. */
  keysAtOnce: 32_768,
  /** Callers whose quota is known by itself, and quotas that all others share. */
  knownCallers: 32_768,
  sharedQuotas: 4096,
  /** Kept for the day the disk is full: more than the views need for what is recorded between two commits. */
  room: 4 * 1024 * 1024,
  /** A checkpoint is due when the journal's segment has grown so long. */
  segment: 64 * 1024 * 1024,
  /** How much of the journal is read at a time, and how much of it is held to go to the files of its logs, or a whole log. */
  journalRead: 1 * 1024 * 1024,
  journalHeld: 32 * 1024 * 1024,
}
