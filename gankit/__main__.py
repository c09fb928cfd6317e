"""The commands `gankit` and `python -m gankit`; Ctrl-C while their modules are loaded is one line, too."""

import sys

from gankit.terminal.text import say_interrupted

try:
    from gankit.cli import main
except KeyboardInterrupt:
    say_interrupted()
    sys.exit(130)

if __name__ == "__main__":
    main()
