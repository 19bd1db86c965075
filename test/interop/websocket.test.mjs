// Upstreams of npm's ws behind a `websocket` route, with clients of the same package over wss.

import assert from 'node:assert/strict';
import {randomBytes} from 'node:crypto';
import {once} from 'node:events';
import {after, before, test} from 'node:test';
import WebSocket, {WebSocketServer} from 'ws';
import {Bridge, End, Queue, listen, soon} from './harness.mjs';

const loopback = {host: '127.0.0.1', port: 0};
const servers = [];
const arrivals = new Queue(); // at the desk: {end, request}
let bridge;

// broadcast is the "server broadcast" example of the ws package's documentation, client included in its audience.
function broadcast(options) {
  const wss = new WebSocketServer({...loopback, ...options});
  wss.on('connection', function connection(ws) {
    ws.on('error', console.error);
    ws.on('message', function message(data, isBinary) {
      wss.clients.forEach(function each(client) {
        if (client.readyState === WebSocket.OPEN) {
          client.send(data, {binary: isBinary});
        }
      });
    });
  });
  servers.push(wss);
  return wss;
}

// desk hands its sockets to the tests.
function desk() {
  const wss = new WebSocketServer({...loopback, handleProtocols: offered => offered.has('chat.v1') && 'chat.v1'});
  wss.on('connection', (socket, request) => arrivals.put({end: new End(socket), request}));
  servers.push(wss);
  return wss;
}

// guarded refuses everybody, as applications that know their users do.
function guarded() {
  const wss = new WebSocketServer({
    ...loopback,
    verifyClient: (info, done) => done(false, 401, 'who are you?', {'WWW-Authenticate': 'Bearer realm="chat"'}),
  });
  servers.push(wss);
  return wss;
}

before(async () => {
  const dead = new WebSocketServer(loopback);
  const gone = await listen(dead);
  await new Promise(resolve => dead.close(resolve));
  const deflating = await listen(broadcast({perMessageDeflate: {threshold: 0}}));
  bridge = await Bridge.start(`
routes:
  - {name: chat, path: /chat, websocket: {to: "ws://${await listen(broadcast())}"}}
  - {name: deflate, path: /deflate, websocket: {to: "ws://${deflating}"}}
  - {name: inflate, path: /inflate, websocket: {to: "ws://${deflating}", compression: "off"}}
  - name: desk
    path: /desk/{room}
    websocket: {to: "ws://${await listen(desk())}/rooms?name={room}", headers: {set: {X-Room: "{room}"}}}
  - {name: guarded, path: /guarded, websocket: {to: "ws://${await listen(guarded())}"}}
  - {name: dead, path: /dead, websocket: {to: "ws://${gone}"}}
`);
});

after(async () => {
  await bridge?.stop();
  for (const server of servers) {
    for (const client of server.clients) client.terminate();
    server.close();
  }
});

// visit gives both ends of a socket at the desk.
async function visit(protocols, options) {
  const client = await bridge.open('/desk/blue', protocols, options);
  return {client, ...await arrivals.take('the socket at the server')};
}

test('a broadcast reaches all, as text and as binary', async () => {
  const clients = await Promise.all(Array.from({length: 6}, () => bridge.open('/chat')));
  const bytes = randomBytes(5000);
  clients[0].send('grüße an alle 🙂');
  for (const client of clients) assert.equal(await client.next(), 'grüße an alle 🙂');
  clients[3].send(bytes);
  for (const client of clients) assert.deepEqual(await client.next(), bytes);
  for (const client of clients) client.socket.close();
  for (const client of clients) await client.closed();
});

test('messages keep their order and their boundaries', async () => {
  const client = await bridge.open('/chat');
  const sent = Array.from({length: 2000}, (_, i) => `${i}:` + 'x'.repeat(i % 300));
  for (const message of sent) client.send(message);
  for (const message of sent) assert.equal(await client.next(), message);
  client.socket.close();
});

test('fragments arrive as the one message they are', async () => {
  const client = await bridge.open('/chat');
  for (const part of ['one ', 'message ', 'in ']) client.socket.send(part, {fin: false});
  client.socket.send('parts', {fin: true});
  assert.equal(await client.next(), 'one message in parts');
  client.socket.close();
});

test('a message of 1 MiB passes both ways, a larger one is closed with 1009', async () => {
  const {client, end: server} = await visit();
  const bytes = randomBytes(1 << 20);
  client.send(bytes);
  assert.deepEqual(await server.next(), bytes);
  server.send(bytes);
  assert.deepEqual(await client.next(), bytes);
  client.send(Buffer.concat([bytes, Buffer.of(0)]));
  assert.deepEqual(await client.closed(), {code: 1009, reason: 'message too big'});
  assert.equal((await server.closed()).code, 1001);
});

test('permessage-deflate is negotiated end to end, or not at all', async t => {
  const text = 'compress me '.repeat(20_000);
  for (const {target, options, agreed} of [
    {target: '/deflate', options: {}, agreed: 'permessage-deflate'},
    {target: '/deflate', options: {perMessageDeflate: {clientNoContextTakeover: true, serverMaxWindowBits: 10}}, agreed: 'permessage-deflate'},
    {target: '/deflate', options: {perMessageDeflate: false}, agreed: ''},
    {target: '/inflate', options: {}, agreed: ''},
    {target: '/chat', options: {}, agreed: ''},
  ]) {
    await t.test(`${target} ${JSON.stringify(options)} agrees on "${agreed}"`, async () => {
      const client = await bridge.open(target, [], options);
      assert.equal(client.socket.extensions, agreed);
      for (let i = 0; i < 3; i++) { // with and without the context of the messages before
        client.send(text + i);
        assert.equal(await client.next(), text + i);
      }
      client.socket.close();
    });
  }
});

test('the server chooses the subprotocol', async () => {
  const {client, end: server} = await visit(['chat.v2', 'chat.v1']);
  assert.equal(client.socket.protocol, 'chat.v1');
  assert.equal(server.socket.protocol, 'chat.v1');
  client.socket.close();
});

test('the server sees who comes, and where to', async () => {
  const {client, request} = await visit([], {origin: bridge.wss.replace('wss:', 'https:'), headers: {cookie: 'a=b'}});
  assert.equal(request.url, '/rooms?name=blue');
  assert.equal(request.headers['x-room'], 'blue');
  assert.equal(request.headers['x-forwarded-for'], '127.0.0.1');
  assert.equal(request.headers['x-forwarded-proto'], 'https');
  assert.equal(request.headers.cookie, 'a=b');
  assert.equal(request.headers.origin, bridge.wss.replace('wss:', 'https:'));
  client.socket.close();
});

const closes = [
  {send: [1000, 'done'], heard: {code: 1000, reason: 'done'}},
  {send: [1001, ''], heard: {code: 1001, reason: ''}},
  {send: [1011, 'größter Fehler'], heard: {code: 1011, reason: 'größter Fehler'}},
  {send: [3000, ''], heard: {code: 3000, reason: ''}},
  {send: [4999, 'x'.repeat(123)], heard: {code: 4999, reason: 'x'.repeat(123)}},
  {send: [], heard: {code: 1005, reason: ''}}, // no code at all stays no code at all
];

for (const {send, heard} of closes) {
  test(`close ${send[0] ?? 'without a code'} passes unchanged, both ways`, async () => {
    const down = await visit();
    down.end.socket.close(...send);
    assert.deepEqual(await down.client.closed(), heard);
    assert.equal((await down.end.closed()).code, heard.code);
    const up = await visit();
    up.client.socket.close(...send);
    assert.deepEqual(await up.end.closed(), heard);
    assert.equal((await up.client.closed()).code, heard.code);
  });
}

test('an end without a Close is told to the other side by a code', async () => {
  const down = await visit();
  down.end.socket.terminate();
  assert.deepEqual(await down.client.closed(), {code: 1014, reason: 'backend gone'});
  const up = await visit();
  up.client.socket.terminate();
  assert.deepEqual(await up.end.closed(), {code: 1001, reason: 'client gone'});
});

test('pings and pongs pass, both ways, with their payload', async () => {
  const {client, end: server} = await visit();
  for (const [from, to] of [[client, server], [server, client]]) {
    const pinged = once(to.socket, 'ping'), answered = once(from.socket, 'pong');
    from.socket.ping('how are you?');
    assert.equal((await soon(pinged, 'the ping')).toString(), 'how are you?');
    assert.equal((await soon(answered, 'the pong')).toString(), 'how are you?');
  }
  client.socket.close();
});

test('a refusal of the server reaches the client as it is', async () => {
  const refusal = await bridge.refused('/guarded');
  assert.equal(refusal.status, 401);
  assert.equal(refusal.headers['www-authenticate'], 'Bearer realm="chat"');
  assert.equal(refusal.body, 'who are you?');
});

test('a server that is not there is a 502, a page from elsewhere a 403, an unknown path a 404', async () => {
  assert.equal((await bridge.refused('/dead')).status, 502);
  assert.equal((await bridge.refused('/chat', {origin: 'https://evil.example'})).status, 403);
  assert.equal((await bridge.refused('/nowhere')).status, 404);
});
