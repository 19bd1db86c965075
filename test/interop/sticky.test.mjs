// Two processes of npm's socket.io behind one group. The requests and the socket of one session must all reach the same of them: the
// sticky cookie sees to that.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import path from 'node:path';
import {createInterface} from 'node:readline';
import {after, before, test} from 'node:test';
import {io} from 'socket.io-client';
import {Bridge, soon} from './harness.mjs';

// A Process is one server; it keeps its port when it is started again.
class Process {
  constructor(name) { this.name = name; }

  async start() {
    if (this.#runs()) return;
    const file = path.join(import.meta.dirname, 'socketio-server.mjs');
    this.child = spawn(process.execPath, [file, this.name, this.port ?? '0'], {stdio: ['ignore', 'pipe', 'inherit']});
    [this.port] = await soon(once(createInterface({input: this.child.stdout}), 'line'), `the port of server ${this.name}`);
  }

  // crash ends it without a word to anybody.
  async crash() {
    if (!this.#runs()) return;
    this.child.kill('SIGKILL');
    await soon(once(this.child, 'exit'), `the end of server ${this.name}`);
  }

  #runs() { return this.child?.exitCode === null && this.child.signalCode === null; }
}

// ways are how a client may talk: by requests first, as all do unless they are told otherwise, by requests alone, or by a socket alone.
const ways = {upgrade: ['polling', 'websocket'], polling: ['polling'], websocket: ['websocket']};
const servers = [new Process('a'), new Process('b')];
let bridge, unasked;

before(async () => {
  for (const server of servers) await server.start();
  const list = servers.map(server => `"ws://127.0.0.1:${server.port}"`).join(', ');
  bridge = await Bridge.start(`
upstreams:
  sticky: {servers: [${list}], sticky: {}, health: {tcp: true, interval: 100ms, timeout: 20s}}
  loose: {servers: [${list}]}
routes:
  - {name: sticky, host: localhost, path: /*, websocket: {to: sticky, http: true}}
  - {name: loose, path: /*, websocket: {to: loose, http: true}}
`);
  unasked = await Bridge.start(`
upstreams: {sticky: {servers: [${list}], sticky: {}, eject: {time: 100ms, max_time: 200ms}}}
routes: [{name: sticky, path: /*, websocket: {to: sticky, http: true}}]
`);
});

after(async () => {
  await bridge?.stop();
  await unasked?.stop();
  for (const server of servers) await server.crash();
});

// pages is where the pages of a bridge are.
const pages = (bridge, host = 'localhost') => bridge.wss.replace('wss:', 'https:').replace('127.0.0.1', host);

// begin makes a client. Like a browser, and other than socket.io's client by itself, it
// takes its cookies along when it connects again.
function begin(t, to, way, options = {}) {
  const extraHeaders = {};
  const client = io(to, {
    ca: [bridge.ca, unasked.ca], forceNew: true, reconnection: false, withCredentials: true, transports: ways[way], extraHeaders, ...options,
  });
  client.io.on('open', () => { // before a socket is tried
    const given = [...client.io.engine._cookieJar.cookies]; // which end with this session
    if (given.length > 0) extraHeaders.cookie = given.map(([name, {value}]) => `${name}=${value}`).join('; ');
    client.io.engine._cookieJar = undefined;
  });
  t.after(() => client.disconnect());
  return client;
}

// arrived waits until a client has its session, and gives its server.
async function arrived(client, way) {
  const [at] = await soon(once(client, 'at'), 'the name of the server');
  const {engine} = client.io;
  if (way === 'upgrade' && engine.transport.name !== 'websocket') await soon(once(engine, 'upgrade'), 'the upgrade');
  assert.equal(engine.transport.name, way === 'polling' ? 'polling' : 'websocket');
  return at;
}

const echo = (client, value) => client.timeout(20_000).emitWithAck('echo', value);

// converse has a client say things, and be answered by its server alone.
async function converse(client, at) {
  for (let i = 0; i < 3; i++) assert.deepEqual(await echo(client, i), {at, value: i});
}

for (const way of Object.keys(ways)) {
  test(`every session stays at its server by ${way}`, async t => {
    const seen = new Set();
    for (let n = 0; n < 4; n++) {
      const client = begin(t, pages(bridge), way);
      const at = await arrived(client, way);
      seen.add(at);
      await converse(client, at);
    }
    assert.deepEqual([...seen].sort(), ['a', 'b']);
  });
}

// What the cookie is good for: without it the second request of a session comes to a server that does not know it.
for (const way of ['upgrade', 'polling']) {
  test(`no session begins by ${way} where nothing is sticky`, async t => {
    const client = begin(t, pages(bridge, '127.0.0.1'), way);
    client.on('connect', () => assert.fail('it is connected'));
    const {description} = await soon(new Promise(resolve => client.io.engine.once('error', resolve)), 'the error');
    assert.equal(description, 400); // as of socket.io, which says: Session ID unknown
  });
}

// dies has one of the servers crash and come back. The bridge learns of it by asking, or from what clients meet.
async function dies(t, to, way) {
  const clients = [];
  for (let n = 0; n < 4; n++) {
    const client = begin(t, to, way, {reconnection: true, reconnectionDelay: 50, reconnectionDelayMax: 100});
    clients.push({client, at: await arrived(client, way), id: client.id});
  }
  const [dead, alive] = servers;
  const moving = clients.filter(({at}) => at === dead.name);
  assert.ok(moving.length > 0 && moving.length < clients.length, 'they are at both');
  t.after(() => dead.start());
  const moved = moving.map(({client}) => arrived(client, way));
  await dead.crash();
  assert.deepEqual(new Set(await Promise.all(moved)), new Set([alive.name]));
  for (const {client, at, id} of clients) {
    await converse(client, alive.name);
    if (at === alive.name) assert.equal(client.id, id, 'a session at the other server has ended');
  }
  await dead.start();
  for (let back = false; !back;) { // bounded by the time of the whole test
    const client = begin(t, to, way);
    back = await arrived(client, way) === dead.name;
    client.disconnect();
  }
}

for (const way of Object.keys(ways)) {
  test(`when a server dies its clients go on at the other by ${way}`, t => dies(t, pages(bridge), way));
  test(`when a server dies that nobody asks its clients go on at the other by ${way}`, t => dies(t, pages(unasked), way));
}
