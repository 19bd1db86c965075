// mosquitto behind a `tcp` route, with clients of npm's mqtt over wss.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import net from 'node:net';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {after, before, test} from 'node:test';
import mqtt from 'mqtt';
import WebSocket from 'ws';
import {Bridge, Queue, listen, soon} from './harness.mjs';

let broker, dir, bridge;

// startBroker starts mosquitto on a loopback port and waits until it takes connections.
async function startBroker() {
  const placeholder = net.createServer();
  const address = await listen(placeholder);
  await new Promise(resolve => placeholder.close(resolve));
  const port = Number(address.split(':')[1]);
  dir = await mkdtemp(path.join(tmpdir(), 'bridgehead-mosquitto-'));
  const file = path.join(dir, 'mosquitto.conf');
  await writeFile(file, `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nlog_dest stderr\n`);
  broker = spawn('mosquitto', ['-c', file], {stdio: ['ignore', 'ignore', 'pipe']});
  const opened = new Promise((resolve, reject) => {
    let log = '';
    broker.stderr.setEncoding('utf8').on('data', text => {
      log += text;
      if (log.includes('running')) resolve();
    });
    broker.once('error', reject);
    broker.once('exit', code => reject(new Error(`mosquitto ended with ${code}:\n${log}`)));
  });
  await soon(opened, 'the start of mosquitto');
  return address;
}

before(async () => {
  bridge = await Bridge.start(`
routes:
  - {name: mqtt, path: /mqtt, tcp: {to: "tcp://${await startBroker()}", subprotocols: [mqtt]}}
`);
});

after(async () => {
  await bridge?.stop();
  if (broker) {
    const exited = once(broker, 'exit');
    broker.kill('SIGTERM');
    await soon(exited, 'the end of mosquitto');
  }
  if (dir) await rm(dir, {recursive: true});
});

// connect gives a client whose messages stand in a queue, and its socket.
async function connect(options = {}) {
  const messages = new Queue();
  let socket;
  const client = mqtt.connect(bridge.wss + '/mqtt', {
    reconnectPeriod: 0,
    createWebsocket: (url, protocols) => socket = new WebSocket(url, protocols, {ca: bridge.ca}),
    ...options,
  });
  client.on('message', (topic, payload, packet) => messages.put({topic, payload, packet}));
  client.on('error', () => {}); // what is awaited fails
  await soon(once(client, 'connect'), 'the connection to the broker');
  return {client, messages, socket};
}

for (const protocolVersion of [4, 5]) {
  for (const qos of [0, 1, 2]) {
    test(`MQTT ${protocolVersion}: QoS ${qos} delivers each message, in order`, async () => {
      const topic = `orders/${protocolVersion}/${qos}`;
      const subscriber = await connect({protocolVersion}), publisher = await connect({protocolVersion});
      await subscriber.client.subscribeAsync(topic, {qos});
      for (let window = 0; window < 20; window++) { // the broker takes 20 unacknowledged messages at a time
        const sent = Array.from({length: 20}, (_, i) => `message ${window}/${i}`);
        await soon(Promise.all(sent.map(text => publisher.client.publishAsync(topic, text, {qos}))), 'the acknowledgements');
        for (const text of sent) {
          const {payload, packet} = await subscriber.messages.take(text);
          assert.equal(payload.toString(), text);
          assert.equal(packet.qos, qos);
        }
      }
      await Promise.all([subscriber.client.endAsync(), publisher.client.endAsync()]);
    });
  }
}

test('a retained message greets those who come later', async () => {
  const publisher = await connect();
  await publisher.client.publishAsync('weather', 'sunny', {qos: 1, retain: true});
  await publisher.client.endAsync();
  const late = await connect();
  await late.client.subscribeAsync('weather', {qos: 1});
  const {payload, packet} = await late.messages.take('the retained message');
  assert.equal(payload.toString(), 'sunny');
  assert.equal(packet.retain, true);
  await late.client.endAsync();
});

test('payloads of 256 KiB arrive whole', async () => {
  const subscriber = await connect(), publisher = await connect();
  await subscriber.client.subscribeAsync('images', {qos: 2});
  for (let i = 0; i < 4; i++) {
    const image = randomBytes(256 << 10);
    await soon(publisher.client.publishAsync('images', image, {qos: 2}), 'the acknowledgement');
    assert.deepEqual((await subscriber.messages.take('the image')).payload, image);
  }
  await Promise.all([subscriber.client.endAsync(), publisher.client.endAsync()]);
});

test('the broker publishes the will of a client that vanishes', async () => {
  const heir = await connect();
  await heir.client.subscribeAsync('wills', {qos: 1});
  const doomed = await connect({will: {topic: 'wills', payload: 'gone', qos: 1}});
  doomed.socket.terminate();
  assert.equal((await heir.messages.take('the will')).payload.toString(), 'gone');
  await heir.client.endAsync();
});

test('the subprotocol is mqtt', async () => {
  const end = await bridge.open('/mqtt', ['xmpp', 'mqtt']);
  assert.equal(end.socket.protocol, 'mqtt');
  end.socket.close(1000);
  assert.equal((await end.closed()).code, 1000);
});
