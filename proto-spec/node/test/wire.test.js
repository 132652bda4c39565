'use strict'
const { test } = require('node:test'), assert = require('node:assert/strict'), fs = require('node:fs'), path = require('node:path')
const wire = require('../wire.js')
const { PACKAGE } = require('./support.js')

const { datagrams } = JSON.parse(fs.readFileSync(path.join(PACKAGE, '..', 'vectors', 'datagrams.json')))

test('golden datagrams that such a client sends are encoded byte by byte', () => {
  let count = 0
  for (const { name, hex, datagram: d, canonical = true } of datagrams) {
    if (!d || !canonical || !['DATA', 'HELLO', 'PING', 'TAKE'].includes(d.type) || (d.type === 'DATA' && d.span) || (d.type === 'DATA' && !(d.begin && d.end))) continue
    const flags = d.type === 'DATA' ? 0x30 | d.attempt | (d.batch ? 0x40 : 0) | (d.skip ? 0x80 : 0) : 0
    const bytes = wire.encode({
      kind: wire[d.type], flags, epoch: d.epoch ?? 0, client: BigInt(`0x${d.client}`), long: BigInt(d.seq ?? d.nonce ?? 0),
      small: d.type === 'TAKE' ? d.span : 0, word: d.wait_ms ?? (d.channel ?? 0) + (d.options ?? 0) * 0x10000,
      payload: d.type === 'TAKE' ? Buffer.alloc(d.room) : d.payload === undefined ? null : Buffer.from(d.payload, 'hex'),
    })
    assert.equal(bytes.toString('hex'), hex, name)
    count++
  }
  assert.ok(count > 10)
})

test('golden datagrams for clients are taken or left as described', () => {
  let taken = 0, left = 0, answers = 0
  for (const { name, hex, datagram: d, version_refusal: refusal } of datagrams) {
    const bytes = Buffer.from(hex, 'hex')
    const client = d ? BigInt(`0x${d.client}`) : bytes.length >= 16 ? bytes.readBigUInt64LE(8) : 0n
    const reply = wire.decode(bytes, client)
    if (d && ['ACK', 'REJECT', 'WELCOME'].includes(d.type) && !d.bitmap) {
      assert.deepEqual([reply.kind, reply.epoch, reply.long], [wire[d.type], d.epoch, BigInt(d.floor ?? d.refused ?? d.nonce)], name)
      assert.equal(reply.small, d.credit ?? d.code, name)
      assert.equal(wire.decode(bytes, client ^ 1n), null, name)
      taken++
    } else if (d?.type === 'ANSWER') {
      assert.deepEqual([reply.epoch, reply.long, reply.small, reply.word, reply.body.toString('hex')], [d.epoch, BigInt(d.seq), d.status, d.number, d.body], name)
      assert.equal(wire.decode(bytes, client ^ 1n), null, name)
      answers++
    } else if (refusal) {
      assert.deepEqual([reply.kind, reply.small, reply.long], [wire.REJECT, 1, BigInt(refusal.refused)], name)
    } else if (!d) {
      assert.equal(reply, null, name)
      left++
    }
  }
  assert.ok(taken > 10 && left > 10 && answers > 5)
})
