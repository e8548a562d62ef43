from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest

from shared.core.lexical import Features
from shared.core.tokens import Tokens
from shared.explain.explain import _enough_without, explain
from shared.explain.explanation import Explanation
from shared.explain.lexical_words import linear_of, words_of
from shared.explain.neighbours import Trace
from shared.explain.reasons import stage_says
from shared.onnx.cascade import CascadeSession
from shared.registry.base import Artifact
from tests.doubles import HashEncoder
from tests.surrogates import LABELS, make_surrogate, text_of

MUDDLE = "invoice parcel"


@pytest.fixture(scope="module")
def encoder() -> HashEncoder:
    return HashEncoder()


@pytest.fixture(scope="module")
def artifact(encoder: HashEncoder) -> Artifact:
    return make_surrogate(encoder, threshold=0.9)


def traces() -> list[Trace]:
    rng = np.random.default_rng(1)
    some = []
    for i in range(200):
        words = list(rng.choice(text_of(LABELS[i % 3]).split(), 3))
        if i % 4 == 0:
            words += list(rng.choice(text_of(LABELS[(i + 1) % 3]).split(), 3))
        some.append(Trace((" ".join(words),), LABELS[i % 3]))
    return [*some, Trace(("one", "two"), "billing"), some[0]]


def judged_otherwise(artifact: Artifact, *, deferred: str = "", cut: float = 1.0) -> Artifact:
    """The same graphs: novel from `cut` on, and a label deferred whole."""
    manifest = artifact.manifest
    changed = msgspec.structs.replace(
        manifest,
        stages=tuple(msgspec.structs.replace(s, novelty_cut=cut) for s in manifest.stages),
        deferred_labels=(deferred,) if deferred else (),
    )
    return Artifact(changed.encode(), artifact.blobs)


def of(text: str, artifact: Artifact, encoder: HashEncoder) -> Explanation:
    return explain((text,), artifact, encoder, traces())


@pytest.mark.parametrize("text", ["invoice charged payment", MUDDLE, "unheard of things", "?"])
def test_it_says_what_the_cascade_says(text: str, artifact: Artifact, encoder: HashEncoder) -> None:
    found = of(text, artifact, encoder)
    tokens = encoder.tokenize([text])
    said = CascadeSession(artifact.manifest, artifact.blobs).answer(
        1, tokens, lambda _: encoder.encode_tokens(tokens)
    )
    assert found.handled == (said.stage[0] >= 0)
    assert found.label == LABELS[said.label[0]]
    assert found.handled == any(stage.answers for stage in found.stages)
    assert [stage.stage for stage in found.stages] == [s.name for s in artifact.manifest.stages]
    last = found.stages[said.stage[0]] if found.handled else found.stages[-1]
    assert last.accept == pytest.approx(float(said.accept[0]), abs=1e-3)
    assert last.threshold == pytest.approx(float(said.threshold[0]), abs=1e-4)
    assert found.summary.startswith("Handled" if found.handled else "Deferred")


def test_the_words_add_up_to_the_lexical_stages_lead(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    stage = artifact.manifest.stages[0]
    linear = linear_of(artifact.blobs[stage.blob], stage, len(LABELS))
    session = CascadeSession(artifact.manifest, artifact.blobs)

    def scores(text: str) -> np.ndarray:
        tokens = encoder.tokenize([text])
        return session.every_stage(tokens, encoder.encode_tokens(tokens))[0].scores[0]

    nothing = scores("zzz")  # not in the vocabulary: the biases alone
    known = Features(linear.unigrams, linear.bigrams, linear.codes, linear.weights)
    assert not len(known.occurrences(Tokens.of(encoder.tokenize(["zzz"]), encoder.vocabulary))[1])
    for text in ("invoice charged payment parcel", "login email", MUDDLE):
        words = words_of([text], encoder, linear, 1, 2)
        assert words is not None
        total = sum(word.contribution for word in words)
        lead = (scores(text) - nothing)[1] - (scores(text) - nothing)[2]
        assert total == pytest.approx(float(lead), abs=2e-3)


def test_words_of_a_label_speak_for_it(artifact: Artifact, encoder: HashEncoder) -> None:
    found = of("the invoice with my parcel charged payment", artifact, encoder)
    assert found.words is not None
    told = {word.text: word.contribution for word in found.words}
    assert found.stages[0].label == "billing"
    assert told["invoice"] > 0
    assert told["charged"] > 0
    assert told["parcel"] < 0
    assert told["my"] == pytest.approx(0.0, abs=0.2)


def test_a_placeholder_is_one_word_and_marked(artifact: Artifact, encoder: HashEncoder) -> None:
    """What is asked is the redacted text: the placeholder's word pieces do count."""
    text = "invoice of [EMAIL] with my parcel"
    stage = artifact.manifest.stages[0]
    linear = linear_of(artifact.blobs[stage.blob], stage, len(LABELS))
    told = words_of([text], encoder, linear, 1, 2, redacted=True)
    as_words = words_of([text.replace("[EMAIL]", "email")], encoder, linear, 1, 2)
    assert told is not None
    assert as_words is not None
    assert [word.text for word in told if word.placeholder] == ["[EMAIL]"]
    assert [w.contribution for w in told] == pytest.approx([w.contribution for w in as_words])
    assert "email" in text_of("account")  # or nothing above would differ from nothing
    assert told[2].contribution != pytest.approx(0.0, abs=0.05)


def test_a_placeholder_is_left_out_as_a_whole(artifact: Artifact, encoder: HashEncoder) -> None:
    told = []
    for text in ("invoice charged [EMAIL]", "parcel courier [EMAIL]", "invoice payment [EMAIL]"):
        found = explain((text,), artifact, encoder, [], redacted=True)
        told += [s for s in found.would_be_handled if "EMAIL" in s]
    assert told
    assert all("“[EMAIL]”" in sentence for sentence in told)


def test_each_neighbour_says_why_it_is_on_its_side(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    """Also where the score is above the threshold, and something else is the reason."""
    kinds: Counter[str] = Counter()
    low_cut = float(
        np.median([of(t.texts[0], artifact, encoder).stages[-1].novelty for t in traces()[:40]])
    )
    for version in (
        artifact,
        judged_otherwise(artifact, cut=low_cut),
        judged_otherwise(artifact, deferred="delivery"),
    ):
        for text in (MUDDLE, "parcel courier late", "invoice charged payment"):
            found = of(text, version, encoder)
            near = [(n, True) for n in found.nearest_handled]
            near += [(n, False) for n in found.nearest_deferred]
            for one, handled in near:
                again = of(one.texts[0], version, encoder)
                deciding = next((s for s in again.stages if s.answers), again.stages[-1])
                assert again.handled == handled == one.why.startswith("sure enough")
                kind = one.why.split(":")[0].split(",")[0]
                assert deciding.why.startswith(kind)
                if one.accept >= deciding.threshold and not handled:
                    kinds[kind] += 1
    assert set(kinds) == {
        "unlike its training traffic", "delivery is below the task's floor and deferred whole",
    }  # fmt: skip


def test_of_a_label_deferred_whole_it_says_what_to_do(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    found = of("parcel courier late", judged_otherwise(artifact, deferred="delivery"), encoder)
    assert not found.handled
    assert "delivery is below the task's floor" in found.summary
    assert "`label_floor`" in found.would_be_handled[0]


def test_a_score_at_the_edge_is_told_to_the_digit_that_decides() -> None:
    answers, why = stage_says("a", 0.95004, 0.95001, novel=None, dropped=False)
    assert answers
    assert why == "sure enough: 0.950040, certified from 0.950010 on"
    assert stage_says("a", float("nan"), 0.5, novel=None, dropped=False)[0] is False


def test_neighbours_are_the_nearest_of_their_side(artifact: Artifact, encoder: HashEncoder) -> None:
    found = of(MUDDLE, artifact, encoder)
    assert not found.handled
    assert len(found.nearest_handled) == len(found.nearest_deferred) == 3
    text = encoder.encode([MUDDLE])[0]
    unique = list(dict.fromkeys(t.texts for t in traces() if len(t.texts) == 1))
    rows = encoder.encode([texts[0] for texts in unique])
    tokens = encoder.tokenize([texts[0] for texts in unique])
    said = CascadeSession(artifact.manifest, artifact.blobs).answer(
        len(unique), tokens, lambda asked: rows[asked]
    )
    for side, near in ((True, found.nearest_handled), (False, found.nearest_deferred)):
        best = np.sort((rows @ text)[(said.stage >= 0) == side])[::-1][:3]
        assert [n.similarity for n in near] == pytest.approx(best.tolist(), abs=1e-3)


def test_what_would_have_made_it_handled_would(artifact: Artifact, encoder: HashEncoder) -> None:
    found = of("invoice charged payment parcel courier", artifact, encoder)
    if found.handled:
        found = of(MUDDLE, artifact, encoder)
    assert not found.handled
    told = " ".join(found.would_be_handled)
    assert f"{found.stages[-1].threshold:.3f}" in told or "refit" in told
    for sentence in found.would_be_handled:
        if sentence.startswith("Without “"):
            word, label = sentence.split("”")[0].removeprefix("Without “"), found.label
            rest = " ".join(w for w in " ".join(found.texts).split() if w != word)
            again = of(rest, artifact, encoder)
            assert again.handled
            assert f"(then {again.label})" in sentence
            assert label in LABELS


def test_removing_a_word_is_told_where_it_is_enough(
    artifact: Artifact, encoder: HashEncoder
) -> None:
    """At least one of these texts of one label and a stray word is deferred for the word."""
    told = []
    for stray in ("parcel", "login", "courier", "password"):
        found = of(f"invoice charged {stray}", artifact, encoder)
        told += [s for s in found.would_be_handled if f"“{stray}”" in s]
    assert told


def test_what_is_handled_lacks_nothing(artifact: Artifact, encoder: HashEncoder) -> None:
    found = of("invoice charged payment", artifact, encoder)
    assert found.handled
    assert found.would_be_handled == []


def test_without_traces_or_a_lexical_stage_the_rest_is_told(encoder: HashEncoder) -> None:
    plain = make_surrogate(encoder, lexical=False)
    found = explain(("invoice charged",), plain, encoder, [])
    assert found.words is None
    assert found.nearest_handled == found.nearest_deferred == []
    assert len(found.stages) == 1


def test_another_number_of_texts_is_refused(artifact: Artifact, encoder: HashEncoder) -> None:
    with pytest.raises(ValueError, match="takes one text"):
        explain(("a", "b"), artifact, encoder, [])


class Merging(HashEncoder):
    """Cuts texts across words."""

    def tokenize(self, texts):  # type: ignore[no-untyped-def]
        return super().tokenize([text.replace(" ", "") for text in texts])


def test_a_tokenizer_across_words_tells_no_words(artifact: Artifact, encoder: HashEncoder) -> None:
    stage = artifact.manifest.stages[0]
    linear = linear_of(artifact.blobs[stage.blob], stage, len(LABELS))
    assert words_of(["two words"], Merging(), linear, 0, 1) is None


def test_words_of_either_text_of_a_pair_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the second nothing was ever tried."""
    asked: list[tuple[str, ...]] = []

    def encode(inputs: list[tuple[str, ...]], encoder: object) -> np.ndarray:
        asked.extend(inputs)
        return np.zeros((len(inputs), 4))

    def answer(n: int, tokens: object, features: object) -> SimpleNamespace:
        stage = np.asarray([-1 if "never" in second else 0 for _, second in asked])
        return SimpleNamespace(stage=stage, label=np.zeros(n, np.int64))

    monkeypatch.setattr("shared.explain.explain.encode_inputs", encode)
    session = SimpleNamespace(manifest=SimpleNamespace(labels=("entailed",)), answer=answer)
    texts = ("the parcel came", "it never came")
    found = _enough_without(texts, session, HashEncoder(), False)  # type: ignore[arg-type]
    assert found == [("never", "entailed")]
