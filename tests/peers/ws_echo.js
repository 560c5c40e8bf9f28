// An echo server with the npm package ws. Prints its port and selects the subprotocol `b`.
const { WebSocketServer } = require('ws');

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: 0,
  perMessageDeflate: { threshold: 0 },
  maxPayload: 0,
  handleProtocols: (offered) => (offered.has('b') ? 'b' : false),
});
server.on('connection', (socket) => {
  socket.on('message', (message, isBinary) => socket.send(message, { binary: isBinary }));
});
server.on('listening', () => console.log(server.address().port));
