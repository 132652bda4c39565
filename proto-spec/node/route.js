// From the server's name to a socket towards one of its addresses.
'use strict'
const dgram = require('node:dgram'), dns = require('node:dns/promises'), net = require('node:net')

/** Unanswered tries in a row after which another address is tried, or the name is looked up again: of an address that has
 * answered before, and of one that has not. */
const MISSES = 4, MISSES_UNKNOWN = 1

/** `host:port` or `[IPv6]:port` to name and port. Throws a TypeError or RangeError that says what is wrong. */
function parse(server) {
  if (typeof server !== 'string') throw new TypeError(`the server is a string, HOST:PORT, not ${typeof server}`)
  const found = /^(?:\[([^\]]+)\]|([^\s[\]]+)):(\d+)$/.exec(server)
  if (!found) throw new TypeError(`the server is HOST:PORT, not "${server}"`)
  const host = found[1] ?? found[2], port = Number(found[3])
  if (port < 1 || port > 65535) throw new RangeError(`the server's port is from 1 to 65535, not ${found[3]}`)
  if (found[1] !== undefined && !net.isIPv6(host.split('%')[0])) throw new TypeError(`"${host}" is no IPv6 address`)
  return { host, port }
}

class Route {
  constructor(server, onMessage, lookup) {
    Object.assign(this, parse(server))
    this.onMessage = onMessage
    this.lookup = lookup ?? (host => dns.lookup(host, { all: true, verbatim: true }))
    this.socket = null
    this.address = null
    this.others = []
    this.heard = false
    this.misses = 0
  }

  /** A socket towards the next of the name's addresses. Throws when the name has none, or none can be used. */
  async open() {
    if (this.others.length === 0) this.others = await this.lookup(this.host)
    let failure = new Error(`${this.host} has no address`)
    while (this.others.length > 0) {
      const { address, family } = this.others.shift()
      try {
        const socket = await connected(address, family, this.port)
        this.close()
        this.socket = socket
        this.address = address
        this.heard = false
        this.misses = 0
        socket.on('message', bytes => { this.onMessage(bytes) })
        return
      } catch (error) {
        failure = error
      }
    }
    throw failure
  }

  /** Resolves once the system has taken the datagram or, in the end, said why it did not. */
  send(bytes) {
    const socket = this.socket
    return new Promise(resolve => {
      try {
        // The error may be of an earlier datagram, told late by an ICMP message; telling it has cleared it.
        socket.send(bytes, error => { if (error) socket.send(bytes, resolve); else resolve(null) })
      } catch (error) {
        resolve(error) // it was closed meanwhile
      }
    })
  }

  answered() {
    this.heard = true
    this.misses = 0
  }

  /** Nothing was heard in time. Whether another address is to be tried. */
  missed() {
    this.misses++
    const several = this.others.length > 0
    return this.misses >= (this.heard || !several ? MISSES : MISSES_UNKNOWN)
  }

  close() {
    if (this.socket) this.socket.close()
    this.socket = null
  }
}

/** A connected socket: the kernel drops what comes from elsewhere. It keeps no program running by itself. */
function connected(address, family, port) {
  return new Promise((resolve, reject) => {
    const socket = dgram.createSocket(family === 6 ? 'udp6' : 'udp4')
    socket.once('error', error => { socket.close(); reject(error) })
    socket.connect(port, address, () => {
      socket.removeAllListeners('error')
      socket.on('error', () => {}) // as good as lost on the way
      socket.unref()
      resolve(socket)
    })
  })
}

module.exports = { Route, parse }
