"""How the command line explains itself: the whole summary of each command, examples to type, and the version."""

import signal
import threading
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gankit.terminal.text import say, speaks
from gankit.version import __version__

EXAMPLES = {
    "": ["sample eyes", "demo", "COMMAND --help"],
    "demo": ["demo", "demo training.max_minutes=3 --out runs/short"],
    "train": [
        "train demo data.name=folder data.path=photos data.size=32 --out runs/mine",
        "train experiment.toml training.seed=1 --out runs/second",
    ],
    "resume": ["resume runs/mine"],
    "sample": [
        "sample eyes --count 16 --label esotropia --out drawn",
        "sample runs/mine --count 100 --best --out best",
    ],
    "walk": ["walk eyes", "walk runs/mine --label left --frames 24 --animation webp"],
    "rank": [
        "rank runs/mine --count 500 --keep 20",
        "rank runs/mine --page --count 50 --real 50",
        "rank ours theirs --page --against photos --real 50 --out blinded",
    ],
    "evaluate": [
        "evaluate runs/mine",
        "evaluate drawn --against photos --metrics fid,kid,precision-recall --tex table.tex",
    ],
    "statistics": ["statistics photos --out photos.npz"],
    "report": ["report runs/mine"],
    "list": ["list", "list recipes", "list --load"],
    "show": ["show wgan-gp", "show demo data.size=64 > experiment.toml"],
    "plan": ["plan photos", "plan scans.npz --minutes 30 --out scans.toml"],
    "check": ["check experiment.toml", "check demo data.name=folder data.path=photos data.size=32"],
    "schema": ["schema > experiment.schema.json", "schema --study agreement > study.schema.json"],
    "cache": ["cache clear"],
    "cache clear": ["cache clear"],
    "study": ["study agreement", "study agreement --help"],
    "study readers": [
        "study readers --generated.gan runs/mine --out runs/readers",
        "study readers --generated.ours runs/mine --generated.theirs drawn --real photos --images 40 --pairs 20",
    ],
}
"""What may follow `gankit`, by command; "" for `gankit` itself."""


def examples(command: str) -> list[str]:
    """Lines to type for a command, such as "train" or "study agreement"; none for one that is not gankit's."""
    lines = EXAMPLES.get(command, [])
    if command.startswith("study ") and not lines:
        lines = [
            command,
            f"{command} data.name=folder data.path=photos data.size=32 --out runs/mine",
            f"{command} study.toml training.seed=1 --out runs/second",
            f"{command} --cluster dask:tcp://HOST:8786 --out runs/shared",
        ]
    return [f"gankit {line}" for line in lines]


def epilog(command: str) -> str:
    """The examples as they end a command's help, each on a line that is not wrapped."""
    lines = examples(command)
    return "\n".join(["\b", "Example:" if len(lines) == 1 else "Examples:", *(f"  {line}" for line in lines)])


class Commands(TyperGroup):
    """A group that lists each command with the whole first paragraph of its help, and adds its examples."""

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of this name, with its summary and examples; None where there is none."""
        command: Any = super().get_command(ctx, cmd_name)
        return command and self.explain(ctx, command)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; Ctrl-C, SIGTERM and a closed terminal are one line, unless the interrupt holds one."""
        is_outermost = ctx.parent is None and threading.current_thread() is threading.main_thread()
        ends = {signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)} if is_outermost else set()
        ends = {end for end in ends if signal.getsignal(end) is signal.SIG_DFL}  # not, for example, under nohup
        try:
            for end in ends:
                signal.signal(end, signal.default_int_handler)
            return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            if ctx.parent is None and not interrupt.args and speaks():
                say("gankit: interrupted", error=True)
            raise
        finally:
            for end in ends:
                signal.signal(end, signal.SIG_DFL)

    @staticmethod
    def explain(ctx: Any, command: Any) -> Any:
        """Give a command its summary and its examples, and return it.

        A command with overrides takes unknown options as such: the error then says what the setting is called.
        """
        command.short_help = (command.help or "").partition("\n\n")[0]
        command.ignore_unknown_options = any(parameter.name == "overrides" for parameter in command.params)
        command.epilog = epilog(f"{ctx.command_path} {command.name}".partition(" ")[2])
        return command


def _print_version(wanted: bool) -> None:
    if wanted:
        say(f"gankit {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]


def options(version: Version = False) -> None:
    """Take the options that stand before a command."""
