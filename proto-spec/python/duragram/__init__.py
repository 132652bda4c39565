"""A client of the Duragram protocol: a record is safe on the server's disk once its receipt is there.

`Client` blocks, `AsyncClient` is for asyncio; both are faces of one machine without I/O (`duragram.machine`).
Plain mode needs the standard library alone; sealed mode (`key=`) the package `cryptography`.
"""

from .aio import AsyncClient, AsyncPending
from .blocking import BlockingPending, Client
from .errors import Abandoned, Closed, EpochUsed, Full, Incomplete, Receipt, Rejected, SendError, TooLarge
from .message import Stats
from .options import Options

__version__ = "0.1.0"

__all__ = [
    "Abandoned",
    "AsyncClient",
    "AsyncPending",
    "BlockingPending",
    "Client",
    "Closed",
    "EpochUsed",
    "Full",
    "Incomplete",
    "Options",
    "Receipt",
    "Rejected",
    "SendError",
    "Stats",
    "TooLarge",
]
