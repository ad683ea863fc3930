// driver.mjs holds mqtt.js clients for the tests in Go. It reads commands from standard input and writes what happens to
// standard output, one JSON object a line each:
//
//   {"n":1,"op":"connect","url":"ws://…/mqtt","options":{…}}   → {"n":1,"ev":"connack","code":0,"present":false,"assigned":"","reason":""}
//   {"n":1,"op":"subscribe","filter":"$IM/#","qos":1}          → {"n":1,"ev":"suback","code":1}
//   {"n":1,"op":"publish","topic":…,"payload":…,"qos":1}       → {"n":1,"ev":"puback","code":0,"reason":""}
//   {"n":1,"op":"disconnect"} or {"n":1,"op":"drop"}           → {"n":1,"ev":"closed"}
//
// and, whenever they come, {"n":1,"ev":"message",…}, {"n":1,"ev":"disconnect","code":142} and {"n":1,"ev":"closed"}. n numbers
// the clients. The next command to a client waits for the answer of the one before.
import mqtt from 'mqtt'
import { createInterface } from 'node:readline'

const clients = new Map()
const say = (n, event) => process.stdout.write(JSON.stringify({ n, ...event }) + '\n')
const codeOf = (packet) => packet.reasonCode ?? packet.returnCode ?? 0
const reasonOf = (packet) => packet.properties?.reasonString ?? ''

// pairs flattens mqtt.js's user properties, where a name that comes twice has a list.
const pairs = (user) => Object.entries(user ?? {}).flatMap(([key, values]) => [values].flat().map((value) => [key, value]))

function connect (n, url, options) {
  const client = mqtt.connect(url, { reconnectPeriod: 0, resubscribe: false, connectTimeout: 10_000, ...options })
  const held = { client, last: {} }
  clients.set(n, held)
  client.on('packetreceive', (packet) => {
    held.last[packet.cmd] = packet
    if (packet.cmd === 'connack') {
      say(n, {
        ev: 'connack', code: codeOf(packet), present: packet.sessionPresent,
        assigned: packet.properties?.assignedClientIdentifier ?? '', reason: reasonOf(packet)
      })
    }
  })
  client.on('message', (topic, payload, packet) => {
    say(n, { ev: 'message', topic, payload: payload.toString(), qos: packet.qos, dup: packet.dup, user: pairs(packet.properties?.userProperties) })
  })
  client.on('disconnect', (packet) => say(n, { ev: 'disconnect', code: codeOf(packet), reason: reasonOf(packet) }))
  client.on('close', () => say(n, { ev: 'closed' }))
  client.on('error', (err) => say(n, { ev: 'error', reason: String(err.message) }))
}

function subscribe (n, filter, qos) {
  const held = clients.get(n)
  held.client.subscribe(filter, { qos }, (err) => {
    const packet = held.last.suback
    say(n, { ev: 'suback', code: packet?.granted?.[0] ?? 0xff, reason: packet ? reasonOf(packet) : String(err) })
  })
}

function publish (n, { topic, payload, qos, user }) {
  const held = clients.get(n)
  held.last = {}
  const options = { qos }
  if (user) options.properties = { userProperties: Object.fromEntries(user) }
  held.client.publish(topic, payload, options, (err) => {
    const answer = held.last.puback ?? held.last.pubrec
    if (qos > 0 && !answer) {
      say(n, { ev: 'puback', code: 0xff, reason: String(err) })
      return
    }
    say(n, { ev: 'puback', code: answer ? codeOf(answer) : 0, reason: answer ? reasonOf(answer) : '' })
  })
}

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line)
  switch (command.op) {
    case 'connect': connect(command.n, command.url, command.options); break
    case 'subscribe': subscribe(command.n, command.filter, command.qos); break
    case 'publish': publish(command.n, command); break
    case 'disconnect': clients.get(command.n).client.end(false); break
    case 'drop': clients.get(command.n).client.stream.destroy(); break
    default: throw new Error(`no such command: ${command.op}`)
  }
}
process.exit(0)
