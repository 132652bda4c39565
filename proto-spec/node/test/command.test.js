'use strict'
const { test, describe } = require('node:test'), assert = require('node:assert/strict'), fs = require('node:fs'), path = require('node:path')
const { PACKAGE, realServer, run } = require('./support.js')

const send = (words, options) => run(process.execPath, ['send.js', ...words], options)

describe('the command', { concurrency: true }, () => {
  test('each line is a record, bytes as they are', async () => {
    const server = await realServer()
    const input = Buffer.concat([Buffer.from('one\n\ntwo\r\n'), Buffer.from([0xff, 0x00, 0xfe, 0x0a]), Buffer.from('später')])
    const done = await send([server.address, 'a1'], { input })
    assert.deepEqual([done.code, done.err], [0, ''])
    assert.match(done.out, /^5 records are on the server's disk, 0 are not/)
    const records = await server.records()
    assert.deepEqual(records.map(r => r.payload ?? r.payload_base64), ['one', '', 'two\r', '/wD+', 'später'])
    assert.equal(records[0].client, '00000000000000a1')
  })

  test('a line that is too long is one failure, and the others are sent', async () => {
    const server = await realServer()
    const done = await send([server.address], { input: `one\n${'x'.repeat(300_000)}\ntwo\n${'y'.repeat(2000)}\nthree\n` })
    assert.equal(done.code, 1)
    assert.match(done.err, /line 2: longer than a datagram/)
    assert.match(done.err, /line 4: refused by the server: TOO_LARGE/)
    assert.deepEqual((await server.records()).map(r => r.payload), ['one', 'two', 'three'])
  })

  test('usage errors are said in a line, not by a stack', async () => {
    const wrong = [[], ['nowhere'], ['host:0'], ['host:99999'], ['host:1', 'xyz'], ['host:1', 'a1', 'more'], ['--server', 'host:1'], ['[::1'], ['-x']]
    for (const words of wrong) {
      const done = await send(words, { env: { DURAGRAM_SERVER: '' } })
      assert.equal(done.code, 2, words.join(' '))
      assert.doesNotMatch(done.err, /\n\s+at /, done.err)
      assert.notEqual(done.err, '')
    }
    const help = await send(['--help'])
    assert.equal(help.code, 0)
    assert.match(help.out, /usage/)
  })

  test('the address may come from the environment, in IPv6 too', async () => {
    const server = await realServer('[::1]')
    const done = await send([], { input: 'six\n', env: { DURAGRAM_SERVER: server.address } })
    assert.equal(done.code, 0, done.err)
    assert.deepEqual((await server.records()).map(r => r.payload), ['six'])
  })

  test('a report that nobody takes changes nothing of the exit code', async () => {
    const server = await realServer()
    const full = fs.openSync('/dev/full', 'w')
    const done = await send([server.address], { input: 'one\n', stdio: full })
    fs.closeSync(full)
    assert.equal(done.code, 0, done.err)
    await server.records()
  })
})

describe('the package', { concurrency: true }, () => {
  const about = JSON.parse(fs.readFileSync(path.join(PACKAGE, 'package.json')))

  test('require and import give the class', async () => {
    for (const words of [
      ['-e', "const C = require('duragram'); const { Client, Refused } = C; if (C !== Client || !new C('a:1').close || !Refused) process.exit(1)"],
      ['--input-type=module', '-e', "import C, { Client, TooLarge } from 'duragram'; if (C !== Client || !TooLarge) process.exit(1)"],
    ]) {
      const done = await run(process.execPath, words)
      assert.equal(done.code, 0, done.err)
    }
  })

  test('it names the files that it needs, and all are there', () => {
    for (const file of [...about.files, about.main, about.types, about.bin['duragram-node']]) assert.ok(fs.existsSync(path.join(PACKAGE, file)), file)
    for (const file of fs.readdirSync(PACKAGE).filter(file => /\.m?js$|\.d\.m?ts$/.test(file))) assert.ok(about.files.includes(file), file)
    assert.equal(about.license, 'Apache-2.0')
    assert.equal(fs.readFileSync(path.join(PACKAGE, 'LICENSE'), 'utf8'), fs.readFileSync(path.join(PACKAGE, '..', '..', 'LICENSE'), 'utf8'))
    assert.ok(fs.readFileSync(path.join(PACKAGE, 'send.js'), 'utf8').startsWith('#!/usr/bin/env node\n'))
  })

  test("the README's examples run as they are written", async () => {
    const text = fs.readFileSync(path.join(PACKAGE, 'README.md'), 'utf8')
    const examples = [...text.matchAll(/```(js|mjs|sh)\n(.*?)```/gs)]
    assert.ok(examples.length >= 3)
    for (const [, kind, code] of examples) {
      const server = await realServer()
      const here = code.replaceAll('127.0.0.1:7117', server.address)
      const words = kind === 'sh' ? ['sh', ['-c', here]] : [process.execPath, [...(kind === 'mjs' ? ['--input-type=module'] : []), '-e', here]]
      const done = await run(words[0], words[1])
      assert.deepEqual([done.code, done.err], [0, ''], code)
      assert.ok((await server.records()).length > 0)
    }
  })
})
