"""`minidiff ...`: from what is typed to a command, and from an error to one line.

Every command is a dataclass, its fields are the options. torch and its friends cost seconds to import, so they are
imported where they are needed: `minidiff --help` answers at once.
"""

import io
import os
import sys
import time
import traceback
from contextlib import redirect_stderr
from itertools import dropwhile, takewhile

from minidiff import REPOSITORY
from minidiff.registry import UserError, enough_memory, one_line


def parse(args: list[str]):
    """The command that was typed. A mistake is said in one line; tyro draws a box around it."""
    import tyro  # all this takes half a second, in which Ctrl-C should be heard

    from minidiff.cli.doctor import Doctor
    from minidiff.cli.evaluate import Evaluate
    from minidiff.cli.list import List
    from minidiff.cli.sample import Sample
    from minidiff.cli.train import Train

    commands = {"sample": Sample, "train": Train, "evaluate": Evaluate, "list": List, "doctor": Doctor}
    box = io.StringIO()
    try:
        with redirect_stderr(box):
            return tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="minidiff",
                args=args,
                description="Stable Diffusion, built up from the first speck of noise.",
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        lines = (line.strip("│ ") for line in box.getvalue().splitlines()[1:])
        text = dropwhile(is_ruler, lines)
        fail(" ".join(takewhile(lambda line: not is_ruler(line), text)))


def is_ruler(line: str) -> bool:
    return set(line) <= set("─-╰╯")


def fail(message: str, status: int = 2) -> None:
    if int(os.environ.get("RANK", 0)):  # of several processes: what fails in all of them, the first one says
        time.sleep(10)
    print(f"minidiff: {one_line(message)}", file=sys.stderr)
    sys.exit(status)


def main(args: list[str] | None = None) -> None:
    try:
        with enough_memory():
            parse(sys.argv[1:] if args is None else args).run()
    except (UserError, OSError) as error:
        if os.environ.get("MINIDIFF_DEBUG"):  # show where it came from
            raise
        fail(str(error))
    except FloatingPointError as error:  # training has diverged
        fail(str(error), 1)
    except KeyboardInterrupt as stop:
        fail(str(stop) or "stopped", 130)
    except Exception:  # not the user's fault
        traceback.print_exc()
        where = f" at {REPOSITORY}/issues" if REPOSITORY else ""
        print(f"minidiff: this is a bug. Please report it{where}, with these lines and your command.", file=sys.stderr)
        sys.exit(1)
