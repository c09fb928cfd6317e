"""The commands `gankit` and `python -m gankit`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C while its modules are still loaded is one line, too."""
    try:
        from gankit.cli import main as run
    except KeyboardInterrupt:
        print("gankit: interrupted", file=sys.stderr)
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
