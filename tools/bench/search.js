/** The paper's greedy search with exact prefix reuse, against the same search by full forward passes. */
import { openLossEvaluator } from "../../dist/runtime/loss.js";
import { searchGreedily } from "../../dist/search/greedy.js";
import { parseRetain } from "../../dist/search/retain.js";
import { someIds } from "./inference.js";

export async function measureSearch(model, { threads, sequences, length }) {
  const ids = someIds(sequences * length, model.config.vocabSize);
  const windows = Array.from({ length: sequences }, (_, i) => Int32Array.from(ids.slice(i * length, (i + 1) * length)));
  const run = async (reuse) => {
    const evaluator = await openLossEvaluator(model, windows, { device: "cpu", threads });
    const total = { body: 0, indexer: 0, seconds: 0, losses: [] };
    const started = performance.now();
    const evaluate = async (pattern, { base, signal }) => {
      const measured = await evaluator.evaluate(pattern, reuse ? { base, signal } : { signal });
      total.body += measured.executions.body;
      total.indexer += measured.executions.indexer;
      total.losses.push(measured.loss);
      return measured;
    };
    const retain = parseRetain("1/4", model.config.numHiddenLayers);
    for await (const event of searchGreedily({
      start: model.config.indexerLayers,
      retain,
      memo: new Map(),
      evaluate,
    })) {
      if (event.kind === "done") break;
    }
    total.seconds = (performance.now() - started) / 1000;
    await evaluator.release();
    return total;
  };
  const reuse = await run(true);
  const naive = await run(false);
  return {
    sequences,
    length,
    evaluations: reuse.losses.length,
    reuse,
    naive,
    identical: reuse.losses.length === naive.losses.length && reuse.losses.every((loss, i) => loss === naive.losses[i]),
  };
}
