"""The builtin world is the same everywhere, its tasks are balanced, and what they ask was never told."""

import hashlib
import itertools
import json
import re
from collections import Counter

import pytest

from cgpt.data.world import words, write_world
from cgpt.data.world.dice import GROUPS, Dice, split_of
from cgpt.data.world.stories import FACTS, question, sentence
from cgpt.data.world.tasks import N_EXAMPLES, TASKS

SHA256_OF_SEED_0 = "e951ba824a987a1c70810006aface9765077cac978ae55481b92b046cb2c495c"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("world")
    write_world(0, out)
    return out


def rows(folder, task, split):
    return [json.loads(line) for line in (folder / f"{task}_{split}.jsonl").read_text().splitlines()]


def corpus(folder):
    return [json.loads(line)["text"] for line in (folder / "corpus.jsonl").read_text().splitlines()]


def text_of(row):
    return row.get("text") or row["passage"]


def sentences(text):
    return [s.strip() for s in re.split(r"[.?\n]", text) if s.strip()]


def learned(folder, task):
    """All text that a model may have learned from before it is asked: the corpus and the task's training split."""
    return "\n".join(corpus(folder) + [text_of(row) for row in rows(folder, task, "train")])


def asked(folder, task, split):
    return "\n".join(text_of(row) for row in rows(folder, task, split))


def cells_in(text, rows_, columns, pattern):
    """Splits of the (row, column) cells that a pattern with groups r and c finds in the text."""
    cells = {(match["r"], match["c"]) for match in re.finditer(pattern, text)}
    return {split_of(rows_.index(r), columns.index(c)) for r, c in cells if r in rows_ and c in columns}


def asked_about(prompts):
    """Who is asked about: the one name in each prompt."""
    return {word for prompt in prompts for word in re.findall(r"\w+", prompt) if word in words.NAMES}


def qa_prompts(folder, split):
    form = "{passage}\nQuestion: {question}\nAnswer: {answer_start}"
    return [form.format(**row) for row in rows(folder, "world_qa", split)]


def thing_cells(text):
    """Splits of the (thing, adjective) pairs in the text."""
    verbs = "|".join(sorted(words.AFFIRMED + words.NEGATED, key=len, reverse=True))
    pattern = rf"\b[Tt]he (?P<r>\w+) (?:{verbs}) (?P<c>\w+)"
    return set().union(*(cells_in(text, words.THINGS, columns, pattern) for columns in words.ADJECTIVES.values()))


def topic_cells(text, topic):
    """Splits of the (pattern, noun) pairs in the text, among the patterns that only this topic has."""
    cells = set()
    for row, pattern in enumerate(topic.patterns):
        if sum(pattern in other.patterns for other in words.TOPICS.values()) == 1:
            form = sentence(pattern).replace("{n}", r"\w+").replace("{N}", r"\w+").replace("{x}", r"(\w+)")
            cells |= {split_of(row, topic.nouns.index(noun)) for noun in set(re.findall(form, text))}
    return cells


def test_seed_0_gives_the_same_bytes_on_every_machine(folder):
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    assert digest.hexdigest() == SHA256_OF_SEED_0


def test_another_seed_gives_another_world(folder, tmp_path):
    write_world(1, tmp_path)
    assert (tmp_path / "corpus.jsonl").read_bytes() != (folder / "corpus.jsonl").read_bytes()


def test_write_world_names_exactly_the_files_it_wrote(tmp_path):
    assert sorted(write_world(2, tmp_path)) == sorted(path.name for path in tmp_path.iterdir())


def test_crossed_columns_divide_into_the_groups_without_rest_or_repetition():
    tables = [words.NAMES, *words.ADJECTIVES.values(), *words.FEELINGS.values()]
    tables += [words.RELATIONS]
    tables += [topic.nouns for topic in words.TOPICS.values()]
    for table in tables:
        assert len(table) % GROUPS == 0, table
        assert len(set(table)) == len(table), table


def test_sample_and_shuffle_lose_and_repeat_nothing():
    dice = Dice(3)
    assert sorted(dice.shuffled(range(10))) == list(range(10))
    assert len(set(dice.sample(range(10), 4))) == 4


def test_documents_are_short_plain_and_few_in_words(folder):
    documents = corpus(folder)
    size_bytes = (folder / "corpus.jsonl").stat().st_size
    assert 2.5e6 < size_bytes < 4.5e6
    assert max(map(len, documents)) < 470
    assert all(document.isascii() for document in documents)
    assert 250 < len({word.lower() for document in documents for word in re.findall(r"[A-Za-z]+", document)}) < 900


@pytest.mark.parametrize("task", TASKS)
def test_labels_are_balanced_and_no_text_repeats_within_or_between_splits(folder, task):
    seen = set()
    for split, n in N_EXAMPLES.items():
        examples = rows(folder, task, split)
        assert len(examples) == n
        counts = Counter(example["label"] for example in examples)
        assert max(counts.values()) == min(counts.values())
        texts = {text_of(example) + str(example.get("question")) for example in examples}
        assert len(texts) == n and not texts & seen
        seen |= texts


def test_qa_asks_about_people_whom_neither_corpus_nor_training_asks_about(folder):
    asking = [document for document in corpus(folder) if "\nQuestion: " in document]
    train = asked_about(asking)
    validation, test = (asked_about(qa_prompts(folder, split)) for split in ("validation", "test"))
    assert train == asked_about(qa_prompts(folder, "train"))
    assert train | validation | test == set(words.NAMES)
    assert len(train) + len(validation) + len(test) == len(words.NAMES)


def test_every_fact_is_told_in_the_corpus_and_never_another_value(folder):
    text = "\n".join(corpus(folder))
    for relation in words.RELATIONS:
        for statement in relation.statements:
            pattern = re.sub("^the", "[Tt]he", statement).replace("{n}", r"(?P<n>\w+)").replace("{v}", r"(?P<v>\w+)")
            pairs = {(match["n"], match["v"]) for match in re.finditer(rf"\b{pattern}", text)}
            stated = {(name, value) for name, value in pairs if name in words.NAMES and value in relation.values}
            assert stated == {(name, FACTS[name, relation]) for name in words.NAMES}


def test_as_many_people_share_each_value():
    for relation in words.RELATIONS:
        assert set(Counter(FACTS[name, relation] for name in words.NAMES).values()) == {4}


def test_sentiment_judges_things_by_words_that_neither_corpus_nor_training_gives_them(folder):
    assert thing_cells(asked(folder, "world_sentiment", "test")) == {"test"}
    assert thing_cells(asked(folder, "world_sentiment", "validation")) == {"validation"}
    assert thing_cells(learned(folder, "world_sentiment")) == {"train"}


@pytest.mark.parametrize("name", words.TOPICS)
def test_topic_sentences_combine_words_as_neither_corpus_nor_training_does(folder, name):
    topic = words.TOPICS[name]
    assert topic_cells(asked(folder, "world_topic", "test"), topic) == {"test"}
    assert topic_cells(asked(folder, "world_topic", "validation"), topic) == {"validation"}
    assert topic_cells(learned(folder, "world_topic"), topic) == {"train"}


def test_qa_answers_are_the_facts_and_the_passage_tells_another_one(folder):
    for row in rows(folder, "world_qa", "test"):
        vocabulary = set(re.findall(r"\w+", row["passage"]))
        (name,) = vocabulary & set(words.NAMES)
        (relation,) = (relation for relation in words.RELATIONS if relation.question == row["question"])
        answer = row["choices"][row["label"]]
        assert answer == FACTS[name, relation] and answer not in vocabulary
        assert len(set(row["choices"])) == 4 and len(set(row["choices"]) & vocabulary) == 1
        assert sum(choice in relation.values for choice in row["choices"]) == 2


def test_qa_prompt_has_the_form_that_the_corpus_has(folder):
    text = "\n".join(corpus(folder))
    for relation in words.RELATIONS:
        assert f"{question(relation)} " in text


def test_topics_share_words_so_that_one_word_is_often_not_enough():
    nouns = Counter(itertools.chain.from_iterable(topic.nouns for topic in words.TOPICS.values()))
    patterns = Counter(itertools.chain.from_iterable(topic.patterns for topic in words.TOPICS.values()))
    assert sum(n > 1 for n in nouns.values()) >= 10
    assert sum(n > 1 for n in patterns.values()) == 4


def test_counting_words_does_not_solve_sentiment(folder):
    sklearn_text = pytest.importorskip("sklearn.feature_extraction.text", reason="the baseline is scikit-learn's")
    from sklearn.linear_model import LogisticRegression

    train, test = rows(folder, "world_sentiment", "train"), rows(folder, "world_sentiment", "test")
    counts = sklearn_text.CountVectorizer()
    model = LogisticRegression(max_iter=1000)
    model.fit(counts.fit_transform(text_of(row) for row in train), [row["label"] for row in train])
    accuracy = model.score(counts.transform(text_of(row) for row in test), [row["label"] for row in test])
    assert accuracy <= 0.70
