#!/usr/bin/env node
// Sends each line of stdin to a Duragram server, one at a time: node send.js HOST:PORT [CLIENT_ID in hex]
// Ends with 0 when all are on the server's disk. Written from PROTOCOL.md#implementing alone; Node.js 18, no packages.
'use strict'
const crypto = require('node:crypto'), dgram = require('node:dgram'), readline = require('node:readline')

const DATA = 1, ACK = 2, REJECT = 3, HELLO = 4, WELCOME = 5, PING = 6
const WHOLE = 0x30, SKIP = 0x80, SEALED = 0x08, STALE_EPOCH = 4, BEYOND_WINDOW = 5
const FINAL = new Map([[1, 'VERSION'], [2, 'UNSUPPORTED'], [3, 'TOO_LARGE'], [8, 'CHANNEL'], [9, 'SEALED_ONLY']])

const crcTable = Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1
  return n >>> 0
})
const crc32 = bytes => (bytes.reduce((c, byte) => (c >>> 8) ^ crcTable[(c ^ byte) & 255], 0xffffffff) ^ 0xffffffff) >>> 0
const sleep = seconds => new Promise(resolve => setTimeout(resolve, seconds * 1000))
const backoff = tries => Math.min(2 ** tries, 60) * (1 + Math.random() / 4)
const wait = (ms, tries) => sleep(ms ? Math.min(ms, 60000) / 1000 * (1 + Math.random() / 2) : backoff(tries))

class Refused extends Error {}

class Client {
  constructor(host, port, id) {
    this.id = id
    this.waiting = null // of receive
    this.socket = dgram.createSocket('udp4')
    this.socket.on('message', bytes => this.waiting?.(bytes))
    this.socket.on('error', () => {}) // as good as lost on the way
    this.transmitTo = bytes => this.socket.send(bytes, port, host, () => {})
    this.begin(0, 0)
  }

  begin(epoch, credit) {
    Object.assign(this, { epoch, credit, window: credit, seq: 0n, floor: 0n, skipped: 0n })
  }

  async send(payload, channel = 0) {
    if (this.seq > this.floor + BigInt(this.window)) this.begin(0, 0)
    let tries = 0
    this.sent = null
    for (;;) {
      if (!this.epoch) await this.hello()
      if (this.sent === null) { this.seq++; this.sent = 0 }
      if (this.credit === 0) {
        this.transmit(PING, 0, this.epoch, 0n)
      } else {
        const flags = WHOLE | Math.min(this.sent, 7) | (this.skipped > this.floor ? SKIP : 0)
        this.transmit(DATA, flags, this.epoch, this.seq, channel, payload)
        this.sent++
      }
      const reply = await this.receive(backoff(tries), reply => this.answersMessage(reply))
      tries++
      if (!reply) continue
      if (reply.kind === ACK) {
        this.credit = reply.small
        this.window = Math.max(this.window, this.credit)
        if (reply.long > this.floor) this.floor = reply.long
        if (this.floor === this.seq) return
      } else if (FINAL.has(reply.small)) {
        this.skipped = this.seq
        throw new Refused(FINAL.get(reply.small))
      } else if (reply.small === STALE_EPOCH) {
        if (tries > 1) await sleep(backoff(tries))
        this.begin(0, 0)
        this.sent = null
      } else if (reply.small === BEYOND_WINDOW) {
        this.credit = 0
      } else {
        await wait(reply.word, tries)
      }
    }
  }

  async hello() {
    const nonce = crypto.randomBytes(8).readBigUInt64LE()
    const answers = r => r.long === nonce && (r.kind === WELCOME || (r.kind === REJECT && r.epoch === 0))
    for (let tries = 0; !this.epoch;) {
      this.transmit(HELLO, 0, 0, nonce)
      const reply = await this.receive(backoff(tries), answers)
      tries++
      if (!reply) continue
      if (reply.kind === WELCOME) this.begin(reply.epoch, reply.small)
      else if (FINAL.has(reply.small)) throw new Refused(FINAL.get(reply.small))
      else await wait(reply.word, tries)
    }
  }

  answersMessage({ kind, epoch, long }) {
    if (epoch !== this.epoch) return false
    if (kind === ACK) return (long === this.seq && this.sent > 0) || (long < this.seq && this.credit === 0)
    return kind === REJECT && ((long === this.seq && this.sent > 0) || (long === 0n && this.credit === 0))
  }

  transmit(kind, flags, epoch, long, channel = 0, payload = Buffer.alloc(0)) {
    const bytes = Buffer.alloc(32 + payload.length)
    bytes[0] = 0x10 | kind
    bytes[1] = flags
    bytes.writeUInt32LE(epoch, 4)
    bytes.writeBigUInt64LE(this.id, 8)
    bytes.writeBigUInt64LE(long, 16)
    bytes.writeUInt16LE(channel, 24)
    payload.copy(bytes, 28)
    bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
    this.transmitTo(bytes)
  }

  receive(seconds, fits) {
    return new Promise(resolve => {
      const end = reply => { clearTimeout(timer); this.waiting = null; resolve(reply) }
      const timer = setTimeout(end, seconds * 1000, null)
      this.waiting = bytes => { const reply = this.decode(bytes); if (reply && fits(reply)) end(reply) }
    })
  }

  decode(bytes) {
    if (bytes.length < 32 || crc32(bytes.subarray(0, -4)) !== bytes.readUInt32LE(bytes.length - 4)) return null
    const kind = bytes[0] & 15, flags = bytes[1], small = bytes.readUInt16LE(2), epoch = bytes.readUInt32LE(4)
    if (bytes[0] >> 4 === 1) {
      if (bytes.length !== 32 || flags & SEALED) return null
      if ((kind === ACK && (flags & 3) === 3) || (kind === WELCOME && !epoch)) return null
    } else if (kind !== REJECT || small !== 1) {
      return null
    }
    if (bytes.readBigUInt64LE(8) !== this.id) return null
    return { kind, small, epoch, long: bytes.readBigUInt64LE(16), word: bytes.readUInt32LE(24) }
  }
}

async function main([server, id]) {
  const at = server.lastIndexOf(':')
  const client = new Client(server.slice(0, at), Number(server.slice(at + 1)), id ? BigInt(`0x${id}`) : crypto.randomBytes(8).readBigUInt64LE())
  let acked = 0, refused = 0
  for await (const line of readline.createInterface({ input: process.stdin })) {
    try {
      await client.send(Buffer.from(line))
      acked++
    } catch (error) {
      if (!(error instanceof Refused)) throw error
      console.error(`record ${acked + ++refused}: refused: ${error.message}`)
    }
  }
  console.log(`${acked} records are on the server's disk, ${refused} were refused`)
  process.exit(refused ? 1 : 0)
}

main(process.argv.slice(2))
