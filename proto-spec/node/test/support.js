// The real server, a fake one, and programs.
'use strict'
const { spawn } = require('node:child_process'), dgram = require('node:dgram'), fs = require('node:fs')
const os = require('node:os'), path = require('node:path'), { once } = require('node:events')
const { DATA, ACK, REJECT, HELLO, WELCOME, ANSWER, TAKE, ASK, READY, DONE, PENDING, GONE, crc32 } = require('../wire.js')

const PACKAGE = path.dirname(__dirname)
const DURAGRAM = process.env.DURAGRAM ?? path.join(PACKAGE, '..', '..', 'target', 'release', 'duragram')

/** The real server with a directory of its own. */
async function realServer(listen = '127.0.0.1') {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'duragram-node-'))
  const sink = path.join(directory, 'sink')
  const words = ['serve', '--listen', `${listen}:0`, '--admin', 'off', '--data', path.join(directory, 'data'), '--sink', `file:${sink}`]
  const child = spawn(DURAGRAM, words, { stdio: ['ignore', 'pipe', 'ignore'] })
  const [ready] = await once(child.stdout, 'data')
  const address = /udp=(\S+)/.exec(ready)[1]
  return {
    address,
    port: Number(/\d+$/.exec(address)[0]),
    /** Stops it; what it has processed, in its order. */
    async records() {
      child.kill('SIGTERM')
      await once(child, 'exit')
      const text = fs.readFileSync(sink, 'utf8')
      fs.rmSync(directory, { recursive: true })
      return text.split('\n').filter(Boolean).map(JSON.parse)
    },
  }
}

/** A server that answers each datagram as `answer({ kind, epoch, long, … })` says, by a list of replies. Of each, in both directions, `path`
 * gives after how many milliseconds it arrives, as a list: of none it is lost, of two it is doubled. */
async function fakeServer(answer, path = () => [0]) {
  const socket = dgram.createSocket('udp4'), seen = []
  const pass = (to, deliver) => { for (const ms of path(to)) if (ms) setTimeout(deliver, ms); else deliver() }
  let closed = false, last = null
  const send = (datagram, { kind, flags = 0, small = 0, epoch = datagram.epoch, long = 0n, word = 0, body = null }, peer) => {
    const length = body ? body.length : 0, reply = Buffer.alloc(32 + length)
    reply[0] = 0x10 | kind
    reply[1] = flags
    reply.writeUInt16LE(small, 2)
    reply.writeUInt32LE(epoch, 4)
    reply.writeBigUInt64LE(datagram.client, 8)
    reply.writeBigUInt64LE(long, 16)
    reply.writeUInt32LE(word, 24)
    if (body) body.copy(reply, 28)
    reply.writeUInt32LE(crc32(reply.subarray(0, -4)), 28 + length)
    pass('client', () => { if (!closed) socket.send(reply, peer.port, peer.address) })
  }
  const receive = (bytes, peer) => {
    if (closed) return
    const datagram = {
      kind: bytes[0] & 15, flags: bytes[1], small: bytes.readUInt16LE(2), word: bytes.readUInt32LE(24), epoch: bytes.readUInt32LE(4), client: bytes.readBigUInt64LE(8),
      long: bytes.readBigUInt64LE(16), payload: bytes.subarray(28, -4), at: performance.now() / 1000,
    }
    seen.push(datagram)
    last = { datagram, peer }
    for (const reply of answer(datagram, seen)) send(datagram, reply, peer)
  }
  socket.on('message', (bytes, peer) => pass('server', () => receive(bytes, peer)))
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return {
    seen,
    address: `127.0.0.1:${socket.address().port}`,
    /** Sends what nothing has drawn. */
    say: reply => send(last.datagram, reply, last.peer),
    close: () => { closed = true; socket.close() },
  }
}

/** A server that journals and answers, as PROTOCOL.md#answers-server says. Each ask is answered `delay()` milliseconds after it came, by `answer` of
 * its payload: { status, body }. */
async function answeringServer({ answer = payload => ({ status: DONE, body: Buffer.from(payload).reverse() }), delay = () => 0, path } = {}) {
  const asks = new Map(), held = new Map(), wrong = [], floors = new Map()
  let journaled = 0
  const now = () => performance.now()
  const reply = (name, room, retry) => {
    const ask = asks.get(name), [epoch, seq] = name.split(':')
    const of = { kind: ANSWER, epoch: Number(epoch), long: BigInt(seq) }
    if (!ask) return { ...of, small: GONE }
    if (ask.at > now()) return { ...of, small: PENDING, word: retry }
    const { status, body } = answer(ask.payload)
    return { ...of, small: status, word: body.length, body: body.length <= room ? body : null }
  }
  const server = await fakeServer(d => {
    if (d.kind === HELLO) return [{ kind: WELCOME, small: 64, epoch: server.epoch, long: d.long }]
    const floor = floors.get(d.epoch) ?? 0n
    if (d.kind === DATA) {
      if (server.stale === d.epoch) return [{ kind: REJECT, small: 4, long: d.long }]
      if (d.long > floor) {
        if (d.word >>> 16 === ASK) {
          if (asks.size >= 64) return [{ kind: REJECT, small: 6, long: d.long, word: 50 }]
          asks.set(`${d.epoch}:${d.long}`, { payload: Buffer.from(d.payload), at: now() + delay() })
        }
        journaled++
        floors.set(d.epoch, d.long)
      }
      const ready = [...asks.values()].some(ask => ask.at <= now())
      return [{ kind: ACK, flags: ready ? READY : 0, small: 64, long: floors.get(d.epoch) }]
    }
    if (d.kind !== TAKE) return []
    const name = `${d.epoch}:${d.long}`, ask = asks.get(name)
    for (const other of asks.keys()) {
      const [epoch, seq] = other.split(':')
      if (Number(epoch) === d.epoch && BigInt(seq) < d.long - BigInt(d.small)) asks.delete(other)
    }
    if (d.long > floor && d.small !== 0xffff) wrong.push(`TAKE of ${name}, which is not journaled`)
    clearTimeout(held.get(name))
    held.delete(name)
    if (!ask || ask.at <= now() || !d.word) return [reply(name, d.payload.length, 1000)]
    if (held.size >= 16) wrong.push('a 17th TAKE is open')
    const end = () => { held.delete(name); server.say(reply(name, d.payload.length, 0)) }
    held.set(name, setTimeout(end, Math.min(d.word, 20000, Math.max(ask.at - now(), 0)) + 1))
    return []
  }, path)
  return Object.assign(server, {
    epoch: 7, asks, wrong,
    journaled: () => journaled,
    /** What it held is lost. */
    restart: () => { for (const timer of held.values()) clearTimeout(timer); held.clear() },
    end() { this.restart(); this.close(); return wrong },
  })
}

/** Runs a program to its end. */
async function run(command, words, { input = '', env = {}, stdio = 'pipe' } = {}) {
  const child = spawn(command, words, { env: { ...process.env, ...env }, cwd: PACKAGE, stdio: ['pipe', stdio, 'pipe'] })
  const out = [], err = []
  child.stdout?.on('data', part => out.push(part))
  child.stderr.on('data', part => err.push(part))
  child.stdin.on('error', () => {})
  child.stdin.end(input)
  const [code] = await once(child, 'close')
  return { code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }
}

module.exports = { PACKAGE, realServer, fakeServer, answeringServer, run }
