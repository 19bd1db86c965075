// A server of npm's socket.io that says who it is, as a process: node socketio-server.mjs NAME [PORT]. It prints the port it listens on.

import {createServer} from 'node:http';
import {Server} from 'socket.io';

const [name, port = '0'] = process.argv.slice(2);
const http = createServer((request, response) => response.end(name));
new Server(http).on('connection', socket => {
  socket.emit('at', name);
  socket.on('echo', (value, answer) => answer({at: name, value}));
});
http.listen(Number(port), '127.0.0.1', () => console.log(http.address().port));
