"""The commonest answer of a model: a classifier that always gives the same has learnt nothing from its documents."""

from collections import Counter
from typing import Any


def commonest_answer(samples: list[dict[str, Any]]) -> tuple[str | None, float | None]:
    """The answer that is given to most documents of samples.jsonl, and its share of them, 0 to 1.

    A choice is named by its text where all documents have the same choices, else by its place. Both are None where a
    task has no answers, only likelihoods. Of several filters the first counts.
    """
    answered = [sample for sample in samples
                if sample["prediction"] is not None and sample.get("filter") == samples[0].get("filter")]  # fmt: skip
    if not answered:
        return None, None
    (answer, count), *_ = Counter(str(sample["prediction"]) for sample in answered).most_common(1)
    if choices := answered[0]["choices"]:
        named = len(set(choices)) == len(choices) and all(sample["choices"] == choices for sample in answered)
        answer = choices[int(answer)].strip() if named else f"choice {int(answer) + 1}"
    return answer, count / len(answered)
