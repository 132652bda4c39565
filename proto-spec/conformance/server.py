"""Checks of a server's rules."""
from .run import Verdict
ANCHORS: tuple[str, ...] = ()
def check(address: str) -> list[Verdict]: return []
