// What a page can learn of a refusal: with `refuse: close` a real browser's script reads a code and a reason, by either version of HTTP.

import assert from 'node:assert/strict';
import {once} from 'node:events';
import {readFile} from 'node:fs/promises';
import http from 'node:http';
import {after, before, test} from 'node:test';
import {WebSocketServer} from 'ws';
import {launch} from './chromium.mjs';
import {Bridge, listen, soon} from './harness.mjs';

const ends = []; // what is to be stopped, the last first
const addresses = {}; // of the listeners: host and port
let bridge, browser, echo;

before(async () => {
  const server = new WebSocketServer({port: 0, host: '127.0.0.1', handleProtocols: () => false});
  ends.push(() => server.close());
  await once(server, 'listening');
  server.on('connection', socket => socket.on('message', data => socket.send(data.toString())));
  echo = `ws://127.0.0.1:${server.address().port}`;
  const gone = http.createServer();
  const nobody = await listen(gone);
  gone.close();

  bridge = await Bridge.serve(`
state: ./state
certificates: {internal: true}
log: {format: json}
listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true}
  - {name: wss2, address: "127.0.0.1:0", tls: true, http2: true}

authenticators:
  id: {jwt: {secret: 0123456789abcdef0123456789abcdef, token: [subprotocol.bearer, cookie.session]}}

defaults: {refuse: close}
routes:
  - {name: id, host: localhost, path: /id, auth: id, websocket: {to: "${echo}"}}
  - {name: open, host: localhost, path: /open, websocket: {to: "${echo}"}}
  - {name: once, host: localhost, path: "/once/{listener}", limits: [{per: listener, connect_rate: 1/h}], websocket: {to: "${echo}"}}
  - {name: full, host: localhost, path: /full, listeners: wss, max_connections: 1, websocket: {to: "${echo}"}}
  - {name: full2, host: localhost, path: /full, listeners: wss2, max_connections: 1, websocket: {to: "${echo}"}}
  - {name: dead, host: localhost, path: /ws, websocket: {to: "ws://${nobody}"}}
  - {name: status, host: localhost, path: /status, refuse: status, auth: id, websocket: {to: "${echo}"}}
`);
  for (const name of ['wss', 'wss2']) {
    const {address} = await bridge.logged({msg: 'listening', listener: name});
    addresses[name] = `localhost:${address.split(':').pop()}`;
  }
  browser = await launch(ends, (await bridge.command('ca')).stdout);
});

after(async () => {
  try {
    for (const end of ends.reverse()) await end();
  } finally {
    await bridge?.stop();
  }
});

// visit gives a page of the listener's origin; it shows that there is no page.
async function visit(listener) {
  const page = await (await browser.newContext()).newPage();
  await page.goto(`https://${addresses[listener]}/`);
  return page;
}

// attempt opens a socket from a page and gives what its script sees until the close. It may send a text as soon as it can.
function attempt(page, address, path, protocols = [], text = '') {
  const seen = page.evaluate(([url, protocols, text]) => new Promise(resolve => {
    const events = [], socket = new WebSocket(url, protocols);
    socket.onopen = () => {
      events.push('open ' + socket.protocol);
      if (text) socket.send(text);
    };
    socket.onmessage = ({data}) => events.push('message ' + data.length);
    socket.onerror = () => events.push('error');
    socket.onclose = ({code, reason, wasClean}) => resolve(events.concat(`${code} ${reason}${wasClean ? '' : ' not clean'}`));
  }), [`wss://${address}${path}`, protocols, text]);
  return soon(seen, `the close of ${path}`);
}

// hold opens a socket that stays.
function hold(page, address, path) {
  const held = page.evaluate(url => new Promise((resolve, reject) => {
    const socket = window.held = new WebSocket(url);
    socket.onopen = () => socket.send('hello');
    socket.onmessage = ({data}) => resolve(data);
    socket.onclose = ({code, reason}) => reject(new Error(`${code} ${reason}`));
  }), `wss://${address}${path}`);
  return soon(held, `the echo of ${path}`);
}

for (const [listener, other, protocol] of [['wss', 'wss2', 'http/1.1'], ['wss2', 'wss', 'h2']]) {
  test(`over ${protocol}`, async t => {
    const page = await visit(listener);
    const own = addresses[listener];
    assert.equal(await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol), protocol);
    const offers = [[], ['chat.v2'], ['chat.v2', 'chat.v1']];

    await t.test('4401, without a token and with one that is no good', async () => {
      for (const offered of offers) {
        assert.deepEqual(await attempt(page, own, '/id', offered), [`open ${offered[0] ?? ''}`, '4401 authentication needed']);
      }
      for (const offered of [['bearer', 'no.good.token'], ['bearer', 'no.good.token', 'chat.v1'], ['chat.v1', 'bearer', 'no.good.token']]) {
        assert.deepEqual(await attempt(page, own, '/id', offered), ['open bearer', '4401 authentication needed']);
      }
    });

    await t.test('4403, for a page of another origin', async () => {
      const stranger = await visit(other);
      for (const offered of offers) {
        assert.deepEqual(await attempt(stranger, own, '/open', offered), [`open ${offered[0] ?? ''}`, '4403 not allowed']);
      }
    });

    await t.test('a page that sends at once reads the same', async () => {
      const [, close] = await attempt(page, own, '/id', [], 'x'.repeat(300_000));
      assert.match(close, /^4401 authentication needed/); // clean only if all was sent before the Close came
    });

    await t.test('4429, for too many attempts', async () => {
      await hold(page, own, `/once/${listener}`);
      for (const offered of offers) {
        const [open, close] = await attempt(page, own, `/once/${listener}`, offered);
        assert.equal(open, `open ${offered[0] ?? ''}`);
        assert.match(close, /^4429 too many connections, retry in \d+ s$/);
      }
    });

    await t.test('1013, when there is no room, and when nobody answers', async () => {
      const guest = await visit(listener);
      await hold(guest, own, '/full');
      for (const offered of offers) {
        const open = `open ${offered[0] ?? ''}`;
        assert.deepEqual(await attempt(page, own, '/full', offered), [open, '1013 not available now, retry in 5 s']);
        assert.deepEqual(await attempt(page, own, '/ws', offered), [open, '1013 not available now']);
      }
    });

    await t.test('1006, where the status tells', async () => {
      assert.deepEqual(await attempt(page, own, '/status'), ['error', '1006  not clean']);
      assert.deepEqual(await attempt(page, own, '/nowhere'), ['error', '1006  not clean']);
    });

    await t.test('the script of the documentation does as it says', async () => {
      const docs = await readFile(new URL('../../docs/authentication.md', import.meta.url), 'utf8');
      const [, script] = /```js\n(let pause[^]*?)```/.exec(docs);
      const reader = await visit(listener);
      const run = path => reader.evaluate(`{
        const show = data => window.shown = data, giveUp = reason => window.gone = reason;
        ${script.replace('/ws', path)}
        connect();
      }`);
      let sockets = 0;
      const again = new Promise(resolve => reader.on('websocket', () => ++sockets === 2 && resolve()));
      await run('/ws');
      await soon(again, 'a second attempt');
      await reader.reload(); // which ends the first script
      await run('/id');
      await soon(reader.waitForURL(`https://${own}/login`), 'the login');
      const stranger = await visit(other);
      await stranger.evaluate(`{
        const show = () => {}, giveUp = reason => window.gone = reason;
        ${script.replace('${location.host}/ws', own + '/open')}
        connect();
      }`);
      await soon(stranger.waitForFunction(() => window.gone === 'not allowed'), 'the end of all attempts');
    });
  });
}
