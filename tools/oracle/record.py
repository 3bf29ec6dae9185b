"""Writes what the reference computes for one checkpoint folder: oracle.json and logits.f32."""

import itertools
import pathlib

import torch
import transformers

from reference import Patterns, Taps, dump, forward, greedy, load, mean_nll, short, tied_to_lowest_index

CHUNKS = (20, 1, 3)


def visible_top_k(indices, row):
    """The selected keys of one query row that it may see, ascending."""
    return sorted(k for k in indices[row].tolist() if k <= row)


def margin(scores, row, k):
    """k-th less (k+1)-th score among the visible keys of a row; None where every visible key is selected."""
    if row + 1 <= k:
        return None
    ranked = scores[row, : row + 1].sort(descending=True).values
    return (ranked[k - 1] - ranked[k]).item()


def expert_margin(mlp, normed):
    """How close the nearest rejected expert (or group) came to the worst selected one, over all rows."""
    gate = mlp.gate
    with torch.no_grad():
        logits, _, chosen = gate(normed)
    choice = logits.sigmoid() + gate.e_score_correction_bias
    group_count, kept = gate.num_group or 1, gate.topk_group or 1
    grouped = choice.view(-1, group_count, gate.num_experts // group_count)
    groups = torch.sort(grouped.topk(2, dim=-1).values.sum(-1), dim=-1, descending=True)
    margins = []
    if kept < group_count:
        margins.append((groups.values[:, kept - 1] - groups.values[:, kept]).min().item())
    open_groups = torch.zeros(grouped.shape[:2], dtype=torch.bool).scatter_(1, groups.indices[:, :kept], True)
    allowed = grouped.masked_fill(~open_groups.unsqueeze(-1), float("-inf")).flatten(1)
    ranked = allowed.sort(dim=-1, descending=True)
    assert (ranked.indices[:, : gate.top_k].sort().values == chosen.sort().values).all()
    gap = ranked.values[:, gate.top_k - 1] - ranked.values[:, gate.top_k]
    margins.append(gap[gap.isfinite()].min().item() if gap.isfinite().any() else float("inf"))
    return min(margins)


def run_one(model, patterns, pattern, sequence, ids, logits_file, stages, all_scores):
    """One full forward of one sequence under one pattern, with everything a test may want to compare."""
    patterns.set(pattern)
    normed = {}
    handles = [
        layer.mlp.register_forward_pre_hook(lambda _m, a, i=i: normed.update({i: a[0].detach().clone()}))
        for i, layer in enumerate(model.model.layers)
    ]
    with Taps(model) as taps:
        out = forward(model, ids)
    for handle in handles:
        handle.remove()
    logits, k, last = out.logits[0], model.config.index_topk, len(ids) - 1
    assert logits.isfinite().all() and all(b.isfinite().all() for b in taps.boundaries)
    indexers = []
    for i, record in enumerate(taps.layers):
        if "indices" not in record:
            continue
        scores = record["index_scores"][0]
        entry = {
            "layer": i,
            "top_k": [visible_top_k(record["indices"][0], row) for row in range(len(ids))],
            "margins": [margin(scores, row, k) for row in range(len(ids))],
        }
        if all_scores:
            entry["scores"] = [scores[row, : row + 1] for row in range(len(ids))]
        indexers.append(entry)
    margins = [m for entry in indexers for m in entry["margins"] if m is not None]
    experts = [
        expert_margin(layer.mlp, normed[i]) for i, layer in enumerate(model.model.layers) if hasattr(layer.mlp, "gate")
    ]
    offset = logits_file.tell() // 4
    logits_file.write(logits.contiguous().numpy().astype("<f4").tobytes())
    rows = [0, len(ids) // 2, last]
    result = {
        "pattern": pattern,
        "sequence": sequence,
        "mean_nll": mean_nll(logits, ids),
        "logits": {"file": "logits.f32", "offset": offset, "shape": list(logits.shape)},
        "smallest_margin": min(margins),
        "smallest_expert_margin": min(experts) if experts else None,
        "boundary_rows": rows,
        "boundaries": [boundary[0, rows] for boundary in taps.boundaries],
        "indexers": indexers,
    }
    if stages:
        result["stages"] = {"row": last, "layers": []}
        for i, record in enumerate(taps.layers):
            stage = {name: record[name][0, last] for name in ("q_latent", "kv_latent", "attention", "mlp")}
            stage["kv_latent"] = record["kv_latent"].reshape(len(ids), -1)[last]
            if "index_scores" in record:
                stage["index_scores"] = record["index_scores"][0, last]
            if "experts" in record:
                order = record["experts"][last].argsort()
                stage["experts"] = record["experts"][last][order]
                stage["expert_weights"] = record["expert_weights"][last][order]
            result["stages"]["layers"].append(stage)
    result["continuation"] = continuation(model, ids, logits, min(margins))
    return result


def continuation(model, ids, full, smallest_margin):
    """The same tokens in chunks through HF's cache; the last row of each chunk, and how far all rows are from `full`."""
    past, at, rows, worst = None, 0, [], 0.0
    for size in CHUNKS:
        out = forward(model, ids[at : at + size], past, use_cache=True)
        past = out.past_key_values
        worst = max(worst, (out.logits[0] - full[at : at + size]).abs().max().item())
        rows.append(out.logits[0, -1])
        at += size
    if smallest_margin > 1e-6:
        assert worst < 1e-4, f"cached run is {worst} from the full run"
    return {"chunks": list(CHUNKS), "max_difference": worst, "last_rows": rows}


def possible_patterns(native):
    """Every pattern that the indexers present allow, most Full layers first."""
    choices = ["F" if i == 0 else ("FS" if letter == "F" else "S") for i, letter in enumerate(native)]
    return sorted(("".join(p) for p in itertools.product(*choices)), key=lambda p: (-p.count("F"), p))


def losses(model, patterns, sequences, tried):
    entries = []
    for pattern in tried:
        patterns.set(pattern)
        nll, margins = [], []
        for ids in sequences:
            with Taps(model) as taps:
                nll.append(mean_nll(forward(model, ids).logits[0], ids))
            for record in taps.layers:
                if "indices" in record:
                    scores, k = record["index_scores"][0], model.config.index_topk
                    margins += [margin(scores, row, k) for row in range(k, len(ids))]
        weights = [len(ids) - 1 for ids in sequences]
        mean = sum(n * w for n, w in zip(nll, weights)) / sum(weights)
        entries.append({"pattern": pattern, "mean_nll": nll, "loss": mean, "smallest_margin": min(margins)})
    return entries


def greedy_search(entries, start):
    """Plain greedy search: from `start`, flip the F layer (never layer 0) with the lowest loss, until one F is left."""
    loss = {entry["pattern"]: entry["loss"] for entry in entries}
    steps, current = [], start
    while current.count("F") > 1:
        flipped = {i: current[:i] + "S" + current[i + 1 :] for i in range(1, len(current)) if current[i] == "F"}
        best = min(loss[p] for p in flipped.values())
        layer = min(i for i, p in flipped.items() if loss[p] <= best + 1e-5)
        candidates = [{"layer": i, "pattern": p, "loss": loss[p]} for i, p in flipped.items()]
        current = flipped[layer]
        steps.append({"candidates": candidates, "flipped": layer, "pattern": current, "loss": loss[current]})
    return {"start": start, "start_loss": loss[start], "tie_tolerance": 1e-5, "steps": steps}


def record(folder, reference_folder, sequences, second_pattern, *, notes, native=None, all_scores=False, lowest_index=False):
    """Records `folder` as transformers sees `reference_folder` (the same one unless its dtype is beyond HF).

    `native` is the config's own pattern where the checkpoint has indexer tensors on its Shared layers too.
    """
    folder = pathlib.Path(folder)
    model, info = load(reference_folder, **({"indexer_types": ["full"] * len(native)} if native else {}))
    assert not info["missing_keys"] and not info["mismatched_keys"], info
    patterns = Patterns(model)
    present, config = patterns.native, model.config
    native = native or present
    layers = config.num_hidden_layers
    tried = possible_patterns(present)
    oracle = {
        "format": 1,
        "fixture": folder.name,
        "made_with": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
        "dtype": "float32",
        "attention": "eager",
        "experts": "eager",
        "model_type": config.model_type,
        "notes": notes,
        "layers": layers,
        "vocabulary_size": config.vocab_size,
        "index_topk": config.index_topk,
        "native_pattern": native,
        "indexers_present": present,
        "patched_sharing": patterns.patched,
        "unexpected_tensors": sorted(info["unexpected_keys"]),
        "sequences": sequences,
    }
    with open(folder / "logits.f32", "wb") as file:
        oracle["runs"] = [
            run_one(model, patterns, p, s, ids, file, p == native and s == 0, all_scores)
            for p in (native, second_pattern)
            for s, ids in enumerate(sequences)
        ]
        if lowest_index:
            with tied_to_lowest_index():
                oracle["runs_ties_to_lowest_index"] = [
                    run_one(model, patterns, p, s, ids, file, False, False)
                    for p in (native, second_pattern)
                    for s, ids in enumerate(sequences)
                ]
    oracle["losses"] = losses(model, patterns, sequences, tried)
    oracle["greedy_search"] = greedy_search(oracle["losses"], present)
    if lowest_index:
        with tied_to_lowest_index():
            oracle["losses_ties_to_lowest_index"] = losses(model, patterns, sequences, tried)
    oracle["generations"] = []
    oracle["generation_ties"] = "lowest index" if lowest_index else "torch"
    prompt = sequences[0][:14]
    for pattern in (native, second_pattern):
        patterns.set(pattern)
        with tied_to_lowest_index() if lowest_index else torch.no_grad():
            tokens, gaps = greedy(model, prompt, 12)
        oracle["generations"].append({"pattern": pattern, "prompt": prompt, "tokens": tokens, "gaps": gaps})
    text = dump(short(oracle)) + "\n"
    (folder / "oracle.json").write_text(text)
    return oracle, model, patterns


def summary(oracle):
    """What shows whether a fixture can tell right from wrong."""
    losses = {entry["pattern"]: entry for entry in oracle["losses"]}
    native = losses[oracle["native_pattern"]]
    others = [entry for entry in oracle["losses"] if entry is not native]
    return {
        "native": oracle["native_pattern"],
        "loss": native["loss"],
        "losses_from_to": [min(e["loss"] for e in losses.values()), max(e["loss"] for e in losses.values())],
        "least_nll_move": min(max(abs(a - b) for a, b in zip(e["mean_nll"], native["mean_nll"])) for e in others),
        "least_loss_gap": min(abs(a["loss"] - b["loss"]) for a, b in itertools.combinations(losses.values(), 2)),
        "smallest_margin": min(entry["smallest_margin"] for entry in losses.values()),
        "smallest_expert_margin": min(run["smallest_expert_margin"] for run in oracle["runs"]),
        "cached_run_difference": max(run["continuation"]["max_difference"] for run in oracle["runs"]),
        "smallest_gap": min(min(g["gaps"]) for g in oracle["generations"]),
        "generations": [" ".join(map(str, g["tokens"])) for g in oracle["generations"]],
    }
