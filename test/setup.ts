// Runs before each file of tests, also where several of them share what they import.

import { afterEach } from 'vitest'
import { tidy } from './harness.ts'

afterEach(tidy)
