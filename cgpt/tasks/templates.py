"""The Jinja of task files: what lm-evaluation-harness renders, in a sandbox and within bounds of time and memory.

A task file comes from anywhere. Its templates may look at a document and make text of it; they reach no module, no file
and no command, and a template that would run or grow without end is stopped. Python beside a task file (`!function`)
is code of its owner's and runs as such.
"""

import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from jinja2 import BaseLoader, StrictUndefined, Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from cgpt.host import address_space_bytes

CPU_SECONDS = 2.0  # of one rendering, which takes some 50 microseconds
MORE_BYTES = 1 << 30  # of address space that one rendering may take
MOST_CHARACTERS = 1 << 24  # of one rendered text
ITSELF = "self"  # what a template calls itself by, whatever its document holds


class TemplateTooLarge(TemplateError):
    """A template that takes too much time or memory, or gives too much text."""


class _OutOfTime(BaseException):
    """Raised by the timer; no Exception, as Jinja goes on after one while it computes what is constant."""


class BoundedTemplate(Template):
    """A template whose rendering is within the bounds above."""

    def render(self, /, *args: Any, **kwargs: Any) -> str:
        """As Jinja's, also of a field `self`; raises TemplateTooLarge, and what Jinja raises."""
        with bounded():
            text = super().render(dict(*args, **kwargs))
        if len(text) > MOST_CHARACTERS:
            raise TemplateTooLarge(f"the template gives {len(text):,} characters; {MOST_CHARACTERS:,} are the most")
        return text


class Sandbox(SandboxedEnvironment):
    """Jinja's sandbox, with the settings and filters of lm-evaluation-harness's environment.

    Not the immutable one: a template may append to a list that it made.
    """

    template_class = BoundedTemplate

    def __init__(self, filters: dict[str, Any]):
        super().__init__(loader=BaseLoader(), undefined=StrictUndefined, keep_trailing_newline=True)
        self.filters.update(filters)
        self._compiled: dict[str, Template] = {}

    def parse(self, source: str, name: str | None = None, filename: str | None = None) -> Any:
        """The template's tree. Raises TemplateSyntaxError, also for one that is nested without end."""
        try:
            return super().parse(source, name, filename)
        except RecursionError:
            raise TemplateSyntaxError("it is nested too deeply", 1) from None

    def from_string(self, source: Any, *args: Any, **kwargs: Any) -> Template:
        """The template, compiled once: lm-evaluation-harness asks anew for every document, and that takes longer than
        filling it in. Within bounds too, as compiling computes what is constant."""
        if source not in self._compiled:
            with bounded():
                self._compiled[source] = super().from_string(source, *args, **kwargs)
        return self._compiled[source]


def install() -> None:
    """Let lm-evaluation-harness render every template in the sandbox."""
    from lm_eval import utils

    if not isinstance(utils.env, Sandbox):
        utils.env = Sandbox(utils.env.filters)


def fields(template: str) -> set[str]:
    """The names that a template takes from a document. Raises TemplateError for one that is none, or is too large."""
    from lm_eval import utils

    with bounded():
        tree = utils.env.parse(template)
        itself = {name.name for name in tree.find_all(nodes.Name) if name.name == ITSELF}
        return meta.find_undeclared_variables(tree) | itself


@contextmanager
def bounded() -> Iterator[None]:
    """Raises TemplateTooLarge in place of what outgrows the bounds.

    Processor time, not time on the clock: a busy machine stops nothing. A signal reaches the main thread only. Within
    another one, the outer one's bounds hold.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if in_main and signal.getsignal(signal.SIGVTALRM) is _stop:
        yield
        return
    if in_main:
        before = signal.signal(signal.SIGVTALRM, _stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS, CPU_SECONDS)
    limits = _limit_memory()
    try:
        yield
    except _OutOfTime:
        raise TemplateTooLarge(f"the template takes more than {CPU_SECONDS:g} s; make its loops shorter") from None
    except (MemoryError, OverflowError, RecursionError) as error:
        reason = type(error).__name__
        raise TemplateTooLarge(f"the template grows too large ({reason}); make its loops shorter") from None
    finally:
        if limits:
            resource.setrlimit(resource.RLIMIT_AS, limits)
        if in_main:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            signal.signal(signal.SIGVTALRM, before)


def _stop(number: int, frame: Any) -> None:
    """Raises, but not within the frames that set the bounds and lift them: there the timer would stay as it is."""
    if frame.f_globals.get("__name__") not in (__name__, contextmanager.__module__):
        raise _OutOfTime


def _limit_memory() -> tuple[int, int] | None:
    """Bound the process's address space; return the limits before, or None where the system offers no way."""
    taken = address_space_bytes()
    if taken is None:
        return None
    try:
        limits = resource.getrlimit(resource.RLIMIT_AS)
        most = taken + MORE_BYTES
        if limits[0] != resource.RLIM_INFINITY and limits[0] <= most:
            return None
        resource.setrlimit(resource.RLIMIT_AS, (most, limits[1]))
    except (OSError, ValueError):
        return None
    return limits
