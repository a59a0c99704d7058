import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    // What takes longer has its own scripts, and its own time.
    include: process.env.SESSILE_TEST_LONG ? ['test/**/*.long.ts'] : ['test/**/*.test.ts'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A test that takes no lock and no port of another's may run beside it.
    pool: 'forks',
    // A process runs one file after the other, and reads what they share once.
    isolate: false,
    setupFiles: ['test/setup.ts'],
    maxWorkers: '100%',
  },
})
