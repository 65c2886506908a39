"""What a sweep shows: the data behind its plots, the plots, the names in its table."""

from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial
from PIL import Image

from trimtab.train.sweep.plots import draw_history, draw_importance, history, importances
from trimtab.train.sweep.table import short_names


def finished_study(values: list[float], direction: str = "maximize") -> optuna.Study:
    """A study whose objective goes by the first of two parameters."""
    study = optuna.create_study(direction=direction)
    width = optuna.distributions.FloatDistribution(0, 1)
    for place, value in enumerate(values):
        params = {"train.orpo.beta": value, "train.lora_dropout": (place * 0.37) % 1}
        study.add_trial(
            create_trial(
                params=params,
                distributions=dict.fromkeys(params, width),
                value=value,
                user_attrs={"accuracy": value, "loss": value, "values": params},
            )
        )
    return study


def test_history_shows_each_trial_and_the_best_so_far(tmp_path: Path) -> None:
    study = finished_study([0.5, 0.25, 0.75])
    study.add_trial(create_trial(state=TrialState.FAIL, user_attrs={"reason": "diverged", "accuracy": 0.9}))
    study.add_trial(create_trial(state=TrialState.PRUNED, user_attrs={"accuracy": 0.8}))
    shown = history(study.trials, "accuracy")
    assert shown.done == [(0, 0.5), (1, 0.25), (2, 0.75)]
    assert (shown.failed, shown.pruned) == ([3], [(4, 0.8)])
    assert [best for _, best in shown.best_so_far] == [0.5, 0.5, 0.75, 0.75, 0.75]
    lowest = history(finished_study([0.5, 0.25, 0.75], "minimize").trials, "loss")
    assert [best for _, best in lowest.best_so_far] == [0.5, 0.25, 0.25]
    draw_history(study.trials, "accuracy", "orpo", tmp_path / "history.png")
    with Image.open(tmp_path / "history.png") as image:
        image.load()
        assert len(image.getcolors(1 << 20) or []) > 20  # something is on it


@pytest.mark.parametrize("direction", ["maximize", "minimize"])
def test_importance_finds_the_key_that_decides(direction: str, tmp_path: Path) -> None:
    study = finished_study([(place * 0.61) % 1 for place in range(40)], direction)
    shares = importances(study)
    assert isinstance(shares, dict)
    assert shares["train.orpo.beta"] > 0.8 and sum(shares.values()) == pytest.approx(1)
    out = tmp_path / "importance.png"
    assert draw_importance(study, short_names(list(shares)), "orpo", out) is None
    with Image.open(out) as image:
        image.load()
        assert image.format == "PNG"
    few = finished_study([0.1, 0.2])
    assert draw_importance(few, {}, "orpo", out) == "it takes 10 trials done, there are 2"
    assert not out.exists()


def test_names_in_the_table_tell_the_keys_apart() -> None:
    assert short_names(["train.lora_r", "train.orpo.beta", "train.learning_rate", "train.orpo.learning_rate"]) == {
        "train.lora_r": "lora_r",
        "train.orpo.beta": "beta",
        "train.learning_rate": "train.learning_rate",
        "train.orpo.learning_rate": "orpo.learning_rate",
    }
