"""What a stage imports from its start to its end, in a process of its own: libraries are counted, not seconds."""

from __future__ import annotations

import json
import random

import process
import pytest
from project import edit, write_project

from cgpt.experiment import load, plan

QUICKSTART = "workflows/experiments/quickstart.yaml"
WORDS = "sea land hill river cat dog house tree sees likes finds under over calm loud".split()
# A run of the stage, then the libraries that are heavy to import and were: a waiting one has run no code yet.
RUN = """
import sys
from cgpt.__main__ import main
code = main(sys.argv[1:])
named = "datasets huggingface_hub jinja2 lm_eval matplotlib multiprocess numpy pandas psutil pyarrow requests scipy " \\
    "sklearn snakemake sqlalchemy tinygrad tokenizers torch transformers urllib3".split()
imported = [name for name in named if name in sys.modules and type(sys.modules[name]).__name__ == "module"]
print(*imported, len(sys.modules), file=sys.stderr)
sys.exit(code)
"""
MODEL = {"numpy", "tinygrad", "tokenizers"}  # weights, kernels and texts
TASK = {"jinja2", "lm_eval", "numpy"}
ALWAYS = {"jinja2", "tokenizers"}  # of the command line, whose plan looks at templates
# The libraries of each stage, and the most modules, which are a hundred more than there were.
EXPECTED = {
    "fetch": (TASK, 640),  # as the tasks over the data are tried
    "tokenize": ({"numpy"}, 530),
    "pretrain": (MODEL, 650),
    "finetune": (MODEL | TASK, 760),
    "baseline": (TASK | {"sklearn", "scipy", "pandas", "pyarrow", "psutil"}, 1900),  # which scikit-learn brings
    "evaluate": (MODEL | TASK, 770),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, str]:
    """The last line on standard error of one run of each stage."""
    root = write_project(tmp_path_factory.mktemp("study"))
    made = random.Random(0)
    (root / "notes.txt").write_text("\n".join(" ".join(made.choices(WORDS, k=12)) for _ in range(400)) + "\n")
    edit(root, QUICKSTART, "corpus: [world], vocab_size: 512", "corpus: [notes], vocab_size: 300")
    edit(root, QUICKSTART, "steps: 10", "steps: 4")
    edit(root, "workflows/data.yaml", "{path: notes.txt}",
         "{path: notes.txt, documents: line}\n  topics: {path: topics}")  # fmt: skip
    edit(root, "workflows/tasks/topic.yaml", "data: world", "data: topics")
    edit(root, "hardware_profiles/cpu.yaml", "device: CPU", "device: CPU\nkernels: native")
    (root / "topics").mkdir()
    for split in ("train", "validation", "test"):
        rows = ({"text": " ".join(made.choices(WORDS, k=3)), "label": i % 2} for i in range(12))
        (root / f"topics/world_sentiment_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    workflow = load.load_workflow(root)
    lines = {}
    for run in plan.make_plan(workflow.experiments["quickstart"], workflow).runs:
        if run.stage not in lines or run.stage == "fetch":
            done = process.run(RUN, run.stage, run.id, cwd=root)
            assert done.returncode == 0, done.stderr
            lines[run.stage] = done.stderr.splitlines()[-1]
    return lines


@pytest.mark.parametrize("stage", EXPECTED)
def test_a_stage_imports_the_libraries_that_it_uses_and_no_other(runs, stage):
    *imported, n_modules = runs[stage].split()
    libraries, most = EXPECTED[stage]
    assert set(imported) == libraries | ALWAYS and int(n_modules) <= most


def test_a_module_that_waits_is_the_usual_one_as_soon_as_something_is_taken_from_it(tmp_path):
    for name in ("late", "late_package/__init__", "open_package/__init__"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.py").write_text('"""Of a test."""\nprint(f"runs {__name__}")\nVALUE = 1\n')
    for name in ("late_package/inner", "open_package/inner"):
        (tmp_path / f"{name}.py").write_text("VALUE = 2\n")
    done = process.run(
        """
import sys
sys.path.append(sys.argv[1])
from cgpt.imports import import_when_used
for name in ("late", "late_package", "not_there"):
    import_when_used(name)
import_when_used("open_package", submodules_wait=False)
import late, late_package
import late, late_package
from open_package.inner import VALUE
print("imported", VALUE, "not_there" in sys.modules)
print(late.VALUE, late.__doc__, type(late) is type(sys))
from late_package import inner
print(inner.VALUE)
import open_package
print(open_package.VALUE)
""",
        str(tmp_path),
    )
    expected = "imported 2 False|runs late|1 Of a test. True|runs late_package|2|runs open_package|1"
    assert done.stdout.splitlines() == expected.split("|"), done.stderr
