/** What `distill --dry-run` prints: what a distillation takes of disk and memory. */
import { type DistillPlan, type MemoryNeed, totalMemory } from "../../distill/distill-plan.ts";
import { counted, formatBytes, formatCount, formatDuration, formatMagnitude } from "../quantities.ts";
import { formatFields } from "../text-table.ts";

export interface DistillPlanRecord extends DistillPlan {
  model: string;
  pattern: string;
  work: string;
  /** Bytes that are free where the work would be; null where nothing tells. */
  disk_free: number | null;
  memory_free: number | null;
  device: string;
  /** Floating-point operations a second of matrix products, measured just now; null where the device does not work. */
  flops: number | null;
  /** Is `sequences` what the text has, or what the steps could use at most? */
  text: "given" | "assumed";
}

/** @param width that no line may exceed where words allow it; undefined is a file or pipe */
export function formatDistillPlan(plan: DistillPlanRecord, width: number | undefined): string {
  const { carry, training, boundaries, text, device, operations, flops } = plan;
  const free = (bytes: number | null): string => (bytes === null ? "" : `; ${formatBytes(bytes)} free`);
  const need = (memory: MemoryNeed): string =>
    `${formatBytes(totalMemory(memory))} = weights ${formatBytes(memory.weights)} + batch ${formatBytes(memory.batch)}`;
  const time = (floats: number): string => formatDuration(floats / (flops ?? 1));
  const boundary = `${boundaries} ${boundaries === 1 ? "boundary" : "boundaries"} of ${formatBytes(plan.boundaryBytes)}`;
  return formatFields(
    [
      ["Model", plan.model],
      ["Pattern", plan.pattern === "any" ? "any: one is drawn for each step" : plan.pattern],
      ["Groups", `${plan.groups}, ${formatCount(plan.steps)} steps together`],
      [
        "Text",
        `${counted(plan.sequences, "sequence")} of ${formatCount(plan.length)} tokens, ${formatCount(plan.heldOut)} more held out${text === "assumed" ? " (no -c: as many as the steps use)" : ""}`,
      ],
      ["Tokens", `${formatCount(plan.tokens)} through every layer once, ${formatCount(plan.tokensPerStep)} a step`],
      [
        "States",
        plan.stepStates === "stored" ? "of every layer, stored" : "of a group's first layer; a step runs the others",
      ],
      ["Disk", `${formatBytes(plan.diskBytes)} = ${boundary} in "${plan.work}"${free(plan.disk_free)}`],
      ["Memory, states", carry.weights === 0 ? undefined : need(carry)],
      ["Memory, steps", need(training)],
      ["Memory, free", plan.memory_free === null ? undefined : `${formatBytes(plan.memory_free)} on ${device}`],
      [
        "Time, about",
        flops === null
          ? `not known: ${device} does not work here`
          : `${time(operations.carry)} for the states, ${time(operations.training)} for the steps, if ${device} stays as fast as now (${formatMagnitude(flops)} operations/s) and the disk keeps up`,
      ],
    ],
    width,
  );
}
