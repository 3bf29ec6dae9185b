/** What passes between JavaScript and a session: on a GPU each of these bytes crosses the bus. */
import type { Tensor } from "onnxruntime-node";

export interface Traffic {
  runs: number;
  /** Feeds of all runs. */
  tensorsIn: number;
  bytesIn: number;
  /** Fetched outputs of all runs. */
  tensorsOut: number;
  bytesOut: number;
}

export function noTraffic(): Traffic {
  return { runs: 0, tensorsIn: 0, bytesIn: 0, tensorsOut: 0, bytesOut: 0 };
}

/** Adds one run. */
export function countRun(traffic: Traffic, feeds: Record<string, Tensor>, outputs: Record<string, Tensor>): void {
  traffic.runs++;
  for (const tensor of Object.values(feeds)) {
    traffic.tensorsIn++;
    traffic.bytesIn += hostBytes(tensor);
  }
  for (const tensor of Object.values(outputs)) {
    traffic.tensorsOut++;
    traffic.bytesOut += hostBytes(tensor);
  }
}

/** What `all` holds beyond `part`. */
export function trafficSince(part: Traffic, all: Traffic): Traffic {
  return {
    runs: all.runs - part.runs,
    tensorsIn: all.tensorsIn - part.tensorsIn,
    bytesIn: all.bytesIn - part.bytesIn,
    tensorsOut: all.tensorsOut - part.tensorsOut,
    bytesOut: all.bytesOut - part.bytesOut,
  };
}

/** A tensor that stays on the device has no bytes to pass; one of strings has no bytes to count. */
function hostBytes(tensor: Tensor): number {
  if (tensor.location !== "cpu") return 0;
  return ArrayBuffer.isView(tensor.data) ? tensor.data.byteLength : 0;
}
