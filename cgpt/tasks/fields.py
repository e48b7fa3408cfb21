"""Fields of documents that a task's templates need."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, UndefinedError
from lm_eval import utils

from cgpt.errors import UserError, did_you_mean
from cgpt.tasks import templates
from cgpt.tasks.text_task import Doc

TEMPLATES = ("doc_to_text", "doc_to_target", "doc_to_choice")


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
    named: set[str] = set()
    for split, documents in rows.items():
        for n, row in enumerate(documents):
            for name in sorted(names - row.keys() - named) if names - row.keys() else ():
                if not _needs(template, name, row):
                    continue
                named.add(name)
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
