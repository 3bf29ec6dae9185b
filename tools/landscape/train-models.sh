#!/usr/bin/env bash
# Trains the models of test/fixtures/landscapes side by side on one GPU.
#   CORPUS=train.bin.xz TASKS=evaluation.jsonl OUT=models bash tools/landscape/train-models.sh [NAMES]
# Stages last seconds, not steps, because the runs share the GPU: other machines give other weights.
set -u
here=$(cd "$(dirname "$0")" && pwd)
wanted=${*:-l8 l10 l12 l12-k64 l14}
train() {
  local name=$1 seed=$2
  shift 2
  case " $wanted " in *" $name "*) ;; *) return ;; esac
  python3 "$here/../train-demo/train.py" --corpus "$CORPUS" --tokenizer "$here/../../models/demo" --tasks "$TASKS" \
    --score-limit 32 --checkpoint "$OUT/$name.pt" --out "$OUT/$name" --seed "$seed" --batch 16 --rows 128 --log-every 50 \
    --export-at 400 800 1600 --stage "dense:${DENSE:-250s}:2e-3:1.6e-3" --stage "sparse:${SPARSE:-190s}:1.6e-3:5e-5" \
    --geometry "$@" >"$OUT/$name.log" 2>&1 || echo "$name failed: see $OUT/$name.log"
}
mkdir -p "$OUT"
train l8 11 num_hidden_layers=8 hidden_size=96 intermediate_size=256 moe_intermediate_size=48 q_lora_rank=64 kv_lora_rank=48 index_topk=64 &
train l10 12 num_hidden_layers=10 hidden_size=160 index_topk=128 &
train l12 13 num_hidden_layers=12 hidden_size=192 index_topk=128 &
train l12-k64 14 num_hidden_layers=12 hidden_size=128 q_lora_rank=64 index_topk=64 &
train l14 15 num_hidden_layers=14 hidden_size=128 q_lora_rank=64 index_topk=64 &
wait
