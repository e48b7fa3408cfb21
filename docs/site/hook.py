"""Makes the repository a site: each page at its path here, so that one relative link works on a code host and there.

`docs_dir` of mkdocs is docs/ alone, and it knows neither the README nor kept results; so the files are listed here. The
pages of the reference are made when the site is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent.parent
SHOWN = (
    "*.md", "CITATION.cff", "LICENSE", "docs/**/*.md", "docs/**/*.svg", "docs/**/*.png", "docs/site/*.css",
    "docs/site/*.js", "results/reference/**/*.md", "results/reference/**/*.png", "results/reference/**/*.svg",
    "results/reference/**/*.csv", "results/reference/**/*.json", "workflows/**/*.yaml", "hardware_profiles/*.yaml",
)  # fmt: skip
REFERENCE = "docs/reference"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages that a pattern of the navigation stands for in its stead: those that it does not name itself."""
    named = set(_named(config.nav))
    config.nav = [_expanded(entry, named) for entry in config.nav or ()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The files of the repository that are shown, beside those of the theme, and the reference."""
    listed = [file for file in files if file.src_dir != config.docs_dir]
    listed += [File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in _shown()]
    listed += [File.generated(config, f"{REFERENCE}/{name}", content=text)
               for name, text in reference.pages().items()]  # fmt: skip
    return Files(listed)


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """The page that lists those of the reference leads to each of them; a code host, which has none, shows names."""
    if page.file.src_uri != f"{REFERENCE}.md":
        return markdown
    names = "|".join(name.removesuffix(".md") for name in reference.pages())
    return re.sub(rf"^\| ({names}) \|", r"| [\1](reference/\1.md) |", markdown, flags=re.MULTILINE)


def _shown() -> list[str]:
    """Paths of the repository that the site has."""
    paths = {path for pattern in SHOWN for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def _named(entry: Any) -> Iterator[str]:
    """Each path of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    for part in entry if isinstance(entry, list) else entry.values() if isinstance(entry, dict) else ():
        yield from _named(part)


def _expanded(entry: Any, named: set[str]) -> Any:
    if isinstance(entry, dict):
        return {title: _expanded(part, named) for title, part in entry.items()}
    if isinstance(entry, list):
        parts = [_expanded(part, named) for part in entry]
        return [page for part in parts for page in (part if isinstance(part, list) else [part])]
    return [path for path in _shown() if Path(path).match(entry) and path not in named] if "*" in entry else entry
