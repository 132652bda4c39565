// Asking, of servers that lose, double, reorder and restart, by the duties of PROTOCOL.md#answers-client.
'use strict'
const { test, describe, after } = require('node:test'), assert = require('node:assert/strict')
const Client = require('../index.js')
const { DATA, ACK, REJECT, HELLO, WELCOME, ANSWER, TAKE, ASK, READY, DONE, FAILED, PENDING, GONE } = require('../wire.js')
const { fakeServer, answeringServer, run } = require('./support.js')

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
const takes = server => server.seen.filter(d => d.kind === TAKE)
/** Base: seqs below are had. */
const spans = server => takes(server).map(d => [d.long, d.small])

async function until(condition) {
  const end = performance.now() + 8000
  while (!condition()) {
    assert.ok(performance.now() < end, 'in time')
    await sleep(5)
  }
}

/** A server that acks all and lets `take` answer each TAKE by a list of replies. */
function acking(take, more = () => null) {
  return fakeServer((d, seen) => {
    const other = more(d, seen)
    if (other) return other
    if (d.kind === HELLO) return [{ kind: WELCOME, small: 64, epoch: 7, long: d.long }]
    if (d.kind === DATA) return [{ kind: ACK, small: 64, long: d.long }]
    return d.kind === TAKE ? take(d, seen).map(reply => ({ kind: ANSWER, long: d.long, ...reply })) : []
  })
}
const done = text => ({ small: DONE, word: text.length, body: Buffer.from(text) })

describe('asking', { concurrency: true, timeout: 20_000 }, () => {
  // A test that failed left its client and its server open.
  after(() => { setTimeout(() => process.exit(1), 2000).unref() })

  test('an ask has a receipt and an answer, also where it was given up', async () => {
    const server = await answeringServer({
      delay: () => 50, answer: payload => ({ status: payload.includes('fail') ? FAILED : DONE, body: Buffer.from(`did ${payload}`) }),
    })
    const client = new Client(server.address, { clientId: 0xa1n })
    const { receipt, answer } = client.ask('open valve 7', { channel: 3 })
    assert.deepEqual(await receipt, { epoch: 7, seq: 1n })
    assert.deepEqual(client.waiting, [{ epoch: 7, seq: 1n }])
    assert.deepEqual(await answer, { status: 'DONE', body: Buffer.from('did open valve 7') })
    assert.equal((await client.ask('failure').answer).status, 'FAILED')
    assert.deepEqual(client.waiting, [])
    assert.deepEqual(server.seen.filter(d => d.kind === DATA).map(d => [d.word & 0xffff, d.word >>> 16]), [[3, ASK], [0, ASK]])
    client.close()
    assert.deepEqual(server.end(), [])
  })

  test('each ask gets its own answer on a bad path and over restarts', async () => {
    const path = () => Math.random() < 0.05 ? [] : Math.random() < 0.2 ? [0, 5 + Math.random() * 20] : Math.random() < 0.3 ? [Math.random() * 20] : [0]
    const server = await answeringServer({ delay: () => Math.random() * 60, path })
    const client = new Client(server.address, { clientId: 0xa1n })
    const asked = []
    for (let n = 0; n < 12; n++) {
      asked.push(client.ask(`ask ${n}`, { wait: 0.05 }))
      if (n % 6 === 5) server.restart()
    }
    const bodies = await Promise.all(asked.map(async ({ answer }) => (await answer).body.toString()))
    assert.deepEqual(bodies, asked.map((_, n) => [...`ask ${n}`].reverse().join('')))
    assert.equal(server.journaled(), 12)
    client.close()
    assert.deepEqual(server.end(), [])
  })

  test('C1: the 65th ask is Full, REJECT 2 fails the message, and REJECT 6 stops no TAKE', async () => {
    let busy = true
    const server = await acking(() => [{ small: PENDING, word: 60000 }], d => {
      if (d.kind !== DATA || d.long < 64n) return null
      if (d.payload.includes('not here')) return [{ kind: REJECT, small: 2, long: d.long }]
      return busy ? [{ kind: REJECT, small: 6, long: d.long, word: 200 }] : null
    })
    const client = new Client(server.address)
    const asked = Array.from({ length: 64 }, (_, n) => client.ask(`${n}`))
    await assert.rejects(client.ask('65').receipt, Client.Full)
    await assert.rejects(client.ask('65').answer, Client.Full)
    await asked[62].receipt
    assert.equal(client.waiting.length, 63)
    const before = takes(server).length
    await until(() => takes(server).length > before)
    busy = false
    await asked[63].receipt
    client.close()
    server.close()
    const refusing = await acking(() => [], d => d.kind === DATA ? [{ kind: REJECT, small: 2, long: d.long }] : null)
    const other = new Client(refusing.address)
    const { receipt, answer } = other.ask('x')
    for (const one of [receipt, answer]) await assert.rejects(one, error => error instanceof Client.Refused && error.code === 2)
    assert.deepEqual([other.waiting, takes(refusing)], [[], []])
    other.close()
    refusing.close()
  })

  test('C1: where what was had takes up the room the server is told', async () => {
    const server = await acking(d => [done('x')], (d, seen) => {
      const reminded = seen.some(one => one.kind === TAKE && one.long === 1n && seen.some(other => other.kind === DATA && other.long === 2n && other.at < one.at))
      return d.kind === DATA && d.long === 2n && !reminded ? [{ kind: REJECT, small: 6, long: 2n, word: 100 }] : null
    })
    const client = new Client(server.address)
    // The second is under way when the first is had, so that nothing was said.
    const first = client.ask('1'), second = client.ask('2')
    await first.answer
    await second.answer
    client.close()
    server.close()
  })

  test('C2: no TAKE before the ack, and span reaches to the lowest that waits', async () => {
    const server = await answeringServer({ delay: () => 60000 })
    const client = new Client(server.address)
    const asked = ['1', '2', '3'].map(text => client.ask(text))
    await asked[2].receipt
    await until(() => takes(server).length === 3)
    assert.deepEqual(spans(server), [[1n, 0], [2n, 1], [3n, 2]])
    server.asks.get('7:1').at = 0
    await client.take(7, 1n)
    await client.take(7, 3n)
    assert.deepEqual(spans(server).at(-1), [3n, 1])
    for (const take of takes(server)) assert.ok(server.seen.some(d => d.kind === DATA && d.long === take.long && d.at < take.at))
    client.close()
    assert.deepEqual(server.end(), [])
  })

  test('C3: only what waits is believed, each answer once, and malformed ones are nothing', async () => {
    const server = await acking(() => [])
    const client = new Client(server.address, { clientId: 5n })
    const { receipt, answer } = client.ask('x')
    await receipt
    await until(() => takes(server).length === 1)
    const lie = Buffer.from('lie')
    const lies = [
      { long: 2n, ...done('lie') }, { long: 1n, epoch: 8, ...done('lie') }, { long: 1n, small: DONE, word: 4, body: lie }, { long: 1n, small: FAILED, word: 0, body: lie },
      { long: 1n, small: GONE, word: 1 }, { long: 1n, small: GONE, body: lie }, { long: 1n, small: PENDING, body: lie }, { long: 1n, flags: 1, ...done('lie') },
      { long: 1n, flags: 8, ...done('lie') }, { long: 1n, small: 4711, word: 9, body: lie }, { long: 0n, ...done('lie') }, { long: 1n, epoch: 0, ...done('lie') },
    ]
    for (const one of lies) server.say({ kind: ANSWER, ...one })
    await sleep(50)
    assert.equal(client.waiting.length, 1)
    for (const text of ['true', 'late']) server.say({ kind: ANSWER, long: 1n, ...done(text) })
    assert.deepEqual(await answer, { status: 'DONE', body: Buffer.from('true') })
    client.close()
    server.close()
  })

  test('C3: a body that had no room is taken again with as many zeros, once', async () => {
    const body = 'x'.repeat(300)
    const short = { small: DONE, word: body.length }
    const server = await acking(d => d.payload.length < body.length ? [short, short, short] : [short, done(body)])
    const client = new Client(server.address)
    assert.equal((await client.ask('1').answer).body.toString(), body)
    assert.equal((await client.ask('2').answer).body.toString(), body)
    assert.deepEqual(takes(server).filter(d => d.small !== 0xffff).map(d => d.payload.length), [0, 300, 300])
    client.close()
    server.close()
  })

  test('C3: no answer comes of GONE, and a body longer than datagrams is told', async () => {
    const server = await acking(d => [d.long === 1n ? { small: GONE } : { small: DONE, word: 70000 }])
    const client = new Client(server.address)
    await assert.rejects(client.ask('1').answer, error => error instanceof Client.Gone && error.seq === 1n && error.epoch === 7)
    await assert.rejects(client.ask('2').answer, /DONE, with a body of 70000 bytes/)
    client.close()
    server.close()
  })

  test('C4: without a reply after the hold and an RTO, after PENDING as late as the server asks', async () => {
    const server = await acking((d, seen) => [[], [{ small: PENDING, word: 1200 }, { small: PENDING, word: 9000 }], [{ small: 77, word: 0 }], [done('x')]][seen.filter(one => one.kind === TAKE).length - 1] ?? [])
    const client = new Client(server.address)
    assert.equal((await client.ask('1', { wait: 0.2 }).answer).body.toString(), 'x')
    const at = takes(server).map(d => d.at), gaps = [at[1] - at[0], at[2] - at[1], at[3] - at[2]]
    for (const [n, [least, most]] of [[1.2, 1.6], [1.2, 1.7], [1, 1.45]].entries()) assert.ok(gaps[n] > least - 0.02 && gaps[n] < most, `${gaps}`)
    client.close()
    server.close()
  })

  test('C4: the first TAKE is held for a second and each that came too early lets the next be held for longer', async () => {
    const server = await acking((d, seen) => seen.filter(one => one.kind === TAKE).length < 4 ? [{ small: PENDING, word: 0 }] : [done('x')])
    const client = new Client(server.address)
    assert.equal((await client.ask('1').answer).body.toString(), 'x')
    assert.deepEqual(takes(server).filter(d => d.small !== 0xffff).map(d => d.word), [1000, 2000, 4000, 8000])
    client.close()
    server.close()
    // Who waits for an answer hears of PENDING when his time is over, and not after each hold.
    const slow = await acking(() => [{ small: PENDING, word: 0 }])
    const later = new Client(slow.address, { waiting: [{ epoch: 3, seq: 1 }] })
    const heard = []
    const hasty = later.take(3, 1, { wait: 0.4 }).then(() => heard.push('hasty'))
    const patient = later.take(3, 1, { wait: 1.4 }).then(() => heard.push('patient'))
    await Promise.all([hasty, patient])
    assert.deepEqual(heard, ['hasty', 'patient'])
    assert.deepEqual(takes(slow).map(d => d.word), [1000, 400])
    later.close()
    slow.close()
  })

  test('C4: at most 16 TAKEs are open, and at most 10 in a round trip', async () => {
    const server = await answeringServer({ delay: () => 60000 })
    const client = new Client(server.address)
    const asked = Array.from({ length: 30 }, (_, n) => client.ask(`${n}`))
    await Promise.all(asked.map(({ receipt }) => receipt))
    await until(() => takes(server).length >= 16)
    await sleep(100)
    assert.equal(takes(server).length, 16)
    server.asks.get('7:16').at = 0
    await client.take(7, 16n)
    await until(() => takes(server).some(d => d.long === 17n))
    client.close()
    assert.deepEqual(server.end(), [])
    // Nothing comes back, so that no round trip is seen to end.
    const silent = await fakeServer(d => [])
    const later = new Client(silent.address, { waiting: Array.from({ length: 14 }, (_, n) => ({ epoch: 3, seq: n + 1 })) })
    for (const { epoch, seq } of later.waiting) later.take(epoch, seq, { wait: 20 }).catch(() => {})
    await until(() => takes(silent).length === 10)
    await sleep(300)
    assert.equal(takes(silent).length, 10)
    await until(() => takes(silent).length === 14)
    later.close()
    silent.close()
  })

  test('C5: a sleeper takes nothing by itself, with wait 0 when it wakes, and after READY', async () => {
    const server = await answeringServer({ delay: () => 60000 })
    const client = new Client(server.address)
    const asked = ['1', '2'].map(text => client.ask(text, { wait: 0 }))
    await asked[1].receipt
    await sleep(50)
    assert.deepEqual([takes(server), client.ready], [[], false])
    assert.equal((await client.take(7, 1)).status, 'PENDING')
    await sleep(1400) // longer than the server asked it to rest
    assert.deepEqual(takes(server).map(d => [d.long, d.word]), [[1n, 0]])
    assert.equal((await client.take(7, 1)).status, 'PENDING')
    server.asks.get('7:2').at = 0
    await client.send('a reading')
    assert.ok(client.ready)
    assert.equal((await asked[1].answer).body.toString(), '2')
    // 1 was PENDING just now: the server does not bear it again yet.
    for (let n = 0; n < 5; n++) await client.send('a reading')
    assert.equal(takes(server).filter(d => d.long === 1n).length, 2)
    client.close()
    await assert.rejects(asked[0].answer, Client.Closed)
    assert.deepEqual(client.waiting, [{ epoch: 7, seq: 1n }])
    assert.deepEqual(server.end(), [])
  })

  test('C6: what waits is taken in the old epoch, and what is sent again waits in the new one', async () => {
    const server = await answeringServer({ delay: () => 300 })
    const client = new Client(server.address)
    const first = client.ask('first')
    await first.receipt
    server.stale = 7
    server.epoch = 8
    const second = client.ask('second')
    assert.deepEqual(await second.receipt, { epoch: 8, seq: 1n })
    assert.deepEqual(client.waiting, [{ epoch: 7, seq: 1n }, { epoch: 8, seq: 1n }])
    assert.deepEqual([(await first.answer).body.toString(), (await second.answer).body.toString()], ['tsrif', 'dnoces'])
    client.close()
    assert.deepEqual(server.end(), [])
  })

  test('C7: when nothing waits one TAKE lets the server forget all, and names no seq that asks soon', async () => {
    const server = await answeringServer()
    const client = new Client(server.address)
    await Promise.all(['1', '2', '3'].map(text => client.ask(text).answer))
    await until(() => server.asks.size === 0)
    assert.deepEqual(spans(server).at(-1), [3n + 1n + 65535n, 65535])
    const before = takes(server).length
    await sleep(1500)
    assert.equal(takes(server).length, before, 'it is not repeated')
    client.close()
    assert.deepEqual(server.end(), [])
  })

  test('C8: a later run takes what was stored, and without that lets the server forget nothing', async () => {
    const server = await answeringServer({ delay: () => 60000 })
    let client = new Client(server.address, { clientId: 1n })
    const asked = ['1', '2', '3'].map(text => client.ask(text, { wait: 0 }))
    await asked[2].receipt
    client.close()
    const stored = client.waiting
    for (const ask of server.asks.values()) ask.at = 0
    client = new Client(server.address, { clientId: 1n })
    assert.equal((await client.take(7, 3)).body.toString(), '3')
    client.close()
    assert.equal(server.asks.size, 3)
    client = new Client(server.address, { clientId: 1n, waiting: stored })
    for (const { epoch, seq } of client.waiting.reverse()) assert.equal((await client.take(epoch, seq)).body.toString(), `${seq}`)
    assert.deepEqual([client.waiting, client.epoch], [[], 0])
    await until(() => server.asks.size === 0)
    await assert.rejects(client.take(7, 2), Client.Gone)
    client.close()
    assert.deepEqual(server.end(), [])
  })

  test('wrong arguments are named and harm nothing', async () => {
    const server = await answeringServer()
    const client = new Client(server.address)
    for (const options of [{ wait: 'long' }, { wait: NaN }, { channel: -1 }]) {
      await assert.rejects(client.ask('x', options).receipt, /wait|channel/)
      await assert.rejects(client.ask('x', options).answer, /wait|channel/)
    }
    await assert.rejects(client.ask(5).answer, TypeError)
    for (const name of [[0, 1], [1, 0], ['1', 1], [1, 1.5], [2 ** 32, 1], [1, 2n ** 64n - 1n]]) await assert.rejects(client.take(...name), /epoch|seq/)
    for (const waiting of [[{ epoch: 0, seq: 1 }], Array.from({ length: 65 }, (_, n) => ({ epoch: 1, seq: n + 1 }))]) {
      assert.throws(() => new Client(server.address, { waiting }), RangeError)
    }
    assert.equal((await client.ask('right').answer).body.toString(), 'thgir')
    client.close()
    await assert.rejects(client.ask('x').answer, Client.Closed)
    await assert.rejects(client.take(1, 1), Client.Closed)
    assert.deepEqual(server.end(), [])
  })

  test('the command writes one line of JSON for each answer', async () => {
    const server = await answeringServer({ answer: payload => ({ status: payload.includes('no') ? FAILED : DONE, body: payload.includes('raw') ? Buffer.from([255]) : Buffer.from(payload) }) })
    const done = await run(process.execPath, ['send.js', '--ask', server.address], { input: 'one\nraw\nno\n' })
    assert.equal(done.code, 1)
    const lines = done.out.trim().split('\n').map(line => JSON.parse(line)).sort((a, b) => a.line - b.line)
    assert.deepEqual(lines, [{ line: 1, status: 'DONE', body: 'one' }, { line: 2, status: 'DONE', body_base64: '/w==' }, { line: 3, status: 'FAILED', body: 'no' }])
    assert.match(done.err, /3 records are on the server's disk, 0 are not; 2 answers are DONE/)
    assert.deepEqual(server.end(), [])
  })
})
