'use strict'
const { test, describe } = require('node:test'), assert = require('node:assert/strict'), dgram = require('node:dgram')
const Client = require('../index.js')
const { DATA, ACK, REJECT, HELLO, WELCOME, PING } = require('../wire.js')
const { realServer, fakeServer } = require('./support.js')

const welcome = (datagram, small = 64) => ({ kind: WELCOME, small, epoch: 7, long: datagram.long })

describe('the client', { concurrency: true }, () => {
  test('messages are journaled in their order, also when nobody waits for one before the next', async () => {
    const server = await realServer()
    const client = new Client(server.address, { clientId: 0xa1n })
    const receipts = await Promise.all(Array.from({ length: 50 }, (_, n) => client.send(`message ${n}`, { channel: n })))
    assert.deepEqual(receipts.map(receipt => receipt.seq), Array.from({ length: 50 }, (_, n) => BigInt(n + 1)))
    assert.equal(client.epoch, receipts[0].epoch)
    client.close()
    const records = await server.records()
    assert.deepEqual(records.map(r => [r.client, r.channel, r.payload]), Array.from({ length: 50 }, (_, n) => ['00000000000000a1', n, `message ${n}`]))
  })

  test('every kind of bytes is sent as it was when send was called', async () => {
    const server = await realServer()
    const client = new Client(server.address)
    const buffer = Buffer.from('same 0')
    const sent = [
      client.send(buffer), client.send(new Uint16Array([0x6261, 0x6463]).subarray(1)), client.send(new TextEncoder().encode('später').buffer),
      client.send(new DataView(new TextEncoder().encode('xview').buffer, 1)), client.send(Buffer.from([0xff, 0xfe])), client.send(''),
    ]
    buffer.write('gone')
    await Promise.all(sent)
    client.close()
    const records = await server.records()
    assert.deepEqual(records.map(r => r.payload ?? r.payload_base64), ['same 0', 'cd', 'später', 'view', '//4=', ''])
  })

  test('wrong arguments are named and harm nothing', async () => {
    const server = await realServer()
    for (const address of ['nowhere', 'host:0', 'host:70000', '[1.2.3.4]:5', '[::1', '', 'a b:1', null, 5, undefined]) {
      assert.throws(() => new Client(address), error => /server|IPv6/.test(error.message), String(address))
    }
    for (const options of [{ clientId: -1 }, { clientId: 2n ** 64n }, { clientId: 'xyz' }, { clientId: 1.5 }, { queuedMax: 0 }, { log: 'x' }]) {
      assert.throws(() => new Client(server.address, options), /client id|queuedMax|log/)
    }
    const client = new Client(server.address)
    for (const payload of [undefined, null, 5, {}, [1, 2], true]) await assert.rejects(client.send(payload), TypeError)
    for (const channel of [-1, 65536, 1.5, '7', null]) await assert.rejects(client.send('x', { channel }), /channel/)
    await client.send('right')
    client.close()
    assert.deepEqual((await server.records()).map(r => r.payload), ['right'])
  })

  test('a message that is too long fails alone, here or at the server', async () => {
    const server = await realServer()
    const client = new Client(server.address)
    const outcomes = await Promise.allSettled([
      client.send('before'), client.send(Buffer.alloc(Client.PAYLOAD_MAX + 1)), client.send(Buffer.alloc(Client.PAYLOAD_MAX)), client.send('after'),
    ])
    assert.deepEqual(outcomes.map(o => o.reason?.name ?? 'acked'), ['acked', 'TooLarge', 'Refused', 'acked'])
    assert.equal(outcomes[2].reason.code, 3)
    client.close()
    assert.deepEqual((await server.records()).map(r => r.payload), ['before', 'after'])
  })

  test('a message that UDP does not carry here fails, and the next is sent', async () => {
    const server = await realServer()
    const send = dgram.Socket.prototype.send
    let late = 1
    // A system whose UDP carries little; and one error that is told late, of another datagram.
    dgram.Socket.prototype.send = function (bytes, ...more) {
      const done = more.at(-1)
      if (typeof done === 'function' && (bytes.includes('too long here') || (bytes.includes('told late') && late-- > 0))) {
        setImmediate(done, Object.assign(new Error('send EMSGSIZE'), { code: 'EMSGSIZE' }))
      } else {
        send.call(this, bytes, ...more)
      }
    }
    try {
      const client = new Client(server.address)
      await client.send('first')
      await assert.rejects(client.send('too long here'), Client.TooLarge)
      await client.send('told late')
      client.close()
    } finally {
      dgram.Socket.prototype.send = send
    }
    assert.deepEqual((await server.records()).map(r => r.payload), ['first', 'told late'])
  })

  test('IPv6, names, and the next address when the first does not answer', async () => {
    const six = await realServer('[::1]'), four = await realServer()
    const silent = dgram.createSocket('udp6')
    await new Promise(resolve => silent.bind(four.port, '::1', resolve))
    const clients = [
      new Client(six.address), new Client(`localhost:${four.port}`),
      new Client(`two:${four.port}`, { lookup: async () => [{ address: '::1', family: 6 }, { address: '127.0.0.1', family: 4 }] }),
    ]
    const began = performance.now()
    await Promise.all(clients.map((client, n) => client.send(`${n}`)))
    assert.ok(performance.now() - began < 8000)
    for (const client of clients) client.close()
    silent.close()
    assert.deepEqual((await six.records()).map(r => r.payload), ['0'])
    assert.deepEqual((await four.records()).map(r => r.payload).sort(), ['1', '2'])
  })

  test('a name without addresses is looked up again and again, and the log is told', async () => {
    const server = await realServer()
    let asked = 0
    const told = []
    const lookup = async () => {
      if (++asked === 1) throw new Error('getaddrinfo ENOTFOUND later')
      return [{ address: '127.0.0.1', family: 4 }]
    }
    const client = new Client(`later:${server.port}`, { lookup, log: text => told.push(text) })
    await client.send('found')
    client.close()
    assert.match(told[0], /ENOTFOUND/)
    await server.records()
  })

  test('no reply moves the next PING while there is no credit', async () => {
    // PROTOCOL.md#duty-probe: every PING is answered at once, and each message's ack takes the credit away.
    const server = await fakeServer(d => {
      if (d.kind === HELLO) return [welcome(d)]
      return Array.from({ length: 3 }, () => ({ kind: ACK, long: d.kind === DATA ? d.long : 1n }))
    })
    const client = new Client(server.address)
    await client.send('takes the credit')
    const waiting = client.send('waits')
    await new Promise(resolve => setTimeout(resolve, 4500))
    const pings = server.seen.filter(d => d.kind === PING)
    assert.equal(pings.length, 2, 'after 1 to 1.25 s, and 2 to 2.5 s later')
    assert.ok(pings[1].at - pings[0].at > 1.9)
    assert.equal(server.seen.filter(d => d.kind === DATA).length, 1)
    client.close()
    await assert.rejects(waiting, Client.Closed)
    server.close()
  })

  test('credit that comes back ends the wait at once', async () => {
    const server = await fakeServer(d => {
      if (d.kind === HELLO) return [welcome(d, 0)]
      return d.kind === PING ? [{ kind: ACK, small: 5 }] : [{ kind: ACK, small: 5, long: d.long }]
    })
    const client = new Client(server.address)
    await client.send('x')
    assert.deepEqual(server.seen.map(d => d.kind), [HELLO, PING, DATA])
    client.close()
    server.close()
  })

  test('what the server refuses for good fails alone and is skipped', async () => {
    const server = await fakeServer(d => {
      if (d.kind === HELLO) return [welcome(d)]
      return d.payload.includes('bad') ? [{ kind: REJECT, small: 8, long: d.long }] : [{ kind: ACK, small: 64, long: d.long }]
    })
    const client = new Client(server.address)
    await assert.rejects(client.send('bad'), error => error instanceof Client.Refused && error.code === 8 && /CHANNEL/.test(error.message))
    await client.send('good')
    assert.equal(server.seen.at(-1).flags & 0x80, 0x80)
    client.close()
    server.close()
  })

  test('a full queue and a closed client say so', async () => {
    const server = await fakeServer(() => [])
    const client = new Client(server.address, { queuedMax: 2 })
    const taken = [client.send('1'), client.send('2')]
    await assert.rejects(client.send('3'), Client.Full)
    assert.equal(client.queued, 2)
    client.close()
    client.close()
    for (const one of taken) await assert.rejects(one, Client.Closed)
    await assert.rejects(client.send('4'), Client.Closed)
    assert.ok(client.closed)
    server.close()
  })
})
