"""The process: runs a command and turns every ending into an exit code and at most one line on stderr."""

import sys
import traceback
from collections.abc import Sequence

import typer

from aureole.app import app
from aureole.exits import ExitCode, exit_code_of
from verifier.errors import AureoleError


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code of the command line `arguments` (default: this process's)."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="aureole", standalone_mode=False)
    except typer.TyperException as error:
        return _fail(error.format_message() or "a command is missing; see aureole --help", ExitCode.USAGE)
    except SystemExit:
        # typer's answer to a reader that went away, as in `aureole info | head`; its code 1 would read "vulnerable".
        return _fail("standard output was closed", ExitCode.NO_OUTPUT)
    except AureoleError as error:
        return _fail(str(error), exit_code_of(error))
    except Exception as error:
        traceback.print_exc()
        return _fail(f"internal error, please report it: {type(error).__name__}: {error}", ExitCode.INTERNAL)
    # typer turns Ctrl-C and explicit exits into codes.
    return _fail("interrupted", ExitCode.INTERRUPTED) if code == ExitCode.INTERRUPTED else int(code or 0)


def _fail(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"aureole: {' '.join(message.split())}\n")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
