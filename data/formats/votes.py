"""Votes of the comparison page: one prompt, the answers of several arms, and how a person ranked them."""

from trimtab.data.pair import Pair, Row, RowError, make_pair, read_messages, turn


def vote_pairs(row: Row) -> list[Pair]:
    """A pair of every better with every worse answer; none where the vote prefers nothing.

    ``answers`` maps arms to texts; ``ranking`` is a list of groups of arms, best first, ties in one group
    (``[["orpo"], ["dpo", "base"]]``), or null where no answer was good. Each pair notes its arms.
    """
    prompt = read_messages(row.get("prompt"), "prompt")
    answers, ranking = row.get("answers"), row.get("ranking")
    if not isinstance(answers, dict):
        raise RowError("type", "answers must be an object of texts by arm")
    groups = _groups(ranking, set(answers))
    rest = {key: value for key, value in row.items() if key not in ("prompt", "answers", "ranking")}
    pairs = []
    for better_index, better_group in enumerate(groups):
        worse_arms = [arm for group in groups[better_index + 1 :] for arm in group]
        for better in better_group:
            for worse in worse_arms:
                chosen, rejected = ([turn("assistant", answers[arm], f"answers.{arm}")] for arm in (better, worse))
                arms = {"chosen_arm": better, "rejected_arm": worse}
                if chosen[0]["content"].strip() != rejected[0]["content"].strip():  # two arms may say the same
                    pairs.append(make_pair(prompt, chosen, rejected, rest | arms))
    return pairs


def _groups(ranking: object, arms: set[str]) -> list[list[str]]:
    if ranking is None:
        return []
    if not isinstance(ranking, list) or not all(isinstance(group, list) for group in ranking):
        raise RowError("type", "ranking must be null or a list of groups of arms, best first")
    named = [arm for group in ranking for arm in group]
    unknown = [arm for arm in named if not isinstance(arm, str) or arm not in arms]
    if unknown or len(set(named)) < len(named):
        raise RowError("type", f"ranking must name arms of answers ({', '.join(sorted(arms))}), each once")
    return ranking
