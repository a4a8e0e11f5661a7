"""What a user may get wrong: one line that names it, exit status 2, and nothing written over."""

import gzip
import os
import shutil

import pytest


def check(done, *words):
    assert done.status == 2, done
    assert done.out == ""
    (line,) = done.err.splitlines()
    assert ": error: " in line
    for word in words:
        assert word in line, line
    assert "Traceback" not in done.err


def tree(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """A folder of inputs that cannot be used."""
    folder = tmp_path_factory.mktemp("bad")
    contents = {
        "empty.txt": b"",
        "short.txt": b"ab",
        "latin.txt": "für".encode("latin-1") * 100,
        "utf16.txt": ("the cat sat on the mat. " * 9).encode("utf-16"),
        "utf16.csv": "unique_id,ds,y\na,1,2\na,2,3\n".encode("utf-16"),
        "huge.csv": b"unique_id,ds,y\na,1,2\na,2,1.7e308\na,3,4\n",
        "broken.gz": gzip.compress(b"a" * 1000)[:-9],
        "header.csv": b"unique_id,ds,y\n",
        "wrong_column.csv": b"unique_id,ds,value\na,1,2\na,2,3\n",
        "words.csv": b"unique_id,ds,y\na,1,one\na,2,3\n",
        "nan.csv": b"unique_id,ds,y\n" + b"".join(b"a,%d,nan\n" % t for t in range(50)),
        "one_row.csv": b"unique_id,ds,y\na,1,2\n",
        "infinite.csv": b"unique_id,ds,y\na,1,inf\na,2,3\n",
        "twice.csv": b"unique_id,ds,y\na,1,2\na,1,3\n",
        "ragged.csv": b"unique_id,ds,y\na,1,2,9\na,2,3\n",
        "brief.csv": b"unique_id,ds,y\na,1,2\na,2,3\na,3,4\n",
        "binary.csv": bytes(range(256)) * 4,
        "not.toml": b"[data\n",
        "unknown_section.toml": b"[trian]\nseed = 1\n",
        "unknown_key.toml": b"[train]\nsede = 1\n",
        "wrong_type.toml": b"[train]\nseed = 'one'\n",
    }
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    os.mkfifo(folder / "fifo")
    return folder


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("none.txt", "none.txt"),
        ("empty.txt", "empty"),
        ("short.txt", "expected at least"),
        ("latin.txt", "ISO-8859-1"),
        ("utf16.txt", "iconv -f UTF-16 -t UTF-8"),
        ("broken.gz", "broken.gz"),
        (".", "directory"),
        ("fifo", "a FIFO"),
        ("/dev/zero", "a device"),
    ],
)
def test_texts(run, files, bad, tmp_path, file, word):
    out = tmp_path / "run"
    check(run("train_text", files / "empty.toml", "--data", bad / file, "--out", out), word)
    assert not out.exists()


@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("none.csv", "none.csv"),
        ("empty.txt", "empty"),
        ("header.csv", "header.csv"),
        ("wrong_column.csv", "y"),
        ("words.csv", "one"),
        ("nan.csv", "'a'"),
        ("one_row.csv", "at least 2"),
        ("infinite.csv", "inf"),
        ("huge.csv", "line 3, column 'y'"),
        ("utf16.csv", "it looks like UTF-16"),
        ("fifo", "a FIFO"),
        ("/dev/zero", "a device"),
        ("twice.csv", "twice"),
        ("ragged.csv", "ragged.csv"),
        ("brief.csv", "no series is long enough"),
        ("binary.csv", "binary.csv"),
    ],
)
def test_series(run, files, bad, tmp_path, file, word):
    out = tmp_path / "run"
    done = run("train_forecast", files / "empty.toml", "--data", bad / file, "--out", out,
               "--horizon", 6, "--season", 6)  # fmt: skip
    check(done, word)
    assert not out.exists()


@pytest.mark.parametrize(
    ("config", "arguments", "words"),
    [
        ("none.toml", [], ["none.toml", "cannot read"]),
        ("not.toml", [], ["not.toml", "not a TOML file"]),
        ("unknown_section.toml", [], ["trian", "did you mean 'train'"]),
        ("unknown_key.toml", [], ["train.sede", "did you mean 'seed'"]),
        ("wrong_type.toml", [], ["train.seed", "Expected", "str"]),
        ("", ["--set", "model.cel=gru"], ["model.cel", "'cell'"]),
        ("", ["--set", "model.cell=gruu"], ["model.cell", "'gru'"]),
        ("", ["--set", "model.head=normal"], ["model.head", "gaussian"]),
        ("", ["--set", "optimizer.name=adm"], ["optimizer.name", "'adam'"]),
        ("", ["--set", "optimizer.schedule=cos"], ["optimizer.schedule", "cosine"]),
        ("", ["--set", "optimizer.learning_rate=fast"], ["optimizer.learning_rate", "float"]),
        ("", ["--set", "nonsense"], ["--set", "section.key=value"]),
        ("", ["--set", "train.seed=1\nsteps=5"], ["--set train.seed", "on one line"]),
        ("", ["--set", 'model.cell="""gru\n"""'], ["--set model.cell", "on one line"]),
        ("", ["--set", "model.hidden=2000000"], ["training needs", "B of memory", "available"]),
        ("", ["--set", "model.layers=100000"], ["model.layers", "at most 256 layers"]),
        ("", ["--set", "train.batch_size=2000000000"], ["training needs", "a batch"]),
        ("", ["--set", "data.context=2000000000"], ["training needs", "a batch"]),
        ("", ["--set", "train.seed=123456789012345678901234567890"], ["train.seed", "<= "]),
        ("", ["--horizon", "0"], ["data.horizon", ">= 1"]),
        ("", ["--horizon", "six"], ["--horizon", "'six'"]),
        ("", ["--season", "-3"], ["data.season"]),
        ("", ["--max-steps", "0"], ["train.max_steps"]),
        ("", ["--max-seconds", "-1"], ["train.max_seconds"]),
        ("", ["--max-seconds", "nan"], ["train.max_seconds"]),
        ("", ["--what"], ["--what"]),
        ("", ["--resume"], ["no such folder"]),
    ],
)
def test_configurations_and_options(
    train_forecast, run, files, bad, tmp_path, config, arguments, words
):
    out = tmp_path / "run"
    if config:
        done = run("train_forecast", bad / config, "--out", out, *arguments)
    else:
        done = train_forecast("--out", out, *arguments)
    check(done, *words)
    assert not out.exists()


@pytest.fixture
def trained(train_forecast, train_text, tmp_path):
    """A run of each kind."""
    assert train_forecast("--out", tmp_path / "forecast", "--max-steps", 3).status == 0
    assert train_text("--out", tmp_path / "text", "--max-steps", 3).status == 0
    return tmp_path


def test_runs_are_not_written_over(trained, train_forecast, train_text, tmp_path):
    before = tree(trained)
    check(train_forecast("--out", trained / "forecast", "--max-steps", 3), "forecast", "empty")
    check(train_text("--out", trained / "text", "--max-steps", 3), "text", "empty")
    check(train_text("--out", trained / "text" / "config.toml", "--max-steps", 3), "config.toml")
    resume = ("--out", trained / "forecast", "--resume", "--max-steps", 6)
    check(train_forecast(*resume, "--set", "model.hidden=9"), "model.hidden", "8", "9")
    check(train_forecast(*resume, "--set", "train.seed=5"), "train.seed")
    check(train_text("--out", trained / "forecast", "--resume", "--max-steps", 6), "data.")
    assert tree(trained) == before


def test_runs_that_cannot_be_used(trained, run, files, bad):
    text, forecast = trained / "text", trained / "forecast"
    prompt = ("--prompt", "the ", "--tokens", 3)
    check(run("generate_text", trained / "none", *prompt), "none")
    check(run("generate_text", trained, *prompt), "config.toml")
    check(run("generate_text", forecast, *prompt), "data.")
    check(run("generate_text", text, "--prompt", "a", "--tokens", 0), "tokens")
    check(run("generate_text", text, *prompt, "--temperature", -1), "temperature")
    check(run("generate_text", text, *prompt, "--top-k", 0), "top_k")
    check(run("generate_text", text, *prompt, "--top-p", 1.5), "top_p")
    check(run("generate_text", text, *prompt, "--seed", -1), "seed")
    check(run("generate_text", text, *prompt, "--seed", 10**30), "seed")
    check(run("generate_text", text, *prompt, "--tokens", 10**12), "tokens", "TB of memory")
    check(run("generate_text", text), "--prompt")
    check(run("evaluate_text", text, "--data", bad / "none.txt"), "none.txt")
    check(run("evaluate_text", text, "--data", bad / "latin.txt"), "UTF-8")
    check(run("evaluate_text", text), "--data")

    history, future = files / "history.csv", files / "future.csv"
    check(run("forecast", text, "--data", history), "data.")
    check(run("forecast", forecast, "--data", bad / "words.csv"), "one")
    check(run("forecast", forecast, "--data", history, "--quantiles", "0.5,2"), "levels")
    check(run("forecast", forecast, "--data", history, "--quantiles", "half"), "half")
    check(run("evaluate_forecast", forecast, "--data", history, "--actual", history), "'a'", "64")
    other = bad / "other.csv"
    other.write_text(future.read_text().replace("b,", "q,"))
    check(run("evaluate_forecast", forecast, "--data", history, "--actual", other), "'b'")


def test_outputs_that_cannot_be_written(run, bad):
    """They are told before anything is read: neither the run nor the data exist."""
    before = tree(bad)
    predict = ("forecast", bad / "no run", "--data", bad / "none.csv")
    for name in ("no/f.png", "", ".", "header.csv/", "new.png/"):
        check(run(*predict, "--output", f"{bad}/{name}"), "--output: cannot be written: ")
    for name in ("no/f.png", "new.png/", "", ".", "header.csv/", "picture", "picture.xyz", ".png"):
        check(run(*predict, "--plot", f"{bad}/{name}"), "--plot: ")
    for option in ("--output", "--plot"):
        check(run(*predict, option, ""), f"{option}: ")
    check(run(*predict, "--plot", "."), "expected a file that ends in .png, .svg", "got '.'")
    assert tree(bad) == before


def test_checkpoints_that_cannot_be_used(trained, run, train_text):
    text = trained / "text"
    prompt = ("--prompt", "the ", "--tokens", 3)

    config = text / "config.toml"
    original = config.read_text()
    edited = original.replace("hidden = 12", "hidden = 13")
    config.write_text(edited)
    check(run("generate_text", text, *prompt), "config.toml: is damaged or was changed", "remove")
    config.write_text("".join(line for line in edited.splitlines(True) if line[0] != "#"))
    check(run("generate_text", text, *prompt), "a different model", "leaf")
    config.write_text(original)

    arrays = [
        p for p in (text / "checkpoints").rglob("*") if p.is_file() and p.stat().st_size > 4000
    ]
    for path in arrays:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    check(run("generate_text", text, *prompt), "damaged")

    shutil.rmtree(text / "checkpoints")
    check(run("generate_text", text, *prompt), "no checkpoint")
    check(train_text("--out", text, "--resume", "--max-steps", 6), "no checkpoint")
    (text / "tokenizer.json").write_text("{")
    check(run("generate_text", text, *prompt), "tokenizer.json")


def test_help_names_every_option(run):
    for name in ("train_text", "generate_text", "evaluate_text", "train_forecast", "forecast",
                 "evaluate_forecast", "demo"):  # fmt: skip
        done = run(name, "--help")
        assert done.status == 0
        assert done.out.startswith(f"usage: {name}.py")
