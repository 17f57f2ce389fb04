"""What the Auto classes make of a folder.

Imported by tests, and run as a program: then it is a process that cannot import recbase_hf, as on the machine of
somebody who has nothing but transformers. It reads a request from standard input and prints an answer, both JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

TEXT = "<a_3><b_0><c_7><d_1>"
IDS = [33, 4, 9, 24, 26]
"""Of `TEXT`, with four levels of eight codes."""


class _NoPackage:
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name.partition(".")[0] == "recbase_hf":
            raise ModuleNotFoundError(f"No module named {name!r} (hidden for this test)")


def tokenizer_of(folder: str | Path, **options: Any) -> str:
    """One line on what `AutoTokenizer.from_pretrained` gives: whose class, and whether its ids are right."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except ValueError as error:
        return "asks for trust" if "trust_remote_code=True" in str(error) else "fails without saying why"
    package = type(tokenizer).__module__.partition(".")[0]
    right = tokenizer(TEXT)["input_ids"] == IDS and tokenizer.decode(IDS) == "<bos>" + TEXT
    return f"{package} {type(tokenizer).__name__}, {'right ids' if right else 'WRONG IDS'}"


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

    options = {"trust_remote_code": True} if request["trust"] else {}
    answer: dict[str, Any] = {
        "tokenizers": {name: tokenizer_of(folder, **options) for name, folder in request["folders"].items()},
        "model": type(AutoModelForCausalLM.from_pretrained(request["bundle"], **options)).__name__,
    }
    if request["trust"]:
        tokenizer = AutoTokenizer.from_pretrained(request["bundle"], **options)
        answer["fingerprint"] = tokenizer.fingerprint
        answer["codes"] = tokenizer.encode_items(np.array(request["vectors"], dtype=np.float32)).tolist()
        try:
            tokenizer.encode_items(["a text"])
        except ImportError as error:
            answer["texts"] = str(error)
    try:
        scoring = pipeline("recbase-scoring", model=request["bundle"], device="cpu", **options)
        answer["pipeline"] = scoring(request["scoring"])
    except ValueError as error:
        answer["pipeline"] = str(error)
    answer["package"] = "recbase_hf" in sys.modules
    return answer


if __name__ == "__main__":
    sys.meta_path.insert(0, _NoPackage())
    answer = json.dumps(_answer(json.loads(sys.stdin.readline())))
    sys.stdout.write(f"\n{answer}\n")  # transformers may have left a question on the line
