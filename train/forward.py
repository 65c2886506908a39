"""A causal LM whose forward pass gives log-probabilities of packed pairs' targets instead of logits."""

from types import MethodType
from typing import Any, NamedTuple

from torch import Tensor

from trimtab.train.attention import NAME, attention_plan
from trimtab.train.packing import PackedPairs
from trimtab.train.token_logprobs import token_logprobs


class Targets(NamedTuple):
    """Of each target of a packed row: its log-probability, and the mean of the logits before it if asked for."""

    logprobs: Tensor
    logits: Tensor | None


def use_pair_forward(model: Any) -> Any:
    """``model``, a transformers causal LM, set to give ``Targets`` for what ``target_logprobs`` hands it.

    It is the model's own forward that is replaced, so that whatever wraps the model (PEFT, DDP, FSDP2) still runs.
    """
    model.set_attn_implementation(NAME)
    model.forward = MethodType(_forward, model)
    return model


def target_logprobs(model: Any, batch: PackedPairs, *, log_logits: bool = False) -> Targets:
    """``batch`` through ``model``, which ``use_pair_forward`` has prepared, wrapped or not."""
    found: Targets = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        predictors=batch.predictors,
        targets=batch.targets,
        plan=attention_plan(batch),
        log_logits=log_logits,
    )
    return found


def _forward(
    self: Any,
    input_ids: Tensor,
    position_ids: Tensor,
    predictors: Tensor,
    targets: Tensor,
    plan: Any,
    log_logits: bool,
    **unused: Any,
) -> Targets:
    output = self.get_decoder()(input_ids=input_ids, position_ids=position_ids, use_cache=False, plan=plan)
    hidden = output.last_hidden_state[0].index_select(0, predictors)
    head = self.get_output_embeddings()
    logits = None
    if log_logits:  # the mean over the vocabulary is linear: one product with the mean row
        mean_row, bias = head.weight.detach().mean(0), getattr(head, "bias", None)
        logits = (hidden.detach() @ mean_row).float() + (0 if bias is None else bias.detach().mean())
    return Targets(token_logprobs(hidden, head.weight, targets, getattr(head, "bias", None)), logits)
