"""The list of core files and their tests, against the folders: a file that moves must not drop out unseen."""

import pytest
from beside import BESIDE, ROOT


@pytest.mark.parametrize("pattern", BESIDE)
def test_files_and_tests_are_there(pattern):
    assert list(ROOT.glob(pattern))
    assert [test for test in BESIDE[pattern].split() if not (ROOT / "tests" / test).exists()] == []
