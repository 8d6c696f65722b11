"""How tokenizers split numbers, in words: of kinds whose rules are known."""

import pytest
from tokenizers import Regex, Tokenizer, pre_tokenizers
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast

from mech_arith.models.language.number_tokens import (
    describe_tokenizer,
    number_pieces,
    number_rule,
)
from tests.lms import tiny_tokenizer

BY_DIGIT = "one token per digit ('7', '4|2', '6|1|7', '1|2|3|4|5', ' |4|2', '-|5'); "
SAID = {
    "digits": BY_DIGIT + "without a chat template",
    "bos": BY_DIGIT + "without a chat template",
    "chat": BY_DIGIT + "with a chat template",
    "numbers": (
        "up to 3 digits per token, from the left ('7', '42', '617', '123|45', ' |42', '-|5'); "
        "without a chat template"
    ),
    "spaced": (
        "up to 2 digits per token, by frequency ('7', '42', '6|17', '12|34|5', ' 42', '-|5'); "
        "without a chat template"
    ),
}


@pytest.mark.parametrize("kind", SAID)
def test_every_kind_is_put_into_words(kind):
    assert describe_tokenizer(tiny_tokenizer(kind)) == SAID[kind]


def by_pattern(pattern):
    """Every text is known, and cut by the pattern alone."""
    backend = Tokenizer(WordLevel({"<unk>": 0}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_groups_from_the_right_and_whole_numbers():
    right = by_pattern(r"[0-9]{1,3}(?=(?:[0-9]{3})*\b)")
    assert number_pieces(["12345"], right) == [["12", "345"]]
    assert number_rule(right) == "up to 3 digits per token, from the right"
    whole = by_pattern(r"[0-9]+")
    assert number_pieces(["-12345"], whole) == [["-", "12345"]]
    assert number_rule(whole) == "one token per number, up to 6 digits at least"
