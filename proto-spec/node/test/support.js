// The real server, a fake one, and programs.
'use strict'
const { spawn } = require('node:child_process'), dgram = require('node:dgram'), fs = require('node:fs')
const os = require('node:os'), path = require('node:path'), { once } = require('node:events')
const { crc32 } = require('../wire.js')

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

/** A server that answers each datagram as `answer({ kind, epoch, long, … })` says, by a list of replies. */
async function fakeServer(answer) {
  const socket = dgram.createSocket('udp4'), seen = []
  socket.on('message', (bytes, peer) => {
    const datagram = {
      kind: bytes[0] & 15, flags: bytes[1], epoch: bytes.readUInt32LE(4), client: bytes.readBigUInt64LE(8),
      long: bytes.readBigUInt64LE(16), payload: bytes.subarray(28, -4), at: performance.now() / 1000,
    }
    seen.push(datagram)
    for (const { kind, small = 0, epoch = datagram.epoch, long = 0n, word = 0 } of answer(datagram, seen)) {
      const reply = Buffer.alloc(32)
      reply[0] = 0x10 | kind
      reply.writeUInt16LE(small, 2)
      reply.writeUInt32LE(epoch, 4)
      reply.writeBigUInt64LE(datagram.client, 8)
      reply.writeBigUInt64LE(long, 16)
      reply.writeUInt32LE(word, 24)
      reply.writeUInt32LE(crc32(reply.subarray(0, -4)), 28)
      socket.send(reply, peer.port, peer.address)
    }
  })
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  return { seen, address: `127.0.0.1:${socket.address().port}`, close: () => socket.close() }
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

module.exports = { PACKAGE, realServer, fakeServer, run }
