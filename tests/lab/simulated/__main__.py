"""``python -m tests.lab.simulated --config-file PATH``: this process becomes a node."""

import sys

from tests.lab.simulated.process import main, take_name

if __name__ == "__main__":
    take_name()
    sys.exit(main(sys.argv[1:]))
