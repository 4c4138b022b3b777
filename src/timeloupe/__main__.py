"""``python -m timeloupe``: the same as the ``timeloupe`` command."""

import sys

from timeloupe.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
