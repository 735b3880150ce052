"""Checks an agent's final answer against the caller's output schema.

Neither vendor does: both report success when the model did not answer with JSON at all (claude-agent-sdk 0.2.187,
codex 0.163.0).
"""

import json

from jsonschema import Draft202012Validator

from alive.agent.v1 import error_pb2
from alive_kit.failures import failure


def structured_output(schema: str, answer: str) -> str:
    """Return the answer as JSON text.

    Raises:
        TurnFailure: the answer is missing, is not JSON, or does not satisfy the schema.
    """
    try:
        value = json.loads(answer)
    except ValueError:
        raise failure(error_pb2.FAILURE_REASON_OUTPUT_INVALID, message=_NO_JSON) from None
    try:
        first = next(Draft202012Validator(json.loads(schema)).iter_errors(value), None)
    except RecursionError:  # The schema refers to itself without taking anything of the answer.
        raise failure(error_pb2.FAILURE_REASON_OUTPUT_INVALID) from None
    if first is not None:
        message = f"The agent's answer does not satisfy the output schema at {first.json_path}. Try again."
        raise failure(error_pb2.FAILURE_REASON_OUTPUT_INVALID, message=message)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


_NO_JSON = "The agent's answer is not the JSON that the output schema asks for. Try again."
