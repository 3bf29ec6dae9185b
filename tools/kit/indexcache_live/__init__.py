"""What `indexcache search --server` needs inside a vLLM or SGLang server: layers of a DSA model switched between Full and
Shared while it runs. Python 3.10, the standard library and the engine only. Nothing here is imported unless asked for."""

VERSION = "1"
