"""A task of lm-evaluation-harness, with all that it takes for granted made good or refused.

It looks at the first document alone; here every document that is used is looked at, and what is text in the data stays
text in prompts and answers.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from jinja2 import UndefinedError
from lm_eval import utils
from lm_eval.api.task import ConfigurableTask

from cgpt.errors import UserError, first_line
from cgpt.tasks import templates

Doc = Mapping[str, Any]  # one document: its fields by name


class Documents(list):
    """The rows of a split as the engine reads them. A field that a row lacks stays away, so that `default` finds it."""

    @property
    def features(self) -> dict[str, None]:
        """The fields of all rows."""
        return dict.fromkeys(key for row in self for key in row)


class TextTask(ConfigurableTask):
    """The engine's task, whose prompts and answers are text also where a document gives a number for one.

    An answer that only looks like a list stays the text that it is.
    """

    multiple_target: int

    def __init__(self, config: dict[str, Any], where: str):
        """Raises UserError for a first document that cannot be used, and whatever the engine does for a wrong key."""
        self._where = where
        try:
            super().__init__(config=config)
        except Exception:
            if hasattr(self, "multiple_target"):  # it has come to the first document, which it renders
                check_texts(self, self.task_docs[0], self.name_document(0))
            raise
        if not self.multiple_target and isinstance(self.doc_to_target(self.task_docs[0]), list):
            self.multiple_target = 1  # the first document has no answer, but others may have several

    def fewshot_docs(self) -> Any:
        """The documents that shots are drawn from; of a task without shots they are not even read."""
        return super().fewshot_docs() if self.config.num_fewshot else []

    def fewshot_context(self, doc: Doc, *args: Any, **kwargs: Any) -> Any:
        """The whole prompt of a document, its shots included. Raises UserError, which names the document."""
        with self._naming(doc, "the prompt cannot be made"):
            return super().fewshot_context(doc, *args, **kwargs)

    def process_results(self, doc: Doc, results: Any) -> Any:
        """The value of every metric for one document. Raises UserError where one, or a task's own function, fails."""
        failing = "process_results fails" if callable(self.config.process_results) else "a metric cannot be computed"
        with self._naming(doc, failing):
            return super().process_results(doc, results)

    def apply_filters(self) -> Any:
        """The answers by the name of each list of filters. Raises UserError where one cannot be filtered so."""
        with self._filtering():
            return super().apply_filters()

    def filtered(self, docs: Sequence[Doc], answers: Sequence[str]) -> dict[str, list[Any]]:
        """Each list of filters applied to one answer, `repeats` times, to each document. Raises UserError."""
        filtered = {}
        filters: Any
        for filters in self._filters:
            responses: Any = [[answer] * self.config.repeats for answer in answers]
            in_python = any(callable(value) for step in filters.filters for value in step.keywords.values())
            with self._filtering(), nullcontext() if in_python else templates.bounded():
                for step in filters.filters:
                    responses = step().apply(responses, docs)
                filtered[filters.name] = list(responses)
        return filtered

    @contextmanager
    def _filtering(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a step's keys, of a regular expression, or of Python that a task names
            raise UserError(f"{self._where}: filter_list: an answer cannot be filtered so ({reason_of(error)}); "
                            "correct the step") from error  # fmt: skip

    @contextmanager
    def _naming(self, doc: Doc, what: str) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except Exception as error:  # of a template, or of Python that a task names
            name = self.name_document(next((n for n, other in enumerate(self.eval_docs) if other == doc), None))
            raise UserError(f"{name}: {what} ({reason_of(error)}); correct the task or the document") from error

    @property
    def evaluated_split(self) -> str:
        """The split whose documents are scored."""
        return self.config.test_split or self.config.validation_split

    def name_document(self, number: int | None) -> str:
        """The words that a problem of a document begins with."""
        return f"{self._where}: split '{self.evaluated_split}', document {number}"

    def doc_to_text(self, doc: Doc, doc_to_text: Any = None) -> Any:
        """The prompt, or the index of the right one where the choices are prompts."""
        try:
            with _bounded(self.config.doc_to_text if doc_to_text is None else doc_to_text):
                text = super().doc_to_text(doc, doc_to_text)
        except SyntaxError:  # digits that are no Python number, such as 007
            return utils.apply_template(self.config.doc_to_text if doc_to_text is None else doc_to_text, doc)
        return text if text is None or self._is_label(text, doc) else str(text)

    def _is_label(self, text: Any, doc: Doc) -> bool:
        """A number says which prompt is right only where the answer is one text that follows each of the prompts."""
        if not isinstance(text, int) or self.config.doc_to_choice is None:
            return False
        target = self.doc_to_target(doc)
        return isinstance(target, str) and target not in self.doc_to_choice(doc)

    def doc_to_target(self, doc: Doc, doc_to_target: Any = None) -> Any:
        """The answer, all right answers, or the index of the right choice or of all."""
        template = self.config.doc_to_target if doc_to_target is None else doc_to_target
        try:
            with _bounded(template):
                target = super().doc_to_target(doc, doc_to_target)
        except SyntaxError:
            return utils.apply_template(template, doc)
        if isinstance(target, list) and isinstance(template, str) and template not in self.features:
            rendered = utils.apply_template(template, doc)
            target = rendered if any(rendered in text for text in _texts(doc)) else target
        if self.OUTPUT_TYPE == "multiple_choice" and isinstance(target, list) and not self.multiple_input:
            choices = self.doc_to_choice(doc)
            return [choices.index(value) if isinstance(value, str) and value in choices else value for value in target]
        if self.config.doc_to_choice is not None or target is None:
            return int(target) if isinstance(target, float) and target.is_integer() else target
        return [str(answer) for answer in target] if isinstance(target, list) else str(target)

    def doc_to_choice(self, doc: Doc, doc_to_choice: Any = None) -> Any:
        """The choices; numbers among them are text."""
        with _bounded(self.config.doc_to_choice if doc_to_choice is None else doc_to_choice):
            choices = super().doc_to_choice(doc, doc_to_choice)
        return [str(choice) if type(choice) in (int, float) else choice for choice in choices] \
            if isinstance(choices, list) else choices  # fmt: skip

    def build_qa_turn(self, *, q: Any = None, c: Any = None, a: Any = None, **delimiters: Any) -> list[Any]:
        """As the engine does, with the first of several answers, as text. Raises UserError for an example without."""
        answer = a[0] if isinstance(a, list) and a else a
        if answer == [] or (c and isinstance(answer, int) and not 0 <= answer < len(c)):
            raise UserError(f"{self.config.task}: fewshot_split: the label {a!r} of the example {str(q)[:60]!r} is not "
                            f"among the choices {c}; correct it, or name another split")  # fmt: skip
        if answer is not None and not (c and isinstance(answer, int)):
            answer = str(answer)
        return super().build_qa_turn(q=q, c=c, a=answer, **delimiters)


def _bounded(template: Any) -> AbstractContextManager[None]:
    """The bounds of a template around reading what it renders, which may be a list without end. Python has none."""
    return templates.bounded() if isinstance(template, str) else nullcontext()


def check_texts(task: TextTask, doc: Doc, name: str) -> None:
    """Raise UserError, which begins with `name`, for a document whose prompt, answer or choices are missing, empty or
    cannot be rendered."""
    render(lambda doc: task.resolve_field(doc, task.config.description), doc, f"{name}: description")
    render(task.doc_to_prefix, doc, f"{name}: gen_prefix")
    text = render(task.doc_to_text, doc, f"{name}: doc_to_text")
    target = render(task.doc_to_target, doc, f"{name}: doc_to_target")
    for key, value in (("doc_to_text", text), ("doc_to_target", target)):
        if value is None and not (key == "doc_to_target" and task.config.doc_to_choice):  # a label has its own line
            raise UserError(f"{name}: {key}: is null; give every document a text there")
    if task.config.doc_to_choice is not None:
        choices = render(task.doc_to_choice, doc, f"{name}: doc_to_choice")
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
            raise UserError(f"{name}: doc_to_choice: {choices!r} is no list of texts; give one")
        if "" in choices:
            raise UserError(f"{name}: doc_to_choice: choice {choices.index('')} is empty; give it a text")
        right_choices(text if task.multiple_input else target, choices, name)
    elif task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling") and (not target or isinstance(target, list)):
        what = "gives several texts" if target else "is empty"
        raise UserError(f"{name}: doc_to_target: {what}; give every document one text that can be scored")


def render(how: Callable[[Doc], Any], doc: Doc, name: str) -> Any:
    """A text of a document. Raises UserError, which begins with `name`, where its template fails."""
    try:
        return how(doc)
    except UserError:
        raise
    except UndefinedError as error:
        raise UserError(f"{name}: {error.message}; correct the name, or give the document this field") from None
    except Exception as error:  # of a template, or of Python that a task names
        raise UserError(f"{name}: cannot be rendered ({reason_of(error)}); correct the template or the document"
                        ) from None  # fmt: skip


def right_choices(target: Any, choices: Sequence[str], name: str) -> list[int]:
    """The indices of the correct choices: one, unless a task has several targets. UserError for a wrong label."""
    indices = []
    for value in target if isinstance(target, list) else [target]:
        index = choices.index(value) if isinstance(value, str) and value in choices else value
        if not isinstance(index, int) or not 0 <= index < len(choices):
            raise UserError(
                f"{name}: doc_to_target: label {value!r} is not among the choices {list(choices)}; "
                f"give an index from 0 to {len(choices) - 1} or one of the texts"
            )
        indices.append(int(index))
    return indices


def reason_of(error: Exception) -> str:
    """The kind of an exception and the first line of its message."""
    return f"{type(error).__name__}: {first_line(error)}"


def _texts(value: Any) -> Iterable[str]:
    """Every text in a document, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
