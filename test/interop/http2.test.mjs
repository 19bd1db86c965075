// WebSockets over HTTP/2 (RFC 8441) by Node's http2, many on one connection.

import assert from 'node:assert/strict';
import {once} from 'node:events';
import http2 from 'node:http2';
import {after, before, test} from 'node:test';
import WebSocket, {WebSocketServer} from 'ws';
import {Bridge, End, listen, soon} from './harness.mjs';

let bridge, backend, session, configuration;

// A backend that echoes, closes as it is told, and chooses the subprotocol `chat`.
before(async () => {
  backend = new WebSocketServer({host: '127.0.0.1', port: 0, handleProtocols: protocols => protocols.has('chat') && 'chat'});
  backend.on('connection', socket => socket.on('message', (data, binary) => {
    const [, code, reason] = /^close (\d+) (.*)/.exec(data) ?? [];
    code ? socket.close(Number(code), reason) : socket.send(data, {binary});
  }));
  const to = await listen(backend);
  configuration = `
state: ./state
certificates: {internal: true}
log: {format: json}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true, http2: true}]
drain: 1s
routes:
  - {name: one, path: /one, limits: [{per: query.token, connections: 1}], websocket: {to: "ws://${to}"}}
  - {name: page, path: /page, origins: ["https://app.example.com"], websocket: {to: "ws://${to}"}}
  - {name: echo, path: /echo, limits: [], socket: {message_size: 2MiB}, websocket: {to: "ws://${to}"}}
`;
  bridge = await Bridge.serve(configuration);
  session = await connect();
});

after(async () => {
  session?.destroy();
  await bridge?.stop();
  backend?.close();
});

async function connect() {
  const session = http2.connect(bridge.wss.replace('wss:', 'https:'), {ca: bridge.ca, servername: 'localhost'});
  session.on('error', () => {});
  const [settings] = await soon(once(session, 'remoteSettings'), 'the settings');
  assert.equal(settings.enableConnectProtocol, true);
  session.setLocalWindowSize(16 << 20); // one stream that is not read must not take the window of all
  return session;
}

// ask sends an extended CONNECT, and gives the stream with the headers of the answer.
async function ask(path, headers = {}, on = session) {
  const stream = on.request({
    ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':path': path, ':authority': 'localhost',
    'sec-websocket-version': '13', ...headers,
  });
  stream.on('error', () => {});
  const [answer] = await soon(once(stream, 'response'), 'the answer');
  return {stream, answer};
}

// open gives a socket of npm's ws on a stream.
async function open(path, headers, on) {
  const {stream, answer} = await ask(path, headers, on);
  assert.equal(answer[':status'], 200);
  const socket = new WebSocket(null, undefined, {closeTimeout: 20_000});
  socket._isServer = false; // it masks
  socket.setSocket(stream, Buffer.alloc(0), {allowSynchronousEvents: true, maxPayload: 4 << 20, skipUTF8Validation: false});
  return Object.assign(new End(socket), {stream, answer});
}

// refused gives the status and the body of an answer.
async function refused(path, headers) {
  const {stream, answer} = await ask(path, headers);
  let body = '';
  for await (const chunk of stream.setEncoding('utf8')) body += chunk;
  return {status: answer[':status'], body, headers: answer};
}

test('texts, bytes, fragments and large messages come back', async () => {
  const end = await open('/echo');
  for (const message of ['hello', Buffer.from([0, 1, 255]), 'x'.repeat(1 << 20)]) {
    end.send(message);
    assert.deepEqual(await end.next(), message);
  }
  end.socket.send('frag', {fin: false});
  end.socket.send('ment', {fin: false});
  end.socket.send('s', {fin: true});
  assert.equal(await end.next(), 'fragments');
  const pong = once(end.socket, 'pong');
  end.socket.ping('are you there?');
  assert.equal(String((await soon(pong, 'a pong'))[0]), 'are you there?');
  end.socket.close();
  assert.deepEqual(await end.closed(), {code: 1005, reason: ''});
});

test('a subprotocol is chosen, a key is answered, and nothing speaks of a connection', async () => {
  const end = await open('/echo', {'sec-websocket-protocol': 'other, chat', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ=='});
  assert.equal(end.answer['sec-websocket-protocol'], 'chat');
  assert.equal(end.answer['sec-websocket-accept'], 's3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
  assert.equal(end.answer.upgrade, undefined);
  end.socket.close();
  await end.closed();
  const without = await open('/echo');
  assert.equal(without.answer['sec-websocket-accept'], undefined);
  without.socket.close();
});

test('codes and reasons of closes reach the other end', async () => {
  const end = await open('/echo');
  end.send('close 4321 enough of this');
  assert.deepEqual(await end.closed(), {code: 4321, reason: 'enough of this'});
  await soon(end.stream.closed || once(end.stream, 'close'), 'the end of the stream');

  const other = await open('/echo');
  const [atBackend] = [...backend.clients].slice(-1);
  const heard = once(atBackend, 'close');
  other.socket.close(4001, 'bye');
  assert.deepEqual(await other.closed(), {code: 4001, reason: 'bye'});
  const [code, reason] = await soon(heard, 'the close at the backend');
  assert.deepEqual([code, String(reason)], [4001, 'bye']);
});

test('limits and origins refuse a stream, and leave the connection to the others', async () => {
  const end = await open('/echo');
  const large = await open('/echo');
  large.send(Buffer.alloc((2 << 20) + 1));
  assert.deepEqual(await large.closed(), {code: 1009, reason: 'message too big'});

  assert.equal((await refused('/page', {origin: 'https://evil.example'})).status, 403);
  (await open('/page', {origin: 'https://app.example.com'})).socket.close();
  const first = await open('/one?token=t');
  assert.equal((await refused('/one?token=t')).status, 429);
  assert.equal((await refused('/nothing')).status, 404);
  assert.equal((await refused('/echo', {':protocol': 'connect-udp'})).status, 501);
  assert.equal((await refused('/echo', {'sec-websocket-version': '8'})).headers['sec-websocket-version'], '13');
  first.socket.close();

  end.send('still here');
  assert.equal(await end.next(), 'still here');
  assert.equal(session.closed || session.destroyed, false);
  end.socket.close();
});

test('of a hundred sockets on a connection one does not read: the others feel nothing', async () => {
  const ends = await Promise.all(Array.from({length: 100}, () => open('/echo')));
  const [stalled, ...others] = ends;
  stalled.socket.pause();
  for (let i = 0; i < 40; i++) stalled.send(Buffer.alloc(64 << 10));
  for (let round = 0; round < 5; round++) {
    for (const [i, end] of others.entries()) end.send(`${round} of ${i}`);
    for (const [i, end] of others.entries()) assert.equal(await end.next(), `${round} of ${i}`);
  }
  for (const end of ends) end.socket.terminate();
});

test('a reload leaves the sockets of a connection alone, and SIGTERM closes each with 1001 and then the connection', async () => {
  const own = await connect();
  const ends = await Promise.all(Array.from({length: 20}, () => open('/echo', {}, own)));
  await bridge.write(configuration.replace('message_size: 2MiB', 'message_size: 1MiB'));
  await bridge.reload();
  for (const [i, end] of ends.entries()) end.send(`after ${i}`);
  for (const [i, end] of ends.entries()) assert.equal(await end.next(), `after ${i}`);

  const goaway = once(own, 'goaway');
  const closed = Promise.all(ends.map(end => end.closed()));
  session.destroy();
  await bridge.stop();
  bridge = undefined;
  for (const close of await closed) assert.deepEqual(close, {code: 1001, reason: 'shutting down'});
  assert.equal((await soon(goaway, 'the GOAWAY'))[0], http2.constants.NGHTTP2_NO_ERROR);
  own.destroy();
});
