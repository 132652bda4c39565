// A client of Duragram with one message in flight, written from PROTOCOL.md#implementing; Node.js 18, no packages.
'use strict'
const crypto = require('node:crypto')
const { DATA, ACK, REJECT, HELLO, WELCOME, PING, ANSWER, ASK, READY, OVERHEAD, DATAGRAM_MAX, NAMES, encode, decode } = require('./wire.js')
const { Asks, ASKS_MAX, WAIT_MAX, SEQ_MAX } = require('./asks.js')
const { Route } = require('./route.js')

const WHOLE = 0x30, BATCH = 0x40, SKIP = 0x80, STALE_EPOCH = 4, BEYOND_WINDOW = 5, BUSY = 6
const FINAL = new Set([1, 2, 3, 8, 9])
const U64_MAX = 2n ** 64n - 1n
/** The longest payload of a datagram. */
const PAYLOAD_MAX = DATAGRAM_MAX - OVERHEAD
/** Silence, in seconds, after which `log` is told. */
const SILENCE_TOLD = 5

class DuragramError extends Error {
  constructor(message) {
    super(message)
    this.name = this.constructor.name
  }
}
/** The server will never take the message. Others are not concerned. */
class Refused extends DuragramError {
  constructor(code) {
    super(`refused by the server: ${NAMES.get(code) ?? `code ${code}`}`)
    this.code = code
  }
}
/** The message, or the body of its answer, fits in no datagram, or is longer than this system's UDP carries. */
class TooLarge extends DuragramError {}
/** Too many messages wait already, or 64 that asked have no answer. */
class Full extends DuragramError {}
/** No answer will come: it was had, has expired, was lost, or nothing was asked under that name. That says nothing of the effect. */
class Gone extends DuragramError {
  constructor(epoch, seq) {
    super(`no answer to message ${seq} of epoch ${epoch} will come; it may have been processed all the same`)
    this.epoch = epoch
    this.seq = seq
  }
}
/** The client was closed before the ack came. If the message had been sent it may have been journaled. */
class Closed extends DuragramError {}

const now = () => performance.now() / 1000
const backoff = tries => Math.min(2 ** tries, 60) * (1 + Math.random() / 4)

class Client {
  #id; #log; #route; #queuedMax; #queue = []; #running = false; #closed = false
  #waiting = null // what waits for a reply or for time
  #epoch = 0; #credit = 0; #window = 0; #seq = 0n; #floor = 0n; #skipped = 0n; #sent = null
  #pingDue = null; #pings = 0
  #silentSince = null
  #asks; #asking = 0; #ready = false; #opening = null

  constructor(server, { clientId, queuedMax = 1024, log = () => {}, lookup, waiting = [] } = {}) {
    this.#id = parseClientId(clientId)
    if (!Number.isInteger(queuedMax) || queuedMax < 1) throw new RangeError(`queuedMax is an integer from 1 on, not ${queuedMax}`)
    if (typeof log !== 'function') throw new TypeError('log is a function')
    this.#queuedMax = queuedMax
    this.#log = log
    this.#route = new Route(server, bytes => this.#hear(bytes), lookup)
    this.#asks = new Asks({
      send: fields => this.#transmitTake(fields),
      isAsking: () => this.#asking > 0,
      roomMax: PAYLOAD_MAX,
      onMissed: () => { if (this.#route.missed()) this.#open().catch(() => {}) },
      failures: { Gone, TooLarge },
    })
    const names = [...waiting].map(({ epoch, seq }) => named(epoch, seq))
    if (names.length > ASKS_MAX) throw new RangeError(`${names.length} asks wait; a client has at most ${ASKS_MAX}`)
    for (const [epoch, seq] of names) this.#asks.add({ epoch, seq })
  }

  get clientId() { return this.#id }

  /** The session's epoch; 0 before the server has given one. */
  get epoch() { return this.#epoch }

  /** How many messages wait or are in flight. */
  get queued() { return this.#queue.length }

  get closed() { return this.#closed }

  /** Whether the server said in its latest ack that an answer waits: a hint. */
  get ready() { return this.#ready }

  /** What asked, is on the server's disk and has no answer, as { epoch, seq }: who stores it can take the answers in a later run. */
  get waiting() { return this.#asks.names() }

  /** Resolves to { epoch, seq } when the message is on the server's disk. Rejects with Refused, TooLarge, Full or Closed. */
  async send(payload, { channel = 0, batch = false } = {}) {
    return this.#enqueue(payload, channel, batch ? BATCH : 0, null)
  }

  /** Sends a message to which the service behind the server is to answer. Gives two promises, of which either is to be awaited:
   * `receipt`, as of `send`, and `answer`, which resolves to { status: 'DONE' or 'FAILED', body }, and rejects with Gone, TooLarge, or as
   * the receipt. `wait`: for how long the server may hold a TAKE, in seconds, at most 20: the first for a second, each after one that came
   * too early for twice as long, and none for longer than this. With 0 the answer is not taken until an ack says that one is there, or by
   * `take`. */
  ask(payload, { channel = 0, wait = WAIT_MAX } = {}) {
    const ask = {}
    const answer = new Promise((resolve, reject) => Object.assign(ask, { resolve, reject }))
    const receipt = this.#ask(payload, channel, wait, ask)
    receipt.catch(ask.reject)
    answer.catch(() => {}) // who awaits the receipt alone is told by that
    return { receipt, answer }
  }

  async #ask(payload, channel, wait, ask) {
    ask.wait = held(wait)
    if (this.#asking + this.#asks.size >= ASKS_MAX) throw new Full(`${ASKS_MAX} asks are not answered: await the answers`)
    this.#asking++
    try {
      return await this.#enqueue(payload, channel, 0, ask)
    } finally {
      this.#asking--
      this.#asks.wake()
    }
  }

  /** What has become of a message that asked, in this run or in an earlier one. The server may hold the question for `wait` seconds, at
   * most 20: then the status may be 'PENDING'. Rejects with Gone if no answer will come, and with Closed. */
  async take(epoch, seq, { wait = 0 } = {}) {
    [epoch, seq] = named(epoch, seq)
    wait = held(wait)
    if (this.#closed) throw new Closed('the client is closed')
    let ask = this.#asks.find(epoch, seq)
    if (!ask) {
      if (epoch === this.#epoch) throw new Gone(epoch, seq)
      if (this.#asking + this.#asks.size >= ASKS_MAX) throw new Full(`${ASKS_MAX} asks are not answered`)
      ask = this.#asks.add({ epoch, seq, whole: false })
    }
    return this.#asks.take(ask, wait)
  }

  async #enqueue(payload, channel, flags, ask) {
    const bytes = copied(payload)
    if (!Number.isInteger(channel)) throw new TypeError(`a channel is an integer, not ${String(channel)}`)
    if (channel < 0 || channel > 65535) throw new RangeError(`a channel is from 0 to 65535, not ${channel}`)
    if (bytes.length > PAYLOAD_MAX) throw new TooLarge(`a message of ${bytes.length} bytes does not fit in a datagram: at most ${PAYLOAD_MAX}`)
    if (this.#closed) throw new Closed('the client is closed')
    if (this.#queue.length >= this.#queuedMax) throw new Full(`${this.#queuedMax} messages wait already: await what send returns`)
    return new Promise((resolve, reject) => {
      this.#queue.push({ bytes, channel, flags, ask, resolve, reject })
      if (!this.#running) this.#run()
    })
  }

  /** Ends the client at once. What has no ack rejects with Closed. */
  close() {
    if (this.#closed) return
    this.#closed = true
    this.#asks.close(new Closed('the client was closed before the answer came; `waiting` names it'))
    this.#route.close()
    this.#waiting?.fail(new Closed('the client was closed before the ack came'))
    for (const message of this.#queue.splice(0)) message.reject(new Closed('the client was closed before the ack came'))
  }

  async #run() {
    this.#running = true
    while (this.#queue.length > 0) {
      const message = this.#queue[0]
      try {
        const receipt = await this.#deliver(message)
        if (message.ask) this.#asks.add({ ...receipt, ...message.ask })
        message.resolve(receipt)
      } catch (error) {
        message.reject(error)
      }
      if (this.#queue[0] === message) this.#queue.shift()
    }
    this.#running = false
  }

  #begin(epoch, credit) {
    this.#epoch = epoch
    this.#credit = this.#window = credit
    this.#seq = this.#floor = this.#skipped = 0n
    this.#sent = this.#pingDue = null
  }

  async #deliver({ bytes, channel, flags, ask }) {
    while (!this.#route.socket) await this.#open()
    const word = channel + (ask ? ASK * 0x10000 : 0)
    let sentAt = 0
    // Too many refused in a row for the server to skip.
    if (this.#seq > this.#floor + BigInt(this.#window)) this.#begin(0, 0)
    let tries = 0
    this.#sent = null
    for (;;) {
      if (!this.#epoch) await this.#hello()
      if (this.#sent === null) { this.#seq++; this.#sent = 0 }
      let patience
      if (this.#credit === 0) {
        patience = this.#ping()
      } else {
        this.#pingDue = null
        const bits = WHOLE | flags | Math.min(this.#sent, 7) | (this.#skipped > this.#floor ? SKIP : 0)
        patience = backoff(tries++)
        if (this.#sent++ === 0) sentAt = now()
        this.#transmit({ kind: DATA, flags: bits, epoch: this.#epoch, long: this.#seq, word, payload: bytes })
      }
      let reply
      try {
        reply = await this.#receive(patience, reply => this.#answersMessage(reply))
      } catch (error) {
        // Its number was used, though nothing of it may have left this machine.
        if (error instanceof TooLarge) this.#skipped = this.#seq
        throw error
      }
      if (!reply) continue
      if (reply.kind === ACK) {
        if (this.#credit === 0 && reply.small > 0) tries = 0
        this.#credit = reply.small
        this.#window = Math.max(this.#window, this.#credit)
        if (reply.long > this.#floor) this.#floor = reply.long
        if (reply.long === this.#seq) this.#asks.passed(sentAt)
        this.#ready = (reply.flags & READY) !== 0
        if (this.#ready) this.#asks.ready(this.#epoch)
        if (this.#floor === this.#seq) return { epoch: this.#epoch, seq: this.#seq }
      } else if (FINAL.has(reply.small)) {
        this.#skipped = this.#seq
        throw new Refused(reply.small)
      } else if (reply.small === STALE_EPOCH) {
        if (tries > 1) await this.#sleep(backoff(tries))
        if (ask) this.#asks.leave(this.#epoch)
        this.#begin(0, 0)
      } else if (reply.small === BEYOND_WINDOW) {
        this.#credit = 0
      } else {
        if (ask && reply.small === BUSY) this.#asks.refuse(this.#epoch)
        this.#log(`the server refuses for now: ${NAMES.get(reply.small) ?? `code ${reply.small}`}`)
        await this.#wait(reply.word, tries)
      }
    }
  }

  /** Sends PING when it is due, and returns the time to the next. No reply moves that while there is no credit. */
  #ping() {
    if (this.#pingDue === null) {
      this.#pings = 0
      this.#pingDue = now() + backoff(0)
    } else if (now() >= this.#pingDue) {
      this.#transmit({ kind: PING, epoch: this.#epoch })
      this.#pingDue = now() + backoff(++this.#pings)
    }
    return Math.max(this.#pingDue - now(), 0)
  }

  async #hello() {
    const nonce = crypto.randomBytes(8).readBigUInt64LE()
    const answers = r => r.long === nonce && (r.kind === WELCOME || (r.kind === REJECT && r.epoch === 0))
    for (let tries = 0; !this.#epoch;) {
      this.#transmit({ kind: HELLO, long: nonce })
      const reply = await this.#receive(backoff(tries++), answers)
      if (!reply) continue
      if (reply.kind === WELCOME) this.#begin(reply.epoch, reply.small)
      else if (FINAL.has(reply.small)) throw new Refused(reply.small)
      else await this.#wait(reply.word, tries)
    }
  }

  #answersMessage({ kind, epoch, long }) {
    if (epoch !== this.#epoch) return false
    const ofThis = long === this.#seq && this.#sent > 0
    if (kind === ACK) return ofThis || (long < this.#seq && this.#credit === 0)
    return kind === REJECT && (ofThis || (long === 0n && this.#credit === 0 && this.#pings > 0))
  }

  #transmit(fields) {
    const bytes = encode({ client: this.#id, ...fields })
    // What is not sent is as good as lost on the way; but what is too long for UDP here would be so for ever.
    this.#route.send(bytes).then(error => {
      if (error?.code === 'EMSGSIZE' && fields.kind === DATA && fields.long === this.#seq) {
        this.#waiting?.fail(new TooLarge(`a datagram of ${bytes.length} bytes is longer than this machine's UDP carries to that server`))
      }
    })
  }

  #transmitTake(fields) {
    // Without a way it is sent as soon as there is one.
    if (!this.#route.socket) {
      this.#open().catch(() => {})
      return
    }
    this.#route.send(encode({ client: this.#id, ...fields })).then(error => { if (error?.code === 'EMSGSIZE') this.#asks.tooLong(fields) })
  }

  #hear(bytes) {
    const reply = decode(bytes, this.#id)
    if (reply?.kind !== ANSWER) {
      if (reply) this.#waiting?.take(reply)
    } else if (this.#asks.answer(reply)) {
      this.#route.answered()
      if (this.#silentSince !== null) this.#silentSince = now()
    }
  }

  /** The first reply that fits, or null when the time is over. */
  async #receive(seconds, fits) {
    if (this.#closed) throw new Closed('the client was closed before the ack came')
    this.#silentSince ??= now()
    const reply = await new Promise((resolve, reject) => {
      const end = (settle, value) => { clearTimeout(timer); this.#waiting = null; settle(value) }
      const timer = setTimeout(end, seconds * 1000, resolve, null)
      this.#waiting = {
        take: reply => {
          this.#route.answered()
          this.#silentSince = now()
          if (fits(reply)) end(resolve, reply)
        },
        fail: error => end(reject, error),
      }
    })
    if (reply) {
      this.#silentSince = null
    } else {
      if (now() - this.#silentSince >= SILENCE_TOLD) {
        this.#silentSince = Infinity // once
        this.#log(`no answer from the server for ${SILENCE_TOLD} seconds; trying on`)
      }
      if (this.#route.missed()) await this.#open()
    }
    return reply
  }

  /** A socket towards the next address. When there is none, the old one stays and the next try follows. */
  async #open() {
    if (this.#closed) throw new Closed('the client was closed before the ack came')
    try {
      // Messages and answers have one socket.
      this.#opening ??= this.#route.open().then(() => this.#asks.restart()).finally(() => { this.#opening = null })
      await this.#opening
    } catch (error) {
      this.#log(`no way to the server: ${error.message}; trying on`)
      if (!this.#route.socket) await pause(backoff(0))
    }
    if (this.#closed) this.#route.close()
  }

  async #sleep(seconds) {
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => { this.#waiting = null; resolve() }, seconds * 1000)
      this.#waiting = { take: () => {}, fail: error => { clearTimeout(timer); this.#waiting = null; reject(error) } }
      if (this.#closed) this.#waiting.fail(new Closed('the client was closed before the ack came'))
    })
  }

  #wait(ms, tries) {
    return this.#sleep(ms ? Math.min(ms, 60000) / 1000 * (1 + Math.random() / 2) : backoff(tries))
  }
}

/** Others may find a way meanwhile. */
function pause(seconds) {
  return new Promise(resolve => setTimeout(resolve, seconds * 1000))
}

/** For how long the server may hold a TAKE, in seconds. */
function held(wait) {
  if (typeof wait !== 'number' || Number.isNaN(wait)) throw new TypeError(`wait is a number of seconds, not ${String(wait)}`)
  return Math.min(Math.max(wait, 0), WAIT_MAX)
}

/** The name of an ask: a number and a BigInt. */
function named(epoch, seq) {
  if (!Number.isInteger(epoch) || !(typeof seq === 'bigint' || Number.isSafeInteger(seq))) throw new TypeError(`an ask is named by epoch and seq, not by ${String(epoch)} and ${String(seq)}`)
  if (epoch < 1 || epoch > 0xffffffff) throw new RangeError(`an epoch is from 1 to 4294967295, not ${epoch}`)
  if (BigInt(seq) < 1n || BigInt(seq) > SEQ_MAX) throw new RangeError(`a seq is from 1 to ${SEQ_MAX}, not ${seq}`)
  return [epoch, BigInt(seq)]
}

/** A client id as 64 bits: random, a number, a BigInt, or hexadecimal digits. */
function parseClientId(id) {
  if (id === undefined || id === null) return crypto.randomBytes(8).readBigUInt64LE()
  if (typeof id === 'string') {
    if (!/^(0x)?[0-9a-f]{1,16}$/i.test(id)) throw new TypeError(`a client id has up to 16 hexadecimal digits, unlike "${id}"`)
    return BigInt(id.startsWith('0x') || id.startsWith('0X') ? id : `0x${id}`)
  }
  if (typeof id === 'number' ? !Number.isSafeInteger(id) : typeof id !== 'bigint') throw new TypeError(`a client id is a BigInt, an integer or hexadecimal digits, not ${String(id)}`)
  if (BigInt(id) < 0n || BigInt(id) > U64_MAX) throw new RangeError(`a client id has 64 bits, unlike ${id}`)
  return BigInt(id)
}

/** The bytes as they are now: what their owner does with the buffer later changes nothing. */
function copied(payload) {
  if (typeof payload === 'string') return Buffer.from(payload, 'utf8')
  if (ArrayBuffer.isView(payload)) return Buffer.from(Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength))
  if (payload instanceof ArrayBuffer || payload instanceof SharedArrayBuffer) return Buffer.from(Buffer.from(payload))
  throw new TypeError(`a message is a string or bytes (a Buffer, a typed array, an ArrayBuffer), not ${payload === null ? 'null' : typeof payload}`)
}

module.exports = Client
module.exports.Client = Client
module.exports.Refused = Refused
module.exports.TooLarge = TooLarge
module.exports.Full = Full
module.exports.Closed = Closed
module.exports.Gone = Gone
module.exports.PAYLOAD_MAX = PAYLOAD_MAX
