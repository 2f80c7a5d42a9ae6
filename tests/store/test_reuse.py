"""What is answered already is not asked again."""

from distllm.domain.models import ErrorClass
from tests.store.store_kit import Store, add_job, end, paper


def answer_all(store: Store, *, reason: str = "stop", digest: str | None = None, answer: str = "forty-two") -> None:
    """Let one worker answer whatever is pending."""
    me, worker = store.coordinator(), store.worker("studio")
    while (group := store.take(me, worker)) is not None:
        for lease in group.leases:
            sent = store.send(me, worker, lease)
            store.settle(end(sent, finish_reason=reason, digest=digest, answer=answer))


def pending(store: Store, job: int) -> int:
    return store.states(job).get("pending", 0)


def test_the_same_folder_and_questions_need_no_call(store: Store) -> None:
    first = add_job(store, ["one", "two"], ["findings", "limits"])
    answer_all(store)
    second = add_job(store, ["one", "two"], ["findings", "limits"])
    assert store.states(second) == {"done": 4}
    assert store.rows("SELECT state, finished_at IS NOT NULL FROM job_progress WHERE job_id = ?", second) == [
        ("completed", 1)
    ]
    assert store.rows("SELECT DISTINCT reused_from, answer, worker FROM answers WHERE job_id = ?", second) == [
        (first, "forty-two", "studio")
    ]


def test_only_the_changed_cells_are_asked(store: Store) -> None:
    add_job(store, ["one", "two"], ["findings", "limits"])
    answer_all(store)
    second = add_job(store, ["one", "two", "three"], ["findings", "uses"])
    asked = store.rows(
        "SELECT d.text, t.name FROM prompts p JOIN documents d ON d.id = p.document_id "
        "JOIN templates t ON t.id = p.template_id WHERE p.job_id = ? AND p.state = 'pending' ORDER BY p.id",
        second,
    )
    assert asked == [("one", "uses"), ("two", "uses"), ("three", "findings"), ("three", "uses")]


def test_a_question_is_known_by_its_text_and_not_by_its_name(store: Store) -> None:
    add_job(store, ["one"], ["findings"])
    answer_all(store)
    store.rows("UPDATE templates SET name = 'renamed'")
    assert pending(store, add_job(store, ["one"], ["findings"])) == 0


def test_another_model_is_asked_anew(store: Store) -> None:
    add_job(store, ["one"])
    answer_all(store)
    assert pending(store, add_job(store, ["one"], model="another")) == 1


def test_other_parameters_are_asked_anew(store: Store) -> None:
    add_job(store, ["one"], params={"temperature": 0.0})
    answer_all(store)
    assert pending(store, add_job(store, ["one"], params={"temperature": 0.7})) == 1


def test_a_fresh_job_asks_anew_and_its_answers_are_the_newest(store: Store) -> None:
    add_job(store, ["one"])
    answer_all(store, answer="old")
    fresh = add_job(store, ["one"], fresh=True)
    assert pending(store, fresh) == 1
    answer_all(store, answer="new")
    third = add_job(store, ["one"])
    assert store.rows("SELECT reused_from, answer FROM answers WHERE job_id = ?", third) == [(fresh, "new")]


def test_what_was_reused_names_the_job_that_asked(store: Store) -> None:
    first = add_job(store, ["one"])
    answer_all(store)
    add_job(store, ["one"])
    third = add_job(store, ["one"])
    assert store.rows("SELECT reused_from FROM answers WHERE job_id = ?", third) == [(first,)]


def test_an_answer_that_was_cut_is_never_reused(store: Store) -> None:
    add_job(store, ["one"])
    answer_all(store, reason="length")
    assert pending(store, add_job(store, ["one"])) == 1


def test_a_failure_is_not_reused(store: Store) -> None:
    add_job(store, ["one"])
    me, worker = store.coordinator(), store.worker("studio")
    [lease] = store.must_take(me, worker).leases
    store.settle(end(store.send(me, worker, lease), ErrorClass.INPUT))
    assert pending(store, add_job(store, ["one"])) == 1


def test_answers_of_other_weights_under_the_same_name_are_not_reused(store: Store) -> None:
    add_job(store, ["one"])
    answer_all(store, digest="sha256:old")
    assert pending(store, add_job(store, ["one"], digests=["sha256:new"])) == 1
    assert pending(store, add_job(store, ["one"])) == 1
    assert pending(store, add_job(store, ["one"], digests=["sha256:new", "sha256:old"])) == 0


def test_two_documents_with_one_text_are_answered_by_the_same_answer(store: Store) -> None:
    add_job(store, ["one"])
    answer_all(store)
    second = add_job(store, [paper("one", data=b"a pdf"), "two"])
    assert store.states(second) == {"done": 1, "pending": 1}


def test_reuse_is_counted_and_costs_no_tokens(store: Store) -> None:
    add_job(store, ["one"])
    answer_all(store)
    second = add_job(store, ["one", "two"])
    assert store.rows("SELECT done, reused, pending, prompt_tokens FROM job_counters WHERE job_id = ?", second) == [
        (1, 1, 1, 0)
    ]
