"""What an export takes from a checkpoint's own files: its tokenizer, and how a text becomes one vector."""

import json

import pytest

from model import checkpoints
from model.encoder.heads import PRETRAINING
from preprocessing.errors import InputError
from preprocessing.features import SPECIAL_TOKENS
from preprocessing.tokenizer import BertTokenizer
from serving.export import independent, text_rules
from serving.settings import ExportSettings
from tests import data
from tests.model.checkpoints.test_checkpoint_tokenizers import fast
from tests.serving import small_model

VOCAB = [*SPECIAL_TOKENS, "the", "cat", "##s", "[", "]", "user", "covid", "##19", "."]


def write(path, value):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    checkpoints.save_huggingface(small_model.encoder(PRETRAINING, layers=1), folder)
    return folder


@pytest.fixture
def folder(weights, tmp_path):
    """A Hugging Face folder with a vocabulary."""
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((weights / name).read_bytes())
    write(tmp_path / "tokenizer_config.json", {"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCAB))
    return tmp_path


def tokens(folder, text, **options):
    tokenizer = text_rules.tokenizer_of(
        folder, options.pop("vocab_path", None), options.pop("lower_case", None), **options
    )
    return [tokenizer.vocab[token] for token in tokenizer.tokenize([text]).to_list()[0]]


class TestTokenizer:
    def test_of_a_tokenizer_json(self, folder):
        (folder / "vocab.txt").unlink()
        write(folder / "tokenizer.json", fast(VOCAB))
        told = []
        assert tokens(folder, "The cats.", report=told.append) == ["the", "cat", "##s", "."]
        assert told == ["uncased vocabulary of 14 tokens"]

    def test_added_tokens(self, folder):
        write(folder / "added_tokens.json", {"[USER]": 14, "covid19": 15})
        write(folder / "special_tokens_map.json", {"additional_special_tokens": ["[USER]"]})
        told = []
        found = tokens(folder, "[USER] the [user]cats COVID19", report=told.append)
        assert found == ["[USER]", "the", "[", "user", "]", "cat", "##s", "covid19"]
        assert told[-1] == "added tokens: [USER], covid19"

    def test_what_is_not_berts_is_refused_unless_a_vocabulary_is_named(self, folder):
        write(folder / "tokenizer_config.json", {"tokenizer_class": "BertJapaneseTokenizer"})
        with pytest.raises(InputError, match=r"would read its texts otherwise; --vocab.*'BertJapaneseTokenizer'"):
            tokens(folder, "the")
        assert tokens(folder, "The", vocab_path=folder / "vocab.txt") == ["the"]

    def test_none(self, weights):
        with pytest.raises(InputError, match="no vocabulary beside the checkpoint; name one with --vocab"):
            tokens(weights, "the")

    def test_a_case_that_its_vocabulary_contradicts(self, folder):
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in [*VOCAB, "Cat"]))
        told = []
        assert tokens(folder, "Cat", report=told.append) == ["cat"]
        assert "the vocabulary has capitals, accents or Korean syllables" in told[0]
        assert tokens(folder, "Cat", lower_case=False) == ["Cat"]

    def test_korean_is_served_as_it_was_trained(self, folder):
        korean = [*VOCAB, "한국", "##어"]
        for tokenizer in (None, checkpoints.CheckpointTokenizer(korean)):
            if tokenizer:
                checkpoints.save(small_model.encoder(layers=1), folder / "ours", tokenizer)
            else:
                (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in korean))
                write(folder / "tokenizer_config.json", {})
            assert tokens(folder / "ours" if tokenizer else folder, "한국어") == ["한국", "##어"]

    def test_another_reading_must_agree(self, folder, monkeypatch):
        honest = BertTokenizer.tokenize

        def other(tokenizer, texts):
            return honest(tokenizer, [text.replace("cat", "covid") for text in texts])

        assert tokens(folder, "cat")
        monkeypatch.setattr(BertTokenizer, "tokenize", other)
        with pytest.raises(InputError, match="its tokenizer's files must give the ids that are served"):
            tokens(folder, "the")


@pytest.mark.parametrize(
    "text",
    [
        "The cats. [USER]",
        "Zoë's naïve café, 東京 und Übergröße: 1,234.5 % of unbelievable internationalization; isn't it?",
        "\x00a\ufeffb \u200bc\u2028d é́ İI ΑΣ 한국어 " + "x" * 101 + " " + "y" * 100,
        "",
    ],
)
def test_two_readings_of_a_real_vocabulary(text):
    ours = text_rules.tokenizer_of(data.minilm(), None, None)
    assert independent.read(data.minilm(), True).ids(text) == ours.tokenize([text]).to_list()[0]


class TestSentenceTransformers:
    def make(self, folder, pooling, *more, length=16, inner=""):
        modules = [(inner, "Transformer"), ("1_Pooling", "Pooling"), *more]
        listed = [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
            for number, (path, kind) in enumerate(modules)
        ]
        write(folder / "modules.json", listed)
        write(folder / "1_Pooling" / "config.json", pooling)
        write(folder / inner / "sentence_bert_config.json", {"max_seq_length": length})

    @pytest.mark.parametrize(
        ("pooling", "expected"),
        [
            ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
            ({"word_embedding_dimension": 16, "pooling_mode_mean_tokens": True}, "mean"),
            ({"pooling_mode_max_tokens": True, "include_prompt": True}, "max"),
            ({"pooling_mode": "cls"}, "cls"),
        ],
    )
    def test_pooling_length_and_unit_length(self, folder, pooling, expected):
        self.make(folder, pooling, ("2_Normalize", "Normalize"))
        told = []
        found = text_rules.settings_of(folder, {}, told.append)
        assert found == ExportSettings(embedding=expected, unit_length=True, max_seq_length=16)
        assert told == [
            f"as its sentence-transformers files say: embedding {expected}, unit_length True, max_seq_length 16"
        ]
        given = {"unit_length": False, "embedding": "pooler", "top_k": 3}
        assert text_rules.settings_of(folder, given) == ExportSettings(max_seq_length=16, **given)

    def test_the_transformer_in_a_folder_of_its_own(self, folder):
        inner = folder / "0_Transformer"
        inner.mkdir()
        for path in [path for path in folder.iterdir() if path.is_file()]:
            path.rename(inner / path.name)
        self.make(folder, {"pooling_mode_mean_tokens": True}, length=None, inner="0_Transformer")
        assert checkpoints.load(folder).settings.num_layers == 1
        assert tokens(folder, "The cats") == ["the", "cat", "##s"]
        assert text_rules.settings_of(folder, {}) == ExportSettings()

    @pytest.mark.parametrize(
        ("pooling", "more", "reason"),
        [
            (
                {"pooling_mode_weightedmean_tokens": True},
                (),
                "the pooling must be one of .* Received: weightedmean_tokens",
            ),
            (
                {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True},
                (),
                "Received: mean_tokens, max_tokens",
            ),
            ({"pooling_mode_mean_tokens": True}, (("2_Dense", "Dense"),), r"its module Dense \(2_Dense\) is left out"),
        ],
    )
    def test_vectors_that_cannot_be_made(self, folder, pooling, more, reason):
        self.make(folder, pooling, *more)
        with pytest.raises(InputError, match=f"name an --embedding to serve others. Received: .*{reason}"):
            text_rules.settings_of(folder, {})
        assert text_rules.settings_of(folder, {"embedding": "mean"}).embedding == "mean"

    def test_no_such_folder(self, folder):
        assert text_rules.settings_of(folder, {}) == ExportSettings()
        (folder / "modules.json").write_text('[{"idx": 0}]')
        with pytest.raises(InputError, match=r"modules\.json: each module must have an idx, a type and a path"):
            text_rules.settings_of(folder, {})
