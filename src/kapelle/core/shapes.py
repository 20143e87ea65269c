"""Shapes: credentials that are known by how they look, cut out of what is logged although nobody named them.

Texts may be JSON: no shape reaches beyond a string of it. Every quantifier has a bound, so that no text takes long. Each shape
is looked for only in texts that hold one of its marks: looking for those is far quicker.
"""

import re
from collections.abc import Iterator

from kapelle.core.frozen import frozen


@frozen
class Shape:
    """How one kind of credential looks; what a group called ``before`` matches stays."""

    name: str
    marks: tuple[str, ...]
    pattern: str
    """Compiled when it is first needed: most texts have no mark."""


_BEGIN, _END = (rf"-----{word} [A-Z ]{{0,20}}PRIVATE KEY-----" for word in ("BEGIN", "END"))
_BETWEEN = r"""["'\s:=\\]{1,12}"""
_WRITTEN: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("anthropic-key", ("sk-ant-",), r"sk-ant-[A-Za-z0-9_-]{16,300}"),
    ("github-token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), r"gh[pousr]_[A-Za-z0-9]{30,255}"),
    ("github-fine-grained-token", ("github_pat_",), r"github_pat_[A-Za-z0-9_]{22,255}"),
    (
        "aws-key",
        ("AKIA", "ASIA"),
        r"(?:AKIA|ASIA)[A-Z0-9]{16}(?:[:,\s]{1,3}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?",
    ),
    (
        "aws-secret",
        ("secret_access_key", "SECRET_ACCESS_KEY"),
        rf"(?P<before>(?:secret_access_key|SECRET_ACCESS_KEY){_BETWEEN})[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+])",
    ),
    ("slack-token", ("xox",), r"xox[abeoprs]-[A-Za-z0-9-]{10,300}"),
    ("stripe-key", ("k_live_", "k_test_"), r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
    ("google-key", ("AIza",), r"AIza[A-Za-z0-9_-]{35}"),
    (
        "private-key",
        ("PRIVATE KEY-----",),
        rf"{_BEGIN}[A-Za-z0-9+/=:,.\s\\-]{{0,10000}}?{_END}|{_BEGIN}[A-Za-z0-9+/=\s\\]{{0,10000}}",
    ),
    ("jwt", ("eyJ",), r"eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{4,4000}\.[A-Za-z0-9_-]{8,2000}"),
    ("npm-token", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    ("basic-auth", ("://",), r"""(?P<before>://)[^\s/:@"'\\]{0,100}:[^\s/@"'\\]{1,300}(?=@)"""),
)
SHAPES = tuple(Shape(name=name, marks=marks, pattern=pattern) for name, marks, pattern in _WRITTEN)


def without_shapes(text: str) -> str:
    """Return *text* with ``[redacted SHAPE]`` in the place of everything that looks like a credential."""
    for shape in _likely(text):
        text = re.sub(shape.pattern, _instead(shape), text)
    return text


def shapes_in(text: str) -> tuple[str, ...]:
    """Return the names of the shapes that are in *text*, each once."""
    return tuple(shape.name for shape in _likely(text) if re.search(shape.pattern, text))


def _likely(text: str) -> Iterator[Shape]:
    for shape in SHAPES:
        for sign in shape.marks:
            if sign in text:
                yield shape
                break


def _instead(shape: Shape) -> str:
    kept = r"\g<before>" if "(?P<before>" in shape.pattern else ""
    return f"{kept}[redacted {shape.name}]"
