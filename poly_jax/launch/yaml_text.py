"""Writes YAML as a person would: fields in the order given, and texts of several lines as they are."""

from typing import Any

import yaml


def yaml_text(content: Any) -> str:
    """Return a YAML document of plain mappings, lists and scalars."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=1000)


class _Dumper(yaml.SafeDumper):
    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        # Lists are indented below their field, which PyYAML leaves out by default.
        return super().increase_indent(flow, False)


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
