#!/usr/bin/env python3
"""A thousand simulated devices, each with its own client id and socket, that report a reading every second or so.

    python3 examples/devices.py 127.0.0.1:7117 1000 10
"""

import asyncio
import random
import sys
import time

from duragram import AsyncClient


async def device(server: str, number: int, until: float) -> int:
    async with AsyncClient(server, client_id=0xD000_0000 + number, window=16) as client:
        while time.monotonic() < until:
            await client.send(f"{number}: {random.gauss(21, 2):.1f} C".encode())
            await asyncio.sleep(random.uniform(0.5, 1.5))
    return client.acked  # leaving the block waited for all receipts


async def main(server: str, devices: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    acked = await asyncio.gather(*(device(server, number, until) for number in range(devices)))
    print(f"{sum(acked)} records of {devices} devices are on the server's disk")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
