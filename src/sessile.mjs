#!/usr/bin/env -S node --max-semi-space-size=4 --no-allocation-site-pretenuring --no-parallel-scavenge
// Where `npx sessile` led before, and still does by links that it has kept.

import './sessile.cjs'
