// Datagrams to bytes and back (PROTOCOL.md#datagrams), as far as a client with one message in flight needs them.
'use strict'

const DATA = 1, ACK = 2, REJECT = 3, HELLO = 4, WELCOME = 5, PING = 6, ANSWER = 7, TAKE = 8
/** The option of a DATA whose sender wants an answer, and the statuses of ANSWER (PROTOCOL.md#answers). */
const ASK = 2, DONE = 0, FAILED = 1, PENDING = 2, GONE = 3
/** The flag of an ACK: an answer waits. */
const READY = 0x20
const SEALED = 0x08
/** The length of a datagram without payload. */
const OVERHEAD = 32
/** The longest UDP payload, of IPv4. */
const DATAGRAM_MAX = 65507
const NAMES = new Map([
  [1, 'VERSION'], [2, 'UNSUPPORTED'], [3, 'TOO_LARGE'], [4, 'STALE_EPOCH'], [5, 'BEYOND_WINDOW'], [6, 'BUSY'], [7, 'STORAGE'],
  [8, 'CHANNEL'], [9, 'SEALED_ONLY'],
])

const crcTable = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1
  return n >>> 0
})

function crc32(bytes) {
  let c = 0xffffffff
  for (let at = 0; at < bytes.length; at++) c = (c >>> 8) ^ crcTable[(c ^ bytes[at]) & 255]
  return (c ^ 0xffffffff) >>> 0
}

/** A datagram. `small` is the span of a TAKE; that of a DATA is 0: with one message in flight it is the oldest that is held. */
function encode({ kind, flags = 0, small = 0, epoch = 0, client, long = 0n, word = 0, payload = null }) {
  const length = payload ? payload.length : 0
  const bytes = Buffer.alloc(OVERHEAD + length)
  bytes[0] = 0x10 | kind
  bytes[1] = flags
  bytes.writeUInt16LE(small, 2)
  bytes.writeUInt32LE(epoch, 4)
  bytes.writeBigUInt64LE(client, 8)
  bytes.writeBigUInt64LE(long, 16)
  bytes.writeUInt32LE(word, 24)
  if (payload) payload.copy(bytes, 28)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
  return bytes
}

/** A reply to this client, or null. */
function decode(bytes, client) {
  if (bytes.length < OVERHEAD || crc32(bytes.subarray(0, -4)) !== bytes.readUInt32LE(bytes.length - 4)) return null
  const kind = bytes[0] & 15, flags = bytes[1], small = bytes.readUInt16LE(2), epoch = bytes.readUInt32LE(4)
  if (bytes[0] >> 4 === 1) {
    if (kind === ANSWER) return answer(bytes, client)
    // With one message in flight an ACK has no bitmap: bits would tell of what was never sent.
    if (bytes.length !== OVERHEAD || flags & SEALED) return null
    if (kind === ACK ? !epoch || (flags & 3) === 3 : kind === WELCOME ? !epoch || bytes.readUInt32LE(24) : kind !== REJECT) return null
  } else if (kind !== REJECT || small !== 1) {
    return null
  }
  if (bytes.readBigUInt64LE(8) !== client) return null
  return { kind, flags, small, epoch, long: bytes.readBigUInt64LE(16), word: bytes.readUInt32LE(24) }
}

/** An ANSWER whose checksum is right, or null. */
function answer(bytes, client) {
  const small = bytes.readUInt16LE(2), epoch = bytes.readUInt32LE(4), long = bytes.readBigUInt64LE(16), word = bytes.readUInt32LE(24)
  const body = bytes.subarray(28, -4)
  const whole = body.length === 0 || ((small === DONE || small === FAILED) && body.length === word) || small > GONE
  if (bytes[1] || !epoch || !long || !whole || (small === GONE && word) || bytes.readBigUInt64LE(8) !== client) return null
  return { kind: ANSWER, flags: 0, small, epoch, long, word, body }
}

module.exports = {
  DATA, ACK, REJECT, HELLO, WELCOME, PING, ANSWER, TAKE, ASK, DONE, FAILED, PENDING, GONE, READY, OVERHEAD, DATAGRAM_MAX, NAMES, encode, decode, crc32,
}
