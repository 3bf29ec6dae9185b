/** What `distill --dry-run` prints: what a distillation takes of disk and memory. */
import { type DistillPlan, type MemoryNeed, totalMemory } from "../../distill/distill-plan.ts";
import { formatBytes, formatCount } from "../quantities.ts";
import { formatFields } from "../text-table.ts";

export interface DistillPlanRecord extends DistillPlan {
  model: string;
  pattern: string;
  work: string;
  /** Bytes that are free where the work would be; null where nothing tells. */
  disk_free: number | null;
  memory_free: number | null;
  device: string;
  /** Is `sequences` what the text has, or what the steps could use at most? */
  text: "given" | "assumed";
}

export function formatDistillPlan(plan: DistillPlanRecord): string {
  const { carry, training, boundaries, text } = plan;
  const free = (bytes: number | null): string => (bytes === null ? "" : `; ${formatBytes(bytes)} free`);
  const need = (memory: MemoryNeed): string =>
    `${formatBytes(totalMemory(memory))} = weights ${formatBytes(memory.weights)} + batch ${formatBytes(memory.batch)}`;
  return formatFields([
    ["Model", plan.model],
    ["Pattern", plan.pattern === "any" ? "any: one is drawn for each step" : plan.pattern],
    ["Groups", `${plan.groups}, ${formatCount(plan.steps)} steps together`],
    [
      "Text",
      `${formatCount(plan.sequences)} sequences of ${formatCount(plan.length)} tokens, ${formatCount(plan.heldOut)} more held out${text === "assumed" ? " (no -c: as many as the steps use)" : ""}`,
    ],
    ["Tokens", `${formatCount(plan.tokens)} through every layer once, ${formatCount(plan.tokensPerStep)} a step`],
    [
      "Disk",
      `${formatBytes(plan.diskBytes)} in "${plan.work}" = ${boundaries} boundaries of ${formatBytes(plan.boundaryBytes)}${free(plan.disk_free)}`,
    ],
    ["Memory, layers", need(carry)],
    [
      "Memory, training",
      `${need(training)}${plan.memory_free === null ? "" : `; ${plan.device} has ${formatBytes(plan.memory_free)} free`}`,
    ],
    ["Time", "the first steps tell"],
  ]);
}
