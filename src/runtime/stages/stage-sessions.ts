/**
 * The sessions of a model's stages. Where memory has room for all of them they are opened once; where it has not, the upper
 * layers stay and each lower one is opened when it is asked for, in the place of the last.
 */
import type { LayerWeights } from "../../checkpoint/weights.ts";
import { bodyStage, indexerStage, type StageName } from "../../graph/exported/contract.ts";
import { attentionProbe } from "../../graph/frames/attention-probe.ts";
import { buildDivergenceStage } from "../../graph/frames/head.ts";
import { encodeModel } from "../../graph/graph-builder.ts";
import type { ModelFolder } from "../../graph/model-folder.ts";
import { type ModelSizes, modelSizes, type PartSize } from "../device/model-sizes.ts";
import type { LayerLoads } from "../measurement.ts";
import { OnnxSession, type SessionSettings } from "../session/onnx-session.ts";

/** The head that takes the place of "loss" where divergences are asked for. */
export const divergenceStage = "divergence";
/** Beside a layer's body: what its attention would lose with other layers' selections. */
export const probeStage = (layer: number) => `layer.${layer}.probe` as const;
export type LoadedStage = StageName | typeof divergenceStage | ReturnType<typeof probeStage>;

/** What was read and loaded so far. */
export type Loads = Omit<LayerLoads, "passes">;

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

export interface StageOptions {
  /** Tokens of the model's own distribution that are kept, where divergences are asked for beside losses. */
  top?: number | undefined;
  /** What stays in memory; layers below come and go. */
  room?: LayerRoom | undefined;
  /** Losses, unless others are wanted: logits, or probes of every layer. */
  purpose?: "losses" | "logits" | "probes";
}

export class StageSessions {
  readonly loads: Loads = { layers: 0, bytes: 0, seconds: 0 };
  readonly #open: (name: LoadedStage) => Promise<OnnxSession>;
  readonly #sessions = new Map<LoadedStage, OnnxSession>();
  /** Undefined where everything stays. */
  readonly #passing: { room: LayerRoom; sizes: ModelSizes } | undefined;

  private constructor(
    open: (name: LoadedStage) => Promise<OnnxSession>,
    passing: { room: LayerRoom; sizes: ModelSizes } | undefined,
  ) {
    this.#open = open;
    this.#passing = passing;
  }

  /** Loads what is needed, unless layers come and go: that is opened when it is asked for, and what stays with it. */
  static async open(
    { config, places, stage, weights }: ModelFolder,
    settings: Omit<SessionSettings, "folder">,
    { top, room, purpose = "losses" }: StageOptions,
  ): Promise<StageSessions> {
    const graphOf = async (name: LoadedStage): Promise<Uint8Array> => {
      if (name === divergenceStage) return encodeModel(buildDivergenceStage(config, await weights(), top as number));
      if (!isProbe(name)) return await stage(name);
      return attentionProbe(config, (await weights()).layers[layerOf(name) as number] as LayerWeights, name);
    };
    const open = async (name: LoadedStage) =>
      await OnnxSession.create(await graphOf(name), name, { ...settings, folder: places.folder });
    const sessions = new StageSessions(open, room && { room, sizes: modelSizes(await weights()) });
    if (room !== undefined) return sessions;
    const layers = [...config.indexerLayers].flatMap((letter, layer): LoadedStage[] => [
      ...(letter === "F" ? [indexerStage(layer)] : []),
      bodyStage(layer),
      ...(purpose === "probes" ? [probeStage(layer)] : []),
    ]);
    const heads = { losses: top === undefined ? "loss" : divergenceStage, logits: "head", probes: undefined } as const;
    const head = heads[purpose];
    try {
      for (const name of ["embed", ...layers, ...(head === undefined ? [] : [head])] as const)
        await sessions.#load(name);
    } catch (error) {
      await sessions.release();
      throw error;
    }
    return sessions;
  }

  /** The first of the layers that stay. */
  get staysFrom(): number {
    return this.#passing?.room.staysFrom ?? 0;
  }

  /** The session of a stage; in a model whose layers come and go, another layer's may be closed for it. */
  async at(name: LoadedStage): Promise<OnnxSession> {
    const known = this.#sessions.get(name);
    if (known !== undefined) return known;
    if (this.#passing === undefined) throw new RangeError(`stage "${name}" is not loaded`);
    if (!this.#stays(name)) await this.#closeOthers(name);
    return await this.#load(name);
  }

  async #load(name: LoadedStage): Promise<OnnxSession> {
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

function isProbe(name: LoadedStage): name is ReturnType<typeof probeStage> {
  return name.endsWith(".probe");
}

function layerOf(name: LoadedStage): number | undefined {
  const [kind, layer] = name.split(".");
  return kind === "layer" ? Number(layer) : undefined;
}

function sizeOf({ embedding, indexers, bodies, head }: ModelSizes, name: LoadedStage): PartSize {
  const layer = layerOf(name);
  if (layer === undefined) return name === "embed" ? embedding : head;
  // A probe reads what the body reads.
  return (name === indexerStage(layer) ? indexers[layer] : bodies[layer]) ?? head;
}
