"""The reference of the docs: it names every key, verb, column and variable, each with its sentence and its bounds."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

import pytest
import reference  # of docs/site
import yaml

from cgpt import __version__, bounds, records, spec
from cgpt.hardware import Gpu, Hardware, Resources, Wafer
from cgpt.tasks import keys

ROOT = Path(__file__).parent.parent
LISTED = (
    spec.Model, spec.DataFile, spec.Hub, spec.Dataset, spec.Data, spec.Train, spec.Finetune, spec.PerModel,
    spec.Experiment, Resources, Wafer, Gpu, Hardware, keys.OurKeys, keys.LmEvalKeys, keys.GroupKeys,
    records.FinetuneRecord, records.MeterRecord, records.Score, records.ScoresRecord, records.DivergedRecord,
)  # fmt: skip
LONGEST_README = {"lines": 100, "words": 900}  # two screens


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return reference.pages()


@pytest.mark.parametrize("cls", LISTED, ids=lambda cls: cls.__name__)
def test_every_field_has_a_sentence_below_it(cls):
    sentences = reference.sentences(cls)
    assert not [field.name for field in fields(cls) if not sentences.get(field.name, "").endswith((".", "..."))]


def test_every_key_that_a_person_writes_stands_on_a_page(pages):
    for cls in LISTED[:16]:
        for field in fields(cls):
            if not (field.name == "name" and cls in (spec.Model, spec.Dataset, spec.Experiment, Hardware)):
                assert any(f"| `{field.name}` |" in page for page in pages.values()), (cls, field.name)


def test_every_verb_and_each_of_its_arguments_has_a_sentence(pages):
    verbs = list(reference.verbs())
    assert len(verbs) > 20
    for name, sentence, parser in verbs:
        assert sentence and f"## {name}\n" in pages["commands.md"], name
        assert not [action.dest for action in reference.arguments(parser) if not action.help], name


def test_every_column_of_every_csv_has_a_sentence(pages):
    for table in reference.TABLES:
        section = pages["results.md"].split(f"## {table.file}\n")[1].split("\n## ")[0]
        assert re.findall(r"^\| `(\w+)` \| \S.*\.", section, flags=re.MULTILINE) == list(table.columns), table.file


def test_every_environment_variable_of_the_code_has_a_sentence(pages):
    texts = [node.value for path in (ROOT / "cgpt").rglob("*.py") for node in ast.walk(ast.parse(path.read_text()))
             if isinstance(node, ast.Constant) and isinstance(node.value, str)]  # fmt: skip
    used = {name for text in texts for name in re.findall(r"CGPT_[A-Z_]+", text)}
    assert len(used) > 4
    assert used == set(re.findall(r"^\| `(CGPT_\w+)` \| \S.*\. \|$", pages["environment.md"], flags=re.MULTILINE))


def test_a_row_has_the_type_with_its_unit_the_default_and_the_bounds(pages):
    rows = pages["experiments.md"].splitlines()
    assert "| `batch_size` | Sequences of an optimizer step. | whole number, sequences | required | above 0, at most " \
           "1,000,000 |" in rows  # fmt: skip
    schedule = next(row for row in rows if row.startswith("| `schedule` |"))
    assert schedule.endswith("| text | `linear` | linear, cosine or wsd |")
    assert next(row for row in pages["hardware.md"].splitlines() if row.startswith("| `io_bytes_per_s` |")).endswith(
        "| number, bytes/s | required | above 0 |"
    )
    assert "May change without a rerun: `question`, `threads_per_run`, `fit`." in rows


def test_a_field_without_a_sentence_stops_the_build(monkeypatch):
    @dataclass(frozen=True)
    class Bare:
        first: int
        """It has one."""
        second: int

    monkeypatch.setattr(reference, "field_types", lambda cls: {"first": int, "second": int})
    with pytest.raises(KeyError, match="second"):
        reference.keys_table(Bare)


@pytest.mark.parametrize(("constraint", "right", "wrong", "words"), [
    (bounds.Range(0, 5), 5, 6, "0 to 5"), (bounds.Range(1), 10**9, 0, "1 or more"),
    (bounds.Positive(1000.0), 1000, 1001, "above 0, at most 1,000"), (bounds.Positive(), 1e30, 0, "above 0"),
    (bounds.Positive(10**18), 1, 0, "above 0, at most 1e18"), (bounds.Fraction(), 0, 1, "0 to below 1"),
    (bounds.Choice("a", "b", "c"), "c", "d", "a, b or c"), (bounds.Choice("a"), "a", "b", "a"),
    (spec.HUB_COMMIT, "a" * 40, "a", "40 hexadecimal digits"), (bounds.NotEmpty(), (1,), (), "at least one"),
    (bounds.Distinct(), (1, 2), (1, 1), "no two alike"),
    (bounds.Documents(), 0.5, 1.5, "1 or more, or a share below 1"),
    (bounds.Ends(), (1, 2), (1,), "none, or the smallest and the largest"),
    (bounds.RelativePath(), "a/b", "../a", "a relative path that stays below its folder"),
])  # fmt: skip
def test_a_constraint_says_in_words_what_it_allows(constraint, right, wrong, words):
    assert constraint.allowed() == words
    assert constraint.wrong(right) is None and constraint.wrong(wrong) is not None


def test_bounds_of_parts_are_named_with_what_they_are_parts_of():
    hint = Annotated[tuple[Annotated[int, bounds.Range(0, 9)], ...], bounds.NotEmpty()]
    assert list(reference.bounds(hint)) == ["at least one", "each 0 to 9"]
    assert reference.kind(hint | None) == "list of whole numbers"


def test_the_examples_of_the_reference_are_yaml_with_known_keys():
    assert set(yaml.safe_load(reference.EXAMPLES["experiments"])) <= {field.name for field in fields(spec.Experiment)}
    assert set(yaml.safe_load(reference.EXAMPLES["tasks"])) <= keys.TASK_KEYS
    rows = yaml.safe_load(reference.EXAMPLES["models"])["models"]
    assert set(rows["gpt-20m"]) <= {field.name for field in fields(spec.Model)}


def test_the_wse_page_names_the_constants_that_the_profile_has():
    profile = yaml.safe_load((ROOT / "hardware_profiles/cs2.yaml").read_text())
    constants = profile | profile["wafer"] | {"peak_flops_per_s": profile["peak_flops_per_s"]["float16"]}
    section = (ROOT / "docs/wse.md").read_text().split("## Constants")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| ([\d.e]+) \|", section, flags=re.MULTILINE)
    assert len(rows) > 15
    assert not [(key, value) for key, value in rows if float(value) != float(constants[key])]


def test_the_wse_page_names_the_errors_that_calibrate_wrote():
    kept = (ROOT / "results/reference/model_fidelity.md").read_text()
    errors = {cells[1]: (cells[2], cells[4].strip("*"), cells[6]) for line in kept.splitlines()
              if line.count("|") == 8 for cells in [[cell.strip() for cell in line.split("|")]]}  # fmt: skip
    errors["CS-2 and CS-3 training"] = errors["CS-2 and CS-3 training, all rows"]
    section = (ROOT / "docs/wse.md").read_text().split("## Errors")[1].split("\n## ")[0]
    rows = [[cell.strip().replace(" %", "%") for cell in line.split("|")[1:-1]] for line in section.splitlines()
            if line.startswith("| ") and "%" in line]  # fmt: skip
    assert len(rows) == 7
    assert not [row for row in rows if tuple(row[1:]) != errors[row[0]]]


def test_the_readme_fits_on_two_screens():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= LONGEST_README["lines"] and len(text.split()) <= LONGEST_README["words"]


def test_the_table_of_the_readme_is_the_one_that_is_kept():
    readme, kept = ((ROOT / path).read_text() for path in ("README.md", "results/reference/quickstart/table.md"))
    rows = [line for line in readme.splitlines() if line.startswith("| world_")]
    assert len(rows) == 14 and not [row for row in rows if row not in kept.splitlines()]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__ and citation["cff-version"] == "1.2.0" and citation["authors"]
