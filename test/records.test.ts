import { describe, expect, it } from 'vitest'
import { runOnFailingDisk } from './failing.ts'
import { linesIn, refused, run, said, sendingLines, sessionFile } from './harness.ts'

const features = {
  type: 'features.extracted',
  source: 'landmarks',
  user_id: 'ada',
  performer_id: 'device-7',
  data: { raw_features_ref: { artifact_id: 'art-1', sha256: 'a'.repeat(64), format: 'npy', dims: [120, 33, 3] } },
}

describe('records.append', () => {
  it('appends one object and answers it flat', async () => {
    const { admin, sessile, home } = await run()
    const { body } = await admin.start()
    const appended = await admin.append(body.session_id, said('I would like some water'))
    expect(appended.status).toBe(201)
    expect(appended.body).toMatchObject({ seq: 2, type: 'transcript.said', source: 'transcriber', text: 'I would like some water' })
    sessile.log.settle()
    expect(linesIn(sessionFile(home, body.session_id)).at(-1)).toMatchObject({
      record_id: appended.body.record_id,
      data: said('I would like some water').data,
    })
  })

  it('appends an array, in order, under consecutive numbers', async () => {
    const { admin } = await run()
    const { body } = await admin.start()
    const appended = await admin.append(body.session_id, [said('one'), features, said('two')])
    expect(appended.status).toBe(201)
    expect(appended.body.map(({ seq, type }: { seq: number; type: string }) => [seq, type])).toEqual([
      [2, 'transcript.said'],
      [3, 'features.extracted'],
      [4, 'transcript.said'],
    ])
    expect((await admin.append(body.session_id, [said('three')])).body).toHaveLength(1)
  })

  it.each([
    '{}',
    '{"text":"and \\",\\"data\\":{ more","é":"ü"}',
    '{"seq":99,"session_id":"sess_other","record_id":"mine","hash":"mine"}',
    '{"command_id":"mine","data":{"data":{}},"1":"one","":",\\"data\\":{"}',
    '{"__proto__":{"seq":1},"timestamp":"never"}',
    '{"__proto__":{"seq":1},"toString":null}',
  ])('answers the fields of %s beside those of the record, which they cannot pose as', async (data) => {
    const { admin, sessile, home } = await run()
    const { body } = await admin.start()
    const one = `{"type":"x.acme.posing","source":"acme","user_id":"ada","performer_id":"device-7","data":${data}}`
    const send = async (text: string, headers: Record<string, string>) => {
      const at = `/api/v1/sessions/${body.session_id}/records`
      const sent = await admin.raw('POST', at, { body: text, headers: { 'content-type': 'application/json', ...headers } })
      expect(sent.status).toBe(201)
      return sent.text()
    }
    const [single, many] = [await send(one, {}), await send(`[${one},${one}]`, { 'idempotency-key': 'posing' })]
    expect(await send(`[${one},${one}]`, { 'idempotency-key': 'posing' })).toBe(many)

    sessile.log.settle()
    const recorded = linesIn(sessionFile(home, body.session_id)).slice(1)
    const told = [JSON.parse(single), ...JSON.parse(many)]
    expect(recorded).toHaveLength(3)
    for (const [i, { data: fields, command_id: _, salt, hash, ...envelope }] of recorded.entries()) {
      expect(Object.keys(told[i]).sort()).toEqual([...new Set([...Object.keys(fields), ...Object.keys(envelope)])].sort())
      for (const name of Object.keys(told[i])) {
        const from = Object.hasOwn(envelope, name) ? envelope : fields
        expect(Object.getOwnPropertyDescriptor(told[i], name)?.value).toEqual(Object.getOwnPropertyDescriptor(from, name)?.value)
      }
    }
  })

  it('refuses an array whole where one of it does not fit, and says which', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    const bad = { ...said('two'), data: { speaker: 'user' } }
    const problem = await refused(running, () => running.admin.append(body.session_id, [said('one'), bad]), 400, 'invalid')
    expect(problem.errors[0].path).toBe('1.data.text')
    expect((await running.admin.append(body.session_id, said('next'))).body.seq).toBe(2)
  })

  it('refuses a long array, which is read when its turn comes, as it does a short one', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    const many = Array.from({ length: 60 }, (_, i) => said(`number ${i}`))
    const sent = (records: unknown, { admin } = running) => admin.append(body.session_id, records)
    const problem = await refused(running, () => sent([...many, { ...said('x'), data: { speaker: 'user' } }]), 400, 'invalid')
    expect(problem.errors[0].path).toBe('60.data.text')
    await refused(running, () => sent([...many, { ...said('x'), colour: 'red' }]), 400, 'invalid')
    await refused(running, () => sent([...many, { ...said('x'), performer_id: '' }]), 400, 'performer-required')
    const bobs = await running.admin.device({ users: ['bob'] })
    await refused(running, () => bobs.append(body.session_id, many), 403, 'forbidden')
    const named = { 'idempotency-key': 'many' }
    const first = await running.admin.append(body.session_id, many, named)
    expect(first).toMatchObject({ status: 201, body: { length: 60, 0: { seq: 2 }, 59: { seq: 61, text: 'number 59' } } })
    expect((await running.admin.append(body.session_id, many, named)).body).toEqual(first.body)
    await refused(running, () => running.admin.append(body.session_id, many.slice(1), named), 422, 'idempotency-key-reused')
  })

  it('refuses a record for a closed session', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    await running.admin.end({ session_id: body.session_id })
    await refused(running, () => running.admin.append(body.session_id, said('too late')), 400, 'session-already-closed')
  })

  it('refuses a record for a session that does not exist', async () => {
    const running = await run()
    await refused(running, () => running.admin.append('sess_01ARZ3NDEKTSV4RRFFQ69G5FAV', said('x')), 404, 'session-not-found')
  })

  it('refuses a record in the name of another user than the session’s', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    await refused(
      running,
      () => running.admin.append(body.session_id, [said('x'), said('y', { user_id: 'bob' })]),
      403,
      'session-user-mismatch',
    )
  })

  it('takes x.<vendor>.<name> under the open schema', async () => {
    const { admin } = await run()
    const { body } = await admin.start()
    const gaze = { ...said(''), type: 'x.acme.gaze-shift', data: { from: [0.1, 0.2], to: null, deep: { er: ['a', true, 7] } } }
    const appended = await admin.append(body.session_id, gaze)
    expect(appended).toMatchObject({ status: 201, body: { type: 'x.acme.gaze-shift', v: 1, deep: { er: ['a', true, 7] } } })
  })

  it.each([
    'transcript.shouted',
    'session.started',
    'session.ended',
    'key.created',
    'x.acme',
    'x.Acme.gaze',
    'x.open',
    'x..y',
    '',
    'toString',
    '__proto__',
  ])('refuses the type %j', async (type) => {
    const running = await run()
    const { body } = await running.admin.start()
    await refused(running, () => running.admin.append(body.session_id, { ...said('x'), type }), 400, 'unknown-type')
  })

  it.each([
    ['no performer', { performer_id: undefined }, 'performer-required', 'performer_id'],
    ['a blank performer', { performer_id: '  ' }, 'performer-required', 'performer_id'],
    ['a field of the envelope', { seq: 9 }, 'invalid', 'seq'],
    ['a timestamp', { timestamp: 'now' }, 'invalid', 'timestamp'],
    ['a session id in the body', { session_id: 'sess_x' }, 'invalid', 'session_id'],
    ['data that is no object', { data: [1] }, 'invalid', 'data'],
    ['no data', { data: undefined }, 'invalid', 'data'],
    ['an unknown field in the data', { data: { ...said('x').data, colour: 'red' } }, 'invalid', 'data.colour'],
    ['a device time that is none', { data: { ...said('x').data, at: 'yesterday' } }, 'invalid', 'data.at'],
    ['a source that is no module’s name', { source: 'My Module' }, 'invalid', 'source'],
  ])('refuses %s and says where', async (_, more, reason, path) => {
    const running = await run()
    const { body } = await running.admin.start()
    const problem = await refused(running, () => running.admin.append(body.session_id, { ...said('x'), ...more }), 400, reason)
    expect(problem.errors.map((error: { path: string }) => error.path)).toContain(path)
  })

  it.each(['session_manager', 'keys', 'accounts', 'signins', 'assignments', 'emergency', 'audit'])(
    'refuses a module that calls itself %s',
    async (source) => {
      const running = await run()
      const { body } = await running.admin.start()
      await refused(running, () => running.admin.append(body.session_id, { ...said('x'), source }), 400, 'foreign-source')
    },
  )

  it('takes a record of nearly 512 KiB, and refuses a larger one', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    const words = (n: number) => ({ ...said(''), type: 'x.acme.essay', data: { text: 'words and '.repeat(n) } })
    expect((await running.admin.append(body.session_id, words(52_000))).status).toBe(201)
    await refused(running, () => running.admin.append(body.session_id, words(53_000)), 413, 'record-too-large')
  })

  it('refuses a body beyond the limit, also where its length was not stated', async () => {
    const running = await run()
    const { body } = await running.admin.start()
    const large = JSON.stringify(said('x'.repeat(5_000_000)))
    const path = `/api/v1/sessions/${body.session_id}/records`
    await refused(running, () => running.admin.append(body.session_id, said('x'.repeat(5_000_000))), 413, 'body-too-large')
    const stream = new Blob([large]).stream()
    const response = await running.admin.raw('POST', path, {
      body: stream,
      duplex: 'half',
      headers: { 'content-type': 'application/json' },
    })
    expect(response.status).toBe(413)
  })

  it.each([
    ['no JSON', '{"type":', 'application/json', 400, 'invalid'],
    ['nothing', '', 'application/json', 400, 'performer-required'],
    ['text that is not UTF-8', Buffer.from([0x22, 0xff, 0x22]), 'application/json', 400, 'invalid'],
    ['100,000 brackets', '['.repeat(100_000), 'application/json', 400, 'invalid'],
    ['another type', '{}', 'text/html', 415, 'unsupported-media-type'],
  ])('refuses a body of %s', async (_, content, type, status, reason) => {
    const running = await run()
    const { body } = await running.admin.start()
    await refused(
      running,
      async () => {
        const response = await running.admin.raw('POST', `/api/v1/sessions/${body.session_id}/records`, {
          body: content,
          headers: { 'content-type': type },
        })
        return { status: response.status, headers: response.headers, body: await response.json() }
      },
      status,
      reason,
    )
  })
})

describe('records.append as a stream', () => {
  const stream = async (
    sessile: Awaited<ReturnType<typeof run>>,
    session_id: string,
    lines: string[],
    headers: Record<string, string> = {},
  ) => {
    const response = await sessile.admin.raw('POST', `/api/v1/sessions/${session_id}/records`, {
      body: lines.join('\n'),
      headers: { 'content-type': 'application/x-ndjson', ...headers },
    })
    expect(response.status).toBe(200)
    const text = await response.text()
    return text
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line))
  }

  it('answers each line by a line, in order; a bad one is refused and the others recorded', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    const answers = await stream(sessile, body.session_id, [
      JSON.stringify(said('one')),
      '{"type":',
      '',
      JSON.stringify({ ...said('x'), type: 'nonsense' }),
      JSON.stringify(said('two')),
    ])
    expect(answers.map(({ seq, reason }) => seq ?? reason)).toEqual([2, 'invalid', 'unknown-type', 3])
    expect(answers[1].status).toBe(400)
  })

  it('answers a line that is too long, and goes on behind it', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    const answers = await stream(sessile, body.session_id, [
      JSON.stringify(said('one')),
      'x'.repeat(1_500_000),
      JSON.stringify(said('two')),
    ])
    expect(answers.map(({ seq, reason }) => seq ?? reason)).toEqual([2, 'record-too-large', 3])
  })

  it('answers the first line while the second has yet to come', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    const { send, end } = sendingLines(sessile.admin, body.session_id)
    expect(await send(said('one'))).toMatchObject([{ seq: 2, text: 'one' }])
    expect(await send(said('two'))).toMatchObject([{ seq: 3, text: 'two' }])
    expect(await end()).toBe(true)
  })

  it('waits where more comes than can be recorded at once, and no line is refused', async () => {
    const { running, disk } = await runOnFailingDisk()
    const users = Array.from({ length: 40 }, (_, i) => `u${i}`)
    const started = await Promise.all(users.map((user_id) => running.admin.start({ user_id })))
    const release = disk.holdSync()
    const asking = users.map((user_id, i) => {
      const line = JSON.stringify(said('x', { user_id }))
      return stream(
        running,
        started[i]?.body.session_id,
        Array.from({ length: 1000 }, () => line),
      )
    })
    await new Promise((resolve) => setTimeout(resolve, 1500))
    release()
    const answers = await Promise.all(asking)
    expect(answers.flat().filter(({ reason }) => reason !== undefined)).toEqual([])
    expect(answers.map((own) => own.at(-1).seq)).toEqual(users.map(() => 1001))
  }, 60_000)

  it('knows each line of a named stream again when it is sent a second time', async () => {
    const sessile = await run()
    const { body } = await sessile.admin.start()
    const lines = Array.from({ length: 300 }, (_, i) => JSON.stringify(said(`line ${i}`)))
    const first = await stream(sessile, body.session_id, lines.slice(0, 200), { 'idempotency-key': 'k1' })
    const again = await stream(sessile, body.session_id, lines, { 'idempotency-key': 'k1' })
    expect(again.slice(0, 200)).toEqual(first)
    expect(again.at(-1).seq).toBe(301)
  })
})

describe('law 12: no raw media in a log', () => {
  const base64 = Buffer.alloc(1200, 0xa7).toString('base64')
  it.each([
    ['a data: URL', { picture: 'see data:image/png;base64,iVBORw0KGgo' }],
    ['a data: URL without base64', { picture: 'data:text/html,<b>' }],
    ['base64 audio', { audio: base64 }],
    ['base64 broken into lines', { audio: (base64.match(/.{76}/g) ?? []).join('\n') }],
    ['frames', { frames: Array.from({ length: 50 }, () => Array.from({ length: 99 }, () => 0.5)) }],
    ['a data: URL as a key', { 'data:image/png;base64,iVBORw0KGgo': 1 }],
  ])('refuses %s', async (_, data) => {
    const running = await run()
    const { body } = await running.admin.start()
    const record = { ...said(''), type: 'x.acme.thing', data }
    await refused(running, () => running.admin.append(body.session_id, record), 400, 'raw-media')
  })

  it('refuses it in free text at start, too', async () => {
    const running = await run()
    const problem = await refused(
      running,
      () => running.admin.start({ session_notes: 'data:audio/wav;base64,UklGR' }),
      400,
      'raw-media',
    )
    expect(problem.errors[0].path).toBe('session_notes')
  })

  it.each([
    'the data: as discussed',
    'data:, data; and more data:',
    'Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft '.repeat(40),
    '今日は天気がいいですね。'.repeat(300),
    'one\nword\na\nline\n'.repeat(200),
    `${'A'.repeat(1000)} `.repeat(90),
  ])('lets people talk: %.30s', async (text) => {
    const { admin } = await run()
    const { body } = await admin.start()
    expect((await admin.append(body.session_id, said(text))).status).toBe(201)
  })
})
