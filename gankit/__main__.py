"""The commands `gankit` and `python -m gankit`; Ctrl-C while their modules are loaded is one line, too."""

import atexit
import gc
import sys

try:
    from gankit.cli import main
except KeyboardInterrupt:
    from gankit.terminal.text import say, speaks

    if speaks():
        say("gankit: interrupted", error=True)
    sys.exit(130)

# Otherwise Python visits every object of torch's modules as it ends, which takes a second or more.
atexit.register(gc.freeze)

if __name__ == "__main__":
    main()
