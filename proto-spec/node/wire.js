// Datagrams to bytes and back (PROTOCOL.md#datagrams), as far as a client with one message in flight needs them.
'use strict'

const DATA = 1, ACK = 2, REJECT = 3, HELLO = 4, WELCOME = 5, PING = 6
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

/** A datagram whose span is 0: with one message in flight it is the oldest that is held. */
function encode({ kind, flags = 0, epoch = 0, client, long = 0n, channel = 0, payload = null }) {
  const length = payload ? payload.length : 0
  const bytes = Buffer.alloc(OVERHEAD + length)
  bytes[0] = 0x10 | kind
  bytes[1] = flags
  bytes.writeUInt32LE(epoch, 4)
  bytes.writeBigUInt64LE(client, 8)
  bytes.writeBigUInt64LE(long, 16)
  bytes.writeUInt16LE(channel, 24)
  if (payload) payload.copy(bytes, 28)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, -4)), bytes.length - 4)
  return bytes
}

/** A reply to this client, or null. */
function decode(bytes, client) {
  if (bytes.length < OVERHEAD || crc32(bytes.subarray(0, -4)) !== bytes.readUInt32LE(bytes.length - 4)) return null
  const kind = bytes[0] & 15, flags = bytes[1], small = bytes.readUInt16LE(2), epoch = bytes.readUInt32LE(4)
  if (bytes[0] >> 4 === 1) {
    // With one message in flight an ACK has no bitmap: bits would tell of what was never sent.
    if (bytes.length !== OVERHEAD || flags & SEALED) return null
    if (kind === ACK ? !epoch || (flags & 3) === 3 : kind === WELCOME ? !epoch || bytes.readUInt32LE(24) : kind !== REJECT) return null
  } else if (kind !== REJECT || small !== 1) {
    return null
  }
  if (bytes.readBigUInt64LE(8) !== client) return null
  return { kind, small, epoch, long: bytes.readBigUInt64LE(16), word: bytes.readUInt32LE(24) }
}

module.exports = { DATA, ACK, REJECT, HELLO, WELCOME, PING, OVERHEAD, DATAGRAM_MAX, NAMES, encode, decode, crc32 }
