"""What README and docs/ say is what happens: each block is run, compared, written to its file, or for people alone."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from code_blocks import Block, PageError, agrees, check_blocks, read_blocks, run_page
from conftest import call

ROOT = Path(__file__).parent.parent
PAGES = sorted(str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# Pages for a reader who has the package alone: each is followed in an empty folder. The others are read in a checkout.
FROM_NOTHING = ("docs/tutorials/", "docs/start.md", "docs/study.md")
TUTORIALS = [page for page in PAGES if page.startswith(FROM_NOTHING)]
MANY_WAYS = """\
```yaml title="notes/one.yaml"
a: 1
```

```bash
cat notes/one.yaml
echo "loss 1.25 after   12,000 tokens"
```

```console
a: 1
loss ... tokens
```

Another machine has another loss:

```bash
mkdir deeper && cd deeper
```

```python
import os
print("in deeper, loss  -0.5 after 7 tokens" if os.getcwd().endswith("deeper") else "lost")
```
```output
in deeper, loss 1.25 after 12,000 tokens
```

```text
rm -rf it
```
"""


@pytest.fixture(scope="session")
def machine(tmp_path_factory) -> dict[str, str]:
    """A shell's variables without what a tester has set, and with a cache that no one has used."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("CGPT_", "PYTHON", "VIRTUAL_ENV"))}
    return kept | {"CGPT_CACHE": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100", "LC_ALL": "C.UTF-8"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_has_blocks_that_can_be_run_compared_or_shown(page):
    assert not check_blocks(read_blocks((ROOT / page).read_text()))


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS)
def test_a_tutorial_does_what_it_says_from_an_empty_folder(page, installed, machine, tmp_path):
    run_page(page, (ROOT / page).read_text(), tmp_path, machine | {"PATH": f"{installed}{os.pathsep}{machine['PATH']}"})


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if page not in TUTORIALS])
def test_a_page_does_what_it_says_in_the_checkout(page, copy, machine):
    path = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{machine['PATH']}"
    mirror = {name: text for name, text in os.environ.items() if name == "CGPT_DATA_MIRROR"}
    try:
        run_page(page, (ROOT / page).read_text(), copy, machine | mirror | {"PATH": path, "PYTHONPATH": str(copy)})
    finally:  # results are kept for the next page, what this one wrote beside them is not
        call(copy, "git", "checkout", "--quiet", ".")
        call(copy, "git", "clean", "--quiet", "--force", "-d")


def test_blocks_are_written_run_and_compared_in_order(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    assert not check_blocks(read_blocks(MANY_WAYS))
    run_page("page.md", MANY_WAYS, tmp_path, os.environ | {"PATH": path})
    assert (tmp_path / "notes/one.yaml").read_text() == "a: 1\n"


def test_a_block_that_fails_is_named_with_its_line_and_all_that_was_printed(tmp_path):
    text = "# Page\n\n```bash\necho before\nls nothing-here\necho after\n```\n"
    with pytest.raises(PageError, match=r"(?s)^docs/page.md:3: exit code 2\n.*\nbefore\nls: .*nothing-here"):
        run_page("docs/page.md", text, tmp_path, os.environ)


def test_output_that_is_not_the_pages_is_named_with_its_line(tmp_path):
    text = "```bash\necho 4\n```\n\n```console\n5\n```\n"
    with pytest.raises(PageError, match=r"(?s)^page.md:5: the page says\n\n5\n.*printed\n\n4\n"):
        run_page("page.md", text, tmp_path, os.environ)


def test_a_console_block_is_compared_to_the_letter_and_an_output_block_without_its_numbers():
    assert agrees("a  1.5\n", "a  1.5 \n\n", "console") and not agrees("a 1.5\n", "a 1.6\n", "console")
    assert agrees("| a | ~1.5 |\n| --- |\n", "| a  |  12,000 |\n| ----- |\n", "output")
    assert not agrees("loss 1.5\n", "loss 1.5 (diverged)\n", "output")
    assert agrees("gpt.s0-... 1 K", "gpt.s0-71a2 2 K", "output") and agrees("by -1.5", "by 0.5", "output")
    assert agrees("first\n...\nlast 3\n", "first\n1\n2\nlast 4\n", "output")
    assert agrees("run  ...  3 MiB\n", "run       3 MiB\n", "output") and agrees("run ... 3\n", "run 4.5 3\n", "output")


def test_a_block_in_a_list_loses_the_lists_indent():
    assert read_blocks("1. do\n\n    ```bash\n    if true; then\n      ls\n    fi\n    ```\n") == [
        Block(3, "bash", None, "if true; then\n  ls\nfi\n", False)
    ]


def test_blocks_that_nothing_would_prove_are_refused():
    problems = check_blocks(
        read_blocks("""\
```sh
ls
```
```console
a
```
```yaml title="../../elsewhere"
a
```
""")
    )
    assert [problem.split(":")[0] for problem in problems] == ["line 1", "line 4", "line 7"]
    for text in ("```bash\nls\n", "```bash linenums=1\nls\n```\n"):
        with pytest.raises(ValueError, match="line 1"):
            read_blocks(text)
