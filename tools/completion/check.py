"""Types into bash, zsh and fish on a pseudo-terminal and reads what the Tab key makes of the line.

    python tools/completion/check.py [SHELL...]      # from the repository, after npm run build; all shells that are installed

Exit code 1 if a line differs from what is expected. Shells that are not installed are named and left out;
BASH_PROGRAM, ZSH_PROGRAM and FISH_PROGRAM name one in another place.
"""

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# What is typed, and the line after Tab. A set: Tab lists these words, among others, and `!word` is not among them. Then,
# for single shells, what differs.
CASES = [
    ("indexcache sea", "indexcache search "),
    ("indexcache ", {"search", "eval", "pattern", "completion"}),
    ("indexcache --no-c", "indexcache --no-config "),
    ("indexcache search --stra", "indexcache search --strategy "),
    ("indexcache search --strategy bl", "indexcache search --strategy blockwise "),
    ("indexcache search --strategy=bl", "indexcache search --strategy=blockwise "),
    ("indexcache search --strategy ", {"refine", "greedy", "blockwise", "exhaustive", "!p.json"}),
    ("indexcache search ./model --dt", "indexcache search ./model --dtype "),
    ("indexcache search mer", "indexcache search merge "),
    ("indexcache search merge --outp", "indexcache search merge --output "),
    ("indexcache search mod", "indexcache search model/"),
    ("indexcache search -o p.js", "indexcache search -o p.json "),
    ("indexcache --config p.json sea", "indexcache --config p.json search "),
    ("indexcache eval --suite graph", "indexcache eval --suite graphwalks "),
    ("indexcache eval -p p.js", "indexcache eval -p p.json "),
    ("indexcache eval -p uni", "indexcache eval -p uniform:"),
    ("indexcache eval -p fre", "indexcache eval -p freq:4 "),
    # fish offers files behind a colon, too.
    ("indexcache eval -p freq:", "indexcache eval -p freq:4 ", {"fish": {"freq:4"}}),
    ("indexcache eval --pattern=freq:", "indexcache eval --pattern=freq:4 ", {"fish": {"--pattern=freq:4"}}),
    ("indexcache eval -p zai-org/GLM-5/q", "indexcache eval -p zai-org/GLM-5/quarter "),
    ("indexcache eval -p full --sui", "indexcache eval -p full --suite "),
    ("indexcache pattern zai-org/GLM-5/q", "indexcache pattern zai-org/GLM-5/quarter "),
    ("indexcache pattern p.js", "indexcache pattern p.json "),
    ("indexcache pattern --for sgl", "indexcache pattern --for sglang "),
    ("indexcache pattern apply mod", "indexcache pattern apply model/"),
    ("indexcache pattern apply ./model full --sha", "indexcache pattern apply ./model full --shards "),
    ("indexcache inspect mod", "indexcache inspect model/"),
    ("indexcache loss -o eval --quie", "indexcache loss -o eval --quiet "),
    ("indexcache completion z", "indexcache completion zsh "),
    ("indexcache config sea", "indexcache config search "),
    ("indexcache run --device w", "indexcache run --device webgpu "),
]

# Writes the line into $LINE when Ctrl-X Ctrl-L is pressed.
SHELLS = {
    "bash": (
        ["--norc", "--noprofile", "-i"],
        "PS1='> '; bind 'set enable-bracketed-paste off'; bind 'set completion-query-items 1000'; bind 'set page-completions off';"
        """ bind -x '"\\C-x\\C-l": printf %s "$READLINE_LINE" > $LINE.new; mv $LINE.new $LINE'; source completion.bash""",
    ),
    "zsh": (
        ["-f", "-i"],
        "PS1='> '; LISTMAX=1000; fpath=($PWD/zsh $fpath); autoload -U compinit; compinit -u -d $PWD/dump;"
        " line() { print -rn -- $BUFFER > $LINE.new; command mv $LINE.new $LINE }; zle -N line; bindkey '^X^L' line",
    ),
    "fish": (
        ["--no-config", "-i"],
        "function fish_prompt; echo '> '; end; function line; commandline > $LINE.new; command mv $LINE.new $LINE; end;"
        r" bind \cx\cl line; set fish_autosuggestion_enabled 0; source completion.fish",
    ),
}


class Terminal:
    """A shell on a pseudo-terminal of 200 columns."""

    def __init__(self, program: str, arguments: list[str], folder: Path):
        self.line = folder / "line"
        environment = {**os.environ, "TERM": "xterm", "HOME": str(folder), "LINE": str(self.line), "COLUMNS": "200", "LINES": "60"}
        environment["PATH"] = f"{folder / 'bin'}:{environment['PATH']}"
        self.process, self.file = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execve(program, [program, *arguments], environment)
        fcntl.ioctl(self.file, termios.TIOCSWINSZ, struct.pack("HHHH", 60, 200, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self.file, keys.encode())

    def read(self, quiet: float) -> str:
        """What is printed until nothing more comes for that many seconds."""
        text = b""
        while select.select([self.file], [], [], quiet)[0]:
            text += os.read(self.file, 65536)
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]|\r", " ", text.decode(errors="replace"))

    def current_line(self) -> str:
        self.line.unlink(missing_ok=True)
        self.type("\x18\x0c")
        deadline = time.time() + 20
        while not self.line.exists():
            self.read(0.05)
            if time.time() > deadline:
                raise TimeoutError("the shell does not say what its line is")
        return self.line.read_text().rstrip("\n")

    def close(self) -> None:
        os.kill(self.process, 9)
        os.waitpid(self.process, 0)
        os.close(self.file)


def check(shell: str, program: str, folder: Path) -> int:
    arguments, setup = SHELLS[shell]
    terminal = Terminal(program, arguments, folder)
    terminal.read(1)
    terminal.type(setup + "\n")
    terminal.read(2)
    wrong = 0
    for typed, usual, *others in CASES:
        expected = others[0].get(shell, usual) if others else usual
        terminal.type(typed)
        terminal.read(0.2)
        terminal.type("\t" if isinstance(expected, str) else "\t\t")
        printed = terminal.read(0.6)
        line = terminal.current_line()
        if isinstance(expected, str):
            problem = "" if line == expected else f"expected {expected!r}, got {line!r}"
        else:
            words = set(printed.split())
            missing = [word for word in expected if not word.startswith("!") and word not in words]
            surplus = [word[1:] for word in expected if word.startswith("!") and word[1:] in words]
            problem = "; ".join(filter(None, [f"not listed: {missing}" if missing else "", f"listed: {surplus}" if surplus else ""]))
        if problem:
            wrong += 1
            print(f"{shell}: {typed!r}: {problem}")
        # Leaves the list of candidates (fish), then empties the line.
        terminal.type("\x1b")
        terminal.read(0.6)
        terminal.type("\x05\x15")
        terminal.read(0.2)
    terminal.close()
    print(f"{shell}: {len(CASES) - wrong} of {len(CASES)} lines are completed as expected")
    return wrong


def main() -> int:
    wrong = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        (folder / "zsh").mkdir()
        (folder / "bin").mkdir()
        (folder / "p.json").write_text("{}")
        (folder / "bin" / "indexcache").symlink_to(ROOT / "bin" / "indexcache.js")
        for shell, file in (("bash", "completion.bash"), ("zsh", "zsh/_indexcache"), ("fish", "completion.fish")):
            script = subprocess.run(["node", str(ROOT / "bin" / "indexcache.js"), "completion", shell], check=True, capture_output=True)
            (folder / file).write_bytes(script.stdout)
        for shell in sys.argv[1:] or SHELLS:
            program = os.environ.get(f"{shell.upper()}_PROGRAM") or shutil.which(shell)
            if program is None:
                print(f"{shell}: not installed")
                continue
            wrong += check(shell, program, folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
