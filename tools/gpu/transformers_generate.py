"""Times prefill and greedy decoding of a checkpoint in Hugging Face transformers: one JSON line for each run.

    python tools/gpu/transformers_generate.py /tmp/random --ids /tmp/random/ids-8192.json --dtype float16 --new-tokens 64
    python tools/gpu/transformers_generate.py /tmp/random --plan plan.json

The context is the id file's first sequence. Prefill ends with the first new token; decoding makes the others, one
forward call each with transformers' own cache, and waits for the GPU only at the end. After one warm-up (prefill and two
steps), both are timed `--repeats` times; peak memory is theirs, weights included. A plan is as transformers_loss.py's,
with new_tokens in place of batch and chunk. A run that does not fit is `skipped`, and the exit code stays 0.
"""

import statistics

import harness


def measure(model, run, device):
    import torch

    if run.new_tokens < 2:
        raise ValueError("new_tokens is at least 2: the first is prefill's")
    ids = harness.sequences_of(run.ids, model.config.vocab_size)[0]
    context = torch.tensor([ids], device=device)

    def step(feed, past):
        out = model(feed, past_key_values=past, use_cache=True, logits_to_keep=1)
        return out.logits[:, -1:].argmax(-1), out.past_key_values

    def decode(token, past, count):
        tokens = [token]
        for _ in range(count):
            token, past = step(token, past)
            tokens.append(token)
        return torch.cat(tokens, dim=1)

    if run.repeats > 0:
        decode(*step(context, None), 2)  # warm-up
    harness.reset_peak(device)
    prefill, decoding = [], []
    for _ in range(max(run.repeats, 1)):
        took, (token, past) = harness.timed(lambda: step(context, None), device)
        prefill.append(took)
        took, tokens = harness.timed(lambda: decode(token, past, run.new_tokens - 1), device)
        decoding.append(took)
        del past
    first, rest = statistics.median(prefill), statistics.median(decoding)
    return {
        "context": len(ids),
        "repeats": run.repeats,
        "prefill_seconds": round(first, 5),
        "prefill_seconds_all": [round(value, 5) for value in prefill],
        "prefill_tokens_per_second": round(len(ids) / first, 1),
        "decode_seconds_per_token": round(rest / (run.new_tokens - 1), 6),
        "decode_tokens_per_second": round((run.new_tokens - 1) / rest, 2),
        **harness.peak(device),
        "tokens": tokens[0].tolist(),
    }


if __name__ == "__main__":
    parser = harness.parser_of(__doc__)
    parser.add_argument("--new-tokens", type=int, default=64)
    harness.main(parser, measure)
