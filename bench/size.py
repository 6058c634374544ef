"""How large the product is: `python bench/size.py`. A module has code if it holds more than its docstring."""

import ast
import statistics
import subprocess
from collections import Counter
from pathlib import Path

PRODUCT = ("phi3flow", "training", "deploy", "custom_connections", "flows", "evaluation", "ui")


def main():
    listed = subprocess.run(["git", "ls-files", *PRODUCT], capture_output=True, text=True, check=True).stdout
    sources = {Path(name): Path(name).read_text() for name in listed.split() if name.endswith(".py")}
    trees = {path: ast.parse(text) for path, text in sources.items()}
    with_code = [path for path, tree in trees.items() if tree.body[ast.get_docstring(tree) is not None :]]
    functions = sorted(
        node.end_lineno - node.lineno + 1
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lines = {path: len(text.splitlines()) for path, text in sources.items()}
    folder, most = Counter(path.parent for path in with_code).most_common(1)[0]
    print(f"{sum(lines.values())} lines, {len(with_code)} modules with code")
    print(f"median module {statistics.median(lines[path] for path in with_code):.0f} lines")
    print(f"{len(functions)} functions, nine of ten have at most {functions[len(functions) * 9 // 10]} lines")
    print(f"most modules in one folder: {most}, in {folder}")


if __name__ == "__main__":
    main()
