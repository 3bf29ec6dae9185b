/** What the scripts of this folder are given: `parseArgs`, with --help, and one sentence instead of a stack about what is wrong. */

import { relative } from "node:path";
import { parseArgs } from "node:util";

/**
 * Ends the process with 0 after --help and with 2 where the arguments cannot be used.
 * @param options as parseArgs takes them; `required: true` where a script cannot do without
 * @param named what stands before or between the options, all of it needed
 * @param choices of which one may stand there instead
 */
export function readArguments(options, { named = [], choices = [] } = {}) {
  const usage = describeUsage(options, named, choices);
  const fail = (sentence) => {
    console.error(`error: ${sentence}\n${usage}`);
    process.exit(2);
  };
  let read;
  try {
    read = parseArgs({ allowPositionals: true, options: { ...options, help: { type: "boolean", short: "h" } } });
  } catch (error) {
    if (!String(error.code).startsWith("ERR_PARSE_ARGS_")) throw error;
    // What follows the first sentence is about arguments that begin with a dash.
    return fail(error.message.split(/\.\s/)[0].replaceAll("\n", " "));
  }
  const { values, positionals } = read;
  if (values.help) {
    console.log(usage);
    process.exit(0);
  }
  const without = Object.keys(options).find((name) => options[name].required && values[name] === undefined);
  if (without !== undefined) return fail(`--${without} is needed`);
  const missing = named[positionals.length];
  if (missing !== undefined) return fail(`${missing} is missing`);
  const known =
    named.length > 0 ? positionals.slice(0, named.length) : positionals.filter((one) => choices.includes(one));
  const unknown = positionals.find((one) => !known.includes(one));
  if (unknown !== undefined) return fail(`${JSON.stringify(unknown)} means nothing here`);
  return { values, positionals };
}

function describeUsage(options, named, choices) {
  const own = [...named, ...(choices.length > 0 ? [`[${choices.join(" | ")}]`] : [])];
  const lines = Object.entries(options).map(([name, { type, short, default: value, required }]) => {
    const flag = `--${name}${short === undefined ? "" : `, -${short}`}${type === "string" ? " <value>" : ""}`;
    const note = required ? "needed" : typeof value === "string" ? `default: ${value}` : "";
    return `  ${flag.padEnd(28)} ${note}`.trimEnd();
  });
  return ["usage: node", relative(process.cwd(), process.argv[1]), ...own].join(" ").concat("\n", lines.join("\n"));
}
