// A client of Node's ws: sends messages of several lengths to an echo of bytes, and compares what comes back.
const WebSocket = require('ws');
const crypto = require('crypto');

const socket = new WebSocket(process.argv[2], { perMessageDeflate: { threshold: 0 } });
const sent = [];
let received = Buffer.alloc(0);
let total = 0;
socket.on('open', () => {
  for (const length of [1, 125, 126, 5000, 65535, 65536, 300000]) {
    for (const bytes of [crypto.randomBytes(length), Buffer.alloc(length, 'text ')]) {
      sent.push(bytes);
      total += length;
      socket.send(bytes);
    }
  }
});
socket.on('message', (data) => {
  received = Buffer.concat([received, data]);
  if (received.length === total) socket.close(1000);
});
socket.on('close', (code) => {
  const same = received.equals(Buffer.concat(sent));
  const extensions = Object.keys(socket._extensions).join() || 'none';
  console.log(`${same ? 'same' : 'other'} bytes, extensions: ${extensions}, closed ${code}`);
});
