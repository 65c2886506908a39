"""The chosen style, by its definition."""

import pytest

from trimtab.data.style import MAX_WORDS, in_chosen_style, style_faults, word_count

GOOD = (
    "Tea is made with hot water.\n\n- Green tea likes 80 degrees.\n- Black tea likes 95.\n\n"
    "Next step: Boil the kettle."
)


def test_the_style_itself() -> None:
    assert in_chosen_style(GOOD)
    assert in_chosen_style(GOOD.replace("\n\n", "\n"))
    assert in_chosen_style(GOOD.replace("hot water", "about 2.5 dl of water, e.g. Scottish water"))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("", "empty answer"),
        ("Tea is nice.", "0 bullet points"),
        (GOOD.replace("hot water.", "hot water. It is old."), "2 sentences"),
        (GOOD.replace("hot water.", "hot water"), "0 sentences"),
        (GOOD.replace("- Black tea likes 95.\n", ""), "1 bullet points"),
        (GOOD.replace("- Black", "- Oolong.\n- White.\n- Black"), "4 bullet points"),
        (GOOD.replace("Next step:", "Next:"), "no single line 'Next step"),
        (GOOD.replace("Boil the kettle.", ""), "no single line 'Next step"),
        (GOOD + "\nEnjoy!", "out of the order"),
        (GOOD.removeprefix("Tea is made with hot water.\n\n"), "no direct answer"),
        (GOOD.replace("kettle", "kettle " * MAX_WORDS), f"more than {MAX_WORDS}"),
    ],
)
def test_faults_are_named(answer: str, fault: str) -> None:
    assert fault in "; ".join(style_faults(answer))


def test_bullet_signs_are_no_words() -> None:
    assert word_count("- one two\n- three") == 3
