import { defineConfig } from 'vitest/config'

/** What follows from its seed alone shares no process with others, whose timers would get in between. */
const ALONE = ['test/simulation.test.ts']
const part = (name: string, test: { include: string[]; exclude?: string[]; isolate: boolean }) => ({
  extends: true as const,
  test: { name, ...test },
})

export default defineConfig({
  test: {
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A test that takes no lock and no port of another's may run beside it.
    pool: 'forks',
    maxWorkers: '100%',
    setupFiles: ['test/setup.ts'],
    // What takes longer has its own scripts, and its own time. The others run one file after the other in a process, and
    // read what they share once.
    projects: process.env.SESSILE_TEST_LONG
      ? [part('long', { include: ['test/**/*.long.ts'], isolate: true })]
      : [
          part('alone', { include: ALONE, isolate: true }),
          part('together', { include: ['test/**/*.test.ts'], exclude: ALONE, isolate: false }),
        ],
  },
})
