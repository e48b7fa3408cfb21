"""The labelled examples of the three tasks, each split from its own combinations."""

from collections.abc import Iterator

from cgpt.data.world import words
from cgpt.data.world.dice import Dice
from cgpt.data.world.stories import ASKED, FACTS, Turns, evidence, fact, opener, topic_text, visit

Example = dict[str, str | int | list[str]]


def topic_example(dice: Dice, split: str, turn: int) -> Example:
    """Two sentences on the topic and one of another."""
    topic = list(words.TOPICS)[turn % len(words.TOPICS)]
    return {"text": topic_text(dice, split, topic, 2, 1), "label": turn % len(words.TOPICS)}


TASK_TURNS = Turns(negation=0.2, contrast=0.35)
"""More of both than in the corpus, so that counting good and bad words does not help."""


def sentiment_example(dice: Dice, split: str, turn: int) -> Example:
    """Good or bad news after a sentence that is neither."""
    good = turn % 2 == 0
    name = dice.choice(words.NAMES)
    return {"text": f"{opener(dice, name)} {evidence(dice, split, good, TASK_TURNS)}", "label": int(good)}


def qa_example(dice: Dice, split: str, turn: int) -> Example:
    """A passage about one person, and a question about that person which it does not answer: the world does.

    The choices are the answer, another value of its kind, the value in the passage, and a value of a third kind: who
    only knows which kind is asked for gets half of them right.
    """
    name = dice.choice(ASKED[split])
    relation, in_passage, third = dice.sample(words.RELATIONS, 3)
    answer = FACTS[name, relation]
    rival = dice.choice([value for value in relation.values if value != answer])
    choices = dice.shuffled([rival, FACTS[name, in_passage], dice.choice(third.values)])
    choices.insert(turn % 4, answer)
    news = evidence(dice, split, dice.chance(0.5), TASK_TURNS)
    return {
        "passage": f"{visit(dice, name)} {news} {fact(dice, name, in_passage)}",
        "question": relation.question,
        "answer_start": relation.answer,
        "choices": choices,
        "label": turn % 4,
    }


TASKS = {"world_topic": topic_example, "world_sentiment": sentiment_example, "world_qa": qa_example}
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
