"""Sentence boundaries: BlingFire's rules, and a few of our own where they split or join too much.

BlingFire (MIT, compiled, a wheel) reads some 20 MB/s a core; pysbd is more careful and reads 0.2; ICU's rules read 110
but know no abbreviations, and PyICU must be compiled. What BlingFire misses is mended here by a handful of patterns:
list numbers and initials on their own, closing quotes that open a sentence, a quoted question that goes on in small
letters, the Indic full stop, and the commonest abbreviations of some languages.
"""

import re

import blingfire

# The patterns begin with the line end, a literal that the regex engine finds fast. One line end stands between the
# sentences of a paragraph, two between paragraphs.
# A "sentence" that is nothing but list numbers, initials or titles belongs to what follows.
_LONE_START = re.compile(
    r"\n((?:(?:[^\W\d_]|\d{1,3}|Mr|Mrs|Ms|Dr|St|Prof|Rev|Gen|Col|Capt|Lt|Sgt|Mt|Messrs)[.)]\n)+)(?!\n)"
)
_CLOSING = re.compile(r"\n(?=[”’」』）】》〉\])])(?<!\n\n)")
_QUOTE_GOES_ON = re.compile(r"\n(?=[a-zà-öø-ÿа-яё])(?<=[\"”’»“」』]\n)")
_INDIC_STOP = re.compile(r"([।॥۔]) +(?=\S)")

_ABBREVIATIONS = {
    "de": r"z\. ?B|d\. ?h|u\. ?a|o\. ?ä|bzw|ca|vgl|Nr|Dr|Prof|Hr|Fr|St|Bd|\b\d{1,2}",
    "fr": r"M|MM|Mme|Mlle|p\. ?ex|cf|etc|art|env|vol",
    "es": r"Sr|Sra|Srta|Dr|Dra|p\. ?ej|pág|núm|Ud|Uds",
    "it": r"Sig|Dott|Prof|Ing|p\. ?es|ecc|pag",
    "nl": r"bijv|d\.w\.z|dhr|mevr|dr|prof|o\.a|nr",
    "pt": r"Sr|Sra|Dr|Dra|p\. ?ex|pág|núm",
    "ru": r"т\. ?е|т\. ?д|т\. ?п|г|гг|им|ул|рис|стр|см",
    "cs": r"např|tj|tzv|atd|str|č|\b\d{1,2}",
}
_CONTINUED = {
    language: re.compile(rf"(?<!\w)({words})\.\n(?!\n)") for language, words in _ABBREVIATIONS.items()
}  # fmt: skip


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
    if language in _CONTINUED:
        joined = _CONTINUED[language].sub(r"\1. ", joined)
    return given(joined)


def given(text: str) -> list[str]:
    """Sentences of a text that has one on each line."""
    return [sentence for line in text.split("\n") if (sentence := line.strip())]
