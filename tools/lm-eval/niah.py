"""Samples of RULER's niah_single_1 in 1,024 tokens, from lm-evaluation-harness's own generator, to generate or to choose."""

import random

import datasets
from lm_eval.tasks.ruler.common_utils import get_tokenizer, resolve_tokenizer_name
from lm_eval.tasks.ruler.niah_utils import TEMPLATE
from lm_eval.tasks.ruler.prepare_niah import generate_samples, get_haystack

# Tokens of the longest sample: lm-eval keeps one of the model's 1,024 for itself, and cuts prompts by what it may generate.
LENGTH = 960
SAMPLES = 100


def generation(**kwargs):
    tokenizer = get_tokenizer(resolve_tokenizer_name(kwargs))
    samples = generate_samples(
        get_haystack(type_haystack="repeat"),
        max_seq_length=LENGTH,
        template=TEMPLATE,
        type_haystack="repeat",
        type_needle_k="words",
        type_needle_v="numbers",
        num_samples=SAMPLES,
        tokens_to_generate=32,
        TOKENIZER=tokenizer,
    )
    return {"test": datasets.Dataset.from_list(list(samples))}


def choices(**kwargs):
    chance = random.Random(42)

    def with_choices(document):
        answer = document["outputs"][0]
        numbers = [answer, *(str(chance.randint(1000000, 9999999)) for _ in range(3))]
        chance.shuffle(numbers)
        return {**document, "choices": [f"{number}." for number in numbers], "answer": numbers.index(answer)}

    return {name: split.map(with_choices) for name, split in generation(**kwargs).items()}


def found(document, results):
    return {"string_match": float(all(output in results[0] for output in document["outputs"]))}
