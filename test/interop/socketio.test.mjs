// An application of npm's socket.io with its page behind one `websocket` route with `http: true`, and clients over https and wss.

import assert from 'node:assert/strict';
import {once} from 'node:events';
import {createServer} from 'node:http';
import {get} from 'node:https';
import {text} from 'node:stream/consumers';
import {after, before, test} from 'node:test';
import {Server} from 'socket.io';
import {io} from 'socket.io-client';
import {Bridge, listen, soon} from './harness.mjs';

const page = '<!doctype html><script src="/app.js"></script>';
const tag = '"app-1"';
let bridge, sockets;

// serve answers for the page and its script; socket.io takes what begins with /socket.io/.
function serve(request, response) {
  if (request.url === '/') {
    response.setHeader('Content-Type', 'text/html').end(page);
  } else if (request.url === '/app.js') {
    response.setHeader('Content-Type', 'text/javascript').setHeader('ETag', tag);
    const fresh = request.headers['if-none-match'] === tag;
    response.writeHead(fresh ? 304 : 200).end(fresh ? undefined : 'io()');
  } else {
    response.writeHead(404).end();
  }
}

before(async () => {
  const http = createServer(serve);
  sockets = new Server(http);
  sockets.on('connection', socket => {
    socket.on('echo', (value, answer) => answer(value));
    socket.emit('seen', {
      client: socket.handshake.headers['x-forwarded-for'], proto: socket.handshake.headers['x-forwarded-proto'],
    });
  });
  bridge = await Bridge.start(`
routes:
  - {name: app, path: /*, websocket: {to: "ws://${await listen(http)}", http: true}}
`);
});

after(async () => {
  sockets?.disconnectSockets(true);
  await bridge?.stop();
  await sockets?.close();
});

// address is where the page is.
const address = () => bridge.wss.replace('wss:', 'https:');

// visit gives a client, connected, and what the server says of it.
async function visit(t, options = {}) {
  const client = io(address(), {ca: bridge.ca, forceNew: true, reconnection: false, ...options});
  t.after(() => client.disconnect());
  const seen = once(client, 'seen');
  await soon(once(client, 'connect'), 'the connection');
  return {client, seen: (await soon(seen, 'a message of the server'))[0]};
}

// fetchPage asks as a browser does.
async function fetchPage(path, headers = {}) {
  const [response] = await soon(once(get(address() + path, {ca: bridge.ca, headers, agent: false}), 'response'), 'an answer');
  return {status: response.statusCode, type: response.headers['content-type'], body: await text(response)};
}

const echo = (client, value) => client.timeout(20_000).emitWithAck('echo', value);

test('it polls first and goes over to a socket', async t => {
  const {client, seen} = await visit(t);
  assert.deepEqual(seen, {client: '127.0.0.1', proto: 'https'});
  const engine = client.io.engine;
  if (engine.transport.name !== 'websocket') await soon(once(engine, 'upgrade'), 'the upgrade');
  assert.equal(engine.transport.name, 'websocket');
  assert.deepEqual(await echo(client, {text: 'grüße', bytes: Buffer.from([0, 255])}), {text: 'grüße', bytes: Buffer.from([0, 255])});
  await bridge.logged({msg: 'open', route: 'app'});
  await bridge.logged({msg: 'request', route: 'app', path: '/socket.io/', method: 'GET', status: 200});
});

for (const transport of ['polling', 'websocket']) {
  test(`by ${transport} alone`, async t => {
    const {client} = await visit(t, {transports: [transport]});
    const large = 'x'.repeat(500_000);
    assert.equal(await echo(client, large), large);
    assert.equal(client.io.engine.transport.name, transport);
  });
}

for (const transport of ['polling', 'websocket']) {
  test(`a page from elsewhere gets nothing by ${transport}`, async t => {
    const client = io(address(), {
      ca: bridge.ca, forceNew: true, reconnection: false, transports: [transport], extraHeaders: {Origin: 'https://evil.example'},
    });
    t.after(() => client.disconnect());
    await soon(once(client, 'connect_error'), 'the error');
    assert.equal(client.connected, false);
  });
}

test('its page comes the same way', async () => {
  assert.deepEqual(await fetchPage('/'), {status: 200, type: 'text/html', body: page});
  assert.deepEqual(await fetchPage('/app.js'), {status: 200, type: 'text/javascript', body: 'io()'});
  assert.equal((await fetchPage('/app.js', {'If-None-Match': tag})).status, 304);
  assert.equal((await fetchPage('/none')).status, 404);
  const script = await fetchPage('/socket.io/socket.io.js');
  assert.equal(script.status, 200);
  assert.match(script.body, /Socket\.IO/);
});
