"""Writes `tokenizer_ids.jsonl`: strings and the ids that google's algorithm gives them, by the reference in
`google_reference.py` with the uncased vocabulary (and the same vocabulary without lower-casing).

    python -m tests.golden.make_tokenizer_golden

Made anew only when strings are added: the ids of the old ones must not change.
"""

import json
import pathlib
import random

from preprocessing import vocab_file
from tests.data import uncased_vocabulary
from tests.preprocessing.tokenizer import google_reference

PATH = pathlib.Path(__file__).parent / "tokenizer_ids.jsonl"
BY_HAND = [
    "", " ", "\t\n\r", "Hello, world!", "unaffable", "The quick brown fox jumps over the lazy dog.",
    "don't stop... 3.14 $5 #hash a_b [MASK] [unused1] C++ <tag> `code` ~^|",
    "résumé re\u0301sume\u0301 Ångström naïve ñandú", "…ﬁﬂ ﬃ ½ ² ① ™ Ａｂｃ １２３",
    "Straße GROẞ İstanbul ıI ǅ ŉ", "ΟΔΥΣΣΕΥΣ ΣΑΣ ΑΣ. ΑΣ'Α Σ 'Σ ας", "ΑΣ\u0301Β ΑΣ\u00adΒ ΑΣ\x01Β",
    "a\x00b\x01c\x7fd\x80e\x85f\x9fg", "zero\u200bwidth\u200djoiner\ufeffbom\u00adsoft", "\ufffd a\ufffdb",
    "no\u00a0break\u2003em\u3000ideographic\u2028line\u2029paragraph\u1680ogham\u205f", "a\u000bb\u000cc\u001cd\u001fe",
    "中文字符 mixed中with文English", "日本語のテキスト、カタカナ。がぎぐ", "한국어 텍스트 각각",
    "豈\uf900\U0002f800𠀀\U0002b820",
    "ภาษาไทยไม่มีช่องว่าง", "हिन्दी में पाठ", "النص العربي مَعَ تَشْكِيل", "עִבְרִית עם ניקוד", "Tiếng Việt có dấu",
    "emoji 😀👍🏽👨‍👩‍👧 flag 🇩🇪 heart ❤️", "math ∑∫√≠≤ 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝐁𝐨𝐥𝐝", "«guillemets» „quotes“ ‘single’ — – ‐ ‑",
    "x" * 199, "x" * 200, "x" * 201, "é" * 200, "é" * 201, "각" * 66, "각" * 67, "각" * 100,
    "中" * 250, "ก" * 201, "a" + "." * 250,
    "private \ue000use\U0010fffd noncharacter \ufdd0 \uffff \U0001fffe unassigned \u0378 \u2fe0",
    "\u1fef\u037e\u0387 singletons", "\U00011938 \u2e52 \U00010ead \U0001145aa \U00011944",
    "\u302e\u1b44a \U0001d15e\U0001d165",
    "`` '' -- ... --- ??!!", "http://example.com/a?b=c&d=e#f user@example.com", "1,234,567.89 12:34 1st 2nd",
    "##ing ##s # ## a##b", "[PAD][UNK][CLS][SEP]", "ǰ ẖ ẗ ẘ ΐ ᾳ ᾼ", "\u0301leading mark", "a \u0301 alone",
]  # fmt: skip
SCRIPTS = ((0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0x97F),
           (0xE00, 0xE7F), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x3040, 0x30FF), (0x4E00, 0x4FFF), (0xAC00, 0xACFF),
           (0xFF00, 0xFFEF), (0x1F600, 0x1F64F), (0x0, 0x1F))  # fmt: skip


def strings(count=300):
    draw = random.Random(2018)
    result = list(BY_HAND)
    while len(result) < count:
        words = []
        for _ in range(draw.randint(1, 6)):
            first, last = draw.choice(SCRIPTS)
            letters = [chr(draw.randint(first, last)) for _ in range(draw.randint(1, 8))]
            words.append("".join(draw.choice([letter, letter, draw.choice("aeinst")]) for letter in letters))
        result.append(draw.choice(["", " ", " "]).join(words))
    return result


def main():
    ids = {token: number for number, token in enumerate(vocab_file.load(uncased_vocabulary()))}
    with PATH.open("w", encoding="ascii") as file:
        for text in strings():
            row = {"text": text} | {
                name: google_reference.tokenize(text, ids, lower_case)
                for name, lower_case in (("uncased", True), ("cased", False))
            }
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
