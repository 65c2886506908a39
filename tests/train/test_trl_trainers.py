"""What TRL's trainers are given: the same for both arms, and text that the served model sees."""

from pathlib import Path

from trimtab.data.read import read_pairs
from trimtab.data.render import render_pair
from trimtab.recipes.load import load_recipe
from trimtab.train.job import Job
from trimtab.train.trl_trainers import as_dataset, make_trl_trainer, trl_arguments

PAIRS = read_pairs("sample/train")[:8]
GOLDEN = [pair for path in sorted(Path("tests/data/golden").glob("*.jsonl")) for pair in read_pairs(str(path))]
RECIPE = load_recipe(
    "recipes/quickstart.yaml", ["train.max_steps=2", "train.per_device_train_batch_size=2", "train.lora_r=4"]
)
METRICS = {
    *("loss", "rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins"),
    *("logps/chosen", "logps/rejected", "logits/chosen", "logits/rejected"),
}


def test_arms_share_all_arguments_but_their_own() -> None:
    dpo, orpo = (trl_arguments(Job(RECIPE, arm, Path("m"), [], [], Path("w"))) for arm in ("dpo", "orpo"))
    assert {key for key in orpo if dpo[key] != orpo[key]} <= {"beta", "learning_rate", "run_name"}
    assert dpo.keys() - orpo.keys() == {"loss_type", "label_smoothing", "precompute_ref_log_probs"}
    assert dpo["learning_rate"] == RECIPE.train.dpo.learning_rate
    assert orpo["learning_rate"] == RECIPE.train.learning_rate
    assert dpo["report_to"] == ["tensorboard"]


def test_rendered_text_is_the_template_and_ends_at_the_turn(tokenizer) -> None:
    for pair in PAIRS:
        text = render_pair(tokenizer, pair)
        whole = tokenizer.apply_chat_template(pair.prompt + pair.chosen, tokenize=False)
        assert whole.strip() == text.prompt + text.chosen
        assert text.prompt == tokenizer.apply_chat_template(
            pair.prompt, tokenize=False, add_generation_prompt=True
        )
        assert text.rejected.endswith(tokenizer.eos_token)


def test_both_trainers_tokenise_to_the_same_sequences(tokenizer, tiny_model: Path, tmp_path: Path) -> None:
    rows = {}
    for arm in ("dpo", "orpo"):
        trainer = make_trl_trainer(Job(RECIPE, arm, tiny_model, PAIRS + GOLDEN, PAIRS[:2], tmp_path), [])
        rows[arm] = trainer.train_dataset
    for pair, dpo, orpo in zip(PAIRS + GOLDEN, rows["dpo"], rows["orpo"], strict=True):
        text = render_pair(tokenizer, pair)
        assert dpo["prompt_ids"] == tokenizer(text.prompt, add_special_tokens=False)["input_ids"]
        for side in ("chosen", "rejected"):
            ids = tokenizer(text.prompt + getattr(text, side), add_special_tokens=False)["input_ids"]
            assert dpo["prompt_ids"] + dpo[f"{side}_ids"] == ids
            assert orpo[f"{side}_input_ids"] == ids


def test_training_changes_only_the_adapter_and_logs_every_metric(tiny_model: Path, tmp_path: Path) -> None:
    import json

    from trimtab.train.metrics import MetricsLog

    for arm, more in (("dpo", set()), ("orpo", {"nll_loss", "log_odds_ratio", "log_odds_chosen"})):
        log = tmp_path / f"{arm}.jsonl"
        trainer = make_trl_trainer(
            Job(RECIPE, arm, tiny_model, PAIRS, PAIRS[:2], tmp_path), [MetricsLog(log, arm)]
        )
        before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
        trainer.train()
        trainer.evaluate()
        changed = {n for n, p in trainer.model.named_parameters() if not p.detach().equal(before[n])}
        assert changed
        assert all("lora_" in name for name in changed)
        logged = [json.loads(line) for line in log.read_text().splitlines()]
        keys = set().union(*logged)
        assert METRICS | more <= keys
        assert {f"eval_{key}" for key in METRICS | more} <= keys
        assert {"train_runtime", "train_samples_per_second", "train_steps_per_second"} <= keys
        assert [line["step"] for line in logged if "loss" in line] == [1, 2]


def test_a_tokenizer_that_adds_bos_gets_it_once(tokenizer) -> None:
    from copy import deepcopy

    from tokenizers.processors import TemplateProcessing

    adding = deepcopy(tokenizer)
    adding.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|im_start|> $A", special_tokens=[("<|im_start|>", 1)]
    )
    assert adding("x")["input_ids"][0] == adding.bos_token_id
    for row in as_dataset(adding, PAIRS):
        ids = adding(row["prompt"])["input_ids"]
        assert ids[0] == adding.bos_token_id
        assert ids[1] != adding.bos_token_id
