"""What the process returns, and which error leads to which code."""

from enum import IntEnum

from verifier.errors import AureoleError, InputError, SolverUnavailableError


class ExitCode(IntEnum):
    """The exit codes of every command; 64 and up follow sysexits.h."""

    ROBUST = 0
    VULNERABLE = 1
    UNDECIDED = 2
    USAGE = 64
    DATA = 65
    NO_INPUT = 66
    UNAVAILABLE = 69
    INTERNAL = 70
    NO_OUTPUT = 73
    INTERRUPTED = 130


class UsageError(InputError):
    """An option or argument is wrong whatever the files hold."""


class MissingFileError(InputError):
    """A file named on the command line is not there."""


class OutputError(AureoleError):
    """A result cannot be written."""


# The first match wins, so subclasses come before their bases.
_CODES: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (UsageError, ExitCode.USAGE),
    (MissingFileError, ExitCode.NO_INPUT),
    (SolverUnavailableError, ExitCode.UNAVAILABLE),
    (InputError, ExitCode.DATA),
    (OutputError, ExitCode.NO_OUTPUT),
    (KeyboardInterrupt, ExitCode.INTERRUPTED),
)


def exit_code_of(error: BaseException) -> ExitCode:
    """The exit code of a run that ended with `error`; INTERNAL for everything that is not the user's doing."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.INTERNAL)
