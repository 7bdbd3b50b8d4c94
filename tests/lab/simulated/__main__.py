"""``python -m tests.lab.simulated --config-file PATH``: this process becomes a node."""

import sys

from tests.lab.simulated.process import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
