/** What computing losses of a model takes in memory and in reading, before anything of it is loaded: from sizes alone. */
import type { DsaConfig } from "../../checkpoint/config/model-config.ts";
import type { ModelSizes, PartSize } from "../device/model-sizes.ts";
import { leastBytes, partsRoom, wholeBytes } from "./weight-room.ts";

/** Bytes. */
export interface WeightNeeds {
  /** Of all weights in the files, and once loaded. */
  stored: number;
  loaded: number;
  /** Of the largest layer, its indexer included. */
  largestLayer: PartSize;
  /** What a process takes with the whole model, and with a layer at a time. */
  whole: number;
  least: number;
  /** What it may have. */
  memory: number;
  /** Where the whole model has no room: how it is run. Undefined where it has, and where not even a layer has. */
  inTurn: LayersInTurn | undefined;
}

interface LayersInTurn {
  /** Layers that stay in memory. */
  stay: number;
  /** Of weights in the files that one pass over the layers reads, and what they are once loaded. */
  pass: PartSize;
}

/** @param lengths tokens of each sequence */
export function weightNeeds(
  config: DsaConfig,
  sizes: ModelSizes,
  lengths: readonly number[],
  memory: number,
): WeightNeeds {
  const layers = sizes.bodies.map((body, layer) => add([body, sizes.indexers[layer] ?? nothing]));
  const all = add([sizes.embedding, ...layers, sizes.head]);
  const whole = wholeBytes(sizes);
  const largestLayer = layers.reduce((largest, size) => (size.loaded > largest.loaded ? size : largest), nothing);
  const parts = whole <= memory ? undefined : partsRoom(config, sizes, lengths, memory);
  const inTurn =
    parts === undefined
      ? undefined
      : {
          stay: layers.length - parts.room.staysFrom,
          pass: add([...layers.slice(0, parts.room.staysFrom), ...(parts.room.headStays ? [] : [sizes.head])]),
        };
  return { ...all, largestLayer, whole, least: leastBytes(config, sizes, lengths), memory, inTurn };
}

const nothing: PartSize = { stored: 0, loaded: 0 };

function add(parts: readonly PartSize[]): PartSize {
  return parts.reduce(
    (sum, { stored, loaded }) => ({ stored: sum.stored + stored, loaded: sum.loaded + loaded }),
    nothing,
  );
}
