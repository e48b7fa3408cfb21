"""Pages in headless Chromium, for the tests that look at them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

# Notes what stands outside the window, and text that is wider than its own box, with all that is folded unfolded. Of
# what is within a box that scrolls the box counts.
LAYOUT = """<script>
addEventListener("load", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
  const outside = [], inner = innerWidth;
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (!box.width || element.parentElement.closest(".wide")) continue;
    const scrolls = element.matches(".wide") || element.querySelector(".wide");
    const wider = !scrolls && element.clientWidth && element.scrollWidth > element.clientWidth + 1;
    if (box.right > inner + 0.5 || box.left < -0.5 || wider) outside.push(element.outerHTML.slice(0, 120));
  }
  parent.postMessage(JSON.stringify({inner, page: document.scrollingElement.scrollWidth, outside}), "*");
});
</script>"""
# A window cannot be as narrow as a telephone, a frame can.
FRAME = """<script>
addEventListener("message", (event) => {
  const note = document.createElement("pre");
  note.id = "seen"; note.textContent = event.data;
  document.body.append(note);
});
</script><iframe src="%s" style="border: 0; width: %dpx; height: 900px"></iframe>"""


def browse(page: Path, *arguments: str, may_log: bool = False) -> str:
    """Open a page in headless Chromium; return its standard output. A script's error fails the test, and so does what
    a page of ours writes to the console; another's may."""
    names = ("chromium", "chromium-browser", "google-chrome")
    browser = next(filter(None, map(shutil.which, names)), None)
    assert browser, "no chromium is on the PATH; install it, e.g. `apt-get install chromium`"
    options = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'browser'}",
               "--enable-logging=stderr", "--window-size=1400,900", "--virtual-time-budget=20000")  # fmt: skip
    command = [browser, *options, *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    refused = ("Uncaught",) if may_log else ("Uncaught", "CONSOLE")
    assert not [line for line in done.stderr.splitlines() if any(word in line for word in refused)]
    return done.stdout


def layout(page: Path, folder: Path, width: int) -> dict:
    """Open a copy of a page in a frame of that width; its `inner` width, the width of the `page`, and the elements that
    stand `outside` their box. The page's own policy forbids scripts, and so the copy is without it."""
    text = page.read_text()
    assert "default-src 'none'" in text
    before, end = re.sub(r"<meta http-equiv[^>]*>", "", text).rsplit("</body>", 1)
    (folder / "copy.html").write_text(f"{before}{LAYOUT}</body>{end}")
    (folder / "frame.html").write_text(FRAME % ("copy.html", width))
    seen = re.search(r'<pre id="seen">(.*?)</pre>', browse(folder / "frame.html", "--dump-dom"), flags=re.DOTALL)
    assert seen, "the page did not load"
    return json.loads(unescape(seen[1]))
