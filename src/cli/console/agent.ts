/** Programs that run this one for somebody: they read lines, not screens. docs/agents.md lists what differs for them. */

/** Variables that coding agents set for the commands that they run; `AGENT` and `AI_AGENT` are common to several. */
export const agentVariables = [
  ...["AGENT", "AI_AGENT", "CLAUDECODE", "CODEX_SANDBOX", "CURSOR_AGENT", "GEMINI_CLI", "OPENCODE"],
] as const;

export function isRunByAgent(environment: Readonly<Record<string, string | undefined>>): boolean {
  return agentVariables.some((name) => {
    const value = environment[name];
    return value !== undefined && value !== "" && value !== "0" && value !== "false";
  });
}
