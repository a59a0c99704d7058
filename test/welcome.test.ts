// The page at /welcome: what its script says and asks, on a page of a few fields and against a real door.

import { describe, expect, it } from 'vitest'
import { type Client, PASSWORD, type Running, run } from './harness.ts'

interface Field {
  value?: string
  textContent?: string
  hidden?: boolean
  disabled?: boolean
  focus: () => void
  addEventListener: (name: string, does: (event: object) => unknown) => void
}

/** The page as a browser opens it: its fields, what it asked for, and how often it was loaded again. */
async function open(running: Running, address: string, fetched: typeof fetch = fetch) {
  const page = await (await running.anyone.raw('GET', '/welcome')).text()
  const script = /<script>(.*)<\/script>/s.exec(page)?.[1] as string
  const does = new Map<string, (event: object) => unknown>()
  const listening = (name: string, what: (event: object) => unknown) => void does.set(name, what)
  const found = new Map<string, Field>()
  for (const [, id] of page.matchAll(/id="(\w+)"/g)) found.set(id as string, { focus: () => {}, addEventListener: listening })
  const at = new URL(address, running.url)
  const seen = { loads: 1, address: at.pathname + at.search + at.hash, asked: [] as string[] }
  const parts = {
    document: { getElementById: (id: string) => found.get(id) },
    location: { hash: at.hash, search: at.search, pathname: at.pathname, reload: () => seen.loads++ },
    history: { replaceState: (_: null, __: string, to: string) => Object.assign(seen, { address: to }) },
    addEventListener: listening,
    fetch: (path: string, init: RequestInit) => {
      seen.asked.push(path)
      return fetched(running.url + path, init)
    },
  }
  new Function(...Object.keys(parts), script)(...Object.values(parts))
  const field = (id: string) => found.get(id) as Field
  const set = async (password: string) => {
    field('password').value = password
    await does.get('submit')?.({ preventDefault: () => {} })
  }
  return { seen, field, says: () => field('says').textContent, set, tell: (name: string) => does.get(name)?.({}) }
}

const invited = async (admin: Client, name = 'ada+1@sessile.example') =>
  (await admin.post('/api/v1/accounts', { name, role: 'patient' })).body as { link: string; token: string }

describe('GET /welcome', () => {
  it('is a page of our own, whose script asks for nothing that the contract does not have', async () => {
    const running = await run()
    const response = await running.anyone.raw('GET', '/welcome')
    expect(response.headers.get('content-security-policy')).toMatch(/script-src 'sha256-/)
    const page = await response.text()
    const { body } = await running.anyone.get('/openapi.json')
    const asked = [...page.matchAll(/post\('([^']+)'/g)].map(([, path]) => path as string)
    expect(asked).toEqual(['/api/v1/invitations/accept', '/api/v1/identity/finish'])
    for (const path of asked) expect(Object.keys(body.paths)).toContain(path)
  })

  it('sets a password by a link, for the name that it shows, and leaves nothing of the link in the address', async () => {
    const running = await run()
    const page = await open(running, (await invited(running.admin)).link)
    expect([page.seen.address, page.field('form').hidden]).toEqual(['/welcome', false])
    expect(page.field('name').value).toBe('ada+1@sessile.example')
    await page.set('password1234')
    expect([page.says(), page.field('form').hidden]).toEqual(['This password is among those that are guessed first.', false])
    await page.set(PASSWORD)
    expect([page.says(), page.field('form').hidden]).toEqual(['Your password is set: you can sign in now.', true])
    await running.anyone.signIn('ada+1@sessile.example')
  })

  it('takes no second press of the button while the first is under way', async () => {
    const running = await run()
    const page = await open(running, (await invited(running.admin)).link)
    const first = page.set(PASSWORD)
    expect(page.field('set').disabled).toBe(true)
    await first
    expect(page.field('set').disabled).toBe(false)
  })

  it('says what to do where a link opens nothing any more', async () => {
    const running = await run()
    const { link, token } = await invited(running.admin)
    await running.anyone.post('/api/v1/invitations/accept', { token, password: PASSWORD })
    const page = await open(running, link)
    await page.set(PASSWORD)
    expect([page.says(), page.field('form').hidden]).toEqual([expect.stringMatching(/^This link was used.* ask whoever/), true])
  })

  it.each([
    ['no network', () => Promise.reject(new TypeError('Failed to fetch'))],
    ['a page of a proxy with an error', async () => new Response('<html>', { status: 502 })],
    ['a page of somebody else', async () => new Response('<html>', { status: 200 })],
  ])('keeps the form, and says so in words, where there is %s', async (_, fetched) => {
    const running = await run()
    const page = await open(running, (await invited(running.admin)).link, fetched)
    await page.set(PASSWORD)
    expect([page.says(), page.field('form').hidden]).toEqual(['There is no answer at the moment. Try again.', false])
  })

  it('loads again where another link is opened in its place', async () => {
    const page = await open(await run(), '/welcome')
    expect(page.says()).toMatch(/^This page is opened by a link/)
    page.tell('hashchange')
    expect(page.seen).toEqual({ loads: 2, address: '/welcome', asked: [] })
  })

  it('says nothing that whoever wrote the address could have put there', async () => {
    const running = await run()
    const says = async (search: string) => (await open(running, `/welcome?${search}`)).says()
    for (const search of ['error=access_denied&error_description=Call+Eve', 'error=Call+Eve'])
      expect(await says(search)).toBe('The identity provider has not signed you in. Try again, or ask whoever invited you.')
    expect(await says('error_description=Call+Eve')).toMatch(/^This page is opened by a link/)
  })
})
