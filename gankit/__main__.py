"""The commands `gankit` and `python -m gankit`; Ctrl-C while their modules are loaded is one line, too."""

import sys

try:
    from gankit.cli import main
except KeyboardInterrupt:
    print("gankit: interrupted", file=sys.stderr)
    sys.exit(130)

if __name__ == "__main__":
    main()
