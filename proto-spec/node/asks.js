// What a client has asked, and when the answers are taken (PROTOCOL.md#answers-client). An ask is named by epoch and seq.
'use strict'
const { TAKE, DONE, FAILED, GONE } = require('./wire.js')

/** Asks that may be unfinished at a time: the server has room for no more of one client (PROTOCOL.md#duty-c1). */
const ASKS_MAX = 64
/** TAKEs that may be without a reply at a time, and how many go out in one round trip (PROTOCOL.md#duty-c4). */
const OPEN_MAX = 16, WINDOW = 10
/** The path is not measured: what was sent so many seconds ago is not on it any more. */
const ROUND_TRIP_MAX = 1
/** The longest that a server holds a TAKE, in seconds. */
const WAIT_MAX = 20
/** How long it may hold the first one of a seq. A TAKE that is lost is sent again after the time for which it may be held and a timeout:
 * a short one finds that soon, also over a bad path. */
const FIRST_WAIT = 1
const SPAN_MAX = 0xffff
/** No seq that waits is higher: there is one to name when nothing waits any more. */
const SEQ_MAX = 2n ** 64n - 2n - BigInt(SPAN_MAX)
const STATUSES = new Map([[DONE, 'DONE'], [FAILED, 'FAILED']])

const now = () => performance.now() / 1000
const jitter = () => 1 + Math.random() / 4
const backoff = tries => Math.min(2 ** tries, 60) * jitter()

/** The asks of an epoch that wait, by seq: they are on the server's disk, and have no answer. */
class Session {
  waiting = new Map()
  /** The highest that waits or has waited; 0n if none. */
  last = 0n
  /** All that waits in it is known. Else nothing may be said of other seqs: the server would forget them. */
  whole = true
  /** What asked in it was sent again in another epoch: whether it was journaled here too is not known. */
  left = false

  span(seq) {
    if (!this.whole) return Number(seq - 1n < SPAN_MAX ? seq - 1n : BigInt(SPAN_MAX))
    let lowest = seq
    for (const other of this.waiting.keys()) if (other < lowest) lowest = other
    return Number(seq - lowest)
  }
}

class Asks {
  #sessions = new Map(); #send; #isAsking; #roomMax; #onMissed; #failures
  #sent = []; #timer = null; #room = 0; #said = new Set(); #refused = null; #closed = false

  /** `send` gets the fields of a TAKE. `isAsking`: whether a further ask is on its way. `onMissed`: a TAKE got no reply in time.
   * `failures`: the errors Gone and TooLarge. */
  constructor({ send, isAsking, roomMax, onMissed, failures }) {
    this.#send = send
    this.#isAsking = isAsking
    this.#roomMax = roomMax
    this.#onMissed = onMissed
    this.#failures = failures
  }

  /** How many wait. */
  get size() {
    let size = 0
    for (const { waiting } of this.#sessions.values()) size += waiting.size
    return size
  }

  /** What waits, as { epoch, seq }, in its order. */
  names() {
    const names = [...this.#all()].map(({ epoch, seq }) => ({ epoch, seq }))
    return names.sort((a, b) => a.epoch - b.epoch || (a.seq < b.seq ? -1 : 1))
  }

  find(epoch, seq) {
    return this.#sessions.get(epoch)?.waiting.get(seq)
  }

  /** It is on the server's disk. `wait` in seconds; 0: it is taken on demand alone. */
  add({ epoch, seq, wait = 0, resolve = null, reject = null, whole = true }) {
    const session = this.#session(epoch)
    const ask = {
      epoch, seq, wait, resolve, reject, takers: [], length: 0, room: 0, open: false, takenAt: -Infinity, rest: -Infinity, tries: 0,
      early: 0, held: 0,
      due: wait > 0 ? -Infinity : Infinity,
    }
    session.whole &&= whole
    session.waiting.set(seq, ask)
    if (seq > session.last) session.last = seq
    this.#said.delete(epoch)
    this.wake()
    return ask
  }

  /** Somebody wants to know now, PENDING too; the server may hold that for `wait` seconds. */
  take(ask, wait) {
    return new Promise((resolve, reject) => {
      ask.takers.push({ resolve, reject, wait })
      ask.due = -Infinity
      ask.tries = 0
      this.wake()
    })
  }

  /** An ack of that epoch says READY: what sleeps is taken, as often as the server bears (PROTOCOL.md#duty-c5). */
  ready(epoch) {
    for (const ask of this.#sessions.get(epoch)?.waiting.values() ?? []) {
      if (!ask.open && ask.due === Infinity) ask.due = ask.rest
    }
    this.wake()
  }

  /** The server has no room for one. What was had, and no TAKE of another tells it, may be the reason. */
  refuse(epoch) {
    const session = this.#sessions.get(epoch)
    if (session && session.last > 0n && session.waiting.size === 0) this.#refused = epoch
    this.wake()
  }

  /** What asked in that epoch is sent again in another: of it nothing is said here any more (PROTOCOL.md#duty-c6). */
  leave(epoch) {
    const session = this.#sessions.get(epoch)
    if (session) session.left = true
    this.#said.delete(epoch)
  }

  /** What was sent up to that time has left the path. */
  passed(at) {
    this.#sent = this.#sent.filter(sent => sent > at)
  }

  /** The socket is another one: what was held or under way finds its way back no more. */
  restart() {
    this.#sent = []
    for (const ask of this.#all()) if (ask.open) { ask.due = -Infinity; ask.tries = 0 }
    this.wake()
  }

  close(error) {
    this.#closed = true
    clearTimeout(this.#timer)
    for (const ask of this.#all()) {
      for (const { reject } of ask.takers.splice(0)) reject(error)
      ask.reject?.(error)
      ask.resolve = ask.reject = null
    }
  }

  /** An ANSWER of this client. Whether anything waits under its name (PROTOCOL.md#duty-c3). */
  answer({ epoch, long: seq, small: status, word: number, body }) {
    const ask = this.find(epoch, seq)
    if (!ask) return false
    if (ask.open) this.passed(ask.takenAt)
    if (STATUSES.has(status)) {
      if (body.length === number) {
        this.#room = body.length
        this.#finish(ask, null, { status: STATUSES.get(status), body: Buffer.from(body) })
      } else if (number > this.#roomMax) {
        this.#finish(ask, new this.#failures.TooLarge(`${STATUSES.get(status)}, with a body of ${number} bytes, which is longer than a datagram carries`))
      } else if (number > ask.room || !ask.open) {
        Object.assign(ask, { length: number, due: -Infinity, tries: 0 })
      } // Else it is the reply to a TAKE that had less room: the timer goes on.
    } else if (status === GONE) {
      this.#finish(ask, new this.#failures.Gone(epoch, seq))
    } else if (ask.open) {
      this.#pending(ask, number)
    }
    this.wake()
    return true
  }

  /** Sends what is due, and sets the timer for what follows. */
  wake() {
    clearTimeout(this.#timer)
    if (this.#closed) return
    const at = now()
    this.#sent = this.#sent.filter(sent => sent > at - ROUND_TRIP_MAX)
    while (this.#sent.length < WINDOW && this.#sendNext(at));
    const due = this.#due()
    // Longer than a timer takes there is nothing to wait for.
    if (due !== Infinity) this.#timer = setTimeout(() => this.wake(), Math.max(due - at, 0.001) * 1000)
  }

  // Within.

  #session(epoch) {
    if (!this.#sessions.has(epoch)) this.#sessions.set(epoch, new Session())
    return this.#sessions.get(epoch)
  }

  * #all() {
    for (const { waiting } of this.#sessions.values()) yield * waiting.values()
  }

  #candidates() {
    const all = [...this.#all()], open = all.filter(ask => ask.open).length
    // A span that is too short would have the server forget what waits: those below come first.
    return all.filter(ask => (ask.open || open < OPEN_MAX) && this.#sessions.get(ask.epoch).span(ask.seq) <= SPAN_MAX)
  }

  #due() {
    let due = Infinity
    for (const ask of this.#candidates()) due = Math.min(due, ask.due)
    return this.#sent.length < WINDOW || due === Infinity ? due : Math.max(due, this.#sent[0] + ROUND_TRIP_MAX)
  }

  #sendNext(at) {
    let next = null
    for (const ask of this.#candidates()) {
      if (ask.due <= at && (next === null || ask.takenAt < next.takenAt || (ask.takenAt === next.takenAt && ask.seq < next.seq))) next = ask
    }
    if (next === null) return this.#remind(at) || this.#sayAllIsHad(at)
    const missed = next.open && next.tries > 0
    const most = next.takers.length > 0 ? Math.max(...next.takers.map(taker => taker.wait)) : next.wait
    // What takes long costs few datagrams.
    const wait = next.held = Math.min(most, FIRST_WAIT * 2 ** Math.min(next.early, 16))
    next.room = Math.min(next.length || this.#room, this.#roomMax)
    next.open = true
    next.takenAt = at
    next.due = at + wait + backoff(next.tries++)
    this.#transmit(at, next.epoch, next.seq, this.#sessions.get(next.epoch).span(next.seq), wait, next.room)
    if (missed) this.#onMissed()
    return true
  }

  /** Where the server has no room, and nothing can be taken: it may forget what was had, but for the last. */
  #remind(at) {
    const epoch = this.#refused, session = this.#sessions.get(epoch)
    this.#refused = null
    if (!session || session.waiting.size > 0) return false
    this.#transmit(at, epoch, session.last, 0, 0, 0)
    return true
  }

  /** Where nothing waits any more the server may forget all. The seq that is named is far from those that ask next: a late
   * GONE would be taken for the answer to one of them (PROTOCOL.md#duty-c7). */
  #sayAllIsHad(at) {
    if (this.#said.size === 0 || this.#isAsking()) return false
    const [epoch] = this.#said
    this.#said.delete(epoch)
    this.#transmit(at, epoch, this.#sessions.get(epoch).last + 1n + BigInt(SPAN_MAX), SPAN_MAX, 0, 0)
    return true
  }

  #transmit(at, epoch, seq, span, wait, room) {
    this.#sent.push(at)
    this.#send({ kind: TAKE, epoch, long: seq, small: span, word: Math.round(wait * 1000), payload: Buffer.alloc(room) })
  }

  #pending(ask, retryAfterMs) {
    ask.open = false
    ask.tries = 0
    ask.rest = now() + Math.min(Math.max(retryAfterMs / 1000, 1), 60) * jitter()
    if (ask.held > 0) ask.early++
    for (const taker of ask.takers.splice(0)) {
      // It was held to the end: who wants to wait for longer does so.
      if (ask.held > 0 && taker.wait > ask.held && retryAfterMs === 0) ask.takers.push({ ...taker, wait: taker.wait - ask.held })
      else taker.resolve({ status: 'PENDING', body: Buffer.alloc(0) })
    }
    ask.due = ask.wait > 0 || ask.takers.length > 0 ? ask.rest : Infinity
  }

  #finish(ask, error, answer) {
    const session = this.#sessions.get(ask.epoch)
    session.waiting.delete(ask.seq)
    if (session.waiting.size === 0 && session.whole && !session.left) this.#said.add(ask.epoch)
    for (const who of [ask, ...ask.takers.splice(0)]) {
      if (error) who.reject?.(error)
      else who.resolve?.(answer)
    }
  }

  /** A TAKE is longer than UDP carries here: the body cannot come. */
  tooLong({ epoch, long: seq }) {
    const ask = this.find(epoch, seq)
    this.#room = 0
    if (ask?.length) this.#finish(ask, new this.#failures.TooLarge(`a body of ${ask.length} bytes is longer than this machine's UDP carries`))
    else if (ask) ask.due = -Infinity
    this.wake()
  }
}

module.exports = { Asks, ASKS_MAX, WAIT_MAX, SEQ_MAX }
