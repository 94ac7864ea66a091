"""Personal data as people write it, made by chance: none of it is anybody's."""

from __future__ import annotations

import re

from hypothesis import strategies as st

_DIGIT = st.sampled_from("0123456789")


def _shaped(*shapes: str) -> st.SearchStrategy[str]:
    """Each # a digit, each 9 one that is not 0."""

    def fill(shape: str) -> st.SearchStrategy[str]:
        return st.tuples(
            *(_DIGIT if c == "#" else st.sampled_from("123456789") if c == "9" else st.just(c) for c in shape)
        ).map("".join)

    return st.sampled_from(shapes).flatmap(fill)


PHONES = _shaped(
    *("+55 (9#) 9####-####", "(9#) 9####-####", "9# 9########", "+1 9##-9##-####", "(9##) 9##-####", "9##.9##.####"),
    *("+49 19# #######", "019#/#######", "030 9#######", "+34 6## ## ## ##", "6##.###.###", "06 ## ## ## ##"),
    *("+33 6 ## ## ## ##", "020 9### ####", "+44 7### ######", "+52 1 55 #### ####", "07#-### ## ##", "9##-####"),
)
_CARDS = _shaped(
    "4### #### #### ####", "5###-####-####-####", "37############", "4###############", "6011 #### #### ###"
)
_IDS = _shaped(
    *("###.###.###-##", "###########", "##.###.###/####-##", "##############", "###-##-####", "9## ### ### ##"),
    *("########Z", "##.###.###-X", "X#######L", "Y-#######-K", "1 ## ## ## ### ### ##", "2 ## ## 2A ### ### ##"),
    *("L0#X00T4#1", "C01#0T#71"),
)
_MAILS = st.builds(
    "{}@{}".format,
    st.text("abcdefghijklmnop.-+_0123456789", min_size=1, max_size=20).filter(lambda local: local.strip(".")),
    st.sampled_from(["example.com", "mail.example.co.uk", "müller.example", "example.com.br"]),
)


def _luhn(shape: str) -> str:
    """Set the last digit so that the number is a card's."""
    digits = [int(c) for c in shape if c.isdigit()]
    total = sum(n if i % 2 else (n * 2 - 9 if n > 4 else n * 2) for i, n in enumerate(reversed(digits[:-1])))
    return shape[:-1] + str(-total % 10)


def _iban(country: str, rest: str) -> str:
    moved = rest + country + "00"
    check = 98 - int("".join(str(int(c, 36)) for c in moved)) % 97
    return f"{country}{check:02}{rest}"


def _grouped(iban: str) -> str:
    return " ".join(iban[i : i + 4] for i in range(0, len(iban), 4))


_IBANS = st.one_of(
    st.builds(_iban, st.just("DE"), st.text("0123456789", min_size=18, max_size=18)),
    st.builds(_iban, st.just("ES"), st.text("0123456789", min_size=20, max_size=20)),
    st.builds(_iban, st.just("GB"), st.text("0123456789", min_size=14, max_size=14).map(lambda n: "WEST" + n)),
    st.builds(_iban, st.just("FR"), st.text("0123456789ABCXYZ", min_size=23, max_size=23)),
)


def personal() -> st.SearchStrategy[str]:
    """A phone or card number, an IBAN, a national id, a mail address."""
    return st.one_of(PHONES, _CARDS.map(_luhn), _IDS, _MAILS, _IBANS, _IBANS.map(_grouped))


def some_personal(value: str, text: str) -> bool:
    """Whether a recognisable part of a value stands in a text: a mail's name and host, or four of a number's digits."""
    if "@" in value:
        return value in text or value.partition("@")[2] in text
    kept = re.sub(r"\[[A-Z]+_\d+\]", " ", text)
    digits = "".join(re.findall(r"\d", kept))
    return len(digits) >= 4 and any(part in digits for part in re.findall(r"\d{4}", re.sub(r"\D", "", value)))
