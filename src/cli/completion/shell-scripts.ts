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

type Offered = Pick<OptionWords, "values" | "takesFiles">;

function bashScript(commands: readonly CommandWords[]): string {
  return `# bash completion of indexcache:  source <(indexcache completion bash)
_indexcache() {
  # Words as the user sees them: bash itself also splits at ":", "=" and "@".
  local line=\${COMP_LINE:0:COMP_POINT} typed current previous command="" words="" index
  read -ra typed <<< "$line"
  [[ $line == *[[:space:]] ]] && typed+=("")
  current=\${typed[\${#typed[@]}-1]} previous=\${typed[\${#typed[@]}-2]}
  COMPREPLY=()
  for ((index = 1; index < \${#typed[@]} - 1; index++)); do
    case "$command \${typed[index]}" in
${steps(commands)}
    esac
  done
  [[ $current == --*=* ]] && previous=\${current%%=*} && current=\${current#*=}
  case "$command:$previous" in
${values(commands, ({ values }) => (values.length === 0 ? "return" : `words=${quote(values.join(" "))}`))}
    *) case "$command" in
${commands.map(({ path, options, commands: below, operands }) => `      ${quote(path)}) words=$([[ $current == -* ]] && echo ${quote(allNames(options).join(" "))} || echo ${quote([...below.map(({ name }) => name), ...operands.values].join(" "))}) ;;`).join("\n")}
    esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  # What comes back takes the place of what follows the last of those characters.
  local breaks=\${COMP_WORDBREAKS//[^:=@]/}
  [[ -z $breaks ]] && return
  local kept=\${current%"\${current##*["$breaks"]}"}
  for index in "\${!COMPREPLY[@]}"; do COMPREPLY[index]=\${COMPREPLY[index]#"$kept"}; done
}
# Where nothing is offered, files are.
complete -o default -F _indexcache indexcache
`;
}

function zshScript(commands: readonly CommandWords[]): string {
  const described = (entries: readonly (readonly [string, string])[]): string =>
    entries.map(([name, text]) => quote(`${name.replaceAll(":", "\\:")}:${text}`)).join(" ");
  const offer = ({ values, takesFiles }: Offered): string =>
    [
      ...(values.length === 0 ? [] : [`compadd -- ${values.map(quote).join(" ")}`]),
      ...(takesFiles ? ["_files"] : []),
    ].join("; ");
  return `#compdef indexcache
# zsh completion of indexcache:  indexcache completion zsh > "\${fpath[1]}/_indexcache"
_indexcache() {
  local command="" word previous=\${words[CURRENT-1]}
  local -a offered
  for word in "\${(@)words[2,CURRENT-1]}"; do
    case "$command $word" in
${steps(commands)}
    esac
  done
  [[ $PREFIX == --*=* ]] && previous=\${PREFIX%%=*} && compset -P '*='
  case "$command:$previous" in
${values(commands, (offered) => `${offer(offered)}; return`)}
  esac
  if [[ \${words[CURRENT]} == -* ]]; then
    case "$command" in
${commands.map(({ path, options }) => `      ${quote(path)}) offered=(${described(options.flatMap(({ names, description }) => names.map((name) => [name, description] as const)))}) ;;`).join("\n")}
    esac
    _describe option offered
  else
    case "$command" in
${commands
  .map(({ path, commands: below, operands }) => {
    const lists = below.map(({ name, description }) => [name, description] as const);
    const listed = lists.length === 0 ? [] : [`offered=(${described(lists)}); _describe command offered`];
    return `      ${quote(path)}) ${[...listed, offer(operands)].filter((step) => step !== "").join("; ")} ;;`;
  })
  .join("\n")}
    esac
  fi
}
if [[ $funcstack[1] == _indexcache ]]; then _indexcache "$@"; else compdef _indexcache indexcache; fi
`;
}

function fishScript(commands: readonly CommandWords[]): string {
  const lines = commands.flatMap(({ path, options, commands: below, operands }) => {
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
      ...(operands.values.length === 0
        ? []
        : [`complete -c indexcache ${when} ${operands.takesFiles ? "" : "-f "}-a ${quote(operands.values.join(" "))}`]),
      ...options.map((option) => `complete -c indexcache ${when} ${fishOption(option)}`),
    ];
  });
  return `# fish completion of indexcache:  indexcache completion fish > ~/.config/fish/completions/indexcache.fish
${lines.join("\n")}
`;
}

function fishOption({ names, description, takesValue, values: offered, takesFiles }: OptionWords): string {
  const words = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
  const files = takesFiles ? "-r -F" : "-x";
  const value = !takesValue ? [] : offered.length === 0 ? [files] : [`${files} -a ${quote(offered.join(" "))}`];
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

/** Patterns of `case` for an option before the word, with what is done for its values. */
function values(commands: readonly CommandWords[], offer: (offered: Offered) => string): string {
  return commands
    .flatMap(({ path, options }) =>
      options
        .filter(({ takesValue }) => takesValue)
        .map((option) => `    ${option.names.map((name) => quote(`${path}:${name}`)).join("|")}) ${offer(option)} ;;`),
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
