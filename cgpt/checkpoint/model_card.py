"""The model card (README.md) of an exported model: what the run's records say of it, and what they do not."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cgpt.recipe import flops
from cgpt.records import FinetuneRecord, PretrainRecord, ScoresRecord
from cgpt.spec import Dataset, Model

HEAD = """---
library_name: transformers
pipeline_tag: text-generation
tags: [gpt2]
---
"""
NOT_KNOWN = "Not known: the folder that this was exported from has no record of its run."
LIMITS = """A language model that continues text. It is not tuned to follow instructions and was not tested for safety:
what it writes can be false, repetitive or offensive. Besides what stands above, nothing was measured."""


@dataclass(frozen=True)
class Facts:
    """A model's origin, as far as it is at hand: its run, the run's spec, the data sets that it was trained on."""

    run: PretrainRecord | None = None
    spec: Mapping[str, Any] | None = None
    datasets: Sequence[Dataset] = ()
    scores: Sequence[ScoresRecord] = ()


def model_card(config: Model, facts: Facts | None = None) -> str:
    """The text of README.md."""
    facts = facts or Facts()
    sections = {
        "Model": _model(config),
        "Data": _data(facts),
        "Recipe": _recipe(facts),
        "Cost": _cost(facts.run),
        "Scores": _scores(facts.scores),
        "Limits": LIMITS,
        "Provenance": _provenance(facts.run),
    }
    body = "\n".join(f"\n## {title}\n\n{text}" for title, text in sections.items())
    return f"{HEAD}\n# {config.name}\n{body}\n"


def _table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _model(config: Model) -> str:
    rows = [
        ("parameters", f"{flops.n_parameters(config):,}"),
        ("layers, width, heads", f"{config.n_layer}, {config.d_model}, {config.n_head}"),
        ("feed-forward width", f"{flops.ffn_width(config)}"),
        ("context", f"{config.seq_len} tokens"),
        ("vocabulary", f"{config.vocab_size} tokens"),
        ("activation", config.activation),
        ("head", "tied to the token embedding" if config.tie_embeddings else "its own"),
        ("parametrization", config.parametrization),
    ]
    text = "GPT-2's architecture; weights in float32.\n\n" + _table(("", ""), rows)
    if config.parametrization == "sp":
        return text
    return (
        f"{text}\n\nIt was trained under maximal update parametrization (base width {config.mup_base_width:g}). Its "
        "multipliers are part of the weights here: the logits are the same up to the rounding of float32, and training "
        "on is not the same, as deviations and learning rates of muP belong to the weights as they were."
    )


def _data(facts: Facts) -> str:
    if facts.run is None:
        return NOT_KNOWN
    lines = [f"Corpus: {facts.run.data}."]
    if isinstance(facts.run, FinetuneRecord):
        labels = "the whole training split" if facts.run.n_labels is None else f"{facts.run.n_labels} labels"
        lines.append(f"Fine-tuned on the task {facts.run.task} ({labels}), starting {facts.run.start}.")
    rows = [(d.name, d.about, d.licence, d.home) for d in facts.datasets]
    return "\n".join([*lines, *(["", _table(("data set", "what", "licence", "home"), rows)] if rows else [])])


def _recipe(facts: Facts) -> str:
    if facts.run is None:
        return NOT_KNOWN
    steps = f"{facts.run.steps:,} optimizer steps, {facts.run.tokens:,} tokens, seed {facts.run.seed}, AdamW."
    if facts.spec is None:
        return f"{steps} Its experiment was not at hand, so the other settings are not known."
    settings = facts.spec["finetune" if isinstance(facts.run, FinetuneRecord) else "train"]
    shown = {key: value for key, value in settings.items() if value is not None and key not in ("steps", "tokens")}
    rows = [(key, str(value)) for key, value in shown.items()]
    return f"{steps}\n\n{_table(('setting', 'value'), rows)}"


def _cost(run: PretrainRecord | None) -> str:
    if run is None:
        return NOT_KNOWN
    mark = "~" if run.timing == "modeled" else ""
    rows = [
        ("FLOPs (6 N D)", f"{run.flops_6nd:.3e}"),
        ("FLOPs (with attention)", f"{run.flops:.3e}"),
        ("seconds", "not known" if run.seconds is None else f"{mark}{run.seconds:,.0f}"),
        ("energy", "not measured" if run.energy_j is None else f"{mark}{run.energy_j:,.0f} J"),
        ("hardware", f"{run.hardware} ({run.timing}), {run.threads} threads"),
    ]
    text = "Of the fine-tuning alone, without the pretraining before it.\n\n" if isinstance(run, FinetuneRecord) else ""
    return text + _table(("", ""), rows)


def _scores(scores: Sequence[ScoresRecord]) -> str:
    rows = [
        (record.task, str(record.n_shot), score.metric, f"{score.value:.4g}",
         "" if score.stderr is None else f"{score.stderr:.2g}", "" if score.chance is None else f"{score.chance:.3g}",
         f"{record.n_samples:,}")
        for record in sorted(scores, key=lambda record: (record.task, record.n_shot))
        for score in record.scores
    ]  # fmt: skip
    if not rows:
        return "None: no evaluation of this checkpoint was found beside it."
    version = ", ".join(sorted({record.lm_eval_version for record in scores}))
    heading = ("task", "shots", "metric", "value", "standard error", "chance", "documents")
    return f"By lm-evaluation-harness {version}; the standard error is over documents.\n\n{_table(heading, rows)}"


def _provenance(run: PretrainRecord | None) -> str:
    if run is None:
        return NOT_KNOWN
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    rows = [
        ("run", run.run),
        ("date", run.date),
        ("commit", run.commit or "not known"),
        ("code (SHA-256)", run.code_sha256),
        ("host", run.host_cpu or "not known"),
        ("compiler", run.compiler or "not known"),
        ("versions", versions),
    ]
    validation = "" if run.validation_loss is None else f"; validation loss {run.validation_loss:.4f} nats per token"
    return f"Written by cgpt from the checkpoint of this run{validation}.\n\n{_table(('', ''), rows)}"
