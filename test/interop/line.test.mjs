// A service of text lines in node:net behind a `tcp` route with line framing.

import assert from 'node:assert/strict';
import {once} from 'node:events';
import net from 'node:net';
import {after, before, test} from 'node:test';
import {Bridge, Queue, listen, soon} from './harness.mjs';

const calls = new Queue();
const service = net.createServer({allowHalfOpen: true}, socket => {
  socket.on('error', () => {}); // a reset is the other side's business
  calls.put(socket);
});
let bridge;

before(async () => {
  bridge = await Bridge.start(`
routes:
  - {name: lines, path: /lines, tcp: {to: "${await listen(service)}", framing: line, message: text, subprotocols: [lines]}}
`);
});

after(async () => {
  await bridge?.stop();
  service.close();
});

// call gives both ends of a call.
async function call() {
  const client = await bridge.open('/lines', ['lines']);
  return {client, server: await calls.take('the call')};
}

// received reads from a stream until it has as many bytes as wanted, or has ended.
async function received(stream, wanted) {
  let text = '';
  stream.setEncoding('utf8');
  while (text.length < wanted) {
    const chunk = stream.read();
    if (chunk !== null) text += chunk;
    else if (stream.readableEnded) break;
    else await soon(Promise.race([once(stream, 'readable'), once(stream, 'end')]), 'data');
  }
  return text;
}

test('each line is a message, however it is cut on its way', async () => {
  const {client, server} = await call();
  assert.equal(client.socket.protocol, 'lines');
  server.setNoDelay(true);
  for (const part of ['220 rea', 'dy\r', '\n250 on', 'e\n250 tw', 'o\n\n250 grü', 'ße\r\n']) {
    await new Promise(resolve => server.write(part, resolve));
  }
  for (const line of ['220 ready', '250 one', '250 two', '', '250 grüße']) assert.equal(await client.next(), line);
  client.socket.close();
});

test('each message is a line', async () => {
  const {client, server} = await call();
  client.send('HELP');
  client.send(Buffer.from('ADD 2 3'));
  client.send('grüße');
  const text = await received(server, 'HELP\nADD 2 3\ngrüße\n'.length);
  assert.deepEqual(text.split(/\r?\n/), ['HELP', 'ADD 2 3', 'grüße', '']);
  client.socket.close();
});

test('a service that hangs up closes the socket with 1000, after its last line', async () => {
  const {client, server} = await call();
  server.end('221 goodbye\r\n');
  assert.equal(await client.next(), '221 goodbye');
  assert.equal((await client.closed()).code, 1000);
});

test('a client that closes ends the stream, and may hear the rest', async () => {
  const {client, server} = await call();
  server.resume();
  const ended = once(server, 'end');
  client.socket.close(1000);
  await soon(ended, 'the end of the stream');
  server.end();
  assert.equal((await client.closed()).code, 1000);
});
