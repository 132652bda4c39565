"""`python -m duragram send`"""

import signal
import sys


def main() -> int:
    # Until the command runs, Ctrl-C ends it as it ends any program: without a traceback out of an import.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from .send import main as send

    return send()


if __name__ == "__main__":
    sys.exit(main())
