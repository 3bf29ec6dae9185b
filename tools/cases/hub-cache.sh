#!/usr/bin/env bash
# A checkpoint in two shards as `hf download` leaves it: a snapshot folder of links to blobs in HF_HOME. As it is, and
# exported, it goes through every command that runs a model. Prints each command, its results and its exit code.
# usage: DEVICE=cpu tools/cases/hub-cache.sh > output.txt
set -u
repo=$(cd "$(dirname "$0")/../.." && pwd)
device=${DEVICE:-cpu}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" XDG_CACHE_HOME="$work/cache"
unset HF_HUB_CACHE
cd "$work" || exit 3

node --input-type=module - "$repo/models/demo" "$HF_HOME/hub/models--indexcache--demo" <<'JS'
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
const [, , model, cached] = process.argv;
const revision = "0123456789abcdef0123456789abcdef01234567";
for (const folder of ["blobs", "refs", `snapshots/${revision}`]) mkdirSync(`${cached}/${folder}`, { recursive: true });
writeFileSync(`${cached}/refs/main`, revision);
const add = (name, content) => {
  const blob = createHash("sha256").update(content).digest("hex");
  writeFileSync(`${cached}/blobs/${blob}`, content);
  symlinkSync(`../../blobs/${blob}`, `${cached}/snapshots/${revision}/${name}`);
};
const bytes = readFileSync(`${model}/model.safetensors`);
const start = 8 + Number(bytes.readBigUInt64LE());
const header = Object.entries(JSON.parse(bytes.toString("utf8", 8, start))).filter(([name]) => name !== "__metadata__");
const shards = [0, 1].map((odd) => header.filter((_, index) => index % 2 === odd));
const names = shards.map((_, index) => `model-0000${index + 1}-of-00002.safetensors`);
const map = {};
shards.forEach((tensors, index) => {
  const parts = [];
  const entries = { __metadata__: { format: "pt" } };
  let at = 0;
  for (const [name, { dtype, shape, data_offsets: [from, to] }] of tensors) {
    map[name] = names[index];
    entries[name] = { dtype, shape, data_offsets: [at, at + to - from] };
    parts.push(bytes.subarray(start + from, start + to));
    at += to - from;
  }
  const text = Buffer.from(JSON.stringify(entries));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  add(names[index], Buffer.concat([length, text, ...parts]));
});
add("model.safetensors.index.json", JSON.stringify({ metadata: {}, weight_map: map }));
for (const name of readdirSync(model)) if (/json$|jinja$/.test(name)) add(name, readFileSync(`${model}/${name}`));
JS

failed=0
plain() { sed -e "s#$work/##g; s#$repo/##g"; }
try() {
  echo "\$ indexcache $*" | plain
  node "$repo/bin/indexcache.js" "$@" >"$work/results" 2>"$work/errors"
  local status=$?
  plain <"$work/results"
  grep -E '^(warning|error|hint):' "$work/errors" | plain
  echo "exit $status"
  echo
  [ $status = 0 ] || failed=1
}

on=(--device "$device")
text=(-c "$repo/calibration/demo.jsonl" --sequences 2 --sequence-length 512)
try export indexcache/demo -o exported
for model in indexcache/demo exported; do
  tag=${model//\//-}
  try inspect "$model"
  try loss "$model" "${text[@]}" "${on[@]}"
  try search "$model" "${text[@]}" "${on[@]}" --strategy greedy --retain 9 -o "$tag.json"
  try run "$model" -p "$tag.json" --prompt "The key of" --max-new-tokens 8 "${on[@]}"
  try eval "$model" -p "$tag.json" --suite ruler-core --tasks niah_single_1 --lengths 512 --samples 2 -o "$tag-eval.json" "${on[@]}"
  try analyze "$model" "${text[@]}" -o "$tag-analysis.json" "${on[@]}"
  try bench "$model" -p "$tag.json" --contexts 256 --repeats 2 -o "$tag-bench.json" "${on[@]}"
  try report "$tag.json" "$tag-eval.json" "$tag-analysis.json" "$tag-bench.json" -o "$tag-report"
done
same() { node -p "JSON.parse(require('fs').readFileSync('$1')).baseline_loss"; }
echo "baseline loss: $(same indexcache-demo.json) as downloaded, $(same exported.json) exported"
exit $failed
