/** Completion scripts. They hold all words, so that a key press starts no program. */
import type { CommandWords, OptionWords } from "./command-words.ts";

export const shells = ["bash", "zsh", "fish"] as const;
export type Shell = (typeof shells)[number];

export function completionScript(shell: Shell, commands: readonly CommandWords[]): string {
  switch (shell) {
    case "bash":
      return bashScript(commands);
    case "zsh":
      return zshScript(commands);
    case "fish":
      return fishScript(commands);
  }
}

function bashScript(commands: readonly CommandWords[]): string {
  return `# bash completion of indexcache:  source <(indexcache completion bash)
_indexcache() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD-1]} command="" words="" index
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    case "$command \${COMP_WORDS[index]}" in
${steps(commands)}
    esac
  done
  case "$command:$previous" in
${values(commands, (offered) => `COMPREPLY=($(compgen -W ${quote(offered.join(" "))} -- "$current"))`)}
  esac
  case "$command" in
${commands.map(({ path, options, commands: below }) => `    ${quote(path)}) words=$([[ $current == -* ]] && echo ${quote(allNames(options).join(" "))} || echo ${quote(below.map(({ name }) => name).join(" "))}) ;;`).join("\n")}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
# Where nothing is offered, files are.
complete -o default -F _indexcache indexcache
`;
}

function zshScript(commands: readonly CommandWords[]): string {
  const described = (entries: readonly (readonly [string, string])[]): string =>
    entries.map(([name, text]) => quote(`${name.replaceAll(":", "\\:")}:${text}`)).join(" ");
  return `#compdef indexcache
# zsh completion of indexcache:  indexcache completion zsh > "\${fpath[1]}/_indexcache"
_indexcache() {
  local command="" word
  local -a offered
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$command $word" in
${steps(commands)}
    esac
  done
  case "$command:\${words[CURRENT-1]}" in
${values(commands, (offered) => `compadd -- ${offered.map(quote).join(" ")}`, "_files")}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then
    case "$command" in
${commands.map(({ path, options }) => `      ${quote(path)}) offered=(${described(options.flatMap(({ names, description }) => names.map((name) => [name, description] as const)))}) ;;`).join("\n")}
    esac
    _describe option offered
  else
    case "$command" in
${commands
  .filter(({ commands: below }) => below.length > 0)
  .map(
    ({ path, commands: below }) =>
      `      ${quote(path)}) offered=(${described(below.map(({ name, description }) => [name, description] as const))}); _describe command offered ;;`,
  )
  .join("\n")}
    esac
    [[ -z $command ]] || _files
  fi
}
if [[ $funcstack[1] == _indexcache ]]; then _indexcache "$@"; else compdef _indexcache indexcache; fi
`;
}

function fishScript(commands: readonly CommandWords[]): string {
  const lines = commands.flatMap(({ path, options, commands: below }) => {
    const words = path.split(" ").filter((word) => word !== "");
    const deeper = below.map(({ name }) => name);
    const seen = words.map((word) => `__fish_seen_subcommand_from ${word}`);
    const unseen = deeper.length === 0 ? [] : [`not __fish_seen_subcommand_from ${deeper.join(" ")}`];
    const when = `-n ${quote([...seen, ...unseen].join("; and "))}`;
    return [
      ...below.map(
        ({ name, description }) =>
          `complete -c indexcache ${when} ${words.length === 0 ? "-f " : ""}-a ${name} -d ${quote(description)}`,
      ),
      ...options.map((option) => `complete -c indexcache ${when} ${fishOption(option)}`),
    ];
  });
  return `# fish completion of indexcache:  indexcache completion fish > ~/.config/fish/completions/indexcache.fish
${lines.join("\n")}
`;
}

function fishOption({ names, description, takesValue, values: offered }: OptionWords): string {
  const words = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  const value = offered.length > 0 ? [`-x -a ${quote(offered.join(" "))}`] : takesValue ? ["-r"] : [];
  return [...words, ...value, `-d ${quote(description)}`].join(" ");
}

/** Patterns of `case` that follow the command from word to word. */
function steps(commands: readonly CommandWords[]): string {
  return commands
    .filter(({ path }) => path !== "")
    .map(({ path }) => {
      const parent = path.split(" ").slice(0, -1).join(" ");
      return `      ${quote(`${parent} ${path.split(" ").at(-1)}`)}) command=${quote(path)} ;;`;
    })
    .join("\n");
}

/** Patterns of `case` for an option before the word: its values, or files. */
function values(commands: readonly CommandWords[], offer: (values: readonly string[]) => string, files = ":"): string {
  return commands
    .flatMap(({ path, options }) =>
      options
        .filter(({ takesValue }) => takesValue)
        .map(({ names, values: offered }) => {
          const patterns = names.map((name) => quote(`${path}:${name}`)).join("|");
          return `    ${patterns}) ${offered.length === 0 ? files : offer(offered)}; return ;;`;
        }),
    )
    .join("\n");
}

function allNames(options: readonly OptionWords[]): string[] {
  return options.flatMap(({ names }) => names);
}

/** A word of any of these shells. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
