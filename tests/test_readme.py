"""The README's code runs as it is written."""

import re
import shutil
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[1] / "README.md"
BLOCKS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), flags=re.MULTILINE | re.DOTALL)
# What takes too long for a test, and nothing else, is made smaller.
SMALLER = {
    "epochs=100": "epochs=1, batch_size=8, input_size=32, progress=False",
    "size=224": "size=32",
    "simclr(224)": "simclr(32)",
}


def test_the_readme_shows_three_ways_in_the_gpu_twice_losses_and_a_recipe():
    assert len(BLOCKS) == 7


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
@pytest.mark.filterwarnings("ignore::UserWarning")  # the examples ask for more workers than small machines have
def test_readme_code_runs(block: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copytree(photos, tmp_path / "photos")
    for large, small in SMALLER.items():
        block = block.replace(large, small)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, str(README), "exec"), {"__name__": "__main__"})
