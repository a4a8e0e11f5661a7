import sys

import pytest

from seqnets.extras import require


def test_what_is_installed_is_imported():
    assert require("json.decoder", "plot") is sys.modules["json.decoder"]


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.pyplot"])
def test_what_is_missing_names_its_extra(module):
    with pytest.raises(ImportError) as caught:
        require(module, "plot")
    assert str(caught.value) == (
        'no_such_package is not installed; install it with: pip install "seqnets[plot]"'
    )
    assert caught.value.name == "no_such_package"


def test_what_a_package_lacks_itself_is_not_blamed_on_the_extra(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
        require("broken_package", "plot")
