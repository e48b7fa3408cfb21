"""An experiment's figures as the page embeds them: an SVG as an address of its own data, with its caption."""

import base64
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from markupsafe import Markup

from cgpt import SHIPPED
from cgpt.errors import UserError

CAPTIONS = SHIPPED / "workflows" / "report"  # which Snakemake's own report shows too
TITLES = {  # by the figure's name, in the order of the page
    "law": "Scaling laws",
    "hardware_law": "Loss against seconds, joules and dollars",
    "vary": "Loss and scores against what varies",
    "scores": "Scores of each task",
    "answers": "Correct answers against loss",
    "compute": "Loss against compute",
    "time_to_loss": "Time and energy to reach a loss",
    "step_time": "What a step is made of",
    "roofline": "Rooflines of the modeled machines",
    "loss": "Loss while training",
}


@dataclass(frozen=True)
class Figure:
    """`source` is a data: address of the SVG; `alternative` says in a sentence what is to be seen."""

    name: str
    title: str
    source: str
    caption: Markup
    alternative: str


def embed_figures(folder: Path, names: Iterable[str], remedy: str) -> list[Figure]:
    """These figures of an experiment's folder, in the order of TITLES. Raises UserError, which `remedy` ends, for one
    that is missing."""
    return [_embed(folder / "figures" / f"{name}.svg", name, remedy) for name in sorted(names, key=list(TITLES).index)]


def caption_path(name: str) -> Path:
    """The file that holds a figure's caption, as reStructuredText."""
    return CAPTIONS / f"{name}.rst"


def _embed(path: Path, name: str, remedy: str) -> Figure:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    caption = as_html(caption_path(name).read_text(encoding="utf-8"))
    words = unescape(re.sub(r"<[^>]+>|\s+", " ", caption)).split()
    first_sentence = re.split(r"(?<=[.:])\s", " ".join(words))[0]
    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    return Figure(name, TITLES[name], source, caption, f"{TITLES[name]}: {first_sentence}")


def as_html(restructured_text: str) -> Markup:
    """A caption as HTML: paragraphs with emphasis and code. It is a file of ours, and reads no other file."""
    from docutils.core import publish_parts

    settings = {"file_insertion_enabled": False, "raw_enabled": False, "report_level": 5}
    return Markup(publish_parts(restructured_text, writer="html5", settings_overrides=settings)["body"])
