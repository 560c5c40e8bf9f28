"""A client with the Python package websockets: sends messages of several lengths to an echo of bytes, and compares what comes back.

usage: websockets_client.py URL
"""

import asyncio
import os
import sys

from websockets.asyncio.client import connect


async def main():
    async with connect(sys.argv[1], max_size=None) as socket:
        messages = [kind for length in (1, 125, 126, 5000, 65535, 65536, 300000) for kind in (os.urandom(length), "t" * length)]
        sent = b"".join(message if isinstance(message, bytes) else message.encode() for message in messages)

        async def send():
            for message in messages:
                await socket.send(message)

        sender = asyncio.create_task(send())
        received = b""
        while len(received) < len(sent):
            received += await socket.recv()
        await sender
        extensions = ",".join(extension.name for extension in socket.protocol.extensions) or "none"
    print(f"{'same' if received == sent else 'other'} bytes, extensions: {extensions}, closed {socket.close_code}")


asyncio.run(main())
