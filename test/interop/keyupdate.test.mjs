// TLS 1.3 key updates (RFC 8446, section 4.6.3) by OpenSSL's s_client and s_server, on either side of the bridge: crypto/tls answers
// them and never begins one.

import assert from 'node:assert/strict';
import {execFile, spawn} from 'node:child_process';
import {createHash} from 'node:crypto';
import {EventEmitter, once} from 'node:events';
import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {setTimeout as sleep} from 'node:timers/promises';
import {after, before, test} from 'node:test';
import {promisify} from 'node:util';
import {WebSocketServer} from 'ws';
import {Bridge, listen, soon} from './harness.mjs';

const drivers = ['loops', 'goroutines'];
const rounds = 150;
let dir, count = 0;

before(async () => { dir = await mkdtemp(path.join(tmpdir(), 'bridgehead-keys-')); });
after(() => rm(dir, {recursive: true}));

// frame is one of a client or of a server, below 64 KiB. OpenSSL takes a piece of its input for a command if it begins with certain
// letters; the mask keeps every byte from being one.
function frame(opcode, text, masked) {
  const payload = Buffer.from(text);
  const bit = masked ? 0x80 : 0;
  const length = payload.length < 126 ? [bit | payload.length] : [bit | 126, payload.length >> 8, payload.length & 255];
  const mask = [0x81, 0x92, 0xa3, 0xb4];
  if (!masked) return Buffer.concat([Buffer.from([0x80 | opcode, ...length]), payload]);
  return Buffer.concat([Buffer.from([0x80 | opcode, ...length, ...mask]), payload.map((byte, i) => byte ^ mask[i & 3])]);
}

// An OpenSSL is a process of it that speaks TLS 1.3: stdin and stdout are what is sent and received.
class OpenSSL {
  #process;
  #received = Buffer.alloc(0);
  #news = new EventEmitter();
  #messages = path.join(dir, `messages-${count++}`);
  #said = '';

  constructor(args) {
    this.#process = spawn('openssl', [...args, '-tls1_3', '-msg', '-msgfile', this.#messages], {stdio: ['pipe', 'pipe', 'pipe']});
    this.#process.stdin.on('error', () => {}); // its end is told otherwise
    this.#process.stderr.on('data', data => { this.#said += data; });
    this.#process.stdout.on('data', data => {
      this.#received = Buffer.concat([this.#received, data]);
      this.#news.emit('data');
    });
    this.#process.once('exit', () => this.#news.emit('data'));
  }

  write(data) { this.#process.stdin.write(data); }

  // take gives what parse makes of what was received, and how many bytes that are, as soon as it is all there.
  async take(parse, what) {
    for (;;) {
      const [value, length] = parse(this.#received) ?? [];
      if (length !== undefined) {
        this.#received = this.#received.subarray(length);
        return value;
      }
      if (this.#process.exitCode !== null) throw new Error(`openssl ended before ${what}:\n${this.#said}`);
      await soon(once(this.#news, 'data'), what);
    }
  }

  // head gives what ends with an empty line, from its beginning on.
  head(beginning) {
    return this.take(data => {
      const start = data.indexOf(beginning), end = data.indexOf('\r\n\r\n', Math.max(0, start));
      return start < 0 || end < 0 ? null : [data.toString('latin1', start, end), end + 4];
    }, beginning);
  }

  // frame gives the payload of the next frame. What s_server says of itself is text, and stands between frames.
  frame() {
    return this.take(data => {
      const start = data.findIndex(byte => byte >= 0x80);
      if (start < 0 || data.length < start + 2) return null;
      const masked = data[start + 1] >> 7, short = data[start + 1] & 127;
      const long = short === 126 ? 2 : 0;
      const head = start + 2 + long + 4 * masked;
      if (data.length < head) return null;
      const length = long ? data.readUInt16BE(start + 2) : short;
      if (data.length < head + length) return null;
      const payload = Buffer.from(data.subarray(head, head + length));
      if (masked) payload.forEach((byte, i) => { payload[i] = byte ^ data[head - 4 + (i & 3)]; });
      return [payload.toString(), head + length];
    }, 'a frame');
  }

  // updates counts the key updates that were sent ('>>>') or received ('<<<').
  async updates(direction) {
    return (await readFile(this.#messages, 'latin1')).split('\n').filter(line => line.startsWith(direction) && line.endsWith('KeyUpdate')).length;
  }

  async #until(direction, wanted) {
    for (const end = Date.now() + 20_000; await this.updates(direction) < wanted; await sleep(2)) {
      assert.ok(Date.now() < end, `key update ${wanted} ${direction} did not come:\n${this.#said}`);
    }
  }

  // update changes the keys that this side sends with; with ask the other side has to change its own as well.
  async update(ask) {
    const sent = await this.updates('>>>'), received = await this.updates('<<<');
    this.write(ask ? 'K\n' : 'k\n');
    await this.#until('>>>', sent + 1);
    if (ask) await this.#until('<<<', received + 1);
  }

  async stop() {
    const exited = this.#process.exitCode === null && this.#process.signalCode === null ? once(this.#process, 'exit') : [];
    this.#process.kill('SIGKILL');
    await exited;
  }
}

// serve is a backend of npm's ws that echoes, and floods on demand.
async function serve(t) {
  const backend = new WebSocketServer({host: '127.0.0.1', port: 0});
  t.after(() => backend.close());
  backend.on('connection', socket => socket.on('message', (data, binary) => {
    const [, n] = /^flood (\d+)/.exec(data) ?? [];
    for (let i = 0; i < n; i++) socket.send(`${i} ${'x'.repeat(16_000)}`);
    if (!n) socket.send(data, {binary});
  }));
  return listen(backend);
}

const handshake = 'GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n';

for (const driver of drivers) {
  test(`a client changes its keys, and asks for other keys of ours; driver: ${driver}`, async t => {
    const bridge = await Bridge.start(`driver: ${driver}\nroutes: [{host: localhost, websocket: {to: "ws://${await serve(t)}"}}]`);
    let client;
    t.after(async () => { await client?.stop(); await bridge.stop(); });
    const ca = path.join(dir, `ca-${driver}.pem`);
    await writeFile(ca, bridge.ca);
    client = new OpenSSL(['s_client', '-connect', bridge.wss.replace('wss://', ''), '-servername', 'localhost', '-CAfile', ca,
      '-verify_return_error', '-quiet', '-no_ign_eof']);
    client.write(handshake);
    assert.match(await client.head('HTTP/1.1 '), /^HTTP\/1.1 101 /);

    let asked = 0;
    const echo = async text => {
      client.write(frame(1, text, true));
      assert.equal(await client.frame(), text);
    };
    await echo('before');
    for (let i = 0; i < rounds; i++) {
      await client.update(i % 2 === 1);
      asked += i % 2;
      if (i % 3 > 0) await echo(`round ${i}`); // and sometimes one update behind the other
    }
    // In the midst of what is sent to it.
    client.write(frame(1, 'flood 400', true));
    for (let i = 0; i < 400; i++) {
      const [number] = (await client.frame()).split(' ');
      assert.equal(number, String(i));
      if (i % 40 === 0) {
        await client.update(true);
        asked++;
      }
    }
    await echo('after');
    assert.equal(await client.updates('<<<'), asked);
  });

  test(`a wss server changes its keys, and asks for other keys of ours; driver: ${driver}`, async t => {
    const key = path.join(dir, `key-${driver}.pem`), cert = path.join(dir, `cert-${driver}.pem`);
    await promisify(execFile)('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout', key,
      '-out', cert, '-subj', '/CN=upstream', '-addext', 'subjectAltName=IP:127.0.0.1']);
    const server = new OpenSSL(['s_server', '-accept', '127.0.0.1:0', '-cert', cert, '-key', key]);
    t.after(() => server.stop());
    const to = await server.take(data => {
      const found = /ACCEPT (127\.0\.0\.1:\d+)\r?\n/.exec(data.toString('latin1'));
      return found && [found[1], found.index + found[0].length];
    }, 'the port of s_server');
    const bridge = await Bridge.start(`driver: ${driver}
upstreams: {far: {servers: ["wss://${to}"], tls: {ca: "${cert}"}}}
routes: [{websocket: {to: far}}]`);
    let client;
    t.after(async () => { client?.socket.terminate(); await bridge.stop(); });

    const opening = bridge.open('/echo');
    const [, nonce] = /Sec-WebSocket-Key: (\S+)/i.exec(await server.head('GET /echo'));
    const accept = createHash('sha1').update(nonce + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
    server.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`);
    client = await opening;

    let asked = 0;
    const both = async text => {
      client.send(text);
      assert.equal(await server.frame(), text);
      server.write(frame(1, text, false));
      assert.equal(await client.next(), text);
    };
    await both('before');
    for (let i = 0; i < rounds; i++) {
      await server.update(i % 2 === 1);
      asked += i % 2;
      if (i % 3 > 0) await both(`round ${i}`);
    }
    await both('after');
    assert.equal(await server.updates('<<<'), asked);
  });
}
