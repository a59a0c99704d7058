// The yardstick of everything over HTTP, in a child of its own: Hono on Node, parsing each body and giving it back. Plain
// JavaScript, so that its memory holds no loader that Sessile alone would need.

import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'

const app = new Hono()
app.post('/*', async (c) => c.json(await c.req.json()))
const server = createAdaptorServer({ fetch: app.fetch })
server.listen(0, '127.0.0.1', () => process.send({ port: server.address().port }))
process.on('disconnect', () => process.exit())
