"""Recipes: all shipped ones load; mistakes are named with what is meant."""

import re
from pathlib import Path

import pytest
import yaml

from trimtab.artifacts.errors import InputError
from trimtab.recipes.load import ORPO_BETA_ALIASES, load_demo_section, load_recipe
from trimtab.recipes.schema import TrainSection

SHIPPED = sorted(Path("recipes").glob("*.yaml"))


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: p.stem)
def test_shipped_recipes_load(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.arms[0] == "base"


def test_arms_differ_only_in_their_own_section() -> None:
    recipe = load_recipe("recipes/quickstart.yaml", ["train.orpo.beta=0.2", "train.learning_rate=1e-4"])
    assert recipe.train.orpo.beta == 0.2
    assert recipe.train.arm("orpo").learning_rate == 1e-4


def test_overrides_win_and_numbers_are_numbers() -> None:
    recipe = load_recipe("recipes/quickstart.yaml", ["train.max_steps=3", "model=./here", "train.arms=[orpo]"])
    assert recipe.train.max_steps == 3
    assert recipe.model.name_or_path == "./here"
    assert recipe.arms == ("base", "orpo")


@pytest.mark.parametrize("alias", ORPO_BETA_ALIASES)
def test_orpo_weight_aliases(alias: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path, f"name: r\ntrain:\n  orpo:\n    {alias}: 0.25\n")
    assert load_recipe(path).train.orpo.beta == 0.25
    assert alias in capsys.readouterr().err
    both = write(tmp_path, f"name: r\ntrain:\n  orpo:\n    {alias}: 0.25\n    beta: 0.1\n")
    with pytest.raises(InputError, match=alias):
        load_recipe(both)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: r\ntrain:\n  learning_rte: 1\n", "'train.learning_rte'; did you mean 'learning_rate'"),
        ("name: r\ntrian: {}\n", "did you mean 'train'"),
        ("name: r\nexport:\n  quantize:\n    gptq:\n      group_sise: 32\n", "did you mean 'group_size'"),
        ("name: r\ntrain:\n  qqqqqq: 1\n", "train takes: arms, engine, max_steps"),
        ("name: r\ntrain:\n  max_steps: 0\n", "train.max_steps: input should be greater than or equal to 1"),
        ("name: r\ntrain:\n  arms: [dpo, dpo]\n", "each arm once"),
        ("name: r\ntrain:\n  arms: [ppo]\n", "'sft', 'dpo', 'sft-dpo' or 'orpo'"),
        ("name: r\ndemo:\n  host: 0.0.0.0\n", "demo: host 0.0.0.0 is open to other machines"),
        ("name: r\ndemo:\n  share: true\n", "unknown key 'demo.share'"),
        ("name: r\ndemo:\n  endpoints: [{url: 'http://u:p@h/v1'}]\n", "holds no key, password or query"),
        ("name: r\ndemo:\n  endpoints: [{url: 'h:80'}]\n", "needs the form http://HOST:PORT/v1"),
        ("name: r\ndemo:\n  endpoints: [{url: 'http://h', key_env: 'a b'}]\n", "string should match pattern"),
        ("name: r\ndemo:\n  judge: {url: 'http://h'}\n", "demo.judge.model: field required"),
        ("name: r\ndemo:\n  judge: {url: 'http://h', model: m, key: x}\n", "did you mean 'key_env'"),
        (
            "name: r\ncompare:\n  judge: {base_url: 'http://h', model: m}\n",
            "'compare.judge.base_url'; did you mean 'url'",
        ),
        ("name: ../up\n", "name: "),
        ("seed: 1\n", "name: field required"),
        ("name: [\n", "not valid YAML"),
        ("just text\n", "needs a mapping"),
    ],
)
def test_mistakes_are_named(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(write(tmp_path, text))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_the_demo_section_of_a_page_that_others_open(tmp_path: Path) -> None:
    text = "name: r\ndemo:\n  host: 0.0.0.0\n  auth_file: logins.txt\n  endpoints:\n  - url: http://h:1\n"
    recipe = load_recipe(write(tmp_path, text))
    assert (recipe.demo.on_loopback, recipe.demo.open_api) == (False, False)
    assert recipe.demo.endpoints[0].url == "http://h:1/v1"
    assert recipe.votes_path == Path("runs/r/votes.sqlite")
    assert load_recipe(write(tmp_path, f"{text}  votes: v.sqlite\n")).votes_path == Path("v.sqlite")
    assert load_demo_section(["demo.port=7861"]).port == 7861
    with pytest.raises(InputError, match="unknown key 'serve'"):
        load_demo_section(["serve.port=1"])


@pytest.mark.parametrize("override", ["train.max_steps", "=3", "train..x=1", "name.x=1"])
def test_malformed_overrides(override: str) -> None:
    with pytest.raises(InputError, match="override"):
        load_recipe("recipes/quickstart.yaml", [override])


def test_missing_recipe_names_the_shipped_ones() -> None:
    with pytest.raises(InputError, match=r"quickstart\.yaml"):
        load_recipe("nowhere.yaml")


def test_docs_list_every_key_of_train_with_its_default() -> None:
    text = Path("docs/training.md").read_text()
    table = re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \| .+ \|$", text, re.MULTILINE)
    keys: dict[str, object] = {}
    for name, value in TrainSection().model_dump(mode="json").items():
        keys |= (
            {f"{name}.{own}": default for own, default in value.items()}
            if isinstance(value, dict)
            else {name: value}
        )
    assert {name: yaml.safe_load(default) for name, default in table} == keys
    assert [name for name, _ in table] == list(keys)
