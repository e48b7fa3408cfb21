"""Contradictions of an experiment with itself, judged by its settings once every value of them is resolved.

A key is named as `vary` names it, e.g. `train.lr`, and blamed where it was written: in `vary`, in `per_model`, in a
model's row or in its block.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import isqrt, prod
from typing import Any

from cgpt.errors import did_you_mean
from cgpt.experiment.entries import Entered
from cgpt.experiment.rules import uneven_heads
from cgpt.experiment.vary import Setting, complete, make_settings
from cgpt.files.yaml_file import Keys, YamlFile
from cgpt.hardware import Hardware, uneven
from cgpt.spec import GPT2_VOCABULARY, LENGTHS, SCRATCH, TOKENIZERS, Dataset, Experiment, Model, PerModel

MOST_RUNS = 100_000
LEAST_RATES = 3  # learning rates through which a parabola goes
LEAST_SIZES = 4  # sizes that a budget of FLOPs needs for one
MUP_DEFAULTS = {f"model.{f.name}": f.default for f in fields(Model) if f.name.startswith("mup_")}
CONDITIONAL = ("train.decay_fraction", "train.warmup_fraction", "data.validation_fraction", "data.vocab_size",
               *MUP_DEFAULTS)  # fmt: skip
OF_INITIAL_WEIGHTS = ("init_std", "residual_init_std")  # keys of a model that say nothing of weights that are there


def note(experiment: Experiment, entered: Entered, file: YamlFile) -> None:
    """Note in `file` every contradiction of an experiment whose values are right one by one."""
    published = [name for name in experiment.models if name in entered.published]
    if experiment.finetune is not None or len(published) < len(experiment.models):
        _note_weights_from(experiment, entered.hardware, file)
    _note_per_model(experiment, file)
    _note_finetune(experiment, entered.tasks, file)
    _note_published(experiment, published, entered.hardware, file)
    rows = [entered.models[name] for name in experiment.models if name not in published]
    if _are_too_many(experiment, file) or None in rows or not rows:
        return
    settings = [setting for row in rows if row for setting in make_settings(experiment, row, entered.models)]
    profiles = [profile for name in experiment.hardware if (profile := entered.hardware[name])]
    wrong: dict[Keys, str] = {}
    for setting in settings:
        starting = of_start(setting, entered.models)
        for contradictions in (of(setting), starting, *(unshared(setting, profile) for profile in profiles)):
            for keys, problem in contradictions.items():
                wrong.setdefault(_blamed(keys, experiment, setting.model.name, file), problem)
    wrong |= _written_in_vain(experiment, settings, entered.datasets, file)
    for where, problem in wrong.items():
        file.problem(where, problem)
    if not wrong:
        _note_alike(settings, file)
    _note_laws(experiment, settings, file)


def of(setting: Setting) -> dict[tuple[str, ...], str]:
    """Problems of one setting, by the keys that contradict each other, the likeliest to mend first."""
    model, data, train = setting.model, setting.data, setting.train
    wrong: dict[tuple[str, ...], str] = {}
    if problem := uneven_heads(model):
        wrong["model.d_model", "model.n_head"] = problem
    if model.vocab_size != data.vocab_size:
        wrong["model.vocab_size", "data.vocab_size"] = (
            f"'{model.name}' has vocab_size {model.vocab_size}, but data.vocab_size is {data.vocab_size}; make them "
            "equal, or leave the model's out"
        )
    if data.tokenizer == "gpt2" and data.vocab_size != GPT2_VOCABULARY:
        wrong["data.vocab_size", "data.tokenizer"] = (
            f"tokenizer gpt2 has a fixed vocabulary, not {data.vocab_size}; write `vocab_size: {GPT2_VOCABULARY}`"
        )
    if len(setting.lengths) != 1:
        given = " and ".join(f"`{key}`" for key in setting.lengths)
        wrong[tuple(f"train.{key}" for key in setting.lengths or LENGTHS)] = (
            (f"{given} are lengths beside each other" if given else "leaves no length")
            + "; write exactly one of "
            + ", ".join(f"`{key}`" for key in LENGTHS)
        )
    micro, size = train.micro_batch_size, train.batch_size
    if micro and size % micro:
        divisors = [d for n in range(1, isqrt(size) + 1) if size % n == 0 for d in (n, size // n)]
        nearest = min(sorted(divisors), key=lambda n: abs(n - micro))
        wrong["train.micro_batch_size", "train.batch_size"] = (
            f"micro_batch_size {micro} does not divide batch_size {size}; write e.g. {nearest}"
        )
    if train.warmup_tokens is not None and train.tokens is not None and train.warmup_tokens >= train.tokens:
        wrong["train.warmup_tokens", *(f"train.{key}" for key in setting.lengths)] = (
            f"a warm-up of {train.warmup_tokens:,} tokens is not below the {train.tokens:,} tokens of {model.name}; "
            "write fewer, or a warmup_fraction"
        )
    return wrong


def of_start(setting: Setting, models: Mapping[str, Model | None]) -> dict[tuple[str, ...], str]:
    """Problems of a training that starts from a checkpoint: another shape, or text in another one's tokens."""
    start, tokenizer = setting.train.start, setting.data.tokenizer
    whose = models.get(start) if start != SCRATCH else None
    if whose is None:
        return {}
    wanted, model = complete(whose), setting.model
    differ = {f.name: getattr(wanted, f.name) for f in fields(Model) if f.name not in ("name", *OF_INITIAL_WEIGHTS)
              and getattr(wanted, f.name) != getattr(model, f.name)}  # fmt: skip
    wrong: dict[tuple[str, ...], str] = {}
    if tokenizer != start and (tokenizer != "gpt2" or wanted.vocab_size != GPT2_VOCABULARY):
        wrong["train.start", "data.tokenizer"] = (
            f"'{start}' has a tokenizer of its own, which is not {tokenizer}; write `tokenizer: {start}` in `data:`"
        )
    elif differ:
        row = ", ".join(f"{key}: {str(value).lower() if isinstance(value, bool) else value}"
                        for key, value in differ.items())  # fmt: skip
        wrong["train.start", "model.d_model"] = (
            f"'{start}' has not the shape of '{model.name}'; write in that one's row: {row}"
        )
    return wrong


def unshared(setting: Setting, profile: Hardware) -> dict[tuple[str, ...], str]:
    """The problem of a batch that the systems of a profile cannot share evenly, by its keys: those that train take
    their part of each forward pass, modeled ones of each step."""
    if profile.timing == "modeled":
        key, problem = "train.batch_size", uneven(setting.train.batch_size, profile, profile.systems)
    else:
        key, problem = "train.micro_batch_size", uneven(setting.train.micro_batch_size or 0, profile)
    return {(key, "train.batch_size"): problem} if problem else {}


def _source(key: str, experiment: Experiment, model: str) -> Keys:
    """Where the value of a key comes from at every setting of one of the experiment's models."""
    block, _, name = key.partition(".")
    if key in experiment.vary:
        return ("vary", key)
    if block == "train" and name in experiment.per_model.get(model, PerModel()).train:
        return ("per_model", model, "train", name)
    return ("models", experiment.models.index(model)) if block == "model" else (block, name)


def _blamed(keys: Sequence[str], experiment: Experiment, model: str, file: YamlFile) -> Keys:
    """Where to mend a contradiction of several keys: what is varied, else said of one model, else written at all."""
    sources = [source for key in keys if (source := _source(key, experiment, model)) in file.lines]
    first = min(sources, key=lambda source: (source[0] != "vary", source[0] != "per_model"), default=None)
    return first or (keys[0].partition(".")[0],)


def without_effect(setting: Setting, datasets: Mapping[str, Dataset | None]) -> dict[str, str]:
    """Problems of the keys that change nothing in one setting, by key."""
    idle: dict[str, str] = {}
    if setting.train.schedule != "wsd":
        idle["train.decay_fraction"] = (
            f"has no effect on schedule {setting.train.schedule}; write `schedule: wsd`, or leave it out"
        )
    if setting.train.warmup_tokens is not None:
        idle["train.warmup_fraction"] = "has no effect beside `warmup_tokens`; leave one of the two out"
    if setting.data.tokenizer not in TOKENIZERS:
        idle["data.vocab_size"] = f"is that of {setting.data.tokenizer}'s tokenizer; leave it out"
    if all((dataset := datasets.get(name)) and _has_validation(dataset) for name in setting.data.corpus):
        idle["data.validation_fraction"] = (
            "is of no use: every data set of the corpus has a validation file of its own; leave it out"
        )
    if setting.model.parametrization != "mup":
        idle |= {
            key: f"{key.partition('.')[2]} of '{setting.model.name}' has no effect on parametrization "
            f"{setting.model.parametrization}; write `parametrization: mup`, or leave it out"
            for key in MUP_DEFAULTS
        }
    return idle


def _has_validation(dataset: Dataset) -> bool:
    splits = [part.split for part in dataset.files] + list(dataset.hub.splits if dataset.hub else ())
    return "validation" in splits


def _written_in_vain(
    experiment: Experiment, settings: Sequence[Setting], datasets: Mapping[str, Dataset | None], file: YamlFile
) -> dict[Keys, str]:
    """Problems of written keys that change nothing, at any point where they are varied, else at all settings that they
    hold for, by where they are written."""
    idle: dict[Keys, str] = {}
    of_use: set[Keys] = set()
    for setting in settings:
        idle_here = without_effect(setting, datasets)
        for key in CONDITIONAL:
            source = _source(key, experiment, setting.model.name)
            if source[0] == "models" and getattr(setting.model, key.partition(".")[2]) == MUP_DEFAULTS[key]:
                continue
            if key in idle_here:
                idle.setdefault(source, idle_here[key])
            elif source[0] != "vary":
                of_use.add(source)
    return {source: what for source, what in idle.items() if source in file.lines and source not in of_use}


def _note_alike(settings: Sequence[Setting], file: YamlFile) -> None:
    """No two settings are the same runs, of which one would be lost without a word."""
    seen: dict[str, Setting] = {}
    for setting in settings:
        train = replace(setting.train, tokens_per_parameter=None, flops=None)
        other = seen.setdefault(repr((setting.model, setting.data, train, setting.finetune)), setting)
        if other is not setting:
            points = [", ".join(f"{axis}={value}" for axis, value in each.point) for each in (other, setting)]
            return file.problem(("vary",), f"at {' and at '.join(points)} the runs of {setting.model.name} are the "
                                "same; leave one of the two out")  # fmt: skip


def _note_weights_from(experiment: Experiment, profiles: Mapping[str, Hardware | None], file: YamlFile) -> None:
    """Who trains the models is a profile that computes, with weights that are not rounded."""
    named, trainer = experiment.hardware, experiment.weights_from
    known = [profile for name in named if (profile := profiles.get(name))]
    modeled = [profile for profile in known if profile.timing == "modeled"]
    rounding = [profile for profile in known if profile.weights_dtype != "float32"]
    training = [name for name in named if name not in {profile.name for profile in (*modeled, *rounding)}]
    if trainer is None:
        for profile in rounding:
            file.problem(("hardware",), f"'{profile.name}' rounds weights to {profile.weights_dtype} and trains none; "
                         "write `weights_from: <profile>` with one of `hardware` that trains")  # fmt: skip
        for profile in modeled:
            if profile.device.split(":")[0] != "WSE":
                file.problem(("hardware",), f"'{profile.name}' is modeled and computes nothing; write `weights_from: "
                             "<profile>` with one of `hardware` that trains")  # fmt: skip
    elif trainer not in training:
        file.problem(("weights_from",), f"'{trainer}' is no profile of `hardware` that trains; write one of "
                     f"{', '.join(training) or 'them there first'}")  # fmt: skip
    elif not modeled and not rounding and None not in map(profiles.get, named):
        file.problem(("weights_from",), "says who trains for profiles that are modeled or round weights, and "
                     "`hardware` names none; leave it out")  # fmt: skip


def _note_published(
    experiment: Experiment, published: Sequence[str], profiles: Mapping[str, Hardware | None], file: YamlFile
) -> None:
    """Nothing is written that models whose weights are there, or an experiment of them alone, have no use for."""
    for name in published:
        if experiment.per_model.get(name, PerModel()).train:
            file.problem(
                ("per_model", name, "train"), f"'{name}' has a `checkpoint:` and is not pretrained; leave it out"
            )
        if experiment.finetune is None and experiment.per_model.get(name, PerModel()).seeds:
            file.problem(("per_model", name, "seeds"), f"'{name}' has a `checkpoint:` and is not trained; leave it "
                         "out, or write `finetune:`")  # fmt: skip
    for axis in (axis for axis in experiment.vary if published and axis.startswith("model.")):
        file.problem(
            ("vary", axis), f"'{published[0]}' has the shape of its `checkpoint:`; remove the axis or the model"
        )
    if len(published) < len(experiment.models):
        return
    no_use = "is of no use: each of `models` has a `checkpoint:`, and nothing is pretrained; leave it out"
    blocks = {"data": experiment.data, "train": experiment.train, "fit": experiment.fit}
    axes = [axis for axis in experiment.vary if axis.partition(".")[0] in ("data", "train")]
    for keys in [*((key,) for key, value in blocks.items() if value), *(("vary", axis) for axis in axes)]:
        file.problem(keys, no_use)
    if experiment.finetune is None:
        if experiment.weights_from:
            file.problem(
                ("weights_from",), "says who trains, and nothing is trained; leave it out, or write `finetune:`"
            )
        known = [profile for name in experiment.hardware if (profile := profiles.get(name))]
        modeled = [each.name for each in known if each.timing == "modeled" and each.device.split(":")[0] != "WSE"]
        for name in modeled[:1]:
            file.problem(("hardware",), f"'{name}' is modeled: it says what training takes, and nothing is trained; "
                         "write a `finetune:` block, or leave it out")  # fmt: skip
        if len(experiment.seeds) > 1:
            file.problem(("seeds",), "changes nothing where nothing is trained; leave it out, or write `finetune:`")


def _note_per_model(experiment: Experiment, file: YamlFile) -> None:
    """Keys of `per_model` are of models of this experiment, and not varied as well."""
    for name, of_model in experiment.per_model.items():
        if name not in experiment.models:
            file.problem(("per_model", name), f"there is no model of this experiment '{name}'; "
                         f"{did_you_mean(name, experiment.models)}")  # fmt: skip
        for key in (key for key in of_model.train if f"train.{key}" in experiment.vary):
            file.problem(("per_model", name, "train", key), "is varied by this experiment too; remove one of the two")


def _note_finetune(experiment: Experiment, tasks: Mapping[str, Mapping[str, Any] | None], file: YamlFile) -> None:
    """Some task is fine-tuned with the `finetune:` block, and none overrules what the experiment varies."""
    axes = [axis for axis in experiment.vary if axis.startswith("finetune.")]
    if experiment.finetune is None:
        for axis in axes:
            file.problem(("vary", axis), "the experiment has no `finetune:` block; write one, or remove this axis")
        return
    named = {name: tasks.get(name) for task in experiment.tasks for name in _with_members(task, tasks)}
    if None in named.values():
        return  # a task is wrong, which is noted already
    tuned = {name: task["finetune"] for name, task in named.items() if task and "finetune" in task}
    if not tuned:
        file.problem(("finetune",), "is of no use: no task of this experiment has a `finetune:` block; write one in a "
                     "task's file, or leave this out")  # fmt: skip
    for axis in axes:
        key = axis.partition(".")[2]
        for name in (name for name, block in tuned.items() if key in block):
            file.problem(("vary", axis), f"task '{name}' sets {key} itself, which holds instead; leave it out "
                         "there, or do not vary it")  # fmt: skip


def _with_members(name: str, tasks: Mapping[str, Mapping[str, Any] | None]) -> set[str]:
    """The name, and where it is a group's those of its members that have a file, and of theirs."""
    names, waiting = {name}, [name]
    while waiting:
        members = (tasks.get(waiting.pop()) or {}).get("task")
        for member in members if isinstance(members, list) else []:
            inner = member if isinstance(member, str) else member.get("task") or member.get("group")
            if inner in tasks and inner not in names:
                names.add(inner)
                waiting.append(inner)
    return names


def _are_too_many(experiment: Experiment, file: YamlFile) -> bool:
    """Whether the runs are more than anyone has planned for, which is noted."""
    seeds = [experiment.per_model.get(name, PerModel()).seeds or experiment.seeds for name in experiment.models]
    n_points = prod(map(len, experiment.vary.values()))
    n_runs = n_points * sum(map(len, seeds)) * len(experiment.hardware)
    if n_runs > MOST_RUNS:
        file.problem(("vary",), f"asks for {n_runs:,} runs; name fewer values, models or seeds, at most {MOST_RUNS:,}")
    return n_runs > MOST_RUNS


def _note_laws(experiment: Experiment, settings: Sequence[Setting], file: YamlFile) -> None:
    """No law is to be fitted that the runs are too few for, whatever they turn out to be."""
    n_rates = len({setting.train.lr for setting in settings})
    n_sizes = len({(model.name, model.n_layer, model.d_model, model.d_ffn) for model in (v.model for v in settings)})
    for i, law in enumerate(experiment.fit):
        if law == "learning_rate" and n_rates < LEAST_RATES:
            file.problem(("fit", i), f"learning_rate needs {LEAST_RATES} rates or more, and there {_are(n_rates)}; "
                         "write e.g. `vary: {train.lr: [0.004, 0.008, 0.016]}`")  # fmt: skip
        elif law == "isoflop" and n_sizes < LEAST_SIZES:
            file.problem(("fit", i), f"isoflop needs {LEAST_SIZES} sizes or more at each `train.flops`, and there "
                         f"{_are(n_sizes)}; name more `models`")  # fmt: skip


def _are(count: int) -> str:
    return f"is {count}" if count == 1 else f"are {count}"
