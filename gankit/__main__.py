"""The commands `gankit` and `python -m gankit`; Ctrl-C while their modules are loaded is one line, too."""

import sys

from gankit.terminal.text import say, speaks

try:
    from gankit.cli import main
except KeyboardInterrupt:
    if speaks():
        say("gankit: interrupted", error=True)
    sys.exit(130)

if __name__ == "__main__":
    main()
