"""Records that are hard to score, with the scores that the benchmarks' own Python gives them.

The scorers themselves are read from checkouts of the benchmarks; nothing of them is copied here:

    python tools/scorers/official_scores.py --longbench LONGBENCH --ruler RULER --each 2000 -o records.jsonl
"""

import argparse
import ast
import importlib.util
import json
import random
import re
import sys
import warnings
from pathlib import Path

warnings.filterwarnings("ignore")

# Python's white space, what only looks like it, and line ends in twos.
BLANKS = [" "] * 12 + list("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000")
BLANKS += ["\ufeff", "\u200b", "\u180e", "\x00", "\x07", "\r\n", "  ", "\n\n"]
ENGLISH = """the a an The A AN and Paris Eiffel tower committee budget monday report 42 3.14 7 forty-two new-york
don't U.S. e.g. naïve café straße İstanbul ΣΊΣΥΦΟΣ ǅ ﬁne o’clock “quoted” 10% $5 C++ a.b.c _under_ x² ½ ٣ १२ 𝟜 Ⅷ
a\u0301 the\u0301 émigré theatre anon An. (the) [a] the, --- ... . … 😀 👩‍💻 zero\u200bwidth""".split()
CHINESE = """中国 北京 大学 人工智能 我们 研究 的 了 在 段落 会议 总结 经济 发展 报告 南京市长江大桥 乒乓球拍卖完了
结婚的和尚未结婚的 他来到了网易杭研大厦 小明硕士毕业 小S 阿Q T恤 B超 卡拉OK IC卡 江南style 4S店 1号店 K歌之王 魑魅魍魉
㐀㐁 𠀀𠀁 豈 鿖鿗 ﷺ 々 〇 ０１２ ＡＢＣ 《 》 ， 。 ！ ？ 、 ： “ ” —— …… · ￥""".split()
LATIN = """AES-256 GPT-4 COVID-19 A-1.5 AT&T C# C++ c#2 3.14% 50%5 100%-50 v1.2.3 x_y&z foo+12 a.b 1.2.3.4 -5 +7 .5 5. A
B-2-3 Wi-Fi6 H2O 2024-01-02 U.S.A TCP/IP R&D B%12 9#1 A_1 1-2% 256GB RTX-4090Ti""".split()
CODE = """return self x + 1 x+1 for i in range(10): range(n): if (x == null) int main(void) { } def f(a, b): # comment
// note `tick` self.assertEqual(a, b) assertTrue(b == a) "text" 'c' 变量 é => -> :: == != import os lambda x: x ** 2""".split(" ")
CLASSES = ["City", "Other location", "location", "Other", "Number", "Num", "N", "Country", "城市", "城", "体育", "体育新闻", ""]


def words(draw, pool, most, blanks=BLANKS):
    return "".join(draw.choice(pool) + draw.choice(blanks) for _ in range(draw.randint(0, most)))


def changed(draw, text, pool, blanks=BLANKS):
    """The text with some of its pieces left out, doubled, moved or replaced: so that scores lie between 0 and 1."""
    pieces = re.findall(r"\s+|\w+|[^\w\s]+", text)
    for _ in range(draw.randint(0, 4)):
        if not pieces:
            break
        at = draw.randrange(len(pieces))
        kind = draw.randrange(5)
        if kind == 0:
            del pieces[at]
        elif kind == 1:
            pieces.insert(at, draw.choice(blanks))
        elif kind == 2:
            pieces.insert(at, draw.choice(pool))
        elif kind == 3:
            pieces[at] = pieces[at].swapcase()
        else:
            pieces.insert(draw.randrange(len(pieces)), pieces.pop(at))
    return "".join(pieces)


def text_pair(draw, pool, most):
    gold = words(draw, pool, most)
    return (words(draw, pool, most) if draw.random() < 0.3 else changed(draw, gold, pool)), gold


def code_pair(draw):
    if draw.random() < 0.2:
        # Ratios that lie at half a percent, where rounding hangs on the last bit.
        length = draw.choice([40, 80, 160, 200, 400])
        common = draw.randint(1, length // 2)
        rest = length - 2 * common
        first = draw.randint(0, rest)
        return "c" * common + "x" * first, "c" * common + "y" * (rest - first)
    line = " ".join(draw.choice(CODE) for _ in range(draw.choice([0, 1, 3, 8, 20, 60, 120])))
    gold = line if draw.random() < 0.5 else line[: draw.randint(0, 30)]
    lines = [changed(draw, gold, CODE, [" ", "\t", "  "]) for _ in range(draw.randint(1, 3))]
    return "\n" * draw.randrange(3) + draw.choice(["", "", "# x\n", "```python\n", "// y\n", "\n"]) + "\n".join(lines), gold


def make(kind, draw):
    record = {"metric": kind}
    mixed = CHINESE + LATIN + ENGLISH[:12]
    if kind in ("qa_f1", "rouge"):
        pool = ENGLISH + [". ", "."] * 4 + (["中国"] if draw.random() < 0.2 else [])
        prediction, gold = text_pair(draw, pool, draw.choice([3, 8, 30]))
    elif kind in ("qa_f1_zh", "rouge_zh"):
        blanks = [""] * 40 + BLANKS
        gold = words(draw, mixed, draw.choice([3, 8, 25]), blanks)
        prediction = changed(draw, gold, mixed, blanks) if draw.random() < 0.7 else words(draw, mixed, 12, blanks)
    elif kind == "classification":
        classes = draw.sample(CLASSES, draw.randint(1, len(CLASSES)))
        gold = draw.choice(classes)
        prediction = words(draw, classes + ENGLISH[:6], 4)
        record["classes"] = classes
    elif kind == "count":
        gold = str(draw.randint(0, 30))
        prediction = words(draw, ENGLISH + [gold, gold, "１２", gold + "."], 6)
    elif kind in ("retrieval", "retrieval_zh"):
        number = draw.choice([str(draw.randint(1, 30)), "٣", "07"])
        lead = "Paragraph " if kind == "retrieval" else "段落"
        gold = f"{lead}{number}"
        prediction = words(draw, [gold, number, *LATIN, *CHINESE[:8]], 5)
    elif kind == "code_sim":
        prediction, gold = code_pair(draw)
    elif kind in ("string_match_all", "string_match_part"):
        odd = ["İ", "ẞ", "a\tb", "a\nb", "x\x1fy", "\n7", "7\n", "\ufeff7", "7\ufeff", "7\x85", "\x857"] * 2
        golds = [draw.choice(ENGLISH + LATIN + odd) for _ in range(draw.randint(1, 5))]
        prediction = "".join(draw.choice(BLANKS) + draw.choice([g, g.upper(), g.lower(), *ENGLISH[:9]]) for g in golds)
        return {**record, "prediction": prediction + draw.choice(["", *BLANKS]), "answers": golds}
    elif kind == "choice":
        pieces = ["The correct answer is", "The correct answer is ", " (", "(", ")", "**", "*", "A", "B", "C", "D", "E", ": "]
        pieces += ["the correct answer is (A)", "The correct answer is (B)", "The correct answer is C", "\n", " \x85"]
        prediction = "".join(draw.choice(pieces) for _ in range(draw.randint(0, 8)))
        return {**record, "prediction": prediction, "answers": [draw.choice("ABCD")]}
    return {**record, "prediction": prediction, "answers": [gold]}


def function_of(path, name, names):
    """One function of a script that cannot be imported for what else it needs."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    exec(compile(ast.Module([found], []), str(path), "exec"), names)  # noqa: S102
    return names[name]


def module_of(path, name):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def official(longbench, ruler):
    metrics = module_of(longbench / "LongBench" / "metrics.py", "longbench_metrics")
    matches = module_of(ruler / "scripts" / "eval" / "synthetic" / "constants.py", "ruler_matches")
    cleaned = function_of(ruler / "scripts" / "eval" / "evaluate.py", "postprocess_pred", {"re": re})
    extract = function_of(longbench / "pred.py", "extract_answer", {"re": re})
    named = {
        "qa_f1": metrics.qa_f1_score,
        "qa_f1_zh": metrics.qa_f1_zh_score,
        "rouge": metrics.rouge_score,
        "rouge_zh": metrics.rouge_zh_score,
        "classification": metrics.classification_score,
        "count": metrics.count_score,
        "retrieval": metrics.retrieval_score,
        "retrieval_zh": metrics.retrieval_zh_score,
        "code_sim": metrics.code_sim_score,
    }

    def score(record):
        kind, prediction, answers = record["metric"], record["prediction"], record["answers"]
        if kind == "choice":
            return float(extract(prediction.strip()) == answers[0])
        if kind.startswith("string_match"):
            # Its functions round a percentage to two decimals: that much is compared.
            return getattr(matches, kind)([cleaned(prediction, {})], [answers])
        return max(0.0, *(named[kind](prediction, gold, all_classes=record.get("classes")) for gold in answers))

    return score, [*named, "string_match_all", "string_match_part", "choice"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--longbench", type=Path, required=True, help="a checkout of THUDM/LongBench")
    parser.add_argument("--ruler", type=Path, required=True, help="a checkout of NVIDIA/RULER")
    parser.add_argument("--each", type=int, default=1500, help="records of each of the 12 metrics")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    arguments = parser.parse_args()
    score, kinds = official(arguments.longbench, arguments.ruler)
    with arguments.output.open("w", encoding="utf-8") as out:
        for kind in kinds:
            draw = random.Random(f"{arguments.seed}/{kind}")
            for _ in range(arguments.each):
                record = make(kind, draw)
                out.write(json.dumps({**record, "score": score(record)}) + "\n")
    print(f"{len(kinds) * arguments.each} records of {len(kinds)} metrics", file=sys.stderr)


if __name__ == "__main__":
    main()
