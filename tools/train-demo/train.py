"""Trains the demo model on an encoded corpus, in stages, resumable.

    python train.py --corpus train.bin.xz --tokenizer ../../models/demo --tasks evaluation.jsonl \
        --checkpoint state.pt --out out --stage dense:6000:2e-3:2e-3 --stage sparse:3000:2e-3:1e-4

A stage is attention:steps:first rate:last rate, the learning rate moving on a line between the two. `dense` attends to
every token while the indexers learn to imitate it; `sparse` attends to what each layer's own indexer selects. A stage's
steps are counted from the run's beginning, so that a run cut off at --deadline seconds goes on where it stopped. A stage
of "90s" lasts 90 seconds however many steps that is, for runs that share a GPU; such a run cannot be resumed.
"""

import argparse
import json
import lzma
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import DemoModel, Geometry, export

ANSWER = 0x8000
BOS, EOS, PAD = 0, 1, 2


def load_stream(path: Path) -> np.ndarray:
    planes = np.frombuffer(lzma.open(path).read(), dtype=np.uint8)
    high, low = planes[: len(planes) // 2], planes[len(planes) // 2 :]
    return (high.astype(np.uint16) << 8) | low


class Windows:
    """Windows of the stream, drawn at random. Each begins with <|bos|>, as every prompt does."""

    def __init__(self, stream: np.ndarray, length: int, device, seed: int):
        self.stream = torch.from_numpy(stream.astype(np.int32)).to(device)
        starts = np.flatnonzero((stream & 0x7FFF) == BOS)
        lengths = np.diff(np.append(starts, len(stream)))
        usable = starts < len(stream) - length - 1
        starts, lengths = starts[usable], lengths[usable]
        self.starts = torch.from_numpy(starts).to(device)
        self.long_starts = torch.from_numpy(starts[lengths >= 680]).to(device)
        self.length = length
        self.generator = torch.Generator(device).manual_seed(seed)
        self.offsets = torch.arange(length + 1, device=device)

    def draw(self, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and answer flags [batch, length + 1]: 45% begin with a long document, 35% with any, 20% anywhere."""
        def pick(high):
            return torch.randint(high, (batch,), generator=self.generator, device=self.offsets.device)

        kind = torch.rand(batch, generator=self.generator, device=self.offsets.device)
        start = torch.where(
            kind < 0.45,
            self.long_starts[pick(len(self.long_starts))],
            torch.where(
                kind < 0.8,
                self.starts[pick(len(self.starts))],
                pick(len(self.stream) - self.length - 1),
            ),
        )
        tokens = self.stream[start.unsqueeze(1) + self.offsets]
        ids = (tokens & 0x7FFF).long()
        ids[:, 0] = BOS
        return ids, (tokens >= ANSWER).float()


def load_tasks(path: Path, tokenizer_folder: Path, length: int, limit: int):
    """Evaluation prompts with their answers, right-padded, and a mask of the answers' tokens, by task."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_folder / "tokenizer.json"))
    tasks: dict[str, list] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        rows = tasks.setdefault(record["task"], [])
        prompt = tokenizer.encode(record["input"] + record["answerPrefix"]).ids
        whole = tokenizer.encode(record["input"] + record["answerPrefix"] + record["answer"]).ids
        if len(rows) >= limit or len(whole) > length:
            continue
        ids = torch.full((length,), PAD)
        ids[: len(whole)] = torch.tensor(whole)
        mask = torch.zeros(length, dtype=torch.bool)
        mask[len(prompt) : len(whole)] = True
        rows.append((ids, mask))
    return {name: (torch.stack([r[0] for r in rows]), torch.stack([r[1] for r in rows])) for name, rows in tasks.items()}


@torch.no_grad()
def score_tasks(model, tasks, sparse: bool, autocast) -> dict[str, float]:
    """Share of answers that greedy decoding would give in full (teacher-forced: every answer token is the argmax)."""
    found = {}
    for name, (ids, mask) in tasks.items():
        with autocast():
            logits, _, _ = model(ids, sparse)
        right = (logits[:, :-1].argmax(-1) == ids[:, 1:]) | ~mask[:, 1:]
        found[name] = round(right.all(1).float().mean().item(), 4)
    return found


def shape(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if name == "window" or not isinstance(getattr(Geometry, name, None), int):
        raise argparse.ArgumentTypeError(f"{name} is no whole number of the geometry")
    return name, int(value)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--tasks", type=Path)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--stage", action="append", required=True)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rows", type=int, default=256, help="query rows of each window that the indexers learn from")
    parser.add_argument("--answer-weight", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--deadline", type=float, default=1e9)
    parser.add_argument("--log-every", type=int, default=100)
    parser.add_argument("--score-every", type=int, default=1000)
    parser.add_argument("--score-limit", type=int, default=64)
    parser.add_argument("--window", type=int, default=1024)
    parser.add_argument("--geometry", type=shape, nargs="*", default=[], help="num_hidden_layers=10 index_topk=64 ...")
    parser.add_argument("--export-at", type=int, nargs="*", default=[], help="steps exported as OUT/step-N on the way")
    args = parser.parse_args()
    timed = any(stage.split(":")[1].endswith("s") for stage in args.stage)
    if timed and args.checkpoint.exists():
        parser.error(f"a run with stages in seconds cannot go on from {args.checkpoint}")
    began = time.time()

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cuda = device.type == "cuda"
    torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(args.seed)
    autocast = lambda: torch.autocast(device.type, torch.bfloat16, enabled=cuda, cache_enabled=False)  # noqa: E731
    g = Geometry(window=args.window, **dict(args.geometry))
    model = DemoModel(g).to(device)
    matrices = [p for p in model.parameters() if p.ndim == 2]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    rate = torch.tensor(0.0, device=device)
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}],
        lr=rate if cuda else 0.0,
        betas=(0.9, 0.95),
        fused=cuda,
        capturable=cuda,
    )
    indexer_parameters = [p for n, p in model.named_parameters() if ".indexer." in n]
    other_parameters = [p for n, p in model.named_parameters() if ".indexer." not in n]
    step = 0
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        for group in optimizer.param_groups:
            group["lr"] = rate if cuda else 0.0
        step = state["step"]
    args.out.mkdir(parents=True, exist_ok=True)
    log = (args.out / "training-log.jsonl").open("a")

    def report(record: dict) -> None:
        line = json.dumps(record)
        print(line, flush=True)
        log.write(line + "\n")
        log.flush()

    stream = load_stream(args.corpus)
    windows = Windows(stream, args.window, device, args.seed * 1_000_003 + step)
    tasks = load_tasks(args.tasks, args.tokenizer, args.window, args.score_limit) if args.tasks else {}
    tasks = {name: (ids.to(device), mask.to(device)) for name, (ids, mask) in tasks.items()}
    report(
        {"event": "start", "step": step, "parameters": sum(p.numel() for p in model.parameters()), "tokens": len(stream),
         "batch": args.batch, "stages": args.stage, "answer_weight": args.answer_weight, "setup_s": round(time.time() - began, 1)}
    )  # fmt: skip

    ids, flags = windows.draw(args.batch)
    ids, flags = ids.clone(), flags.clone()
    stride = args.window // args.rows
    rows = torch.arange(args.rows, device=device) * stride
    measured = torch.zeros(5, device=device)  # sums of: loss, answer loss, mean KL, max KL, gradient norm
    balance_on = True

    def train_step(sparse: bool) -> None:
        with autocast():
            logits, kls, loads = model(ids[:, :-1], sparse, rows)
        token_loss = F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        answers = flags[:, 1:].flatten()
        weights = 1 + (args.answer_weight - 1) * answers
        kl = torch.stack(kls)
        ((token_loss * weights).sum() / weights.sum() + 0.3 * kl.sum()).backward()
        norm = torch.nn.utils.clip_grad_norm_(other_parameters, 1.0, foreach=True)
        torch.nn.utils.clip_grad_norm_(indexer_parameters, 1.0, foreach=True)
        optimizer.step()
        model.balance(loads)
        answer_loss = (token_loss * answers).sum() / answers.sum().clamp(min=1)
        measured.add_(torch.stack([token_loss.mean(), answer_loss, kl.mean(), kl.max(), norm]).detach())

    def save() -> None:
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, args.checkpoint)
        export(model, args.out)

    stage_end = 0
    stopped = False
    for stage in args.stage:
        attention, steps, first, last = stage.split(":")
        seconds = float(steps[:-1]) if steps.endswith("s") else None
        stage_start, stage_end = (step, sys.maxsize) if seconds else (stage_end, stage_end + int(steps))
        if step >= stage_end:
            continue
        sparse = attention == "sparse"
        optimizer.zero_grad(set_to_none=True)
        graph = None
        if cuda:
            rate.fill_(0.0)  # the rehearsals before the capture change no weight
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    train_step(sparse)
                    optimizer.zero_grad(set_to_none=True)
            torch.cuda.current_stream().wait_stream(side)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                train_step(sparse)
            torch.cuda.synchronize()
        measured.zero_()
        since, since_step = time.time(), step
        stage_began = since
        while step < stage_end:
            if seconds:
                share = min(1.0, (time.time() - stage_began) / seconds)
            else:
                share = (step - stage_start) / max(1, stage_end - stage_start)
            lr = (float(first) + (float(last) - float(first)) * share) * min(1.0, (step + 1) / 200)
            new_ids, new_flags = windows.draw(args.batch)
            ids.copy_(new_ids)
            flags.copy_(new_flags)
            rows.copy_(torch.arange(args.rows, device=device) * stride + step % stride)
            if graph is not None:
                rate.fill_(lr)
                graph.replay()
            else:
                for group in optimizer.param_groups:
                    group["lr"] = lr
                train_step(sparse)
                optimizer.zero_grad(set_to_none=True)
            step += 1
            if seconds:
                if cuda:
                    torch.cuda.synchronize()  # the clock counts steps done, not steps queued
                if time.time() - stage_began >= seconds:
                    stage_end = step
            if step in args.export_at:
                export(model, args.out / f"step-{step}")
            if step % args.log_every == 0 or step == stage_end:
                loss, answer_loss, kl, kl_max, norm = (measured / (step - since_step)).tolist()
                now = time.time()
                report(
                    {"step": step, "attention": attention, "rate": round(lr, 7), "loss": round(loss, 4),
                     "answer_loss": round(answer_loss, 4), "kl": round(kl, 4), "kl_max": round(kl_max, 4),
                     "gradient_norm": round(norm, 3), "step_s": round((now - since) / (step - since_step), 4)}
                )  # fmt: skip
                measured.zero_()
                stopped = now - began > args.deadline
                if tasks and (step % args.score_every == 0 or step == stage_end or stopped):
                    report({"step": step, "attention": attention, "found": score_tasks(model, tasks, sparse, autocast)})
                since, since_step = time.time(), step
                if stopped:
                    break
        del graph
        if stopped:
            break
    save()
    report({"event": "stop", "step": step, "wall_s": round(time.time() - began, 1)})


if __name__ == "__main__":
    main()
