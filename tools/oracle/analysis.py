"""What layers have in common, by transformers: overlap, attention-mass recall and output similarity of some fixtures.

    .oracle/bin/python tools/oracle/analysis.py

Writes analysis.json beside each fixture's oracle.json. A layer's attention is called again on the very inputs of a forward
pass, with the selection of another layer, or with every key; queries are the positions that see at least index_topk keys.
"""

import json
import pathlib

import torch

from reference import Patterns, Reuse, forward, load, short

FIXTURES = pathlib.Path(__file__).resolve().parents[2] / "test" / "fixtures"
CASES = {"glm-groups": ["FFFFF", "FSFFS"], "glm-shared": ["FSFSS"], "v32-yarn": ["FFFF"]}


def calls_of(model, ids):
    """Arguments of every layer's attention in one forward pass."""
    calls = [None] * len(model.model.layers)
    handles = []
    for i, layer in enumerate(model.model.layers):
        def keep(_m, args, kwargs, i=i):
            calls[i] = (args, kwargs)

        handles.append(layer.self_attn.register_forward_pre_hook(keep, with_kwargs=True))
    forward(model, ids)
    for handle in handles:
        handle.remove()
    return calls


@torch.no_grad()
def attend(attention, call, indexer):
    """Calls an attention again with another indexer; gives (indices, probabilities, output before o_proj)."""
    seen = {}
    handles = [
        attention.o_proj.register_forward_pre_hook(lambda _m, args: seen.update(output=args[0][0])),
        indexer.register_forward_hook(lambda _m, _a, out: seen.update(indices=out[0])),
    ]
    before, attention.indexer = attention.indexer, indexer
    result = attention(*call[0], **call[1])
    attention.indexer = before
    for handle in handles:
        handle.remove()
    return seen["indices"], result[1][0], seen["output"]


def bucket_of(visible, k):
    bucket = 0
    while visible > k * 2 ** (bucket + 1):
        bucket += 1
    return bucket


def analyse(model, patterns, pattern, sequences):
    attentions, k = patterns.attentions, model.config.index_topk
    layers, sources = len(attentions), [i for i, stash in enumerate(patterns.stash) if stash is not None]
    names = ("overlap", "recall", "similarity")
    sums, queries = {}, {}
    for ids in sequences:
        patterns.set(pattern)
        calls = calls_of(model, ids)
        rows = range(k - 1, len(ids))
        for row in rows:
            bucket = bucket_of(row + 1, k)
            queries[bucket] = queries.get(bucket, 0) + 1
        chosen = {}
        for source in sources:
            indices, _, _ = attend(attentions[source], calls[source], patterns.stash[source])
            chosen[source] = [sorted(key for key in indices[row].tolist() if key <= row) for row in range(len(ids))]

        def reuse(source):
            # A row that sees fewer keys than index_topk is no query; any repeated key leaves it as it is.
            padded = [keys + [keys[-1]] * (k - len(keys)) for keys in chosen[source]]
            return Reuse({"indices": torch.tensor([padded])})

        every = Reuse({"indices": torch.arange(len(ids)).expand(1, len(ids), -1)})
        for layer, attention in enumerate(attentions):
            _, probabilities, _ = attend(attention, calls[layer], every)
            mass = probabilities.double().mean(0)
            own = max(source for source in sources if source <= layer)
            _, _, reference = attend(attention, calls[layer], reuse(own))
            for column, source in enumerate(sources):
                if source > layer and layer not in sources:
                    continue
                _, _, output = attend(attention, calls[layer], reuse(source))
                cosine = torch.nn.functional.cosine_similarity(output.double(), reference.double(), dim=-1)
                for row in rows:
                    keys = chosen[source][row]
                    values = {"overlap": len(set(keys) & set(chosen[own][row])) / k}
                    if source <= layer:
                        values |= {"recall": mass[row, keys].sum().item(), "similarity": cosine[row].item()}
                    for name, value in values.items():
                        at = (bucket_of(row + 1, k), name, layer, column)
                        sums[at] = sums.get(at, 0) + value

    def matrix(name, buckets):
        count = sum(queries[bucket] for bucket in buckets)
        def cell(layer, column):
            found = [sums[at] for bucket in buckets if (at := (bucket, name, layer, column)) in sums]
            return sum(found) / count if found else None
        return [[cell(layer, column) for column in range(len(sources))] for layer in range(layers)]

    buckets = sorted(queries)
    result = {"pattern": pattern, "sources": sources, "queries": sum(queries.values())}
    for name in names:
        result[name] = {
            "mean": matrix(name, buckets),
            "by_position": [{"queries": queries[b], "mean": matrix(name, [b])} for b in buckets],
        }
    return result


def main():
    for name, tried in CASES.items():
        folder = FIXTURES / name
        oracle = json.loads((folder / "oracle.json").read_text())
        model, _ = load(folder)
        patterns = Patterns(model)
        runs = [analyse(model, patterns, pattern, oracle["sequences"]) for pattern in tried]
        (folder / "analysis.json").write_text(json.dumps(short(runs), separators=(",", ":")) + "\n")
        print(name, [run["queries"] for run in runs])


main()
