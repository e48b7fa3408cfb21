"""The labelled examples of the three tasks, each split from its own combinations."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cgpt.world import words
from cgpt.world.dice import Dice
from cgpt.world.stories import Turns, evidence, facts, opener, passage, topic_text

Example = dict[str, str | int | list[str]]


def topic_example(dice: Dice, split: str, turn: int) -> Example:
    """Two sentences on the topic and one of another."""
    topic = list(words.TOPICS)[turn % len(words.TOPICS)]
    return {"text": topic_text(dice, split, topic, 2, 1), "label": turn % len(words.TOPICS)}


TASK_TURNS = Turns(negation=0.25, contrast=0.4)
"""More of both than in the corpus, so that counting good and bad words does not help."""


def sentiment_example(dice: Dice, split: str, turn: int) -> Example:
    """Good or bad news after a sentence that is neither."""
    good = turn % 2 == 0
    name = dice.choice(words.NAMES)
    return {"text": f"{opener(dice, name)} {evidence(dice, split, good, TASK_TURNS)}", "label": int(good)}


def qa_example(dice: Dice, split: str, turn: int) -> Example:
    """Two facts about each of two people and a question about one; the choices are the four values.

    Who knows which values answer the question, but not whose they are, gets half of them right.
    """
    told = facts(dice, split, 2, 2)
    asked = dice.choice(told)
    choices = dice.shuffled([fact.value for fact in told if fact is not asked])
    choices.insert(turn % 4, asked.value)
    return {
        "passage": passage(dice, told),
        "question": asked.question,
        "answer_start": asked.answer_start,
        "choices": choices,
        "label": turn % 4,
    }


TASKS: dict[str, Callable[[Dice, str, int], Example]] = {
    "world_topic": topic_example,
    "world_sentiment": sentiment_example,
    "world_qa": qa_example,
}
N_EXAMPLES = {"train": 2000, "validation": 500, "test": 1000}


def examples(dice: Dice, task: str, split: str) -> Iterator[Example]:
    """The examples of a split, no two with the same text; labels take turns, so every label is equally frequent."""
    seen: set[str] = set()
    while len(seen) < N_EXAMPLES[split]:
        example = TASKS[task](dice, split, len(seen))
        text = str(example.get("text") or f"{example['passage']} {example['question']}")
        if text not in seen:
            seen.add(text)
            yield example
