// The chat that everybody begins with: the broadcast server of npm's ws, as its README has it, and a plain page, in the tabs of a real
// browser that trusts the local authority. The tests are stations of one life: the tabs stay open from each to the next. With HTTP=2 in
// the environment page and sockets come over one HTTP/2 connection.

import assert from 'node:assert/strict';
import {fork} from 'node:child_process';
import {once} from 'node:events';
import {readFile} from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';
import {after, before, test} from 'node:test';
import {fileURLToPath} from 'node:url';
import WebSocket from 'ws';
import {launch} from './chromium.mjs';
import {Bridge, End, listen, soon} from './harness.mjs';

const seed = fileURLToPath(new URL('seed/', import.meta.url));
const names = ['ada', 'ben', 'cleo'];
const http2 = process.env.HTTP === '2';
const ends = []; // what is to be stopped, the last first
const complaints = []; // of the pages' scripts
let bridge, profile, configuration, port, tabs, stranger;

// elsewhere has a server that names a port of its own listen on a loopback port of the system's choice, and tell it.
const elsewhere = 'data:text/javascript,' + encodeURIComponent(`
  import net from 'node:net';
  const {listen} = net.Server.prototype;
  net.Server.prototype.listen = function () {
    return listen.call(this, 0, '127.0.0.1', () => process.send(this.address().port));
  };
  process.once('disconnect', () => process.exit());
`);

// startChat gives the address of a chat server of its own.
async function startChat() {
  const chat = fork(path.join(seed, 'chat.mjs'), {execArgv: ['--import', elsewhere]});
  ends.push(() => chat.kill());
  const [port] = await soon(once(chat, 'message'), 'the port of the chat server');
  return `127.0.0.1:${port}`;
}

// A Tab shows the page. Each thing that happens to its socket is a line: open, message, error or close.
class Tab {
  static async open(url) {
    const tab = new Tab();
    tab.page = await profile.newPage();
    tab.page.setDefaultTimeout(20_000);
    tab.page.on('pageerror', error => complaints.push(error));
    const devtools = await tab.page.context().newCDPSession(tab.page);
    tab.answers = []; // to the handshakes of its sockets
    devtools.on('Network.webSocketHandshakeResponseReceived', ({response}) => tab.answers.push(response.status));
    await devtools.send('Network.enable');
    await tab.page.goto(url);
    return tab;
  }

  async say(text) {
    await this.page.fill('input', text);
    await this.page.press('input', 'Enter');
  }

  // lines gives all lines of a kind so far.
  lines(kind) { return this.page.locator(`li.${kind}`).allTextContents(); }

  // line waits for the line of a kind with this index, and gives its text.
  line(kind, index = 0) { return this.page.locator(`li.${kind}`).nth(index).textContent(); }

  // hears waits for a message.
  hears(text) { return this.page.getByText(text, {exact: true}).first().waitFor({state: 'attached'}); }

  // talk says "name 0", "name 1" and so on, until hush, which is the last thing it says.
  talk(name) {
    return this.page.evaluate(name => {
      const form = document.forms[0];
      const say = text => {
        form.elements.text.value = `${name} ${text}`;
        form.requestSubmit();
      };
      let said = 0;
      const talking = setInterval(() => say(said++), 10);
      window.hush = () => {
        clearInterval(talking);
        say('hush');
      };
    }, name);
  }

  hush() { return this.page.evaluate(() => window.hush()); }
}

const address = () => `https://localhost:${port}/chat.html`;
const all = does => Promise.all(tabs.map(does));

// edit changes the configuration as its user does, in one place.
async function edit(was, becomes) {
  assert.equal(configuration.split(was).length, 2, `${was} stands once in\n${configuration}`);
  configuration = configuration.replace(was, becomes);
  await bridge.write(configuration);
}

before(async () => {
  configuration = `
state: ./state
certificates: {internal: true}
log: {format: json}

listeners:
  - {name: wss, address: "127.0.0.1:0", tls: true, http2: ${http2}}

routes:
  - name: chat
    host: localhost
    path: /ws
    origins: [self]
    limits:
      - {per: client.ip, connections: 100, messages: 1000/s, except: []}
    socket: {message_size: 64KiB}
    websocket: {to: "ws://${await startChat()}"}

  - name: page
    host: localhost
    path: /*
    files: {dir: ${JSON.stringify(seed)}}
`;
  bridge = await Bridge.serve(configuration);
  port = new URL(bridge.wss).port;
  const browser = await launch(ends, (await bridge.command('ca')).stdout);
  profile = await browser.newContext(); // its pages are tabs of one window
  tabs = await Promise.all(names.map(() => Tab.open(address())));
});

after(async () => {
  try {
    for (const end of ends.reverse()) await end();
  } finally {
    await bridge?.stop();
  }
  assert.deepEqual(complaints, []);
});

test('the server is the one of the README, to the letter', async () => {
  const readme = await readFile(new URL('node_modules/ws/README.md', import.meta.url), 'utf8');
  const server = await readFile(path.join(seed, 'chat.mjs'), 'utf8');
  const code = server.slice(server.indexOf('import '));
  assert.ok(readme.includes('```js\n' + code + '```'), code);
});

test('a browser that was not told of the authority does not trust the page', async () => {
  const page = await (await launch(ends)).newPage();
  await assert.rejects(page.goto(address()), /ERR_CERT_AUTHORITY_INVALID/);
});

test('what one tab says all tabs hear, in the same order', async () => {
  await all(tab => tab.line('open'));
  await all((tab, i) => tab.say(`this is ${names[i]}`));
  await all(tab => tab.line('message', names.length - 1));
  const heard = await tabs[0].lines('message');
  assert.deepEqual(heard.toSorted(), names.map(name => `this is ${name}`));
  for (const tab of tabs) assert.deepEqual(await tab.lines('message'), heard);
});

test('page and socket came by the version of HTTP that they were to', async () => {
  for (const tab of tabs) {
    const by = await tab.page.evaluate(() => performance.getEntriesByType('navigation')[0].nextHopProtocol);
    assert.equal(by, http2 ? 'h2' : 'http/1.1');
    assert.deepEqual(tab.answers, [http2 ? 200 : 101]);
  }
});

test('reloads lose and double nothing while the tabs talk, and close no socket', async () => {
  const before = (await tabs[0].lines('message')).length;
  const another = '\n  - {name: another, path: /another, websocket: {to: "ws://127.0.0.1:9"}}';
  let heard = before;
  const moreTalk = () => {
    heard += 10 * tabs.length;
    return all(tab => tab.line('message', heard - 1));
  };
  await all((tab, i) => tab.talk(names[i]));
  for (const [was, becomes] of [
    ['messages: 1000/s', 'messages: 800/s'],
    ['connections: 100', 'connections: 2'], // fewer than are open
    ['message_size: 64KiB', 'message_size: 48KiB, ping: 1s'],
    ['[self]', '[self, "https://app.example.com"]'],
    ['routes:', 'routes:' + another],
  ]) {
    await moreTalk();
    await edit(was, becomes);
    await bridge.hangUp();
    await moreTalk();
    await edit(becomes, was);
    await bridge.reload();
  }
  await moreTalk();
  await edit('message_size', 'mesage_size');
  assert.equal((await bridge.command('reload')).code, 2);
  await edit('mesage_size', 'message_size');
  await all(tab => Promise.all(names.map(name => tab.hears(`${name} 50`))));
  await all(tab => tab.hush());
  await all(tab => Promise.all(names.map(name => tab.hears(`${name} hush`))));

  const talk = (await tabs[0].lines('message')).slice(before);
  for (const name of names) {
    const said = talk.filter(line => line.startsWith(name + ' '));
    assert.deepEqual(said, said.map((_, i) => i < said.length - 1 ? `${name} ${i}` : `${name} hush`));
  }
  for (const tab of tabs) {
    assert.deepEqual((await tab.lines('message')).slice(before), talk);
    assert.deepEqual(await tab.lines('close'), []);
    assert.deepEqual(await tab.lines('error'), []);
  }
});

test('a changed limit holds for an open socket', async () => {
  const text = 'x'.repeat(40_000);
  const tab = await Tab.open(address());
  await tab.line('open');
  await tab.say(text);
  await tab.hears(text);
  await edit('message_size: 64KiB', 'message_size: 32KiB');
  assert.match(await bridge.reload(), /^route chat: changed \(.*message_size.*\); open sockets that live on: 4$/m);
  await tab.say(text);
  assert.equal(await tab.line('close'), '1009 "message too big" clean');
  await tab.page.close();
});

test('a route that leads elsewhere takes its tabs there', async () => {
  const chat = await startChat();
  const witness = new End(new WebSocket(`ws://${chat}`));
  await soon(once(witness.socket, 'open'), 'the open event');
  await edit(/ws:\/\/[^"]*/.exec(configuration)[0], `ws://${chat}`);
  await bridge.reload();
  for (const [i, tab] of tabs.entries()) {
    assert.equal(await tab.line('close'), '1012 "route changed" clean');
    await tab.line('open', 1);
    await tab.say(`${names[i]} again`);
    assert.equal(await witness.next(), `${names[i]} again`);
  }
  witness.socket.close();
});

test('a page of another origin is refused, the log says how to mend it, and that mends it', async () => {
  const page = await readFile(path.join(seed, 'chat.html'));
  const site = http.createServer((_, response) => response.setHeader('Content-Type', 'text/html').end(page));
  ends.push(() => site.close());
  const origin = (await listen(site)).replace('127.0.0.1', 'http://localhost');
  stranger = await Tab.open(`${origin}/?server=localhost:${port}`);
  assert.equal(await stranger.line('close', 2), '1006 "" not clean'); // the third time
  assert.equal(await stranger.line('error', 2), 'error');
  const refusals = bridge.lines({msg: 'refused'});
  assert.equal(refusals.length, 1, 'the log says it once');
  const [{level, route, status, reason, error}] = refusals;
  assert.deepEqual({level, route, status, reason}, {level: 'INFO', route: 'chat', status: 403, reason: 'origin'});
  assert.ok(error.includes(`to allow it, list "${origin}" under origins`), error);

  await edit('[self]', `[self, "${origin}"]`);
  await bridge.reload();
  await stranger.line('open');
  await stranger.say('may I come in?');
  await tabs[0].hears('may I come in?');
});

test('SIGTERM closes every tab with 1001, and in good order', async () => {
  const guests = [...tabs, stranger];
  const closes = await Promise.all(guests.map(async tab => (await tab.lines('close')).length));
  await bridge.stop();
  bridge = undefined;
  for (const [i, tab] of guests.entries()) assert.equal(await tab.line('close', closes[i]), '1001 "shutting down" clean');
});
