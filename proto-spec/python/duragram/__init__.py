"""A client of the Duragram protocol: a record is safe on the server's disk once its receipt is there.

`Client` blocks, `AsyncClient` is for asyncio; both are faces of one machine without I/O (`duragram.machine`).
Plain mode needs the standard library alone; sealed mode (`key=`) the package `cryptography`.
"""

from __future__ import annotations

# As `typing` has it; to load that would take the command longer than all else before it has Ctrl-C in hand.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from .aio import AsyncAsk, AsyncClient, AsyncPending
    from .blocking import BlockingAsk, BlockingPending, Client
    from .errors import Abandoned, Answer, BodyTooLarge, Closed, EpochUsed, Full, Gone, Incomplete, Receipt, Rejected, SendError, Status, TooLarge
    from .message import Stats
    from .options import Options

__version__ = "0.1.0"

__all__ = [
    "Abandoned",
    "Answer",
    "AsyncAsk",
    "AsyncClient",
    "AsyncPending",
    "BlockingAsk",
    "BlockingPending",
    "BodyTooLarge",
    "Client",
    "Closed",
    "EpochUsed",
    "Full",
    "Gone",
    "Incomplete",
    "Options",
    "Receipt",
    "Rejected",
    "SendError",
    "Stats",
    "Status",
    "TooLarge",
]


def __getattr__(name: str) -> object:
    """Loads what is asked for: who uses one face need not wait for the other, and the command starts at once."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("Async"):
        from . import aio as module
    elif name in ("BlockingAsk", "BlockingPending", "Client"):
        from . import blocking as module  # type: ignore[no-redef]
    elif name == "Options":
        from . import options as module  # type: ignore[no-redef]
    elif name == "Stats":
        from . import message as module  # type: ignore[no-redef]
    else:
        from . import errors as module  # type: ignore[no-redef]
    found: object = getattr(module, name)
    globals()[name] = found
    return found
