"""Greedy continuations by transformers' `generate` with its key-value cache."""

import torch
from peer import measure, read_arguments
from transformers import AutoModelForCausalLM

from cgpt.bench.inputs import prompts
from cgpt.bench.measure import Steps
from cgpt.checkpoint.folder import read_config


def main() -> None:
    arguments = read_arguments(__doc__)
    torch.set_num_threads(arguments.threads)
    model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None  # random weights may give any token, and all sides do all of the tokens
    prompt = torch.tensor(prompts(read_config(arguments.checkpoint), arguments.batch_size))
    options = {"attention_mask": torch.ones_like(prompt), "do_sample": False, "use_cache": True, "pad_token_id": 0}
    new: list[list[int]] = []

    def step() -> None:
        with torch.inference_mode():
            answer = model.generate(prompt, max_new_tokens=arguments.max_new_tokens, **options)
        new[:] = answer[:, prompt.shape[1] :].tolist()

    measure(Steps(step, arguments.batch_size * arguments.max_new_tokens), arguments, lambda: {"tokens": new})


if __name__ == "__main__":
    main()
