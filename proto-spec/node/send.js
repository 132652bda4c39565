#!/usr/bin/env node
// Sends each line of stdin to a Duragram server, one at a time, and may ask for answers.
'use strict'
const Client = require('./index.js')

const USAGE = `usage: duragram-node [--ask] HOST:PORT [CLIENT_ID]

Sends each line of stdin as a message, one at a time, bytes as they are. CLIENT_ID: up to 16 hexadecimal digits [random].
HOST:PORT may come in DURAGRAM_SERVER. --ask: asks with each, and writes the answers to stdout, as lines of JSON, the report to
stderr. Exit codes: 0 all are on the server's disk, and with --ask every answer is DONE; 1 not so; 2 usage.`
/** Answers that are waited for at a time. */
const ASKS = 64

function complain(text) {
  console.error(`duragram: ${text}`)
}

/** The lines of a stream of bytes, without their newlines; the last may have none. `null` for one that is too long. */
async function * lines(stream) {
  let parts = [], length = 0, tooLong = false
  const add = part => {
    length += part.length
    // What will be refused is not kept.
    if (length > Client.PAYLOAD_MAX) { tooLong = true; parts = [] } else parts.push(part)
  }
  for await (const chunk of stream) {
    let from = 0
    for (let at; (at = chunk.indexOf(10, from)) >= 0; from = at + 1) {
      add(chunk.subarray(from, at))
      yield tooLong ? null : Buffer.concat(parts)
      parts = []
      length = 0
      tooLong = false
    }
    if (from < chunk.length) add(chunk.subarray(from))
  }
  if (length > 0) yield tooLong ? null : Buffer.concat(parts)
}

/** What an answer is to those who read it: its body as text where it is text. */
function described(line, { status, body }) {
  const text = body.toString('utf8')
  if (body.length === 0) return { line, status }
  return Buffer.from(text).equals(body) ? { line, status, body: text } : { line, status, body_base64: body.toString('base64') }
}

class Sending {
  acked = 0; done = 0; failed = 0; lines = 0
  #waiting = new Set()

  constructor(client, asks) {
    this.client = client
    this.asks = asks
  }

  async line(bytes) {
    const line = ++this.lines
    try {
      if (bytes === null) throw new Client.TooLarge(`longer than a datagram carries: at most ${Client.PAYLOAD_MAX} bytes`)
      if (this.asks) await this.#ask(line, bytes)
      else await this.client.send(bytes)
      this.acked++
    } catch (error) {
      this.#fail(line, error)
    }
  }

  async #ask(line, bytes) {
    while (this.#waiting.size >= ASKS) await Promise.race(this.#waiting)
    const { receipt, answer } = this.client.ask(bytes)
    await receipt
    const heard = this.#hear(line, answer).finally(() => this.#waiting.delete(heard))
    this.#waiting.add(heard)
  }

  async #hear(line, answer) {
    let said = { line, status: 'GONE' }
    try {
      const heard = await answer
      if (heard.status === 'DONE') this.done++
      said = described(line, heard)
    } catch (error) {
      if (error instanceof Client.TooLarge) return complain(`line ${line}: ${error.message}`)
      if (!(error instanceof Client.Gone)) throw error
    }
    console.log(JSON.stringify(said))
  }

  #fail(line, error) {
    if (!(error instanceof Client.Refused || error instanceof Client.TooLarge)) throw error
    complain(`line ${line}: ${error.message}`)
    this.failed++
  }

  /** All answers are there. */
  async end() {
    await Promise.all(this.#waiting)
  }
}

async function main(args) {
  if (args.includes('--help') || args.includes('-h')) {
    console.log(USAGE)
    return 0
  }
  const asks = args[0] === '--ask'
  if (asks) args = args.slice(1)
  if (args.length === 0 && process.env.DURAGRAM_SERVER) args = [process.env.DURAGRAM_SERVER]
  if (args.length < 1 || args.length > 2 || args.some(word => word.startsWith('-'))) {
    console.error(USAGE)
    return 2
  }
  let client
  try {
    client = new Client(args[0], { clientId: args[1], log: complain })
  } catch (error) {
    complain(error.message)
    return 2
  }
  const sending = new Sending(client, asks)
  try {
    for await (const bytes of lines(process.stdin)) await sending.line(bytes)
    await sending.end()
  } catch (error) {
    complain(`cannot read on after line ${sending.lines}: ${error.message}`)
    sending.failed++
  }
  client.close()
  const report = `${sending.acked} records are on the server's disk, ${sending.failed} are not`
  if (asks) console.error(`${report}; ${sending.done} answers are DONE`)
  else console.log(report)
  return sending.failed || (asks && sending.done < sending.lines) ? 1 : 0
}

// A reader that is gone, or a full disk, tells nothing of the records: the exit code does.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
main(process.argv.slice(2)).then(code => { process.exitCode = code; process.stdin.destroy() })
