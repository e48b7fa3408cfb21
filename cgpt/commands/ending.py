"""The end of a command: with its result, or with one line for each thing that a user or the machine can cause."""

import errno
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cgpt import jobs
from cgpt.errors import UserError, one_line

# After `stopped`; of the other verbs nothing is kept, and nothing is missed.
GOES_ON = {
    "fetch": "the same command gets what is still missing",
    "import": "the same command gets what is still missing, and converts it",
    "pretrain": "the same command goes on from the last checkpoint",
    "clean": "the same command removes the rest",
} | dict.fromkeys(("tokenize", "finetune", "meter", "baseline", "evaluate"), "the same command starts it again")
INSTEAD = {
    errno.ENOSPC: "free some disk space, then run again",
    errno.EDQUOT: "free some of your quota, then run again",
    errno.EACCES: "change its permissions, or name another place",
    errno.EPERM: "change its permissions, or name another place",
    errno.EROFS: "name a place that can be written",
    errno.ENAMETOOLONG: "write a shorter name",
    errno.EMFILE: "raise the limit with `ulimit -n`",
}


class Exit:
    """The exit code of a command: 0, 1 after a line a problem, or 128 + a signal's number."""

    code = 0


@contextmanager
def reported(verb: str) -> Iterator[Exit]:
    """Inside, a command works and prints its result; whatever ends it early is a line on standard error, and a code.

    An exception that nobody foresaw keeps its traceback.
    """
    end = Exit()
    with jobs.handling_signals(_interrupt):
        try:
            yield end
            if sys.stdout:  # None where the shell closed it
                sys.stdout.flush()
        except BrokenPipeError:  # whoever read it, such as `head`, has seen enough
            _discard_output()
            end.code = 128 + signal.SIGPIPE if verb in GOES_ON else 0
        except UserError as error:
            end.code = _say(*error.problems)
        except KeyboardInterrupt as stop:
            _say("stopped" + (f"; {GOES_ON[verb]}" if verb in GOES_ON else ""))
            end.code = 128 + (stop.args[0] if stop.args else signal.SIGINT)  # as a shell reports a signal's number
        except MemoryError as error:
            why = f" ({error})" if str(error) else ""
            end.code = _say(
                f"{verb}: the memory of this machine is not enough{why}; ask for a smaller model, batch or file"
            )
        except RecursionError:
            end.code = _say(f"{verb}: a file is nested too deep to be read; write it flatter")
        except OSError as error:
            what = error.filename if isinstance(error.filename, str) else os.fsdecode(error.filename or verb)
            instead = INSTEAD.get(error.errno or 0, "check that it is there and what it should be")
            end.code = _say(f"{what}: {error.strerror or error}; {instead}")


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise once: what a workflow passes on beside the terminal changes nothing, a second Ctrl-C ends at once."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt(number)


def _say(*lines: str) -> int:
    """Print lines on standard error; the exit code of a command that failed."""
    try:
        if sys.stderr:
            print(*map(one_line, lines), sep="\n", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it, or the disk of its file is full
        _discard_output()
    return 1


def _discard_output() -> None:
    """Send all that is still to be written nowhere, so that Python's own flush at the end fails on nothing."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
