"""An echo server with the Python package websockets. Prints its port and selects the subprotocol `b`."""

import asyncio

from websockets.asyncio.server import serve


async def echo(socket):
    async for message in socket:
        await socket.send(message)


def choose(_, offered):
    return "b" if "b" in offered else None


async def main():
    async with serve(echo, "127.0.0.1", 0, select_subprotocol=choose, max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
