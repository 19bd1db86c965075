// What the tests share: the bridge as a process, and both ends of a WebSocket with bounded waits.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {EventEmitter, once} from 'node:events';
import {mkdtemp, readFile, rm, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {createInterface} from 'node:readline';
import {text as contents} from 'node:stream/consumers';
import WebSocket from 'ws';

const patience = 20_000; // ms for anything that ought to happen soon

// soon gives what the promise gives, or fails with a sentence that says what did not come.
export function soon(promise, what) {
  const {promise: late, reject} = withResolvers();
  const timer = setTimeout(() => reject(new Error(`${what} did not come within ${patience / 1000} s`)), patience);
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function withResolvers() {
  const all = {};
  all.promise = new Promise((resolve, reject) => Object.assign(all, {resolve, reject}));
  return all;
}

// Queue hands on what came, in order, to whoever waits for it.
export class Queue {
  #values = [];
  #waiting = [];

  put(value) {
    const next = this.#waiting.shift();
    next ? next(value) : this.#values.push(value);
  }

  take(what = 'the next value') {
    if (this.#values.length > 0) return Promise.resolve(this.#values.shift());
    return soon(new Promise(resolve => this.#waiting.push(resolve)), what);
  }

  // where takes until a value fits.
  async where(fits, what) {
    for (;;) {
      const value = await this.take(what);
      if (fits(value)) return value;
    }
  }
}

// listen gives the address of a server on a loopback port of the system's choice.
export async function listen(server) {
  if (!server.address()) {
    server.listen?.(0, '127.0.0.1');
    await once(server, 'listening');
  }
  return `127.0.0.1:${server.address().port}`;
}

// A Bridge is the binary under test, running.
export class Bridge {
  #process;
  #dir;
  #generation = 1; // of the configuration in force
  #log = [];
  #news = new EventEmitter();

  // start runs a configuration: the body has routes and what they need; state, certificates and listeners are given.
  static async start(body) {
    const bridge = await Bridge.serve(`state: ./state
certificates: {internal: true}
log: {format: json, level: debug}
listeners: [{name: wss, address: "127.0.0.1:0", tls: true}]
admin: {address: "127.0.0.1:0"}
drain: 1s
${body}`);
    const ready = await fetch(bridge.admin + '/readyz');
    assert.equal(ready.status, 200, await ready.text());
    return bridge;
  }

  // serve runs a whole configuration. It has `state: ./state`, a listener `wss` with a local authority, and its log in JSON.
  static async serve(text) {
    const bridge = new Bridge();
    bridge.#dir = await mkdtemp(path.join(tmpdir(), 'bridgehead-interop-'));
    await bridge.write(text);
    bridge.#run();
    bridge.wss = 'wss://' + await bridge.address('wss');
    if (/^admin:/m.test(text)) bridge.admin = 'http://' + await bridge.address('admin');
    bridge.ca = await readFile(path.join(bridge.#dir, 'state', 'ca', 'root.pem'));
    return bridge;
  }

  // write puts a configuration in the place of the one before; it holds when the bridge is told to reload.
  write(text) { return writeFile(path.join(this.#dir, 'config.yaml'), text); }

  // command runs one of the program's commands where the configuration lies, and gives its exit code and what it printed.
  async command(...args) {
    const child = spawn(process.env.BRIDGEHEAD, args, {cwd: this.#dir, stdio: ['ignore', 'pipe', 'pipe']});
    const [[code], stdout, stderr] = await soon(
      Promise.all([once(child, 'close'), contents(child.stdout), contents(child.stderr)]), `the end of bridgehead ${args.join(' ')}`);
    return {code, stdout, stderr};
  }

  // reload has the running bridge read its configuration again, and gives what it says to have changed.
  async reload() {
    const {code, stdout, stderr} = await this.command('reload');
    assert.equal(code, 0, stderr);
    await this.#reloaded();
    return stdout;
  }

  // hangUp is reload by SIGHUP.
  async hangUp() {
    this.#process.kill('SIGHUP');
    await this.#reloaded();
  }

  #reloaded() { return this.logged({msg: 'reloaded', generation: ++this.#generation}); }

  #run() {
    this.#process = spawn(process.env.BRIDGEHEAD, ['serve'], {cwd: this.#dir, stdio: ['ignore', 'ignore', 'pipe']});
    this.#news.setMaxListeners(0);
    createInterface({input: this.#process.stderr}).on('line', text => {
      this.#log.push(text);
      this.#news.emit('line');
    });
    this.#process.once('exit', () => this.#news.emit('line'));
  }

  // logged waits for a line of the log that has all these members, past ones included.
  async logged(wanted) {
    for (;;) {
      const [found] = this.lines(wanted);
      if (found) return found;
      if (this.#process.exitCode !== null) throw new Error(`bridgehead ended:\n${this.#tail()}`);
      await soon(once(this.#news, 'line'), `the log line ${JSON.stringify(wanted)}`).catch(error => {
        throw new Error(`${error.message}; the log:\n${this.#tail()}`);
      });
    }
  }

  // lines gives all lines of the log so far that have all these members.
  lines(wanted) {
    const fits = line => Object.entries(wanted).every(([key, value]) => line[key] === value);
    return this.#log.filter(text => text.startsWith('{')).map(text => JSON.parse(text)).filter(fits);
  }

  // #tail is the end of the log, which may be long: what failed is to be found beside it.
  #tail() {
    const left = Math.max(0, this.#log.length - 60);
    return (left ? [`(${left} lines before these)`] : []).concat(this.#log.slice(left)).join('\n');
  }

  // address is where a listener is found.
  async address(listener) { return (await this.logged({msg: 'listening', listener})).address; }

  // stop ends the bridge as an operator does. It must end in good order; its log is shown if it does not.
  async stop() {
    const exited = this.#process.exitCode === null ? once(this.#process, 'exit') : [this.#process.exitCode];
    this.#process.kill('SIGTERM');
    const [code] = await soon(exited, 'the end of bridgehead').catch(error => {
      this.#process.kill('SIGKILL');
      throw error;
    });
    await rm(this.#dir, {recursive: true});
    assert.equal(code, 0, `bridgehead ended with ${code}:\n${this.#tail()}`);
  }

  // open is a client: npm's ws over wss, trusting the local authority.
  async open(target, protocols = [], options = {}) {
    const socket = new WebSocket(this.wss + target, protocols, {ca: this.ca, ...options});
    const end = new End(socket);
    await soon(once(socket, 'open'), 'the open event');
    return end;
  }

  // refused is the answer to a handshake that must not succeed.
  async refused(target, options = {}) {
    const socket = new WebSocket(this.wss + target, {ca: this.ca, ...options});
    const [request, response] = await soon(once(socket, 'unexpected-response'), 'a refusal');
    let body = '';
    for await (const chunk of response.setEncoding('utf8')) body += chunk;
    request.destroy();
    return {status: response.statusCode, headers: response.headers, body};
  }
}

// An End is one end of a WebSocket of npm's ws, client or server.
export class End {
  #messages = new Queue();

  constructor(socket) {
    this.socket = socket;
    this.closed = soonOnce(socket, 'close', (code, reason) => ({code, reason: reason.toString()}));
    socket.on('message', (data, binary) => this.#messages.put(binary ? data : data.toString()));
    socket.on('error', () => {}); // a close event follows
  }

  // next is the next message: text as a string, binary as a Buffer.
  next() { return this.#messages.take('a message'); }

  send(data) { this.socket.send(data); }
}

// soonOnce gives the arguments of an event by a function that waits for it.
function soonOnce(emitter, event, shape) {
  const came = once(emitter, event).then(args => shape(...args));
  return () => soon(came, `the ${event} event`);
}
