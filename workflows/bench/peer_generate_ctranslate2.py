"""Greedy continuations by CTranslate2, of an export of the model that its own converter read.

In float32, or in int8: then it rounds the weights to 8 bits (a scale per output) when it loads them, and the inputs of
each product (a scale per row) as they come.
"""

import json
import os
import tempfile
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported

import ctranslate2
from peer import measure, read_arguments
from tokenizers import Tokenizer
from transformers.utils import logging

from cgpt import checkpoint
from cgpt.bench.inputs import prompts
from cgpt.bench.measure import Steps


def main() -> None:
    arguments = read_arguments(__doc__)
    with tempfile.TemporaryDirectory(prefix="cgpt-bench-") as folder:
        converted = convert(arguments.checkpoint, Path(folder))
        words = json.loads((converted / "vocabulary.json").read_text())
        generator = ctranslate2.Generator(
            str(converted), device="cpu", compute_type=arguments.dtype, intra_threads=arguments.threads
        )
    config = checkpoint.read_config(arguments.checkpoint)
    prompt = [[words[token] for token in tokens] for tokens in prompts(config, arguments.batch_size)]
    # Random weights may give any token, and all sides do all of the tokens.
    options = {"max_length": arguments.max_new_tokens, "end_token": [], "include_prompt_in_result": False}
    new: list[list[int]] = []

    def step() -> None:
        new[:] = [answer.sequences_ids[0] for answer in generator.generate_batch(prompt, **options)]

    answers = {"tokens": new} if arguments.dtype == "float32" else {}  # rounding may give others
    measure(Steps(step, arguments.batch_size * arguments.max_new_tokens), arguments, lambda: answers)


def convert(source: Path, folder: Path) -> Path:
    """A checkpoint of ours as a folder of CTranslate2."""
    logging.disable_progress_bar()
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    checkpoint.export_hf(checkpoint.load(source)[0], tokenizer, folder / "export")
    ctranslate2.converters.TransformersConverter(str(folder / "export")).convert(str(folder / "converted"))
    return folder / "converted"


if __name__ == "__main__":
    main()
