// Sockets that systemd's own tool hands over, and a restart under it.

import assert from 'node:assert/strict';
import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdtemp, rm, writeFile} from 'node:fs/promises';
import net from 'node:net';
import {tmpdir} from 'node:os';
import path from 'node:path';
import {createInterface} from 'node:readline';
import test from 'node:test';
import WebSocket, {WebSocketServer} from 'ws';
import {listen, Queue, soon} from './harness.mjs';

// freePort is one that nobody has at the moment.
async function freePort() {
  const server = net.createServer();
  const [, port] = (await listen(server)).split(':');
  server.close();
  await once(server, 'close');
  return port;
}

// speak opens a socket, is answered what it says, and closes it.
async function speak(url) {
  const socket = new WebSocket(url);
  await soon(once(socket, 'open'), `a socket at ${url}`);
  socket.send('hello');
  const [data] = await soon(once(socket, 'message'), 'the echo');
  assert.equal(String(data), 'hello');
  socket.close();
  await soon(once(socket, 'close'), 'the end');
}

test('systemd-socket-activate hands sockets over, and a restart under it refuses no connection', async t => {
  const dir = await mkdtemp(path.join(tmpdir(), 'bh-'));
  t.after(() => rm(dir, {recursive: true}));
  const backend = new WebSocketServer({port: 0, host: '127.0.0.1'});
  t.after(() => backend.close());
  backend.on('connection', socket => socket.on('message', data => socket.send(String(data))));
  const to = await listen(backend);
  const port = await freePort(), unix = path.join(dir, 'web.sock');
  await writeFile(path.join(dir, 'config.yaml'), `state: ./state
log: {format: json}
drain: 1s
listeners: [{name: web, address: ["systemd:web", "systemd:local"]}]
admin: {address: "127.0.0.1:0"}
routes: [{path: /ws, websocket: {to: "ws://${to}"}}]
`);
  // The tool becomes the program that it starts; this one holds the sockets and starts the service twice, as systemd does.
  await writeFile(path.join(dir, 'manager.sh'), `cd '${dir}'
for start in 1 2; do
  sh -c 'LISTEN_PID=$$ exec "$BRIDGEHEAD" serve' &
  echo "{\\"pid\\": $!}" >&2
  wait $!
done
`);
  const manager = spawn('systemd-socket-activate',
    ['-l', `127.0.0.1:${port}`, '-l', unix, '--fdname=web:local', '-E', `BRIDGEHEAD=${process.env.BRIDGEHEAD}`,
      'sh', path.join(dir, 'manager.sh')], {stdio: ['ignore', 'ignore', 'pipe']});
  t.after(() => manager.kill('SIGKILL'));
  const ended = once(manager, 'close');
  const lines = new Queue();
  createInterface({input: manager.stderr}).on('line', line => {
    try {
      lines.put(JSON.parse(line));
    } catch {
      lines.put({msg: line});
    }
  });
  await lines.where(line => /^Listening on .* as 4/.test(line.msg), 'the second socket');

  await speak(`ws://127.0.0.1:${port}/ws`); // the first connection starts the program
  await speak(`ws+unix://${unix}:/ws`);
  let {pid} = await lines.where(line => line.pid, 'the process');
  t.after(() => { try { process.kill(pid, 'SIGKILL'); } catch { /* it has ended */ } });

  let restarted = false, connected = 0;
  const clients = (async () => {
    while (!restarted) {
      const socket = net.connect(port, '127.0.0.1');
      await soon(once(socket, 'connect'), 'a connection'); // an error here is a refusal
      socket.destroy();
      connected++;
    }
  })();
  process.kill(pid, 'SIGTERM');
  ({pid} = await lines.where(line => line.pid, 'the next process'));
  await speak(`ws://127.0.0.1:${port}/ws`);
  await speak(`ws+unix://${unix}:/ws`);
  restarted = true;
  await clients;
  assert.ok(connected > 0);

  process.kill(pid, 'SIGTERM');
  await soon(ended, 'the end');
});
