"""What a run will cost, before it starts: an estimate, and what it cannot exceed. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from services.ai_worker.claude import most_output_tokens
from services.ai_worker.message_analysis import answer_schema, data, instructions, workspace_instructions
from services.ai_worker.pricing import Usage, cost_usd
from services.ai_worker.prompt import delimited
from tests.evals.ask import Candidate
from tests.evals.sets import LabelledSet

# Characters to a token: about 4 in English, fewer in other languages and in JSON. Rather too dear than too cheap.
_CHARACTERS_PER_TOKEN = 3.0
_OUTPUT_PER_MESSAGE = 450  # what claude.py reckons with for the longest texts we ask for


@dataclass(frozen=True, slots=True)
class Estimate:
    """USD; `calls` without second tries. `at_most` is every answer running into its limit, nothing cached."""

    calls: int
    expected: Decimal
    at_most: Decimal


def estimate(labelled: LabelledSet, *, candidates: Iterable[Candidate], model: str) -> Estimate:
    """Estimate a run over a set with each of these prompts."""
    calls, expected, at_most = 0, Decimal(0), Decimal(0)
    for candidate in candidates:
        text = candidate.text if candidate.text is not None else instructions()[0]
        for example in labelled.examples:
            question = example.question()
            shown = text + workspace_instructions(question) + delimited(data(question))
            shown += json.dumps(answer_schema(list(question.intents)))
            tokens = round(len(shown) / _CHARACTERS_PER_TOKEN)
            likely = _OUTPUT_PER_MESSAGE * len(question.new_messages)
            expected += cost_usd(model, Usage(input_tokens=tokens, output_tokens=likely))
            # Twice the estimate of what is read: the estimate is one, the limit of what is written is not.
            at_most += cost_usd(model, Usage(input_tokens=2 * tokens, output_tokens=most_output_tokens(question)))
            calls += 1
    return Estimate(calls, expected, at_most)
