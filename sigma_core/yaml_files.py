"""YAML as values, read by libyaml where PyYAML was built with it: ten times faster, and the bundled files are many.

Safe loading only: a file can hold values, never objects. Our choice.
"""

from typing import Any

import yaml

try:
    from yaml import CSafeLoader as SafeLoader
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader  # type: ignore[assignment]


def parse_yaml(text: str) -> Any:
    """The values that `text` holds; None where it is empty.

    Raises:
        yaml.YAMLError: it is no YAML, or holds anything but plain values.
    """
    return yaml.load(text, Loader=SafeLoader)
