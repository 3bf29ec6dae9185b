"""Records that are hard to score for GraphWalks and MRCR, with the scores that their cards describe.

Neither benchmark ships a scorer to import: the cards of openai/graphwalks and openai/mrcr on Hugging Face describe them. MRCR's
is Python's own difflib behind a check of the first characters. GraphWalks' has three faults that its users mend (see
README.md); `score` is mended, `literal` is what the card's lines give as they stand.

    python tools/scorers/published_scores.py --each 200 -o test/fixtures/scorers/published.jsonl
"""

import argparse
import difflib
import json
import random
import re

NODES = [f"{n:010x}" for n in range(1000, 1040)] + ["abcd", "uvwx", "a b", "[x", "y]", "naïve", "\u2028n"]
BLANKS = [" "] * 10 + ["", "  ", "\t", "\u00a0", "\x85", "\u3000", "\r"]
LEADS = ["", "", "I looked at every edge.\n", "Final Answer: [abcd]\n", "So:\n\n", "The answer is ", "**"]
HEADS = ["Final Answer: ["] * 12 + ["Final Answer:[", "Final Answer:  [", "final answer: [", "Final Answer: ", "Answer: [", "Final Answer: [["]
TAILS = ["]"] * 12 + ["", "].", "]\n", "]\n\n", "]**", "] [", "]]", "]\nThat is all.", "] or Final Answer: [abcd]", "]\r"]
WORDS = """the tapir river a poem of in café and naïve 😀 night — “quiet” moss runs; light? stone, green 中国 ß İ e\u0301 ** ##
\n\n -""".split(" ")


def last_line(response, strip_line_ends):
    text = response.rstrip("\n") if strip_line_ends else response
    return text.split("\n")[-1]


def f1(sampled, truth, nothing_shared):
    shared = len(sampled & truth)
    recall = shared / len(truth) if truth else 0
    precision = shared / len(sampled) if sampled else 0
    return 2 * (recall * precision) / (recall + precision) if recall + precision > 0 else nothing_shared


def literal_graph_score(response, truth):
    line = last_line(response, False)
    found = re.search(r"Final Answer: ?\[.*\]", line) if "Final Answer:" in line else None
    listed = found.group(0).strip("[]").split(",") if found else []
    return float(f1({item.strip() for item in listed if item.strip()}, set(truth), 1))


def graph_score(response, truth):
    line = last_line(response, True)
    found = re.search(r"Final Answer: ?\[(.*)\]", line)
    if found is None:
        return 0.0
    listed = found.group(1).strip("[]").split(",")
    sampled = {item.strip() for item in listed if item.strip()}
    return float(f1(sampled, set(truth), 1 if not sampled and not truth else 0))


def mrcr_score(response, answer, start):
    if not response.startswith(start):
        return 0.0
    return difflib.SequenceMatcher(None, response.removeprefix(start), answer.removeprefix(start)).ratio()


def graph_record(draw):
    truth = draw.sample(NODES[:42], draw.choice([0, 0, 1, 1, 2, 3, 5, 10]))
    kept = [node for node in truth if draw.random() < draw.choice([1, 0.8, 0.3])]
    listed = kept + draw.sample(NODES, draw.choice([0, 0, 0, 1, 3])) + (kept[:1] if draw.random() < 0.2 else [])
    draw.shuffle(listed)
    separator = lambda: draw.choice([", "] * 6 + [",", " ,", ",,", "; "])
    text = "".join((separator() if i else "") + draw.choice(BLANKS[:12] + [""]) + node for i, node in enumerate(listed))
    if draw.random() < 0.15:
        text = "".join(draw.choice(BLANKS) + node + draw.choice(BLANKS) + "," for node in listed)
    response = draw.choice(LEADS) + draw.choice(HEADS) + text + draw.choice(TAILS)
    return {
        "metric": "nodes_f1",
        "prediction": response,
        "answers": truth,
        "score": graph_score(response, truth),
        "literal": literal_graph_score(response, truth),
    }


def prose(draw, count):
    return " ".join(draw.choice(WORDS) for _ in range(count))


def changed(draw, text):
    words = text.split(" ")
    for _ in range(draw.choice([0, 1, 3, 10, 40])):
        at = draw.randrange(len(words))
        kind = draw.randrange(4)
        if kind == 0 and len(words) > 1:
            del words[at]
        elif kind == 1:
            words.insert(at, draw.choice(WORDS))
        elif kind == 2:
            words[at] = words[at].swapcase()
        else:
            words.insert(draw.randrange(len(words)), words.pop(at))
    return " ".join(words)


def mrcr_record(draw):
    start = "".join(draw.choice("abcdefghijkXYZ0123456789") for _ in range(10))
    text = prose(draw, draw.choice([1, 4, 20, 60, 150, 400]))
    answer = start + text
    said = draw.choice([changed(draw, text)] * 4 + [prose(draw, 50), "", text])
    lead = draw.choice([start] * 9 + ["", start[:-1], " " + start, start.lower(), start + start])
    response = lead + said + draw.choice(["", "", "\n", " The end."])
    return {
        "metric": "difflib_ratio",
        "prediction": response,
        "answers": [answer],
        "start": start,
        "score": mrcr_score(response, answer, start),
    }


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--each", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("-o", "--output", required=True)
    given = arguments.parse_args()
    with open(given.output, "w", encoding="utf-8") as file:
        for make in (graph_record, mrcr_record):
            for index in range(given.each):
                record = make(random.Random(f"{given.seed}/{make.__name__}/{index}"))
                file.write(json.dumps(record, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
