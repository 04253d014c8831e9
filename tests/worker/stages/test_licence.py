"""Cards as they lie on the Hub, valid or not."""

from pathlib import Path

import pytest

from worker.stages.licence import Licence, documents_digest, read_licence


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (b"---\nlicense: mit\n---\n# Model\n", Licence("mit")),
        (b"\xef\xbb\xbf---\r\nlicense: mit\r\n---\r\n# Model\r\n", Licence("mit")),
        (b"---\nlicense:\n- mit\n---\n", Licence("mit")),
        (b"---\nlicense: [mit, apache-2.0]\n---\n", Licence(["mit", "apache-2.0"])),
        (
            b"---\nlicense: other\nlicense_name: some-community\nlicense_link: LICENSE\n---\n",
            Licence("other", "some-community", "LICENSE"),
        ),
        ("---\nlicense: mit\n---\n# Modèle\n".encode("latin-1"), Licence("mit")),
        (b"# Model\n\nlicense: mit\n", Licence()),
        (b"", Licence()),
        (b"---\n---\n", Licence()),
        (b'---\nlicense: >\n  mit\nlicense_name: "a\\nb"\nlicense_link: "\\ud83d"\n---\n', Licence("mit")),
        (b"---\nlicense: {a: b}\nlicense_name: 7\n---\n", Licence()),
    ],
)
def test_the_licence_is_what_the_card_says(tmp_path: Path, card: bytes, expected: Licence) -> None:
    (tmp_path / "README.md").write_bytes(card)
    assert read_licence(tmp_path) == expected


@pytest.mark.parametrize(
    "card",
    [
        b"---\nlicense: mit\n  tags: [a\n---\n# Model\n",
        b"---\n- mit\n- en\n---\n# Model\n",
        b"---\nlicense: mit\ntags:\n\t- x\n---\n# Model\n",
        b"---\ndate: 2024-13-45\n---\n",
        b"---\ngated: !!bool maybe\n---\n",
        b"---\ndate: !!timestamp soon\n---\n",
        b'---\nsize: !!int ""\n---\n',
        b"---\na: " + b"[" * 5000 + b"\n---\n",
    ],
)
def test_a_broken_card_names_no_licence_and_says_why(tmp_path: Path, card: bytes) -> None:
    (tmp_path / "README.md").write_bytes(card)
    (tmp_path / "LICENSE").write_text("MIT")
    found = read_licence(tmp_path)
    assert (found.name, found.texts) == (None, ("LICENSE",))
    assert found.complaint


def test_documents_count_by_their_content(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    empty = documents_digest(tmp_path)
    (tmp_path / "config.json").write_text('{"a": 1}')
    assert documents_digest(tmp_path) == empty
    (tmp_path / "Notice.txt").write_text("Do good.")
    assert documents_digest(tmp_path) != empty
    assert documents_digest(None) is None
