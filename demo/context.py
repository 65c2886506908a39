"""What the views of one page share."""

import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import gradio as gr
from openai import AsyncOpenAI

from trimtab.data.pair import Message, Pair
from trimtab.data.style import in_chosen_style
from trimtab.demo.access import Visitors
from trimtab.demo.arm import Arm
from trimtab.demo.running import Running
from trimtab.demo.sampling import Sampling
from trimtab.demo.stream import Progress, client_of, stream_answer
from trimtab.demo.votes import VoteStore


@dataclass
class Context:
    """Arms and their clients, held-out examples, the votes' store (None: none are kept), who may ask how often.

    ``visibility`` is Gradio's ``api_visibility`` of every event: ``private`` closes the page's API.
    """

    arms: tuple[Arm, ...]
    examples: Sequence[Pair] = ()
    sampling: Sampling = field(default_factory=Sampling)
    store: VoteStore | None = None
    visitors: Visitors = field(default_factory=Visitors)
    visibility: str = "private"
    running: Running = field(default_factory=Running)

    def __post_init__(self) -> None:
        self.clients: list[AsyncOpenAI] = [client_of(arm) for arm in self.arms]
        styled = sum(in_chosen_style(pair.answers[0]) for pair in self.examples)
        self.style = 2 * styled > len(self.examples)  # most chosen answers have it: its score is shown

    async def answers(
        self, index: int, messages: Sequence[Message], sampling: Sampling, repeats: int, request: gr.Request
    ) -> AsyncIterator[tuple[Progress, ...]]:
        """Arm ``index``'s answers, ``repeats`` at once with a seed each; or why they are not asked for."""
        refused = await self.visitors.refusal(request, repeats)
        if refused:
            yield (Progress(done=True, error=refused),)
            return
        arm, client = self.arms[index], self.clients[index]
        sources = [
            stream_answer(client, arm.model, messages, sampling.repeated(times)) for times in range(repeats)
        ]
        async for latest in self.running.follow(session(request), sources):
            yield latest

    def another(self) -> Pair | None:
        """A held-out example by chance; None where there is none."""
        return random.choice(self.examples) if self.examples else None  # noqa: S311 - nobody gains by guessing


def session(request: gr.Request) -> str:
    """The open page that asks: one a tab."""
    return str(request.session_hash)
