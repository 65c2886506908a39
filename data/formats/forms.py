"""The forms that preference data comes in, told apart by their columns, each read into common pairs."""

from collections.abc import Callable
from dataclasses import dataclass

from trimtab.artifacts.errors import InputError
from trimtab.data.formats import conversions, transcript
from trimtab.data.formats.conversions import kind
from trimtab.data.formats.votes import vote_pairs
from trimtab.data.pair import Pair, Row

_OTHER_PROMPTS = (
    "prompt",
    "instruction",
    "question",
    "query",
    "input",
    "messages",
    "conversations",
    "conversation",
)


@dataclass(frozen=True)
class Form:
    """One form: its name (``--form``), its columns in words, where it is described, and how it is read."""

    name: str
    columns: str
    source: str
    matches: Callable[[Row], bool]
    convert: Callable[[Row], list[Pair]]


def recognise(rows: list[Row], name: str | None, where: str) -> Form:
    """The form called ``name``, or the one that fits most of ``rows``. InputError when none or several do."""
    if name is not None:
        if name not in FORMS:
            raise InputError(f"form {name!r} is not known; allowed: {', '.join(FORMS)}")
        return FORMS[name]
    fitting = {form.name: [i for i, row in enumerate(rows) if form.matches(row)] for form in FORMS.values()}
    # Most rows decide; where files mix forms, the one that comes first.
    rank = {form: (len(indices), -indices[0]) for form, indices in fitting.items() if indices}
    names = [form for form in rank if rank[form] == max(rank.values())]
    if len(names) == 1:
        return FORMS[names[0]]
    example = rows[-rank[names[0]][1]] if names else rows[0]
    columns = ", ".join(f"{column} ({kind(value)})" for column, value in example.items()) or "none"
    if names:
        raise InputError(
            f"{where}: the columns {columns} fit several forms: {', '.join(names)}; "
            f"say which it is, e.g. --form {names[0]}"
        )
    raise InputError(
        f"{where}: no form fits the columns {columns}; wanted, for one: prompt, chosen, rejected. "
        "Name a form with --form, or rename columns with --columns prompt=NAME (all forms: docs/data.md)"
    )


def _has(row: Row, **kinds: str) -> bool:
    return all(column in row and kind(row[column]) in wanted.split("|") for column, wanted in kinds.items())


_TEXTS = {"chosen": "text", "rejected": "text"}
_TRL = "https://huggingface.co/docs/trl/dataset_formats#preference"
_LLAMA_FACTORY = "https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md"


def _is_text_pair(row: Row, **prompt: str) -> bool:
    return _has(row, **prompt, **_TEXTS) and not _is_transcript(row)


def _is_transcript(row: Row) -> bool:
    return transcript.looks_like(row["chosen"]) or transcript.looks_like(row.get("prompt"))


UNPAIRED = "unpaired"
FORMS: dict[str, Form] = {
    form.name: form
    for form in (
        Form(
            "trl-conversational",
            "`prompt`, `chosen`, `rejected`: messages",
            _TRL,
            lambda row: _has(row, prompt="messages", chosen="messages", rejected="messages"),
            conversions.conversational,
        ),
        Form(
            "trl-conversational-implicit",
            "`chosen`, `rejected`: messages that begin alike",
            _TRL,
            lambda row: (
                row.get("prompt") is None
                and not _has(row, conversations="messages")
                and _has(row, chosen="messages", rejected="messages")
            ),
            conversions.conversational_implicit,
        ),
        Form(
            "trl-standard",
            "`prompt`, `chosen`, `rejected`: text; the prompt is a user turn",
            _TRL,
            lambda row: _is_text_pair(row, prompt="text"),
            conversions.standard,
        ),
        Form(
            "trl-standard-implicit",
            "`chosen`, `rejected`: texts that begin alike; the beginning is a user turn",
            _TRL,
            lambda row: _is_text_pair(row) and not any(column in row for column in _OTHER_PROMPTS),
            conversions.standard_implicit,
        ),
        Form(
            "sharegpt",
            "`conversations` (or `messages`): messages; `chosen`, `rejected`: a message",
            f"{_LLAMA_FACTORY}#preference-dataset-1",
            lambda row: (
                _has(row, chosen="message", rejected="message")
                and (_has(row, conversations="messages") or _has(row, messages="messages"))
            ),
            conversions.sharegpt,
        ),
        Form(
            "alpaca",
            "`instruction`, `chosen`, `rejected`: text (`input`, `history`)",
            f"{_LLAMA_FACTORY}#preference-dataset",
            lambda row: _is_text_pair(row, instruction="text"),
            conversions.alpaca,
        ),
        Form(
            "ms-swift",
            "`messages`: the chosen answer last; `rejected_response`: text",
            "https://swift.readthedocs.io/en/latest/Customization/Custom-dataset.html",
            lambda row: _has(row, messages="messages", rejected_response="text"),
            conversions.ms_swift,
        ),
        Form(
            "hh",
            "`chosen`, `rejected`: transcripts of `Human:` and `Assistant:` turns (`prompt`)",
            "https://huggingface.co/datasets/Anthropic/hh-rlhf",
            lambda row: _has(row, **_TEXTS) and _is_transcript(row),
            conversions.hh,
        ),
        Form(
            "ultrafeedback",
            "`prompt`: text; `chosen`, `rejected`: messages that begin with it (`messages`)",
            "https://huggingface.co/datasets/HuggingFaceH4/ultrafeedback_binarized",
            lambda row: _has(row, prompt="text", chosen="messages", rejected="messages"),
            conversions.ultrafeedback,
        ),
        Form(
            "orca",
            "`question`, `chosen`, `rejected`: text; `system`",
            "https://huggingface.co/datasets/Intel/orca_dpo_pairs",
            lambda row: _is_text_pair(row, question="text"),
            conversions.orca,
        ),
        Form(
            "openai",
            "`input`: an object with `messages`; `preferred_output`, `non_preferred_output`: messages",
            "https://platform.openai.com/docs/guides/direct-preference-optimization",
            lambda row: _has(
                row, input="object|messages", preferred_output="messages", non_preferred_output="messages"
            ),
            conversions.openai,
        ),
        Form(
            "votes",
            "`prompt`: messages; `answers`: text by arm; `ranking`: groups of arms, best first, or null",
            "docs/data.md",
            lambda row: _has(row, prompt="messages", answers="object") and "ranking" in row,
            vote_pairs,
        ),
        Form(
            UNPAIRED,
            "`prompt`, `completion`: text or messages; `label`: true or false",
            "https://huggingface.co/docs/trl/dataset_formats#unpaired-preference",
            lambda row: _has(row, prompt="text|messages", completion="text|messages") and "label" in row,
            conversions.no_pairs,
        ),
    )
}
