"""The documentation as a site: it is built without a warning, needs no network, and is read on a phone too."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from browser import FRAME, browse

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow
# Types into the search, and notes what it says and what stands outside the window.
PROBE = """<script>
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
addEventListener("load", async () => {
  await pause(500);
  const wide = [...document.querySelectorAll("header, .md-content :is(p, h1, h2, ul, table, pre, img)")].filter(
    (each) => (each.closest(".md-typeset__scrollwrap") ?? each).getBoundingClientRect().right > innerWidth + 1);
  const seen = {width: innerWidth, page: document.documentElement.scrollWidth,
                outside: wide.map((each) => each.outerHTML.slice(0, 80))};
  const query = document.querySelector("[data-md-component=search-query]");
  query.focus(); query.value = "warmup_tokens"; query.dispatchEvent(new Event("keyup"));
  const results = () => [...document.querySelectorAll(".md-search-result__item a")].map((link) => link.href);
  for (let tries = 0; tries < 100 && !results().length; tries++) await pause(100);
  parent.postMessage(JSON.stringify({...seen, results: results()}), "*");
});
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("material", reason="needs `pip install -e '.[docs]'`")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def pages(site: Path) -> list[Path]:
    return [path for path in site.rglob("*.html") if path.name != "404.html"]


def probe(page: Path, width: int) -> dict:
    """What the probe notes of a page in a frame of so many pixels."""
    probed, frame = page.with_name(f"probe-{page.name}"), page.with_name(f"frame-{page.name}")
    probed.write_text(page.read_text().replace("</body>", f"{PROBE}</body>"))
    frame.write_text(FRAME % (probed.name, width))
    seen = re.search(r'<pre id="seen">(.*?)</pre>', browse(frame, "--dump-dom"), flags=re.DOTALL)
    for made in (probed, frame):
        made.unlink()
    shutil.rmtree(page.parent / "browser", ignore_errors=True)
    assert seen, page
    return json.loads(unescape(seen[1]))


def test_the_site_takes_nothing_from_the_web(site):
    loaded = re.compile(r'<(?:script|img|iframe|source)\b[^>]*\bsrc="(https?:[^"]*|//[^"]*)"|'
                        r'<link\b(?![^>]*rel="?canonical)[^>]*\bhref="(https?:[^"]*|//[^"]*)"')  # fmt: skip
    assert len(pages(site)) > 40
    assert not [(path.name, match[0]) for path in pages(site) for match in loaded.finditer(path.read_text())]
    styles = [path for path in site.rglob("*.css") if re.search(r"url\(['\"]?(https?:)?//", path.read_text())]
    assert not styles


def test_every_page_of_docs_is_in_the_navigation(site):
    home = (site / "index.html").read_text()
    written = [path.relative_to(ROOT).with_suffix(".html").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in written if f'href="{page}"' not in home]


@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize(
    "name", ["index", "docs/concepts", "docs/wse", "docs/results/scaling", "docs/reference/results"]
)
def test_a_page_stays_within_the_window_and_its_search_answers_without_a_server(site, name, width):
    seen = probe(site / f"{name}.html", width)
    assert seen["page"] <= seen["width"] and not seen["outside"], seen
    assert any(re.search(r"docs/reference/experiments\.html.*#train", link) for link in seen["results"]), seen
