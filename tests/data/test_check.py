"""Each check finds what was put there, says how much, and names the rows."""

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trimtab.data.check.answers import LengthBias
from trimtab.data.check.classifier import preference_weights, tf_idf
from trimtab.data.check.findings import Finding, Report
from trimtab.data.check.personal import mask
from trimtab.data.check.run import Options, check, facts_of
from trimtab.data.pair import Pair
from trimtab.data.read import read_pairs
from trimtab.data.source import Source

WORDS = [
    "river",
    "lamp",
    "stone",
    "cloud",
    "apple",
    "train",
    "window",
    "garden",
    "music",
    "paper",
    "winter",
    "bridge",
]


def row(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


def sentences(count: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=12)) + f" {n}" for n in range(count)]


def good_rows(count: int) -> list[dict[str, Any]]:
    prompts, first, second = (sentences(count, seed) for seed in (1, 2, 3))
    return [row(*texts) for texts in zip(prompts, first, second, strict=True)]


def report_on(tmp_path: Path, rows: list[Any], **options: Any) -> Report:
    path = tmp_path / "pairs.jsonl"
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return check(Source(path=str(path)), Options(**options))


def finding(report: Report, name: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.check == name]
    return found


def test_good_data_has_no_findings(tmp_path: Path) -> None:
    report = report_on(tmp_path, good_rows(30))
    assert report.passed
    assert {finding.level for finding in report.findings} == {"ok"}
    assert (report.rows, report.pairs, report.form, report.unit) == (30, 30, "trl-conversational", "line")


@pytest.mark.parametrize(
    ("bad", "name"),
    [
        ({"prompt": row("q", "a", "b")["prompt"], "chosen": row("q", "a", "b")["chosen"]}, "columns"),
        (row("q", "a", "b") | {"chosen": 3}, "type"),
        (row("q", " ", "b"), "empty answer"),
        (row("q", "same", "same "), "equal answers"),
        (row("q", "a", "b") | {"prompt": [{"role": "assistant", "content": "hello"}]}, "last turn"),
        (row("q", "a", "b") | {"chosen": [{"role": "user", "content": "x"}]}, "role"),
        (b'{"prompt": "\xff"}', "utf-8"),
        (b'{"prompt": ', "json"),
    ],
)
def test_errors_are_grouped_and_named(bad: Any, name: str, tmp_path: Path) -> None:
    report = report_on(tmp_path, [*good_rows(5), bad, *good_rows(5), bad])
    assert not report.passed
    found = finding(report, name)
    assert (found.level, found.figures["count"], found.rows) == ("error", 2, [6, 12])
    assert "line 6: " in found.summary


def test_template_errors_and_token_counts(tmp_path: Path, tokenizer: Any) -> None:
    rows = [
        *good_rows(3),
        row("ignore this <|im_end|> now", "a", "b"),
        row("q", "use <filename> here", "b"),
        row("long", "word " * 300, "b"),
    ]
    report = report_on(tmp_path, rows, tokenizer=tokenizer, model="m", max_length=200)
    control = finding(report, "control tokens")
    assert (control.level, control.rows) == ("error", [4])
    assert "'<|im_end|>'" in control.summary
    assert finding(report, "special tokens").rows == [5]
    long = finding(report, "max_length")
    ids = tokenizer.apply_chat_template(rows[5]["prompt"] + rows[5]["chosen"], tokenize=False).rstrip()
    lost = len(tokenizer(ids, add_special_tokens=False)["input_ids"]) - 200
    assert (long.rows, long.figures["count"]) == ([6], 1)
    whole = sum(
        len(tokenizer(tokenizer.apply_chat_template(r["prompt"] + r[side], tokenize=False).rstrip())["input_ids"])
        for r in (*rows[:3], *rows[4:])
        for side in ("chosen", "rejected")
    )
    assert long.figures["lost_token_share"] == pytest.approx(lost / whole)


def test_rows_that_the_template_refuses(tmp_path: Path, tokenizer: Any) -> None:
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    system = row("q", "a", "b")
    system["prompt"] = [{"role": "system", "content": "s"}, *system["prompt"]]
    report = report_on(tmp_path, [*good_rows(2), system], tokenizer=strict, model="strict")
    refused = finding(report, "chat template")
    assert (refused.level, refused.rows) == ("error", [3])
    assert "no system turns" in refused.summary


def test_control_tokens_without_a_model_are_a_warning(tmp_path: Path) -> None:
    report = report_on(tmp_path, [*good_rows(3), row("say [INST] twice", "a", "b"), row("q", "<|eot_id|>", "b")])
    found = finding(report, "control tokens")
    assert (found.level, found.rows, report.passed) == ("warning", [4, 5], True)


def test_answers_too_alike(tmp_path: Path) -> None:
    text = " ".join(sentences(4))
    rows = [*good_rows(3), row("q1", text, text + "!"), row("q2", text, text[:-5])]
    found = finding(report_on(tmp_path, rows), "too alike")
    assert (found.level, found.rows, found.figures["count"]) == ("warning", [4, 5], 2)
    assert finding(report_on(tmp_path, rows, max_similarity=0.999), "too alike").level == "ok"


def test_prompts_duplicates_and_contradictions(tmp_path: Path) -> None:
    long = " ".join(sentences(5))
    rows = [
        *good_rows(3),
        row(long, "a", "b"),
        row(long + " please", "c", "d"),
        row("taste", "tea", "milk"),
        row("taste", "milk", "tea"),
        row("order", "one", "two"),
        row("order", "two", "three"),
        row("order", "three", "one"),
        row("fine", "one", "two"),
        row("fine", "two", "three"),
        row("fine", "one", "two"),
    ]
    report = report_on(tmp_path, rows)
    near = finding(report, "near-duplicate prompts")
    assert (near.figures["count"], near.figures["groups"], near.rows) == (2, 1, [4, 5])
    assert finding(report, "contradictory pairs").rows == [6, 7, 8, 9, 10]
    assert finding(report, "duplicate pairs").rows == [13]


def test_leakage(tmp_path: Path) -> None:
    heldout = tmp_path / "heldout.jsonl"
    long = " ".join(sentences(5))
    heldout.write_text(json.dumps(row("Same question?", "a", "b")) + "\n" + json.dumps(row(long, "a", "b")) + "\n")
    rows = [*good_rows(3), row("same  question", "c", "d"), row(long + " thanks", "c", "d")]
    found = finding(report_on(tmp_path, rows, heldout=Source(path=str(heldout))), "leakage")
    assert (found.level, found.rows) == ("warning", [4, 5])


def test_length_bias_figures_are_scipys_and_hand_counted() -> None:
    from scipy.stats import spearmanr

    draw, bias = np.random.default_rng(0), LengthBias(in_tokens=False)
    lengths = draw.integers(5, 80, (60, 2))
    for number, (chosen, rejected) in enumerate(lengths):
        pair = Pair([{"role": "user", "content": "q"}], *([{"role": "assistant", "content": "x"}],) * 2)
        facts = facts_of(number, number, pair)
        facts.chosen, facts.rejected = "x" * chosen, "x" * rejected
        bias.add(facts)
    found, histograms = bias.finish()
    untied = lengths[lengths[:, 0] != lengths[:, 1]]
    assert found.figures["chosen_longer_share"] == pytest.approx((untied[:, 0] > untied[:, 1]).mean())
    rho = spearmanr([*lengths[:, 0], *lengths[:, 1]], [1] * 60 + [0] * 60).statistic
    assert found.figures["rank_correlation"] == pytest.approx(rho)
    assert sum(histograms[0].series["chosen"]) == sum(histograms[2].series["pairs"]) == 60


def test_length_bias_is_found(tmp_path: Path) -> None:
    rows = [row(f"{text} {n}", text * (2 + n % 3), text) for n, text in enumerate(sentences(40))]
    found = finding(report_on(tmp_path, rows), "length bias")
    assert (found.level, found.figures["chosen_longer_share"]) == ("warning", 1.0)


@pytest.mark.parametrize("reversed_share", [0.0, 0.1, 0.2])
def test_label_noise_is_estimated(reversed_share: float, tmp_path: Path) -> None:
    pairs, draw = read_pairs("sample/train"), random.Random(5)
    flipped = set(draw.sample(range(len(pairs)), round(reversed_share * len(pairs))))
    rows = []
    for index, pair in enumerate(pairs):
        chosen, rejected = pair.answers
        rows.append(row(pair.prompt_text, *((rejected, chosen) if index in flipped else (chosen, rejected))))
    found = finding(report_on(tmp_path, rows), "label noise")
    assert found.figures["estimate"] == pytest.approx(reversed_share, abs=0.03)
    assert found.level == ("warning" if reversed_share else "ok")
    assert {number - 1 for number in found.rows} <= flipped


def test_no_estimate_where_words_do_not_tell(tmp_path: Path) -> None:
    found = finding(report_on(tmp_path, good_rows(120)), "label noise")
    assert (found.level, "not estimated" in found.summary) == ("ok", True)


def test_tf_idf_by_hand() -> None:
    matrix = tf_idf(["a b", "a b b", "c"]).toarray()
    # terms in two texts or more: a, b, "a b"; each in two of three texts, so of one idf, which cancels
    assert matrix.shape == (3, 3)
    weights = sorted([1.0, 1.0, 1 + np.log(2)])
    assert sorted(matrix[1]) == pytest.approx([weight / np.linalg.norm(weights) for weight in weights])
    assert list(matrix[2]) == [0, 0, 0]


def test_classifier_is_at_its_minimum() -> None:
    """The gradient of the stated loss vanishes, checked in float64 without the code's own gradient."""
    draw = np.random.default_rng(0)
    from scipy.sparse import csr_array

    x = draw.normal(size=(80, 6))
    weights = preference_weights(csr_array(x), strength=2.0)

    def loss(w: np.ndarray) -> float:
        return float(w @ w / 2 + 2.0 * np.log1p(np.exp(-x @ w)).sum())

    steps = np.eye(6) * 1e-5
    gradient = [(loss(weights + step) - loss(weights - step)) / 2e-5 for step in steps]
    assert np.abs(gradient).max() < 1e-2 * loss(np.zeros(6)) / 10


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("write to bob.smith+x@mail.acme.co.uk now", "write to [e-mail] now"),
        ("write to me@example.com now", None),
        ("call +1 (415) 555-0132 today", "call [phone] today"),
        ("call 020 7946 0958 today", "call [phone] today"),
        ("from 2019-2020 to 2024-01-02 at 12:30", None),
        ("pay 4111 1111 1111 1111 once", "pay [card] once"),
        ("pay 5555555555554444 once", "pay [card] once"),
        ("pay 4111 1111 1111 1112 once", None),
        ("pi is 3.14159265358979323846", None),
        ("sk-abcdefghij0123456789XYZ", "[key]"),
        ("AKIAIOSFODNN7EXAMPLE", "[key]"),
        ("-----BEGIN RSA PRIVATE KEY-----", "[key]"),
        ("a -----BEGIN PRIVATE KEY-----\nMIIEvQ+/ab==\n-----END PRIVATE KEY----- b", "a [key] b"),
        ("a risk-averse task-oriented sketch", None),
    ],
)
def test_personal_data_patterns(text: str, masked: str | None, tmp_path: Path) -> None:
    assert mask(text)[0] == (masked or text)
    found = finding(report_on(tmp_path, [*good_rows(2), row("q", text, "b")]), "personal data")
    assert found.rows == ([3] if masked else [])
    assert text not in found.summary


def test_a_file_of_errors_only_is_reported_not_crashed_on(tmp_path: Path, tokenizer: Any) -> None:
    report = report_on(tmp_path, [b"{", b"[]x"])
    assert not report.passed
    assert report.pairs == 0
    report = report_on(tmp_path, [row("<|im_end|>", "a", "b")], tokenizer=tokenizer, model="m")
    assert [finding.check for finding in report.findings] == ["control tokens", "pairs"]
