"""Times the LM loss of a checkpoint in Hugging Face transformers, and gives it: one JSON line for each run.

    python tools/gpu/transformers_loss.py /tmp/random --ids /tmp/random/ids-8192.json --dtype float16 --attention sdpa
    python tools/gpu/transformers_loss.py /tmp/random --plan plan.json

A pass takes every sequence of the id file, `--batch` of one length at a time, and gives each one's mean next-token NLL in
nats. After one warm-up, `--repeats` passes are timed; peak memory is theirs, weights included. The LM head runs on
blocks of rows, log-softmax in fp32. `--chunk N` feeds a sequence in pieces of N tokens through the KV cache, which keeps
transformers' index scores (fp32, rows x index heads x context) small; without it a sequence is one forward call.

A plan is a JSON list of runs, each an object with `ids` and any of dtype, attention, pattern, batch, chunk, repeats,
experts, tf32, name; indexcache_loss.js takes the same file. The checkpoint is loaded once for each dtype and
attention, and lines come in that order, each with its number in the plan (`entry`). A run that does not fit is
`skipped`, and the exit code stays 0.
"""

import statistics

import harness

HEAD_BYTES = 1 << 28  # of fp32 logits at a time


def batches_of(sequences, size):
    """Consecutive sequences of one length, at most `size` at a time."""
    batch = []
    for ids in sequences:
        if batch and (len(batch) == size or len(batch[0]) != len(ids)):
            yield batch
            batch = []
        batch.append(ids)
    yield batch


def negative_log_likelihood(model, hidden, targets):
    """Sum over a batch's rows of -log p(target), [batch] in fp64."""
    import torch.nn.functional as F

    rows = max(1, HEAD_BYTES // (4 * model.config.vocab_size * hidden.shape[0]))
    total = 0
    for begin in range(0, targets.shape[1], rows):
        part = targets[:, begin : begin + rows]
        logits = model.lm_head(hidden[:, begin : begin + part.shape[1]]).float()
        # Flat rows: along the last dimension log-softmax is quicker and, on CPU, more exact.
        values = F.cross_entropy(logits.flatten(0, 1), part.flatten(), reduction="none")
        total += values.view_as(part).double().sum(1)
        del logits
    return total


def batch_losses(model, ids, chunk):
    """Mean next-token NLL of each sequence of a batch, [batch] in fp64."""
    targets, past, total = ids[:, 1:], None, 0
    if not chunk:
        hidden = model.model(ids, use_cache=False).last_hidden_state
        return negative_log_likelihood(model, hidden, targets) / targets.shape[1]
    for begin in range(0, targets.shape[1], chunk):
        part = targets[:, begin : begin + chunk]
        out = model.model(ids[:, begin : begin + part.shape[1]], past_key_values=past, use_cache=True)
        past = out.past_key_values
        total += negative_log_likelihood(model, out.last_hidden_state, part)
    return total / targets.shape[1]


def measure(model, run, device):
    import torch

    sequences = harness.sequences_of(run.ids, model.config.vocab_size)
    tokens = sum(len(ids) for ids in sequences)
    batches = [torch.tensor(batch, device=device) for batch in batches_of(sequences, run.batch)]

    def one_pass():
        return torch.cat([batch_losses(model, batch, run.chunk) for batch in batches])

    seconds, losses = harness.timings(one_pass, run.repeats, device)
    median = statistics.median(seconds)
    losses = [harness.finite(value) for value in losses.tolist()]
    return {
        "sequences": len(sequences),
        "length": max(len(ids) for ids in sequences),
        "tokens": tokens,
        "repeats": run.repeats,
        "seconds": [round(value, 5) for value in seconds],
        "seconds_median": round(median, 5),
        "tokens_per_second": round(tokens / median, 1),
        **harness.peak(device),
        "loss": None if None in losses else sum(losses) / len(losses),
        "losses": losses,
    }


if __name__ == "__main__":
    parser = harness.parser_of(__doc__)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--chunk", type=int, default=0, help="tokens in a forward call; 0: the whole sequence")
    harness.main(parser, measure)
