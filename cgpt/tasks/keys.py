"""Keys of a task file, each with its type, its default and a sentence below it; a wrong type is refused where it is
read (`cgpt.tasks.definition`)."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cgpt.spec import Finetune, Limit, PositiveInt, Shots

Template = str | int  # Jinja over the document's fields, the name of one, or !function


@dataclass(frozen=True)
class OurKeys:
    """Keys that lm-evaluation-harness does not have."""

    data: str | None = None
    """The data set of workflows/data.yaml that holds the task's files; left out: files of the study's own folder."""
    stock: bool = False
    """Whether `task` is a task, group or tag of lm-evaluation-harness's own; keys beside it then win over its."""
    finetune: Finetune | None = None
    """How models are tuned on the training split, in experiments that have a `finetune:` block."""
    limit: Limit = None
    """Score the first documents, a number or a share."""
    sample: PositiveInt | None = None
    """Score a fixed random sample of so many documents."""


@dataclass(frozen=True)
class LmEvalKeys:
    """Keys of lm-evaluation-harness, with its meanings."""

    task: str
    """The task's name, which is the file's; with `stock`, the name that lm-evaluation-harness has."""
    task_alias: str | None = None
    """Another name, for its own tables; not shown here."""
    tag: str | tuple[str, ...] | None = None
    """Names under which it lists the task; not used here."""
    dataset_path: str | None = None
    """Format of the files (json, csv, text, parquet), or a data set of the hub as owner/name."""
    dataset_name: str | None = None
    """Configuration of a data set of the hub."""
    dataset_kwargs: Mapping[str, Any] | None = None
    """`data_files:` by split, and options of the format, such as `sep`; of a hub's data set its `revision`."""
    custom_dataset: Any = None
    """A function that makes the data: !function."""
    training_split: str | None = None
    """The split that fine-tuning and the bag of words learn from, and shots come from."""
    validation_split: str | None = None
    """The split that picks the best epoch; scored where there is no test split."""
    test_split: str | None = None
    """The split that is scored."""
    fewshot_split: str | None = None
    """The split of solved examples; left out: training, else validation, else the one scored."""
    process_docs: Any = None
    """A function from a split's documents to those that are used: !function."""
    output_type: str = "generate_until"
    """multiple_choice, loglikelihood, loglikelihood_rolling (a whole text), or generate_until."""
    doc_to_text: Template | None = None
    """The prompt: a Jinja template over the document's fields, or a field's name."""
    doc_to_target: Template | tuple[Any, ...] | None = None
    """The right answer, or the number of the right choice from 0."""
    doc_to_choice: str | tuple[str, ...] | Mapping[str, str] | None = None
    """The choices of multiple_choice."""
    doc_to_image: Any = None
    """Refused: these models read text alone."""
    doc_to_audio: Any = None
    """Refused: these models read text alone."""
    unsafe_code: bool = False
    """Refused when true: no answer is run as a program."""
    process_results: Any = None
    """A function from a document and its results to metrics: !function."""
    use_prompt: str | None = None
    """A template of promptsource."""
    description: str = ""
    """Text before all examples and the question."""
    target_delimiter: str = " "
    """Text between prompt and answer."""
    fewshot_delimiter: str = "\n\n"
    """Text between examples."""
    fewshot_config: Mapping[str, Any] | None = None
    """How examples are picked and written, as `sampler: first_n`."""
    num_fewshot: Shots | None = None
    """Solved examples before each question."""
    metric_list: tuple[Mapping[str, Any], ...] | None = None
    """Metrics, each with `metric`, `aggregation`, `higher_is_better`; the first stands in the table."""
    generation_kwargs: Mapping[str, Any] | None = None
    """How answers of generate_until are written; its keys stand below."""
    repeats: PositiveInt = 1
    """Answers to each question of generate_until."""
    filter_list: tuple[Mapping[str, Any], ...] | None = None
    """Filters of answers, each a `name` and its `filter:` steps, before metrics are computed."""
    should_decontaminate: bool = False
    """Its check of training data; not used here."""
    doc_to_decontamination_query: str | None = None
    """The text of that check."""
    gen_prefix: str | None = None
    """Text that begins the answer."""
    metadata: Mapping[str, Any] | None = None
    """`version:` of the task, which tables and records name."""


@dataclass(frozen=True)
class GroupKeys:
    """Keys of a group of tasks; those of a task beside them hold for all of its members."""

    group: str | None = None
    """The group's name, which is the file's."""
    group_alias: str | None = None
    """Another name, for lm-evaluation-harness's own tables; not shown here."""
    task: tuple[str | Mapping[str, Any], ...] = ()
    """The members: names of tasks, or `task: <name>` with keys that hold for it here."""
    aggregate_metric_list: tuple[Mapping[str, Any], ...] | None = None
    """Metrics that are averaged over the members: `metric`, `weight_by_size`, `filter_list`."""
    metadata: Mapping[str, Any] | None = None
    """`version:` of the group."""


OUR_KEYS = frozenset(field.name for field in fields(OurKeys))
LM_EVAL_KEYS = frozenset(field.name for field in fields(LmEvalKeys))  # a test compares them with its TaskConfig
GROUP_KEYS = tuple(field.name for field in fields(GroupKeys))
TASK_KEYS = LM_EVAL_KEYS | OUR_KEYS
