"""A task as lm-evaluation-harness runs it, with what that engine takes for granted made good or refused.

The engine looks at the first document alone; here every document that is used is looked at, and what is text in the
data stays text in prompts and answers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import fields
from typing import Any

from jinja2 import TemplateError, UndefinedError
from lm_eval import utils
from lm_eval.api.samplers import SAMPLER_REGISTRY
from lm_eval.api.task import ConfigurableTask
from lm_eval.config.task import FewshotConfig

from cgpt.errors import UserError, did_you_mean
from cgpt.tasks import templates

Doc = Mapping[str, Any]  # one document: its fields by name
TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice")


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
                check_texts(self, self.task_docs[0], f"{where}: split '{self.evaluated_split}', document 0")
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
        """What each list of filters makes of one answer, `repeats` times, to each document. Raises UserError."""
        made = {}
        filters: Any
        for filters in self._filters:
            responses: Any = [[answer] * self.config.repeats for answer in answers]
            in_python = any(callable(value) for step in filters.filters for value in step.keywords.values())
            with self._filtering(), nullcontext() if in_python else templates.bounded():
                for step in filters.filters:
                    responses = step().apply(responses, docs)
                made[filters.name] = list(responses)
        return made

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
            n = next((n for n, other in enumerate(self.eval_docs) if other == doc), None)
            place = f"{self._where}: split '{self.evaluated_split}', document {n}"
            raise UserError(f"{place}: {what} ({reason_of(error)}); correct the task or the document") from error

    @property
    def evaluated_split(self) -> str:
        """The split whose documents are scored."""
        return self.config.test_split or self.config.validation_split

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


def check_fields(config: dict[str, Any], rows: Mapping[str, Sequence[Doc]], where: str) -> None:
    """Refuse templates that need a field which the data, or one document of them, have not. Raises UserError."""
    problems = []
    if config.get("output_type") == "multiple_choice" and config.get("doc_to_choice") is None:
        problems.append(f"{where}: doc_to_choice: is missing, and multiple_choice needs it; write the answers' texts")
    columns = {key for documents in rows.values() for row in documents for key in row}
    for key in TEMPLATES if config.get("process_docs") is None else ():
        template = config.get(key)
        if not isinstance(template, str):
            continue
        try:
            is_field = template.isidentifier()
            names = {template} if is_field else templates.fields(template)
        except TemplateError as error:
            problems.append(f"{where}: {key}: is not a Jinja template: {error.message}; correct the braces")
            continue
        if not is_field and templates.ITSELF in names & columns:
            problems.append(
                f"{where}: {key}: '{templates.ITSELF}' is Jinja's own name, not the field; rename the field"
            )
        problems += _lacking(key, template, {name for name in names if is_field or name not in utils.env.globals},
                             columns, rows, where)  # fmt: skip
    if problems:
        raise UserError(*problems)


def _lacking(
    key: str, template: str, names: set[str], columns: set[str], rows: Mapping[str, Sequence[Doc]], where: str
) -> Iterable[str]:
    """The problem of the first document in which the template needs a field that is not there, once a field."""
    said: set[str] = set()
    for split, documents in rows.items():
        for n, row in enumerate(documents):
            for name in sorted(names - row.keys() - said) if names - row.keys() else ():
                if not _needs(template, name, row):
                    continue
                said.add(name)
                if name in columns:
                    yield f"{where}: {key}: split '{split}', document {n} has no field '{name}'; add it"
                else:
                    yield f"{where}: {key}: the data have no field '{name}'; {did_you_mean(name, columns)}"


def _needs(template: str, name: str, row: Doc) -> bool:
    """Whether the template fails for want of the field; with `default` or `is defined` it need not."""
    if template.isidentifier():
        return True
    try:
        utils.apply_template(template, row)
    except UndefinedError as error:
        return f"'{name}' is undefined" in str(error)
    except Exception:  # of another cause, which rendering the document names
        return False
    return False


def check_texts(task: TextTask, doc: Doc, place: str) -> None:
    """Refuse a document whose prompt, answer or choices are missing, empty or cannot be rendered. Raises UserError."""
    _rendered(lambda doc: task.resolve_field(doc, task.config.description), doc, f"{place}: description")
    _rendered(task.doc_to_prefix, doc, f"{place}: gen_prefix")
    text = _rendered(task.doc_to_text, doc, f"{place}: doc_to_text")
    target = _rendered(task.doc_to_target, doc, f"{place}: doc_to_target")
    for key, value in (("doc_to_text", text), ("doc_to_target", target)):
        if value is None and not (key == "doc_to_target" and task.config.doc_to_choice):  # a label has its own line
            raise UserError(f"{place}: {key}: is null; give every document a text there")
    if task.config.doc_to_choice is not None:
        choices = _rendered(task.doc_to_choice, doc, f"{place}: doc_to_choice")
        if not isinstance(choices, list) or not choices or not all(isinstance(choice, str) for choice in choices):
            raise UserError(f"{place}: doc_to_choice: {choices!r} is no list of texts; give one")
        if "" in choices:
            raise UserError(f"{place}: doc_to_choice: choice {choices.index('')} is empty; give it a text")
        gold(text if task.multiple_input else target, choices, place)
    elif task.OUTPUT_TYPE in ("loglikelihood", "loglikelihood_rolling") and (not target or isinstance(target, list)):
        what = "gives several texts" if target else "is empty"
        raise UserError(f"{place}: doc_to_target: {what}; give every document one text that can be scored")


def _rendered(render: Any, doc: Doc, place: str) -> Any:
    try:
        return render(doc)
    except UserError:
        raise
    except UndefinedError as error:
        raise UserError(f"{place}: {error.message}; correct the name, or give the document this field") from None
    except (
        TemplateError,
        ArithmeticError,
        LookupError,
        RuntimeError,
        SyntaxError,
        TypeError,
        ValueError,
        AssertionError,
        AttributeError,
    ) as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        raise UserError(f"{place}: cannot be rendered ({type(error).__name__}: {reason}); correct the template or the "
                        "document") from None  # fmt: skip


def gold(target: Any, choices: Sequence[str], place: str) -> list[int]:
    """The indices of the correct choices: one, unless a task has several targets. UserError for a wrong label."""
    indices = []
    for value in target if isinstance(target, list) else [target]:
        index = choices.index(value) if isinstance(value, str) and value in choices else value
        if not isinstance(index, int) or not 0 <= index < len(choices):
            raise UserError(
                f"{place}: doc_to_target: label {value!r} is not among the choices {list(choices)}; "
                f"give an index from 0 to {len(choices) - 1} or one of the texts"
            )
        indices.append(int(index))
    return indices


def check_fewshot(said: Any, config: dict[str, Any], where: str) -> None:
    """Refuse keys of a file's `fewshot_config` that the engine has not, or reads and does not use. Raises UserError.

    `config` holds all keys of the task, those of one that the engine brings too, which stand as they are.
    """
    if said is None:
        return
    if not isinstance(said, dict):
        raise UserError(f"{where}: fewshot_config: must be a mapping; write `key: value` lines below it")
    known = {field.name for field in fields(FewshotConfig)} - {"fewshot_indices"}  # which no sampler is given
    problems = [f"{where}: fewshot_config.{key}: is no key that has an effect; {did_you_mean(str(key), known)}"
                for key in said if key not in known]  # fmt: skip
    sampler = said.get("sampler", "default")
    if isinstance(sampler, str) and sampler not in SAMPLER_REGISTRY:
        problems.append(f"{where}: fewshot_config.sampler: there is no sampler '{sampler}'; "
                        f"{did_you_mean(sampler, SAMPLER_REGISTRY)}")  # fmt: skip
    if said.get("samples") is not None and said.get("split", config.get("fewshot_split")) is not None:
        problems.append(f"{where}: fewshot_config.samples: a split for shots is named too, and would be used instead; "
                        "remove one of the two")  # fmt: skip
    samples = said.get("samples")
    if samples is not None and not callable(samples) and not (
        isinstance(samples, list) and samples and all(isinstance(sample, dict) for sample in samples)
    ):  # fmt: skip
        problems.append(f"{where}: fewshot_config.samples: must be a list of documents; write `- field: text` lines")
    if problems:
        raise UserError(*problems)


def check_shots(task: TextTask, where: str) -> None:
    """Refuse more shots than there are documents to draw from, and shots that cannot be rendered. Raises UserError.

    It draws the shots of the first document, so the seed is to be set after it.
    """
    n_shot = task.config.num_fewshot or 0
    if not n_shot:
        return
    split = shots_split(vars(task.config) | {"fewshot_config": vars(task.fewshot_cfg)})
    same = task.fewshot_cfg.split == task.config.test_split  # then the document itself is left out of what is drawn
    one_more = same and (task.fewshot_cfg.sampler == "default" or split == task.evaluated_split)
    n_docs = len(task.sampler.df)
    if n_shot + one_more > n_docs:
        of = f"split '{split}'" if split else "fewshot_config.samples"
        raise UserError(f"{where}: num_fewshot: {n_shot} shots cannot be drawn from the {n_docs} documents of {of}; "
                        f"write at most {max(0, n_docs - one_more)}")  # fmt: skip
    first = f"{where}: split '{task.evaluated_split}', document 0"
    check_texts(task, task.task_docs[0], first)
    prompt = functools.partial(ConfigurableTask.fewshot_context, task, num_fewshot=n_shot)
    _rendered(prompt, task.task_docs[0], f"{first}, with its shots")


def shots_split(config: Mapping[str, Any]) -> str | None:
    """The split that a task's shots are drawn from, by the engine's rule; None without shots, or where its
    `fewshot_config` holds them."""
    fewshot = config.get("fewshot_config") or {}
    if not config.get("num_fewshot"):
        return None
    if split := fewshot.get("split", config.get("fewshot_split")):
        return split
    if fewshot.get("samples") is not None:
        return None
    return next(filter(None, (config.get(f"{name}_split") for name in ("training", "validation", "test"))))


def reason_of(error: Exception) -> str:
    """The kind of an exception and the first line of what it says."""
    return f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"


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
