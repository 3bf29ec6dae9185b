/**
 * The sessions of a model's stages. Where memory has room for all of them they are opened once; where it has not, the upper
 * layers stay and each lower one is opened when it is asked for, in the place of the last.
 */
import { bodyStage, indexerStage, type StageName } from "../../graph/exported/contract.ts";
import type { ModelSizes, PartSize } from "../device/model-sizes.ts";
import type { OnnxSession } from "../session/onnx-session.ts";

/** The head that takes the place of "loss" where divergences are asked for. */
export const divergenceStage = "divergence";
export type LoadedStage = StageName | typeof divergenceStage;

/** What was read and loaded so far. */
export interface Loads {
  /** Layers that were opened, the same ones again and again. */
  layers: number;
  /** Bytes of their weights in the files. */
  bytes: number;
  seconds: number;
}

/** Which layers stay in memory, and what that takes. */
export interface LayerRoom {
  /** Layers from this one on stay, and the head with them if `headStays`. */
  staysFrom: number;
  headStays: boolean;
  /** Bytes of what stays, and of the largest part that comes and goes. */
  stays: number;
  passing: number;
}

/**
 * Keeps as many of the upper layers as there is room for beside the largest of the others: every pass ends in them, and one
 * that begins at a candidate's first difference leaves lower ones out.
 * @param bytes for weights
 * @param most how many parts may stay
 * @returns undefined where not even one layer at a time has room
 */
export function layerRoom(
  { embedding, indexers, bodies, head }: ModelSizes,
  bytes: number,
  most = Number.POSITIVE_INFINITY,
): LayerRoom | undefined {
  const layers = bodies.map((body, layer) => body.loaded + (indexers[layer]?.loaded ?? 0));
  // Candidates for staying, the most useful first: the head, then layers from the top down.
  const order = [head.loaded, ...layers.toReversed()];
  const passing = (kept: number): number =>
    Math.max(embedding.loaded, ...(kept === 0 ? [head.loaded] : []), ...layers.slice(0, layers.length + 1 - kept));
  let stays = 0;
  let kept = 0;
  for (const size of order.slice(0, most)) {
    if (stays + size + passing(kept + 1) > bytes) break;
    stays += size;
    kept++;
  }
  if (stays + passing(kept) > bytes) return undefined;
  const staying = Math.max(0, kept - 1);
  return { staysFrom: layers.length - staying, headStays: kept > 0, stays, passing: passing(kept) };
}

export class StageSessions {
  readonly loads: Loads = { layers: 0, bytes: 0, seconds: 0 };
  readonly #open: (name: LoadedStage) => Promise<OnnxSession>;
  readonly #sessions = new Map<LoadedStage, OnnxSession>();
  /** Undefined where everything stays. */
  readonly #passing: { room: LayerRoom; sizes: ModelSizes } | undefined;

  constructor(open: (name: LoadedStage) => Promise<OnnxSession>, passing?: { room: LayerRoom; sizes: ModelSizes }) {
    this.#open = open;
    this.#passing = passing;
  }

  /** The session of a stage; in a model whose layers come and go, another layer's may be closed for it. */
  async at(name: LoadedStage): Promise<OnnxSession> {
    const known = this.#sessions.get(name);
    if (known !== undefined) return known;
    if (this.#passing === undefined) throw new RangeError(`stage "${name}" is not loaded`);
    if (!this.#stays(name)) await this.#closeOthers(name);
    return await this.open(name);
  }

  async open(name: LoadedStage): Promise<OnnxSession> {
    const started = performance.now();
    const session = await this.#open(name);
    this.#sessions.set(name, session);
    this.loads.seconds += (performance.now() - started) / 1000;
    if (this.#passing !== undefined) {
      if (name.endsWith(".body")) this.loads.layers++;
      this.loads.bytes += sizeOf(this.#passing.sizes, name).stored;
    }
    return session;
  }

  async release(): Promise<void> {
    for (const session of this.#sessions.values()) await session.release();
    this.#sessions.clear();
  }

  /** Closes what neither stays nor belongs to the same layer. */
  async #closeOthers(name: LoadedStage): Promise<void> {
    const layer = layerOf(name);
    for (const [other, session] of this.#sessions) {
      if (this.#stays(other) || (layer !== undefined && layerOf(other) === layer)) continue;
      this.#sessions.delete(other);
      await session.release();
    }
  }

  #stays(name: LoadedStage): boolean {
    const { room } = this.#passing as { room: LayerRoom };
    const layer = layerOf(name);
    if (layer === undefined) return name !== "embed" && room.headStays;
    return layer >= room.staysFrom;
  }
}

function layerOf(name: LoadedStage): number | undefined {
  const [kind, layer] = name.split(".");
  return kind === "layer" ? Number(layer) : undefined;
}

function sizeOf({ embedding, indexers, bodies, head }: ModelSizes, name: LoadedStage): PartSize {
  const layer = layerOf(name);
  if (layer === undefined) return name === "embed" ? embedding : head;
  return (name === indexerStage(layer) ? indexers[layer] : name === bodyStage(layer) ? bodies[layer] : head) ?? head;
}
