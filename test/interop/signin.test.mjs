// Visitors who sign in: an application that knows them by a cookie, a page and sockets that are for them alone, and tokens, in a real
// browser. The tests are stations of one life. With HTTP=2 in the environment page and sockets come over one HTTP/2 connection.

import assert from 'node:assert/strict';
import {generateKeyPairSync, randomUUID, sign} from 'node:crypto';
import http from 'node:http';
import {after, before, test} from 'node:test';
import {fileURLToPath} from 'node:url';
import {WebSocketServer} from 'ws';
import {launch} from './chromium.mjs';
import {Bridge, Queue, listen, soon} from './harness.mjs';

const http2 = process.env.HTTP === '2';
const ends = []; // what is to be stopped, the last first
const complaints = []; // of the pages' scripts
const tokens = []; // that were handed out
const seed = JSON.stringify(fileURLToPath(new URL('seed/', import.meta.url)));
let application, bridge, browser, page, answers, here;

const form = back => `<!doctype html><title>Sign in</title>
<form method="post"><input name="user"><input name="password" type="password"><input name="back" type="hidden" value="${back}"><button>Sign in</button></form>`;

// An Application signs visitors in, tells who they are, and has sockets that say hello and echo.
class Application {
  sessions = new Map(); // by id: the user
  sockets = new Queue(); // the requests that opened them
  asked = new Queue(); // the questions of who somebody is
  #keys = generateKeyPairSync('ed25519');
  #sockets = new WebSocketServer({noServer: true, handleProtocols: offered => offered.has('chat.v2') && 'chat.v2'});

  async start() {
    const server = http.createServer((request, response) => this.#serve(request, response).catch(error => response.writeHead(500).end(String(error))));
    server.on('upgrade', (request, socket, head) => this.#sockets.handleUpgrade(request, socket, head, socket => {
      this.sockets.put(request);
      socket.send(`hello ${request.headers['x-user']}`);
      socket.on('message', data => socket.send(data.toString()));
    }));
    ends.push(() => server.close().closeAllConnections());
    this.address = await listen(server);
  }

  // token is good for so many seconds.
  token(user, seconds) {
    const text = [{alg: 'EdDSA', kid: '1'}, {iss: 'application', aud: 'chat', sub: user, exp: Date.now() / 1000 + seconds}]
      .map(part => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.');
    const token = `${text}.${sign(null, Buffer.from(text), this.#keys.privateKey).toString('base64url')}`;
    tokens.push(token);
    return token;
  }

  #user(request) { return this.sessions.get(/(?:^|; )session=([^;]*)/.exec(request.headers.cookie)?.[1]); }

  async #serve(request, response) {
    const {pathname, searchParams} = new URL(request.url, 'http://application');
    const user = this.#user(request);
    switch (`${request.method} ${pathname}`) {
      case 'GET /auth': return this.#decide(request, response, user);
      case 'GET /keys': return response.end(JSON.stringify({keys: [{...this.#keys.publicKey.export({format: 'jwk'}), kid: '1', use: 'sig'}]}));
      case 'GET /account/login': return response.setHeader('Content-Type', 'text/html').end(form(searchParams.get('back')));
      case 'POST /account/login': return this.#login(response, await body(request));
      case 'POST /account/logout':
        for (const [id, who] of this.sessions) if (who === user) this.sessions.delete(id);
        return response.writeHead(204).end();
      case 'POST /account/token': return user ? response.end(this.token(user, Number(searchParams.get('seconds')))) : response.writeHead(401).end();
      default: return response.writeHead(404).end();
    }
  }

  // #decide tells the bridge who sends a request: visitors without a session are led to sign in.
  #decide(request, response, user) {
    this.asked.put(request);
    const uri = request.headers['x-forwarded-uri'];
    if (user) return response.writeHead(204, {'X-User': user}).end();
    if (uri.endsWith('.html')) return response.writeHead(302, {Location: '/account/login?' + new URLSearchParams({back: uri})}).end();
    return response.writeHead(401).end();
  }

  #login(response, fields) {
    if (fields.get('password') !== `secret of ${fields.get('user')}`) return response.writeHead(403).end('wrong');
    const id = randomUUID();
    this.sessions.set(id, fields.get('user'));
    const attributes = 'Path=/; HttpOnly; Secure; SameSite=Strict'
    return response.writeHead(303, {
      'Location': fields.get('back'),
      'Set-Cookie': [`session=${id}; ${attributes}`, `token=${this.token(fields.get('user'), 3600)}; ${attributes}`, `taste=oat; ${attributes}`],
    }).end();
  }
}

async function body(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return new URLSearchParams(text);
}

// A Socket is one that a script of a page opens, beside those that the page has.
class Socket {
  // open gives it when it is open or has failed.
  static async open(on, url, ...protocols) {
    const socket = new Socket();
    socket.life = await on.evaluateHandle(([url, protocols]) => {
      const socket = new WebSocket(url, protocols);
      const messages = [];
      socket.onmessage = event => messages.push(event.data);
      const closed = new Promise(resolve => {
        socket.onclose = event => resolve(`${event.code} "${event.reason}" ${event.wasClean ? 'clean' : 'not clean'}`);
      });
      const opened = new Promise(resolve => { socket.onopen = () => resolve(`open as "${socket.protocol}"`); });
      return {socket, closed, began: Promise.race([opened, closed])};
    }, [url.startsWith('/') ? `wss://${here}${url}` : url, protocols]);
    socket.began = await soon(socket.life.evaluate(life => life.began), 'the beginning of a socket');
    return socket;
  }

  closed() { return soon(this.life.evaluate(life => life.closed), 'the close event'); }

  async close() {
    await this.life.evaluate(life => life.socket.close());
    return this.closed();
  }
}

const failed = '1006 "" not clean'; // all that a script learns of a refusal
const line = (kind, index = 0) => page.locator(`li.${kind}`).nth(index).textContent();

// signIn fills the form that the visitor was led to.
async function signIn(user) {
  await page.waitForURL('**/account/login?*');
  await page.fill('[name=user]', user);
  await page.fill('[name=password]', `secret of ${user}`);
  await page.click('button');
  await page.waitForURL('**/signed-in.html');
  assert.equal(await line('message'), `hello ${user}`);
}

// tokenOf is what the page gets of the application for its visitor.
const tokenOf = (on, seconds) => on.evaluate(async seconds => {
  const response = await fetch(`/account/token?seconds=${seconds}`, {method: 'POST'});
  return response.text();
}, seconds);

// endAll has the API end sockets.
async function endAll(selection) {
  const response = await fetch(`${bridge.admin}/v1/connections/close`, {
    method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(selection),
  });
  assert.equal(response.status, 202, await response.text());
}

async function newPage() {
  const page = await browser.newPage();
  page.setDefaultTimeout(20_000);
  page.on('pageerror', error => complaints.push(error));
  return page;
}

before(async () => {
  application = new Application();
  await application.start();
  const to = application.address;
  const jwt = `jwks_url: "http://${to}/keys", issuer: application, audience: chat, leeway: off`;
  const backend = `websocket: {to: "ws://${to}", headers: {set: {X-User: "{user}"}}}`;
  bridge = await Bridge.serve(`
state: ./state
certificates: {internal: true}
log: {format: json, level: debug}
admin: {address: "127.0.0.1:0"}
drain: 1s

listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true, http2: ${http2}}
  - {name: other, address: "127.0.0.1:0", tls: true, http2: ${http2}}

authenticators:
  session: {forward: {url: "http://${to}/auth", user: X-User, recheck: 1s}}
  token: {jwt: {${jwt}, token: [subprotocol.bearer]}}
  strict: {jwt: {${jwt}, token: [subprotocol.bearer]}, close_code: 1008}
  cookie: {jwt: {${jwt}, token: [cookie.token]}}

routes:
  - {name: blog, host: blog.site.localhost, path: /*, files: {dir: ${seed}}}
  - {name: account, host: app.site.localhost, path: /account/*, websocket: {to: "http://${to}", http: true}}
  - {name: ws, host: app.site.localhost, path: /ws, auth: session, ${backend}}
  - {name: wide, host: app.site.localhost, path: /wide, auth: session, origins: "*", ${backend}}
  - {name: open, host: app.site.localhost, path: /open, origins: "*", ${backend}}
  - {name: token, host: app.site.localhost, path: /token, auth: token, ${backend}}
  - {name: strict, host: app.site.localhost, path: /strict, auth: strict, ${backend}}
  - {name: cookie, host: app.site.localhost, path: /cookie, auth: cookie, ${backend}}
  - {name: page, host: app.site.localhost, path: /*, auth: session, files: {dir: ${seed}}}
`);
  here = `app.site.localhost:${new URL(bridge.wss).port}`;
  browser = await (await launch(ends, (await bridge.command('ca')).stdout)).newContext();
  page = await newPage();
  answers = [];
  const devtools = await browser.newCDPSession(page);
  devtools.on('Network.webSocketHandshakeResponseReceived', ({response}) => answers.push(response.status));
  await devtools.send('Network.enable');
});

after(async () => {
  try {
    for (const end of ends.reverse()) await end();
  } finally {
    await bridge?.stop();
  }
  assert.deepEqual(complaints, []);
});

test('a visitor is led to sign in, comes back to the page, and the socket knows who it is', async () => {
  await page.goto(`https://${here}/signed-in.html`);
  await signIn('ann');
  const question = (await application.asked.where(({headers}) => headers['x-forwarded-uri'] === '/ws', 'the question')).headers;
  assert.deepEqual([question['x-original-url'], question.origin], [`https://${here}/ws`, `https://${here}`]);
  const {headers} = await application.sockets.take('the socket');
  assert.equal(headers['x-user'], 'ann');
  assert.match(headers.cookie, /session=/); // it is the application's own, and nothing that the bridge was given
  assert.ok(await page.evaluate(() => document.cookie === ''), 'a script reads a cookie');
});

test('page and socket came by the version of HTTP that they were to', async () => {
  const by = await page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
  assert.equal(by, http2 ? 'h2' : 'http/1.1');
  assert.deepEqual(answers, [http2 ? 200 : 101]);
});

test('a token in a cookie that no script can read counts, and goes no further', async () => {
  const socket = await Socket.open(page, '/cookie');
  assert.equal(socket.began, 'open as ""');
  const {headers} = await application.sockets.take('the socket');
  assert.equal(headers['x-user'], 'ann');
  assert.deepEqual(headers.cookie.split('; ').map(pair => pair.split('=')[0]).toSorted(), ['session', 'taste']);
  assert.equal(await socket.close(), '1005 "" clean');
});

test('a token among the subprotocols counts, and goes no further', async () => {
  const token = await tokenOf(page, 3600);
  for (const {further, chosen, passed} of [
    {further: [], chosen: 'bearer', passed: undefined},
    {further: ['chat.v1', 'chat.v2'], chosen: 'chat.v2', passed: 'chat.v1,chat.v2'},
    {further: ['chat.v1'], chosen: 'bearer', passed: 'chat.v1'},
  ]) {
    const socket = await Socket.open(page, '/token', 'bearer', token, ...further);
    assert.equal(socket.began, `open as "${chosen}"`);
    const request = await application.sockets.take('the socket');
    assert.equal(request.headers['x-user'], 'ann');
    assert.equal(request.headers['sec-websocket-protocol']?.replaceAll(' ', ''), passed);
    assert.ok(!JSON.stringify([request.url, request.rawHeaders]).includes(token), 'the backend got the token');
    assert.equal(await socket.close(), '1005 "" clean');
  }
  for (const wrong of [['bearer', token.slice(0, -4) + 'AAAA'], ['bearer'], ['chat.v2'], []]) {
    assert.equal((await Socket.open(page, '/token', ...wrong)).began, failed);
  }
});

test('a socket ends with its token, by the code of the configuration, and a new token opens a new one', async () => {
  for (const [path, end] of [['/token', '4401 "authentication expired" clean'], ['/strict', '1008 "authentication expired" clean']]) {
    let token, socket;
    for (const seconds of [3, 15]) { // the longer one for a machine that is busy
      token = await tokenOf(page, seconds);
      socket = await Socket.open(page, path, 'bearer', token);
      if (socket.began !== failed) break;
    }
    assert.equal(socket.began, 'open as "bearer"');
    assert.equal((await application.sockets.take('the socket')).headers['x-user'], 'ann');
    assert.equal(await socket.closed(), end);
    assert.equal((await Socket.open(page, path, 'bearer', token)).began, failed);
  }
  const again = await Socket.open(page, '/token', 'bearer', await tokenOf(page, 3600));
  assert.equal(again.began, 'open as "bearer"');
  assert.equal((await application.sockets.take('the socket')).headers['x-user'], 'ann');
  assert.equal(await again.close(), '1005 "" clean');
});

test('no foreign page opens a socket in the name of its visitor', async () => {
  const otherPort = (await bridge.address('other')).split(':')[1];
  // Both are of the same site, so that browsers bring the cookies however strict these are.
  for (const address of [`https://app.site.localhost:${otherPort}/account/login`, `https://${here.replace('app', 'blog')}/chat.html`]) {
    const foreign = await newPage();
    await foreign.goto(address);
    // The browser does bring the cookies, as a route shows that asks nobody who he is.
    const open = await Socket.open(foreign, '/open');
    assert.equal(open.began, 'open as ""');
    const {headers} = await application.sockets.take('the socket');
    assert.match(headers.cookie, /session=/, `${address} brings no cookie, so that this shows nothing`);
    assert.equal(headers['x-user'], undefined);
    await open.close();
    for (const path of ['/ws', '/wide', '/cookie']) {
      assert.equal((await Socket.open(foreign, path)).began, failed, `${path} from ${address}`);
    }
    await foreign.close();
  }
  await bridge.logged({msg: 'refused', route: 'ws', status: 403, reason: 'origin'});
  await bridge.logged({msg: 'refused', route: 'wide', status: 401, reason: 'authentication refused'});
  await bridge.logged({msg: 'refused', route: 'cookie', status: 403, reason: 'origin'});
  assert.equal((await Socket.open(page, '/wide')).began, failed, 'the own page has to be listed by name, too');
});

test('who signs out elsewhere is asked to sign in again, and has a fresh socket then', async () => {
  const elsewhere = await newPage();
  await elsewhere.goto(`https://${here}/account/login`);
  await elsewhere.evaluate(() => fetch('/account/logout', {method: 'POST'}));
  await page.waitForURL('**/account/login?*');
  const {searchParams} = new URL(page.url());
  assert.equal(searchParams.get('why'), '4401 "authentication withdrawn" clean');
  assert.equal((await Socket.open(elsewhere, '/ws')).began, failed);
  await elsewhere.close();
  await signIn('ann');
});

test('a call of the API ends the sockets of one visitor, with its code', async () => {
  await endAll({user: 'bob', code: 4001, reason: 'not meant'});
  await endAll({user: 'ann', route: 'ws', code: 4001, reason: 'signed out'});
  assert.equal(await line('close'), '4001 "signed out" clean');
});

test('no token stands in the log', async () => {
  const log = JSON.stringify(bridge.lines({}));
  assert.ok(tokens.length > 3 && log.length > 1000);
  for (const token of tokens) assert.ok(!log.includes(token.split('.')[2]), 'a token stands in the log');
  for (const id of application.sessions.keys()) assert.ok(!log.includes(id), 'a session stands in the log');
});
