"""The flags that an installed vLLM knows, read from its source.

Asking vLLM itself would mean importing it, which takes ten seconds or more. In vLLM 0.25.1 and
0.32.0 every flag of `vllm serve` is a string passed to add_argument(), except those of the front
end, which are the fields of its argument classes.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

# Relative to the package's folder; the front end's arguments have moved between versions.
ENGINE = Path("engine/arg_utils.py")
FRONT_ENDS = (Path("entrypoints/openai/cli_args.py"), Path("entrypoints/launchers/cli_args.py"))
FRONT_END_CLASS = "FrontendArgs"  # BaseFrontendArgs and FrontendArgs


def known_flags(package: Path | None) -> frozenset[str] | None:
    """The flags of the vLLM in this folder, e.g. "--max-num-seqs"; None if they cannot be read."""
    if package is None:
        return None
    try:
        engine = set(_flags((package / ENGINE).read_text()))
        found = [package / path for path in FRONT_ENDS if (package / path).is_file()]
        front_end = {flag for path in found for flag in _flags(path.read_text())}
    except (OSError, ValueError, SyntaxError):
        return None
    return frozenset(engine | front_end) if engine and front_end else None


def flag_of(name: str) -> str:
    """The flag of a setting: "max_num_seqs" gives "--max-num-seqs"."""
    return f"--{name.replace('_', '-')}"


def knows(flags: frozenset[str], flag: str) -> bool:
    """Whether vLLM's parser accepts the flag; it also takes "no-" switches and abbreviations."""
    stem = flag.partition(".")[0]  # --compilation-config.mode
    names = {stem, f"--{stem.removeprefix('--').removeprefix('no-')}"}
    return any(known.startswith(name) for known in flags for name in names)


def _flags(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr="add_argument"), args=args):
                for argument in args:
                    match argument:
                        case ast.Constant(value=str(text)) if text.startswith("--"):
                            yield text
            case ast.ClassDef(name=name, body=body) if name.endswith(FRONT_END_CLASS):
                for statement in body:
                    match statement:
                        case ast.AnnAssign(target=ast.Name(id=field)):
                            yield flag_of(field)
