"""What the pages say, a file of texts per language (texts/*.toml). A language is added by adding its file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ENGLISH = "en"
_FOLDER = Path(__file__).with_name("texts")


class Texts:
    """The texts of one language: `texts("login.title")`, with what stands in braces given by name."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: Any) -> str:
        """A text. A key that is not there is a mistake of ours, and raises KeyError."""
        text = self._texts[key]
        return text.format_map(values) if values else text

    def __contains__(self, key: str) -> bool:
        return key in self._texts

    @property
    def keys(self) -> frozenset[str]:
        """The keys of all texts."""
        return frozenset(self._texts)

    @property
    def is_english(self) -> bool:
        """Whether sentences of the daemon fit in."""
        return self.language == ENGLISH


def load() -> Mapping[str, Texts]:
    """The texts of all languages, English first."""
    found = {path.stem: Texts(path.stem, dict(_flat(tomllib.loads(path.read_text("utf-8"))))) for path in _files()}
    return {ENGLISH: found.pop(ENGLISH), **found}


def choose(languages: Mapping[str, Texts], chosen: str, accepted: str) -> Texts:
    """The texts in the language that was chosen, else in the first that the browser accepts (RFC 9110 §12.5.4)."""
    if chosen in languages:
        return languages[chosen]
    for language in _preferred(accepted):
        if language in languages:
            return languages[language]
    return languages[ENGLISH]


def _files() -> list[Path]:
    return sorted(_FOLDER.glob("*.toml"))


def _flat(texts: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in texts.items():
        found += _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else [(prefix + key, value)]
    return found


def _preferred(accepted: str) -> list[str]:
    weighed: list[tuple[float, str]] = []
    for part in accepted[:200].split(","):
        name, _, weight = part.partition(";q=")
        try:
            weighed.append((-float(weight or 1), name.strip().partition("-")[0].lower()))
        except ValueError:
            continue
    return [name for weight, name in sorted(weighed, key=lambda pair: pair[0]) if weight < 0]
