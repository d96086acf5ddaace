"""``python -m qec.cli``: as `qec`, for launchers such as torchrun."""

import sys

from qec.cli.commands import main

if __name__ == "__main__":
    sys.exit(main())
