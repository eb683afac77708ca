"""Package metadata, read from settings.ini so that it is written once."""

from configparser import ConfigParser
from pathlib import Path

from setuptools import find_packages, setup

root = Path(__file__).parent
parser = ConfigParser()
parser.read(root / "settings.ini", encoding="utf-8")
settings = parser["DEFAULT"]


def lines(key):
    return [line.strip() for line in settings[key].splitlines() if line.strip()]


setup(
    name=settings["lib_name"],
    version=settings["version"],
    description=settings["description"],
    long_description=(root / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author=settings["author"],
    license=settings["license"],
    keywords=settings["keywords"].split(),
    packages=find_packages(include=[settings["lib_path"], settings["lib_path"] + ".*"]),
    python_requires=f">={settings['min_python']}",
    install_requires=lines("requirements"),
    extras_require={
        "dev": lines("dev_requirements"),
        "index": lines("index_requirements"),
        "cluster": lines("cluster_requirements"),
        "onnx": lines("onnx_requirements"),
        "web": lines("web_requirements"),
        "site": lines("site_requirements"),
        "comparison": lines("comparison_requirements"),
    },
    entry_points={"console_scripts": lines("console_scripts")},
)
