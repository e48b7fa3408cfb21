"""report.html: that it holds what it should, escapes what users and data sets wrote, and loads nothing."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import results_fixture as made
from browser import browse, layout

from cgpt.errors import UserError
from cgpt.hardware import Hardware
from cgpt.report.html.report import report
from cgpt.report.html.tasks import view_tasks
from cgpt.report.rows import collect
from cgpt.report.tables import tabulate

FIGURES = ("loss", "scores", "answers", "compute")
NASTY = ("<script>document.title = 'taken'</script><img src=x onerror=alert(1)> \u202egnp.exe\u2066 \x00\x1b[31m "
         "مرحبا {{ 7 * 7 }}")  # fmt: skip


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, path: Path):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] not in ("style", "title"):
            self.words.append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]

    @property
    def shown(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture
def written(tmp_path):
    """Writes the report of a made-up experiment; its page."""

    def write(experiment, plan, partial: bool = False) -> Page:
        if not partial:
            tabulate(experiment, plan, tmp_path)
            made.add_figures(tmp_path, experiment.name, *FIGURES)
        folder = report(experiment, plan, tmp_path, partial)
        return Page(folder / "report.html")

    return write


def nasty(results: Path):
    """An experiment whose question, prompts and answers are hostile, and long."""
    experiment, plan = made.make_results(results, seeds=(0,))
    made.add_samples(results, plan, 12, prompt=NASTY + "\ud800" + "x" * 100_000)
    (results / experiment.name).mkdir()
    texts = [{"prompt": NASTY, "continuation": NASTY * 100, "followed_by": NASTY}]
    models = [
        {"model": "gpt-1m", "run": "gpt-1m.world.s0", "setting": "", "temperature": 0.7, "seed": 0, "texts": texts}
    ]
    (results / experiment.name / "continuations.json").write_text(json.dumps({"prompts": [NASTY], "models": models}))
    return replace(experiment, question=NASTY), plan


def test_the_page_opens_on_the_question_and_its_answer(tmp_path, written) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    page = written(experiment, plan)
    question, answer = page.shown.index(experiment.question), page.shown.index("Fine-tuned beats from scratch on")
    assert 0 < question < answer < page.shown.index("Results")
    for words in (
        "Scores of each task",
        "Most confident mistakes",
        "Cost",
        "Runs",
        "How to read it",
        "0 1 2 3".split()[0],
    ):
        assert words in page.shown


def test_headings_are_in_order_tables_have_scopes_and_pictures_have_words(tmp_path, written) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    page = written(experiment, plan)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1 and all(b <= a + 1 for a, b in pairwise(levels))
    assert all(cell.get("scope") in ("col", "row", "rowgroup") for cell in page.of("th")) and page.of("th")
    assert all(len(picture["alt"] or "") > 20 for picture in page.of("img")) and len(page.of("img")) == len(FIGURES)
    assert page.of("html")[0]["lang"] == "en"


def test_nothing_is_loaded_and_no_script_runs(tmp_path, written) -> None:
    experiment, plan = nasty(tmp_path)
    page = written(experiment, plan)
    assert not page.of("script") and not page.of("iframe")
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    sources = [attributes.get(key) or "" for _, attributes in page.tags for key in ("src", "href", "srcset", "action")]
    assert not [source for source in sources if re.match(r"\w+:|//", source) and not source.startswith("data:")]
    assert "url(" not in page.text and "@import" not in page.text


def test_what_users_and_data_sets_wrote_is_shown_with_its_hidden_characters_and_cut(tmp_path, written) -> None:
    experiment, plan = nasty(tmp_path)
    page = written(experiment, plan)
    assert (
        "<script>document.title = 'taken'</script><img src=x onerror=alert(1)> ⟨U+202E⟩gnp.exe⟨U+2066⟩ ␀␛[31m"
        in page.shown
    )
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b\ud800]", page.text)
    assert "{{ 7 * 7 }}" in page.shown and re.search(r"\[99,\d{3} characters before\]", page.shown)
    assert len(page.text) < 400_000


def test_the_best_model_of_a_task_is_shown_with_its_confusions_and_surest_mistakes(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    rows = collect(experiment, plan, tmp_path)
    view = next(view for view in view_tasks(rows.scores, made.TASKS, (), tmp_path) if view.task == "topic")
    best = max((row for row in rows.scores if row["task"] == "topic" and row["primary"]), key=lambda row: row["value"])
    path = tmp_path / "runs/evaluate" / best["run"] / "samples.jsonl"
    samples = [json.loads(line) for line in path.read_text().splitlines()]
    assert f"{best['value']:.3f}" in view.result and view.n_documents == len(samples) == 60
    counts = [[sum(s["target"] == [right] and s["prediction"] == given for s in samples) for given in range(4)]
              for right in range(4)]  # fmt: skip
    assert [list(row) for row in view.confusion.counts] == counts and view.confusion.labels[3] == "<b>home</b>"
    wrong = [sample for sample in samples if not sample["correct"]]
    assert view.n_wrong == len(wrong) and {d.number for d in view.documents} <= {sample["doc_id"] for sample in wrong}
    assert [d.probability for d in view.documents] == sorted((d.probability for d in view.documents), reverse=True)


@pytest.mark.parametrize(
    ("sample", "heading", "shown"),
    [
        ({"prediction": "forty-two <i>", "target": "42", "correct": False}, "Generated answers", "forty-two <i>"),
        (
            {"prediction": None, "target": " word", "loglikelihoods": [-2.0], "correct": False},
            "Least expected",
            "0.135",
        ),
    ],
)
def test_a_task_without_choices_shows_what_is_generated_or_least_expected(
    tmp_path, written, sample, heading, shown
) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    for each in plan.of("evaluate"):
        line = {"doc_id": 0, "filter": "none", "prompt": "How many?", "choices": None, "loglikelihoods": None,
                "metrics": {}, "n_tokens_cut": 0} | sample  # fmt: skip
        path = tmp_path / "runs/evaluate" / each.id / "scores.json"
        path.with_name("samples.jsonl").write_text(json.dumps(line) + "\n")
        path.write_text(json.dumps(json.loads(path.read_text()) | {"samples_sha256": _sha256(path)}))
    page = written(experiment, plan)
    assert heading in page.shown and shown in page.shown


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.with_name("samples.jsonl").read_bytes()).hexdigest()


def test_measured_and_modeled_costs_stand_in_tables_of_their_own(tmp_path, written) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    profile = Hardware("cpu", "", device="CPU", kernels="native", power_w=65.0, price_per_hour_usd=3.6)
    runs = [replace(run, execution=replace(run.execution, hardware=profile)) for run in plan.runs]
    plan = made.add_metered(tmp_path, replace(plan, runs=tuple(runs)), "wafer")
    made.add_figures(tmp_path, experiment.name, "time_to_loss", "step_time", "roofline")
    page = written(experiment, plan)
    measured, modeled = page.shown.split(" Measured ")[1].split(" Modeled ")
    assert "~" not in measured and "no meter was read" in measured
    assert "0.184 USD" in measured  # three pretrainings of 61.5 s at 0.001 USD a second
    assert "~20 kWh" in modeled and "the profile has no price_per_hour_usd" in modeled and "nameplate power" in modeled


def test_each_run_has_its_seed_hashes_and_links_that_lead_to_its_files(tmp_path, written) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    made.add_samples(tmp_path, plan)
    page = written(experiment, plan)
    links = [link["href"] for link in page.of("a") if not (link["href"] or "").startswith("#")]
    assert len(links) > len(plan.runs) and all((tmp_path / experiment.name / link).is_file() for link in links)
    assert "2" * 64 in page.shown and "commit abc1234" in page.shown and "gpt-1m.world.s0.mood.scratch" in page.shown


def test_what_is_missing_or_diverged_is_named_above_all_results(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    (tmp_path / "runs/evaluate/gpt-1m.world.s0.topic-e/scores.json").unlink()
    page = Page(report(experiment, plan, tmp_path, partial=True) / "report.html")
    assert "missing are 1 of 48 records: evaluate gpt-1m.world.s0.topic-e" in page.shown.split("Results")[0]
    assert len(page.of("img")) == len(FIGURES)


def test_a_missing_figure_is_one_line_that_says_what_makes_it(tmp_path, written) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    written(experiment, plan)
    (tmp_path / "made-up/figures/loss.svg").unlink()
    with pytest.raises(UserError, match=r"loss.svg: cannot be read .*; run `snakemake --cores 2 .*report.html`"):
        report(experiment, plan, tmp_path)


def test_figures_that_would_say_that_there_is_nothing_are_left_out(tmp_path, written) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    page = written(replace(experiment, tasks=()), replace(plan, runs=plan.of("pretrain")))
    assert {figure["id"] for figure in page.of("figure")} == {"figure-loss", "figure-compute"}


@pytest.mark.parametrize(("model", "problem"), [("{}", "'run'"), ('{"run": "x"}', "is of x, which is no run")])
def test_damaged_or_foreign_continuations_are_one_line(tmp_path, written, model, problem) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0,))
    (tmp_path / "made-up").mkdir()
    (tmp_path / "made-up/continuations.json").write_text(f'{{"models": [{model}]}}')
    with pytest.raises(UserError, match=f"continuations.json: .*{problem}.*; delete it"):
        written(experiment, plan)


@pytest.mark.slow
def test_the_look_at_the_layout_sees_what_stands_outside(tmp_path) -> None:
    policy = "<meta http-equiv=x content=\"default-src 'none'\">"
    wide = "<details><p style='width: 2000px'>wide</p></details>"
    (tmp_path / "page.html").write_text(f"{policy}<body>{wide}<p>narrow</p></body>")
    assert [text for text in layout(tmp_path / "page.html", tmp_path, 1400)["outside"] if ">wide<" in text]


@pytest.mark.slow
@pytest.mark.parametrize("width", [400, 1400])
def test_in_a_browser_nothing_stands_outside_its_box(tmp_path, written, width) -> None:
    experiment, plan = nasty(tmp_path)
    plan = made.add_metered(tmp_path, plan, "wafer")
    made.add_figures(tmp_path, experiment.name, "time_to_loss", "step_time", "roofline")
    written(experiment, plan)
    page = tmp_path / experiment.name / "report.html"
    seen = layout(page, tmp_path, width)
    assert seen["inner"] == width and seen["page"] <= width and not seen["outside"], seen
    assert "taken" not in re.findall("<title>(.*?)</title>", browse(page, "--dump-dom"))[0].split(":")[0]
