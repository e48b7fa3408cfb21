"""What takes minutes: `make lint`, and a copy of what git would commit, used as a reader would use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from browser import browse

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

SMOKE = ("results/smoke/table.md", "results/smoke/figures/loss.svg")
# Opens every result as the report's menu does, and notes what is to be seen there: a picture's width, a page's text.
TOUR = """<script>
const pause = () => new Promise((done) => setTimeout(done, 300));
(async () => {
  const seen = {};
  while (!app) await pause();
  for (const [path, entry] of Object.entries(results).sort()) {
    const page = path.endsWith(".html");
    app.setView({content: page ? "html" : "img", contentPath: entry.data_uri, resultPath: path});
    await pause();
    const shown = document.querySelector(page ? "iframe" : `img[src="${entry.data_uri}"]`);
    seen[path] = page ? await (await fetch(shown.src)).text() : shown.naturalWidth;
  }
  const note = document.createElement("pre");
  note.id = "seen"; note.hidden = true; note.textContent = JSON.stringify(seen);
  document.body.append(note);
})();
</script>"""


def run(root: Path, *command: str | Path) -> str:
    """Run a command in the folder without a terminal, with the folder's own package; return its standard output."""
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PYTHONPATH": str(root), "PATH": path}
    done = subprocess.run(command, cwd=root, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}\n{done.stdout[-8000:]}\n{done.stderr[-8000:]}"
    return done.stdout


def test_ruff_mypy_snakefmt_and_snakemake_have_nothing_to_say():
    run(ROOT, "make", "lint")


def test_smoke_runs_from_text_to_table_and_a_second_time_has_nothing_to_do(copy):
    run(copy, "snakemake", "--cores", "2", *SMOKE)
    assert "| task | condition |" in (copy / SMOKE[0]).read_text()
    written = {path: path.stat().st_mtime_ns for path in (copy / "results").rglob("*") if path.is_file()}
    run(copy, "snakemake", "--cores", "2", *SMOKE)
    assert written == {path: path.stat().st_mtime_ns for path in (copy / "results").rglob("*") if path.is_file()}


def test_the_report_of_snakemake_shows_its_table_and_every_figure_in_a_browser(copy, tmp_path):
    from matplotlib.image import imread

    report, page, picture = copy / "results/smoke/provenance.html", tmp_path / "tour.html", tmp_path / "tour.png"
    run(copy, "snakemake", "--report", str(report), *SMOKE)
    before, end = report.read_text().rsplit("</body>", 1)
    page.write_text(f"{before}{TOUR}</body>{end}")

    dom = browse(page, "--dump-dom", may_log=True)
    shown = re.search(r'<pre id="seen"[^>]*>(.*?)</pre>', dom, flags=re.DOTALL)
    assert shown, "the report did not open all of its results"
    seen = json.loads(unescape(shown[1]))
    assert set(seen) == {f"results/smoke/figures/{name}.svg" for name in ("loss", "scores", "answers", "compute")} | {
        "results/smoke/table.html"}  # fmt: skip
    table = re.sub(r"<[^>]+>|\s+", " ", seen.pop("results/smoke/table.html"))
    assert all(word in table for word in ("gpt-tiny", "world_topic", "chance", "validation bits per byte"))
    assert all(width > 100 for width in seen.values()), seen

    browse(page, f"--screenshot={picture}", may_log=True)
    right = imread(picture)[:, 400:, :3]  # beside the menu, where the table stands
    assert 0.003 < (right.min(axis=2) < 0.5).mean() < 0.5, "the page is blank, or black"


def test_all_that_leaves_git_with_nothing_to_say(copy):
    assert run(copy, "git", "status", "--porcelain") == ""
