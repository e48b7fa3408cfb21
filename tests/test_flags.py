"""Results that a reader must not take as they stand are flagged in the table, by rules that stand under it."""

from __future__ import annotations

import results_fixture as made
from test_tabulate import change, markdown_tables

from cgpt.report.tables import tabulate
from cgpt.tasks.answers import commonest_answer

SIZE = "gpt-90k (90.1 K parameters)"


def sample(doc_id: int, prediction: int | str | None, choices: list[str] | None = None, name: str = "none") -> dict:
    return {"doc_id": doc_id, "prediction": prediction, "choices": choices, "filter": name}


def test_the_commonest_answer_is_a_choice_by_its_text_and_its_share_of_the_documents() -> None:
    samples = [sample(n, int(n == 0), [" bad", " good"]) for n in range(4)]
    assert commonest_answer(samples) == ("bad", 0.75)


def test_choices_that_differ_from_document_to_document_are_named_by_their_place() -> None:
    samples = [sample(n, 1, [f" {n}", f" {n + 1}"]) for n in range(3)]
    assert commonest_answer(samples) == ("choice 2", 1.0)
    same_continuations = [sample(n, 0, [" is late", " is late"]) for n in range(3)]  # where prompts are the choices
    assert commonest_answer(same_continuations) == ("choice 1", 1.0)


def test_of_several_filters_the_first_counts_and_likelihoods_alone_are_no_answer() -> None:
    made_up = [sample(n, text, None, name) for n, text in enumerate("aab") for name, text in (("x", text), ("y", "z"))]
    assert commonest_answer(made_up) == ("a", 2 / 3)
    assert commonest_answer([sample(0, None)]) == commonest_answer([]) == (None, None)


def flagged(tmp_path, n_samples: int = 400, **answers: tuple[str, float]) -> str:
    """The page where zero-shot models of `topic` give these answers, by seed."""
    experiment, plan = made.make_results(tmp_path)
    for seed, (answer, share) in answers.items():
        path = tmp_path / f"runs/evaluate/gpt-90k.world.{seed}.topic-e/scores.json"
        change(path, commonest_answer=answer, commonest_answer_share=share, n_samples=n_samples)
    tabulate(experiment, plan, tmp_path)
    return (tmp_path / "made-up" / "table.md").read_text()


def test_a_classifier_that_always_answers_one_class_is_flagged_with_the_class_and_the_rule(tmp_path) -> None:
    text = flagged(tmp_path, s0=("negative", 1.0), s1=("negative", 1.0))
    assert "† topic, zero-shot, gpt-90k: one answer: 'negative' to 100 % of the documents." in text
    assert "† one answer: the model gives the same answer to 99 % of the documents or more" in text
    scores, bits, _ = markdown_tables(tmp_path / "made-up" / "table.md")
    marked = [(line["task"], line["condition"], name) for line in scores for name, cell in line.items() if "†" in cell]
    assert marked == [("topic", "zero-shot", SIZE)]
    assert not [cell for line in bits for cell in line.values() if "†" in cell]  # a likelihood is not of an answer


def test_one_seed_of_two_is_named_and_two_answers_are_both_told(tmp_path) -> None:
    text = flagged(tmp_path / "one", s0=("a", 1.0), s1=("a", 0.6))
    assert "one answer of seed 0: 'a' to 100 % of the documents." in text
    text = flagged(tmp_path / "two", s0=("a", 1.0), s1=("b", 0.995))
    assert "one answer: 'a' to 100 %, 'b' to 99.5 % of the documents." in text


def test_varied_answers_few_documents_and_records_that_do_not_say_are_not_flagged(tmp_path) -> None:
    assert "†" not in flagged(tmp_path / "varied", s0=("a", 0.9), s1=("b", 0.5))
    assert "†" not in flagged(tmp_path / "few", n_samples=9, s0=("a", 1.0))
    assert "†" not in flagged(tmp_path / "old")


def test_a_score_of_a_seed_far_from_the_others_is_flagged(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path, seeds=(0, 1, 2))
    path = tmp_path / "runs/evaluate/gpt-1m.world.s2.mood.pretrained.mood-e/scores.json"
    record = made.scores_json("", "mood", "finetune", 0.30)
    change(path, scores=record["scores"])
    tabulate(experiment, plan, tmp_path)
    text = (tmp_path / "made-up" / "table.md").read_text()
    assert "† mood, fine-tuned, gpt-1m: seed apart: seed 2 at 0.300, the others at 0.830 to 0.850." in text
    assert "3 standard errors of a difference; it is part of the mean." in text


def test_a_pretraining_loss_of_3_27_beside_1_52_is_flagged(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for seed, loss in ((0, 1.52), (1, 3.27)):
        change(tmp_path / f"runs/pretrain/gpt-1m.world.s{seed}/run.json", validation_loss=loss)
    tabulate(experiment, plan, tmp_path)
    text = (tmp_path / "made-up" / "table.md").read_text()
    assert "† gpt-1m: seed apart: seed 0 at 1.520, seed 1 at 3.270." in text


def test_seeds_apart_that_three_decimals_would_make_equal_are_given_with_three_digits(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    for seed, loss in ((0, 0.0000123), (1, 0.0000387)):
        change(tmp_path / f"runs/pretrain/gpt-1m.world.s{seed}/run.json", validation_loss=loss)
    tabulate(experiment, plan, tmp_path)
    text = (tmp_path / "made-up" / "table.md").read_text()
    assert "† gpt-1m: seed apart: seed 0 at 1.23e-05, seed 1 at 3.87e-05." in text


def test_a_loss_that_is_not_known_is_said_to_be_so(tmp_path) -> None:
    experiment, plan = made.make_results(tmp_path)
    change(tmp_path / "runs/pretrain/gpt-1m.world.s0/run.json", validation_loss=None)
    tabulate(experiment, plan, tmp_path)
    assert "† gpt-1m: no validation loss of seed 0." in (tmp_path / "made-up" / "table.md").read_text()
