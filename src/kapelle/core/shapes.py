"""Shapes: credentials that are known by how they look, cut out of what is logged although nobody named them.

Texts may be JSON: no shape reaches beyond a string of it. Every quantifier has a bound, so that no text takes long.
"""

import re

BETWEEN = r"""["'\s:=\\]{1,12}"""
_BEGIN, _END = (rf"-----{word} [A-Z ]{{0,20}}PRIVATE KEY-----" for word in ("BEGIN", "END"))
_SHAPES: tuple[tuple[str, str], ...] = (
    ("anthropic-key", r"sk-ant-[A-Za-z0-9_-]{16,300}"),
    ("github-token", r"gh[pousr]_[A-Za-z0-9]{30,255}"),
    ("github-fine-grained-token", r"github_pat_[A-Za-z0-9_]{22,255}"),
    ("aws-key", r"(?:AKIA|ASIA)[A-Z0-9]{16}(?:[:,\s]{1,3}[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+]))?"),
    ("aws-secret", rf"(?<=(?i:secret_access_key))(?:{BETWEEN})[A-Za-z0-9/+]{{40}}(?![A-Za-z0-9/+])"),
    ("slack-token", r"xox[abeoprs]-[A-Za-z0-9-]{10,300}"),
    ("stripe-key", r"[sr]k_(?:live|test)_[A-Za-z0-9]{16,255}"),
    ("google-key", r"AIza[A-Za-z0-9_-]{35}"),
    ("private-key", rf"{_BEGIN}[A-Za-z0-9+/=:,.\s\\-]{{0,10000}}?{_END}|{_BEGIN}[A-Za-z0-9+/=\s\\]{{0,10000}}"),
    ("jwt", r"eyJ[A-Za-z0-9_-]{8,2000}\.eyJ[A-Za-z0-9_-]{4,4000}\.[A-Za-z0-9_-]{8,2000}"),
    ("npm-token", r"npm_[A-Za-z0-9]{36}"),
    ("basic-auth", r"""(?<=://)[^\s/:@"'\\]{0,100}:[^\s/@"'\\]{1,300}(?=@)"""),
)
SHAPES: tuple[str, ...] = tuple(name for name, _ in _SHAPES)
"""The names of all shapes."""
_MARKS = (
    *("sk-ant-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "AKIA", "ASIA", "secret_access_key"),
    *("SECRET_ACCESS_KEY", "xox", "k_live_", "k_test_", "AIza", "PRIVATE KEY-----", "eyJ", "npm_", "://"),
)
"""One of these is in every text that has any of the shapes: looking for them is far quicker than looking for the shapes."""
_ALL = re.compile("|".join(f"(?P<s{number}>{pattern})" for number, (_, pattern) in enumerate(_SHAPES)))


def without_shapes(text: str) -> str:
    """Return *text* with ``[redacted SHAPE]`` in the place of everything that looks like a credential."""
    if not any(sign in text for sign in _MARKS):
        return text
    return _ALL.sub(_shown, text)


def shapes_in(text: str) -> tuple[str, ...]:
    """Return the names of the shapes that are in *text*, each once."""
    if not any(sign in text for sign in _MARKS):
        return ()
    return tuple(dict.fromkeys(_name(match) for match in _ALL.finditer(text)))


def _name(match: re.Match[str]) -> str:
    return SHAPES[int((match.lastgroup or "s0")[1:])]


def _shown(match: re.Match[str]) -> str:
    return f"[redacted {_name(match)}]"
