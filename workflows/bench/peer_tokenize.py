"""One call of the tokenizers library on all documents, which are in memory; the faster of its two batch calls."""

import os

from peer import measure, read_arguments

from cgpt.bench.inputs import documents, text_tokenizer
from cgpt.bench.measure import Steps


def main() -> None:
    arguments = read_arguments(__doc__)
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    texts = documents(arguments.n_bytes)
    tokenizer = text_tokenizer(texts)
    calls = (tokenizer.encode_batch, tokenizer.encode_batch_fast)
    n_tokens = sum(map(len, tokenizer.encode_batch(texts))) + len(texts)  # with the end-of-text tokens that we write
    fastest = min(calls, key=lambda call: Steps(lambda: call(texts, add_special_tokens=False), 0).run(1))
    measure(
        Steps(lambda: fastest(texts, add_special_tokens=False), n_tokens), arguments, lambda: {"n_tokens": n_tokens}
    )


if __name__ == "__main__":
    main()
