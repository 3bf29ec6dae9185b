"""Which layers does each release make Full? Writes test/engines/release-rules.json.

The deciding function is cut out of the release's own wheel and executed on a config of transformers, with the override set
afterwards as that engine sets it. Only source files of the wheels are used; nothing of them is imported or installed.

    pip download --no-deps -d wheels sglang==0.5.23 vllm==0.33.0 lmdeploy==0.18.0 ...
    python tools/engines/release_rules.py wheels
"""

import ast
import json
import pathlib
import re
import sys
import zipfile

import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = ROOT / "test" / "engines" / "release-rules.json"
LAYERS = 12
PATTERN = "FSSFSSSSSFSS"
TYPES = ["shared" if letter == "S" else "full" for letter in PATTERN]
FULL = ["full"] * LAYERS

# (name, model_type, fields of config.json, override)
CASES = [
    ("nothing", "glm_moe_dsa", {}, {}),
    ("pattern", "glm_moe_dsa", {}, {"index_topk_pattern": PATTERN}),
    ("pattern with the old gate", "glm_moe_dsa", {}, {"use_index_cache": True, "index_topk_pattern": PATTERN}),
    ("frequency", "glm_moe_dsa", {}, {"index_topk_freq": 4}),
    ("types", "glm_moe_dsa", {}, {"indexer_types": TYPES}),
    ("pattern and types", "glm_moe_dsa", {}, {"use_index_cache": True, "index_topk_pattern": PATTERN, "indexer_types": TYPES}),
    ("pattern in config.json", "glm_moe_dsa", {"index_topk_pattern": PATTERN}, {}),
    ("types in config.json, pattern over them", "glm_moe_dsa", {"indexer_types": FULL}, {"index_topk_pattern": PATTERN}),
    ("types and pattern in config.json", "glm_moe_dsa", {"indexer_types": TYPES, "index_topk_pattern": PATTERN}, {}),
    ("pattern", "deepseek_v32", {}, {"index_topk_pattern": PATTERN}),
    ("pattern with the old gate", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_pattern": PATTERN}),
    ("types", "deepseek_v32", {}, {"indexer_types": TYPES}),
    ("pattern and types", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_pattern": PATTERN, "indexer_types": TYPES}),
    ("frequency", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_freq": 4}),
    ("frequency and offset", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_freq": 4, "index_skip_topk_offset": 3}),
    ("offset 0", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_freq": 4, "index_skip_topk_offset": 0}),
    ("frequency 0", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_freq": 0}),
    ("short pattern", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_pattern": "FSSS"}),
    ("lower case", "deepseek_v32", {}, {"use_index_cache": True, "index_topk_pattern": PATTERN.lower()}),
    ("cli_factor", "deepseek_v32", {"cli_factor": 3}, {}),
    ("pattern over cli_factor", "deepseek_v32", {"cli_factor": 3}, {"index_topk_pattern": PATTERN}),
    ("nothing", "hy_v4", {}, {}),
    ("pattern", "hy_v4", {}, {"index_topk_pattern": PATTERN}),
    ("pattern and types", "hy_v4", {}, {"index_topk_pattern": PATTERN, "indexer_types": TYPES}),
    ("short types", "hy_v4", {}, {"indexer_types": ["full", "shared"]}),
]

CLASSES = {
    "glm_moe_dsa": transformers.GlmMoeDsaConfig,
    "deepseek_v32": transformers.DeepseekV32Config,
    "hy_v4": transformers.HYV4Config,
}


def source(wheel: pathlib.Path, path: str) -> str | None:
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(path).decode() if path in archive.namelist() else None


def function(text: str, name: str):
    """The function alone, with nothing of its module but what the rule itself calls."""
    tree = ast.parse(text)
    [node] = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == name]
    node.returns = None
    for argument in node.args.args:
        argument.annotation = None
    names = {"is_deepseek_dsa": lambda config: True, "Any": None, "Sequence": None}
    exec(compile(ast.Module([node], []), name, "exec"), names)
    return names[name]


def vllm_rule(text: str):
    """The statements of the attention's __init__ that decide `skip_topk`, made a function of config and layer."""
    found = []

    class Visitor(ast.NodeVisitor):
        def generic_visit(self, node):
            for field in ("body", "orelse"):
                body = getattr(node, field, None)
                if not isinstance(body, list):
                    continue
                for index, statement in enumerate(body):
                    if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]).endswith("index_topk_freq"):
                        found.append((node, body, index))
            super().generic_visit(node)

    Visitor().visit(ast.parse(text))
    parent, body, index = found[0]
    end = next(i for i in range(index, len(body)) if isinstance(body[i], ast.If))
    lines = [line for line in map(ast.unparse, body[index : end + 1]) if not line.startswith("layer_id")]
    rule = "\n".join(lines)
    gate = isinstance(parent, ast.If) and ast.unparse(parent.test) == "use_index_cache"
    variable = re.search(r"(_?skip_topk) =", rule).group(1)

    def decide(config, layer_id):
        if gate and not getattr(config, "use_index_cache", False):
            return False
        names = {"config": config, "layer_id": layer_id, variable: False}
        exec(rule, names)
        return names[variable]

    return decide


def rules(wheel: pathlib.Path):
    """Engine, release, the model types whose rule was found, each as a function of config and layer."""
    engine, release = re.match(r"(\w+)-([\d.]+?)(?:\.post\d+)?-", wheel.name).groups()
    if engine == "sglang":
        skips = function(source(wheel, "sglang/srt/configs/model_config.py"), "dsa_layer_skips_topk")
        types = ["glm_moe_dsa", "deepseek_v32"]
        if "HYV4ForCausalLM" in source(wheel, "sglang/srt/configs/model_config.py"):
            types.append("hy_v4")
        return engine, release, dict.fromkeys(types, skips)
    if engine == "lmdeploy":
        layer_type = function(source(wheel, "lmdeploy/pytorch/models/glm_moe_dsa.py"), "_get_layer_indexer_type")
        return engine, release, {"glm_moe_dsa": lambda config, layer: layer_type(config, layer) == "shared"}
    text = source(wheel, "vllm/models/deepseek_v32/attention.py") or source(
        wheel, "vllm/model_executor/models/deepseek_v2.py"
    )
    decide = vllm_rule(text)
    found = {"glm_moe_dsa": decide, "deepseek_v32": decide}
    hy_v4 = source(wheel, "vllm/models/hy_v4/nvidia/attention.py")
    if hy_v4 is not None:
        shared = function(hy_v4, "compute_skip_topk_layers")
        found["hy_v4"] = lambda config, layer: layer in shared(config)
    return engine, release, found


def observe(skips, model_type: str, fields: dict, override: dict) -> dict:
    config = CLASSES[model_type](num_hidden_layers=LAYERS, **fields)
    for name, value in override.items():
        setattr(config, name, value)
    try:
        letters = "".join("S" if skips(config, layer) else "F" for layer in range(LAYERS))
    except (AssertionError, IndexError, ValueError, ZeroDivisionError) as error:
        return {"failure": type(error).__name__}
    return {"letters": letters}


def main() -> None:
    results = []
    for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
        engine, release, found = rules(wheel)
        for name, model_type, fields, override in CASES:
            if model_type in found:
                case = {"case": name, "model_type": model_type, "fields": fields, "override": override}
                outcome = observe(found[model_type], model_type, fields, override)
                results.append({"engine": engine, "release": release, **case, **outcome})
    record = {"transformers": transformers.__version__, "layers": LAYERS, "cases": results}
    TARGET.write_text(json.dumps(record, indent=None, separators=(",", ": ")).replace('{"engine"', '\n{"engine"') + "\n")
    print(f"{len(results)} cases of {len({(r['engine'], r['release']) for r in results})} releases")


main()
