"""Sentence boundaries: BlingFire's rules, and a few of our own where they split or join too much.

BlingFire (MIT, compiled, a wheel) reads some 20 MB/s a core; pysbd is more careful and reads 0.2; ICU's rules read 110
but know no abbreviations, and PyICU must be compiled. What BlingFire misses is mended here by a handful of patterns:
list numbers and initials on their own, closing quotes that open a sentence, a quoted question that goes on in small
letters, the Indic full stop, and the commonest abbreviations of some languages.
"""

import functools
import re

import blingfire

from preprocessing import unicode_table
from preprocessing.characters import pattern, ranges

_LETTER, _DIGIT = pattern(ranges(unicode_table.LETTERS)), pattern(ranges(unicode_table.DECIMALS))
# The patterns begin with the line end, or the stop before it: literals that the regex engine finds fast. One line end
# stands between the sentences of a paragraph, two between paragraphs.
# A "sentence" that is nothing but list numbers, initials or titles belongs to what follows.
_LONE_START = re.compile(
    rf"\n((?:(?:{_LETTER}|{_DIGIT}{{1,3}}|Mr|Mrs|Ms|Dr|St|Prof|Rev|Gen|Col|Capt|Lt|Sgt|Mt|Messrs)[.)]\n)+)(?!\n)"
)
_CLOSING = re.compile(r"\n(?=[”’」』）】》〉\])])(?<!\n\n)")
_QUOTE_GOES_ON = re.compile(r"\n(?=[a-zà-öø-ÿа-яё])(?<=[\"”’»“」』]\n)")
_INDIC_STOP = re.compile(r"([।॥۔]) +(?=\S)")

_ABBREVIATIONS = {  # 0 stands for any digit
    "de": "z.B|z. B|d.h|d. h|u.a|u. a|o.ä|o. ä|bzw|ca|vgl|Nr|Dr|Prof|Hr|Fr|St|Bd|0|00",
    "fr": "M|MM|Mme|Mlle|p.ex|p. ex|cf|etc|art|env|vol",
    "es": "Sr|Sra|Srta|Dr|Dra|p.ej|p. ej|pág|núm|Ud|Uds",
    "it": "Sig|Dott|Prof|Ing|p.es|p. es|ecc|pag",
    "nl": "bijv|d.w.z|dhr|mevr|dr|prof|o.a|nr",
    "pt": "Sr|Sra|Dr|Dra|p.ex|p. ex|pág|núm",
    "ru": "т.е|т. е|т.д|т. д|т.п|т. п|г|гг|им|ул|рис|стр|см",
    "cs": "např|tj|tzv|atd|str|č|0|00",
}


@functools.cache
def _continued(language: str) -> re.Pattern:
    """Pattern of a full stop and line end behind one of the abbreviations, which is a word of its own."""
    by_length: dict[int, list[str]] = {}  # what is looked for behind the match must be of one length
    for word in _ABBREVIATIONS[language].split("|"):
        by_length.setdefault(len(word), []).append(re.escape(word).replace("0", _DIGIT))
    ends = "|".join(rf"(?<=(?<!{_LETTER})(?<!{_DIGIT})(?<!_)(?:{'|'.join(words)})\.\n)" for words in by_length.values())
    return re.compile(rf"\.\n(?!\n)(?:{ends})")


def split(text: str, language: str = "en") -> list[str]:
    """Sentences of `text`, in order, stripped, none empty. A line end always ends a sentence.

    Only white space is lost, and what BlingFire drops where a line begins: controls, U+2420, U+2424 and what has no
    width, such as U+200B and U+FEFF. The sentences' other characters, joined, are the text's.
    """
    pieces = [blingfire.text_to_sentences(line) if len(line) > 1 else line for line in text.split("\n")]
    joined = "\n" + "\n\n".join(pieces)
    joined = _LONE_START.sub(lambda match: "\n" + match[1].replace("\n", " "), joined)
    joined = _CLOSING.sub("", joined)
    joined = _QUOTE_GOES_ON.sub(" ", joined)
    if "।" in joined or "۔" in joined:
        joined = _INDIC_STOP.sub("\\1\n", joined)
    if language in _ABBREVIATIONS:
        joined = _continued(language).sub(". ", joined)
    return given(joined)


def given(text: str) -> list[str]:
    """Sentences of a text that has one on each line."""
    return [sentence for line in text.split("\n") if (sentence := line.strip())]
