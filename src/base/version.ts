/** The version of this tool, from its package.json: it goes into every result and decides whether a run can resume. */
import { readFileSync } from "node:fs";

const manifest: unknown = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8"));

export const toolVersion: string =
  manifest !== null && typeof manifest === "object" && "version" in manifest ? String(manifest.version) : "unknown";
