"""Log-likelihoods by lm-evaluation-harness's own Hugging Face model."""

import torch
from lm_eval.models.huggingface import HFLM
from peer import measure, read_arguments
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from cgpt.bench.inputs import requests
from cgpt.bench.measure import Steps
from cgpt.checkpoint.folder import read_config
from cgpt.data.end_tokens import END_OF_TEXT


def main() -> None:
    arguments = read_arguments(__doc__)
    torch.set_num_threads(arguments.threads)
    asked = requests(read_config(arguments.checkpoint), arguments.n_requests)
    model = AutoModelForCausalLM.from_pretrained(arguments.checkpoint, dtype=torch.float32)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(arguments.checkpoint / "tokenizer.json"), eos_token=END_OF_TEXT, pad_token=END_OF_TEXT
    )
    harness = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=arguments.batch_size)
    loglikelihoods: list[float] = []

    def step() -> None:
        loglikelihoods[:] = [answer for answer, _ in harness._loglikelihood_tokens(asked, disable_tqdm=True)]

    n_tokens = sum(len(context) + len(continuation) for _, context, continuation in asked)
    answer = {"batch_size": arguments.batch_size, "loglikelihoods": loglikelihoods}
    measure(Steps(step, n_tokens), arguments, lambda: answer)


if __name__ == "__main__":
    main()
