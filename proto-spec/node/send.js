#!/usr/bin/env node
// Sends each line of stdin to a Duragram server, one at a time.
'use strict'
const Client = require('./index.js')

const USAGE = `usage: duragram-node HOST:PORT [CLIENT_ID]

Sends each line of stdin as a message, one at a time, bytes as they are. CLIENT_ID: up to 16 hexadecimal digits [random].
HOST:PORT may come in DURAGRAM_SERVER. Exit codes: 0 all are on the server's disk; 1 not all are; 2 usage.`

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

async function main(args) {
  if (args.includes('--help') || args.includes('-h')) {
    console.log(USAGE)
    return 0
  }
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
  let acked = 0, failed = 0
  try {
    for await (const line of lines(process.stdin)) {
      try {
        if (line === null) throw new Client.TooLarge(`longer than a datagram carries: at most ${Client.PAYLOAD_MAX} bytes`)
        await client.send(line)
        acked++
      } catch (error) {
        if (!(error instanceof Client.Refused || error instanceof Client.TooLarge)) throw error
        complain(`line ${acked + ++failed}: ${error.message}`)
      }
    }
  } catch (error) {
    complain(`cannot read on after line ${acked + failed}: ${error.message}`)
    failed++
  }
  client.close()
  console.log(`${acked} records are on the server's disk, ${failed} are not`)
  return failed ? 1 : 0
}

// A reader that is gone, or a full disk, tells nothing of the records: the exit code does.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {})
main(process.argv.slice(2)).then(code => { process.exitCode = code; process.stdin.destroy() })
