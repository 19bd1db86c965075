// A plain application in node:http behind a `webhook` route. It verifies every request with npm's standardwebhooks.

import assert from 'node:assert/strict';
import {randomBytes} from 'node:crypto';
import http from 'node:http';
import {after, before, test} from 'node:test';
import {Webhook} from 'standardwebhooks';
import {Bridge, Queue, listen} from './harness.mjs';

const newKey = () => 'whsec_' + randomBytes(32).toString('base64');
const keys = {current: newKey(), former: newKey(), foreign: newKey()};
const pushToken = randomBytes(24).toString('hex');
const rooms = new Map(); // what the application was sent and could verify, by room: a Queue of {delivery, headers, to}
let failures = 0; // how many of the next requests are answered 503
let bridge;

// What the application answers to each text.
const answers = {
  envelope: {json: {actions: [{send: {text: 'one'}}, {send: {data_base64: 'AQID'}}, {send: {json: {three: 3}}}]}},
  text: {type: 'text/plain; charset=utf-8', body: 'grüße'},
  binary: {type: 'application/octet-stream', body: Buffer.of(1, 2, 3)},
  nothing: {status: 204},
  close: {json: {actions: [{send: {text: 'last words'}}, {close: {code: 4002, reason: 'enough'}}]}},
  count: (delivery) => ({json: {state: {count: (delivery.connection.state?.count ?? 0) + 1}}}),
  state: (delivery) => ({type: 'text/plain', body: JSON.stringify(delivery.connection.state)}),
  poison: {status: 422},
  'not mine': {status: 410},
};

function onConnect({query = '', subprotocols = []}) {
  const name = new URLSearchParams(query).get('name');
  if (name === null) return {status: 403, type: 'text/plain', body: 'who are you?'};
  return {
    json: {
      accept: {user: name, subprotocol: subprotocols.at(-1), headers: {'Set-Cookie': 'seen=1'}},
      actions: [{send: {text: `welcome, ${name}`}}],
    },
  };
}

function answerTo(delivery) {
  const [event] = delivery.events;
  if (event.type === 'connect') return onConnect(event);
  const answer = answers[event.text] ?? {status: 204};
  return typeof answer === 'function' ? answer(delivery) : answer;
}

const application = http.createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  const key = request.url.startsWith('/former') ? keys.former : request.url.startsWith('/foreign') ? keys.foreign : keys.current;
  let delivery;
  try {
    delivery = new Webhook(key).verify(Buffer.concat(chunks), request.headers);
  } catch (error) {
    response.writeHead(401).end(error.message);
    return;
  }
  rooms.get(new URL(request.url, 'http://app').searchParams.get('room'))?.put({delivery, headers: request.headers, to: request.url});
  const failed = failures > 0 && failures--;
  const {status = 200, json, type = json && 'application/json', body = json && JSON.stringify(json)} =
    failed ? {status: 503} : answerTo(delivery);
  response.writeHead(status, type && {'content-type': type}).end(body);
});

before(async () => {
  const app = `http://${await listen(application)}`;
  bridge = await Bridge.start(`
push: {address: "127.0.0.1:0", tokens: [{name: app, token: ${pushToken}, may: [push, read, close]}]}
routes:
  - name: app
    path: /app/{room}
    webhook: {to: "${app}/events?room={room}", secret: "${keys.current}", forward_headers: [cookie], refusal_body: true}
  - {name: team, path: "/team/{room}", webhook: {to: "${app}/events?room={room}", secret: "${keys.current}"}}
  - {name: former, path: /former, webhook: {to: "${app}/former", secret: ["${keys.current}", "${keys.former}"]}}
  - {name: foreign, path: /foreign, webhook: {to: "${app}/foreign", secret: "${keys.current}"}}
`);
});

after(async () => {
  await bridge?.stop();
  application.closeAllConnections();
  application.close();
});

// enter gives a client that was let in and greeted, its connect event as the application saw it, and those to come.
async function enter(options = {}, protocols = [], route = 'app') {
  const room = `room ${rooms.size}`;
  const deliveries = new Queue();
  rooms.set(room, deliveries);
  const client = await bridge.open(`/${route}/${encodeURIComponent(room)}?name=ann`, protocols, options);
  const connect = await deliveries.take('the connect event');
  assert.equal(await client.next(), 'welcome, ann');
  return {client, deliveries, ...connect};
}

const ofType = type => ({delivery}) => delivery.events.some(event => event.type === type);

async function push(connection, body, token = pushToken) {
  return fetch(connection.push_url + '/v1/send', {
    method: 'POST',
    headers: {'content-type': 'application/json', authorization: `Bearer ${token}`},
    body: JSON.stringify({to: {connection: connection.id}, ...body}),
  });
}

test('the application sees who comes, and decides', async () => {
  const {client, delivery, to} = await enter({headers: {cookie: 'a=b', 'x-secret': 'kept'}}, ['v1', 'v2']);
  const [event] = delivery.events;
  assert.match(to, /^\/events\?room=room(%20|\+)\d+$/);
  assert.equal(delivery.version, 1);
  assert.equal(delivery.route, 'app');
  assert.match(delivery.connection.id, /^c_[a-z0-9_]+$/);
  assert.equal(delivery.connection.remote_ip, '127.0.0.1');
  assert.equal(event.type, 'connect');
  assert.equal(event.seq, 0);
  assert.match(event.path, /^\/app\/room%20\d+$/);
  assert.equal(event.query, 'name=ann');
  assert.equal(event.tls, true);
  assert.deepEqual(event.headers, {cookie: 'a=b'});
  assert.deepEqual(event.subprotocols, ['v1', 'v2']);
  assert.equal(client.socket.protocol, 'v2');
  client.socket.close();
});

test('a refusal of the application reaches the client', async () => {
  const refusal = await bridge.refused('/app/nobody');
  assert.equal(refusal.status, 403);
  assert.equal(refusal.body, 'who are you?');
});

test('an application that knows only the former key can verify too', async () => {
  const client = await bridge.open('/former?name=ann');
  assert.equal(await client.next(), 'welcome, ann');
  client.socket.close();
});

test('an application with another key refuses', async () => {
  assert.equal((await bridge.refused('/foreign?name=ann')).status, 401);
});

test('messages arrive with gapless numbers, replies return in order', async () => {
  const {client, deliveries, delivery} = await enter();
  for (const text of ['envelope', 'text', 'binary', 'nothing']) client.send(text);
  client.send(Buffer.of(9, 8, 7));
  for (const expected of ['one', Buffer.of(1, 2, 3), '{"three":3}']) assert.deepEqual(await client.next(), expected);
  client.socket.close(1000, 'done');
  const events = [];
  for (let next; next?.type !== 'close'; next = events.at(-1)) {
    const {delivery: more, headers} = await deliveries.take('an event');
    assert.equal(more.connection.user, 'ann');
    assert.ok(headers['webhook-id'].startsWith(more.events[0].id));
    events.push(...more.events);
  }
  assert.deepEqual(events.map(event => event.seq), [1, 2, 3, 4, 5, 6]);
  assert.deepEqual(events.map(event => event.id), events.map(event => `${delivery.connection.id}-${event.seq}`));
  assert.deepEqual(events.slice(0, 5).map(event => event.text ?? event.data_base64), ['envelope', 'text', 'binary', 'nothing', 'CQgH']);
});

test('a reply of another type than JSON is one message', async () => {
  const {client, deliveries} = await enter();
  client.send('text');
  assert.equal(await client.next(), 'grüße');
  client.send('binary');
  assert.deepEqual(await client.next(), Buffer.of(1, 2, 3));
  client.socket.close();
});

test('the application is told how a socket ended', async () => {
  const {client, deliveries} = await enter();
  client.send('nothing');
  client.socket.close(4003, 'grüße');
  const {delivery} = await deliveries.where(ofType('close'), 'the close event');
  const {code, reason, clean, initiator, messages_in, messages_out, bytes_in} = delivery.events.at(-1);
  assert.deepEqual(
    {code, reason, clean, initiator, messages_in, messages_out, bytes_in},
    {code: 4003, reason: 'grüße', clean: true, initiator: 'client', messages_in: 1, messages_out: 1, bytes_in: 7},
  );
});

test('the application closes with a code and a reason, after what it sent', async () => {
  const {client, deliveries} = await enter();
  client.send('close');
  assert.equal(await client.next(), 'last words');
  assert.deepEqual(await client.closed(), {code: 4002, reason: 'enough'});
  const {delivery} = await deliveries.where(ofType('close'), 'the close event');
  assert.equal(delivery.events.at(-1).initiator, 'backend');
});

test('the bridge keeps the state of a connection for the application', async () => {
  const {client, deliveries} = await enter();
  for (const text of ['count', 'count', 'state']) {
    client.send(text);
    await deliveries.where(ofType('message'), text);
  }
  assert.equal(await client.next(), '{"count":2}');
  client.socket.close();
});

test('a request that fails is tried again, signed anew, under the same id', async () => {
  const {client, deliveries} = await enter();
  failures = 2;
  client.send('text');
  const tries = [];
  while (tries.length < 3) tries.push(await deliveries.take('the next attempt'));
  assert.equal(new Set(tries.map(({headers}) => headers['webhook-id'])).size, 1);
  assert.equal(await client.next(), 'grüße');
  client.socket.close();
});

test('a message that the application does not want is dropped, a connection it does not know closed', async () => {
  const {client, deliveries} = await enter();
  client.send('poison');
  await deliveries.where(ofType('message'), 'the message');
  client.send('text');
  assert.equal(await client.next(), 'grüße');
  client.send('not mine');
  assert.equal((await client.closed()).code, 1001);
});

test('the application pushes to a socket, and is told what happened', async () => {
  const {client, deliveries, delivery: {connection}} = await enter();
  for (const [body, heard] of [
    [{text: 'grüße'}, 'grüße'],
    [{json: {a: 1}}, '{"a":1}'],
    [{data_base64: 'AQID', wait: 'written'}, Buffer.of(1, 2, 3)],
  ]) {
    const response = await push(connection, body);
    assert.equal(response.status, 200, await response.clone().text());
    const receipt = await response.json();
    assert.equal(receipt.matched, 1);
    assert.equal(receipt.queued, 1);
    assert.deepEqual(await client.next(), heard);
  }
  assert.equal((await push(connection, {text: 'x'}, 'wrong')).status, 401);

  client.socket.close();
  await client.closed();
  await deliveries.where(ofType('close'), 'the close event');
  assert.equal((await push(connection, {text: 'too late'})).status, 410);
});

test('the application pushes to a whole route', async () => {
  const clients = await Promise.all(Array.from({length: 3}, () => enter({}, [], 'team')));
  const response = await push(clients[0].delivery.connection, {to: {route: 'team'}, text: 'to all'});
  assert.equal((await response.json()).matched, 3);
  for (const {client} of clients) {
    assert.equal(await client.next(), 'to all');
    client.socket.close();
  }
});

test('the application lists connections and closes one', async () => {
  const {client, deliveries, delivery: {connection}} = await enter();
  const authorization = `Bearer ${pushToken}`;
  const facts = await (await fetch(`${connection.push_url}/v1/connections/${connection.id}`, {headers: {authorization}})).json();
  assert.equal(facts.user, 'ann');
  assert.equal(facts.route, 'app');
  const closing = await fetch(`${connection.push_url}/v1/connections/${connection.id}?code=4004&reason=moved`, {
    method: 'DELETE', headers: {authorization},
  });
  assert.ok(closing.ok, `${closing.status} ${await closing.text()}`);
  assert.deepEqual(await client.closed(), {code: 4004, reason: 'moved'});
});
