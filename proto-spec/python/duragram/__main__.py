"""`python -m duragram send`"""

import sys

from .send import main

if __name__ == "__main__":
    sys.exit(main())
