"""Cases as text, and what each must move and compute."""
import re

from .results import BenchError


def parts(case):
    """(kind, sequences, tokens, depth) of a case, as bench_case.cc reads it."""
    match = re.fullmatch(r"(?:(prompt|generate):|(batch):([1-9]\d*)x)([1-9]\d*)(?:@(\d+))?", case)
    if not match:
        raise BenchError(f"case '{case}', expected prompt:N, generate:N or batch:SxN, each with an "
                         "optional @DEPTH")
    one, many, sequences, tokens, depth = match.groups()
    return one or many, int(sequences or 1), int(tokens), int(depth or 0)


def demand(case, about):
    """Bytes and operations of a case on the model that bench_model described.

    Weights are read once per step, except that a mixture of experts reads the experts that its
    tokens chose: for S tokens, E experts and k choices, E (1 - (1 - k/E)^S) distinct ones when
    choices are even. KV is read up to the token's own position.
    """
    kind, sequences, tokens, depth = parts(case)
    if kind == "prompt":
        keys = tokens * depth + tokens * (tokens + 1) / 2
        linear = about["linear_ops"] * tokens
        return {"bytes": about["token_bytes"], "linear_ops": linear,
                "ops": linear + about["head_ops"] + about["attention_ops"] * keys}
    experts, used = about.get("experts", 0), about.get("experts_used", 0)
    distinct = experts * (1 - (1 - used / experts) ** sequences) / used if experts else 1
    step = about["token_bytes"] + about.get("expert_bytes", 0) * (distinct - 1)
    kv = about["kv_bytes_per_token"] * sequences * (depth + (tokens + 1) / 2)
    per_token = about["linear_ops"] + about["head_ops"] + \
        about["attention_ops"] * (depth + (tokens + 1) / 2)
    return {"bytes": (step + kv) * tokens, "linear_ops": about["linear_ops"] * sequences * tokens,
            "ops": per_token * sequences * tokens}
