"""The stage `import`: fetch the checkpoint that a row of models.yaml names, and write it as one of ours."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from cgpt import checkpoint, provenance
from cgpt.checkpoint import transformers_folder as hf_folder
from cgpt.data import content
from cgpt.data.checkpoint_files import fetch_checkpoint, needed, source_of
from cgpt.data.special_tokens import end_tokens
from cgpt.errors import UserError
from cgpt.jobs import Job
from cgpt.recipe import flops
from cgpt.records import ImportRecord, write_record
from cgpt.spec import Model


def import_checkpoint(job: Job) -> dict[str, Any]:
    """Write a checkpoint folder of what the job's row names, with run.json, the record, which is returned.

    Files that are in the cache or the mirror are not fetched again, and of one that came in part the rest is. Raises
    UserError for files that cannot be had, are not what they should be, or are of another model than the plan's.
    """
    row, config = job.published, Model(**job.spec["model"])
    assert row is not None
    folder = fetch_checkpoint(row, Path())
    print(f"import: {row.name} from {source_of(row.checkpoint)}", file=sys.stderr)
    content.verified(folder)
    read, params, tokenizer = hf_folder.read(folder)
    whole = replace(read, name=config.name, d_ffn=flops.ffn_width(read), init_std=config.init_std)
    if whole != config:
        raise UserError(f"{folder / 'config.json'}: is not the one that the plan was made of; run the workflow again")
    job.folder.mkdir(parents=True, exist_ok=True)
    ends = end_tokens(folder, tokenizer, config.vocab_size)
    hf_folder.write_tokenizer(job.folder, tokenizer, ends, config.seq_len)
    outputs = checkpoint.save(job.folder, config, params, job.folder / "tokenizer.json")
    names = needed(path.name for path in folder.iterdir())
    record = ImportRecord(
        run=job.id, stage="import", model=config.name, data=source_of(row.checkpoint),
        n_parameters=flops.n_parameters(config), n_parameters_non_embedding=flops.n_parameters_non_embedding(config),
        inputs={f"checkpoint/{name}": content.sha256_of(folder / name) for name in names}, outputs=outputs,
        **provenance.record("stages.import_checkpoint"),
    )  # fmt: skip
    write_record(job.folder / "run.json", record)
    print(f"import: {row.name}, {record.n_parameters:,} parameters", file=sys.stderr)
    return asdict(record)
